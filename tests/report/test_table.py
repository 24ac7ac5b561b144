from made_results import row

from sae_lens_contrastive.report import results_table


def test_a_line_for_each_sae_in_columns():
    rows = [
        row("baseline", 0.0, 0.0, cause="retain_gate", accuracy=1.0),
        row("contrastive", 0.8125, 1.0, seed=3, accuracy=0.2),
    ]
    assert results_table(rows).splitlines() == [
        "variant      seed  score  forgetting  forget accuracy (95 % interval)      retain  cause of zero",
        "-" * 96,
        "baseline     0     0.000  0.000       1.000 (0.900 to 1.000)               0.995   retain_gate",
        "contrastive  3     0.812  1.000       0.200 (0.100 to 0.280) below chance  0.995   -",
    ]
