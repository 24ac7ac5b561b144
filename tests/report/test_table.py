import re

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


def test_several_seeds_share_a_line_with_mean_and_interval():
    rows = [
        row("a", 0.2, 0.3, seed=0, accuracy=0.8),
        row("b", 0.5, 0.5, seed=0, accuracy=0.625),
        row("a", 0.0, 0.0, seed=1, accuracy=1.0, cause="no_effect"),
        row("a", 0.7, 1.0, seed=2, accuracy=0.15),
    ]
    header, _rule, a, b, note = (re.split(" {2,}", line) for line in results_table(rows).splitlines())
    assert header == ["variant", "seeds", "score", "forgetting", "forget accuracy", "retain", "cause of zero"]
    assert a == [
        *("a", "3", "0.300 ± 0.896", "0.433 ± 1.275"),
        *("0.650 ± 1.104 below chance (1 of 3 seeds)", "0.995 ± 0.000", "no_effect (1 of 3 seeds)"),
    ]
    assert b == ["b", "1", "0.500", "0.500", "0.625", "0.995", "-"]
    assert note == ["±: half of the 95 % interval of the mean over the seeds (Student's t)."]


def test_settings_and_what_is_known_of_the_sae_have_columns():
    rows = [
        row("a", 0.5, 0.5, seed=seed, study_setting=setting, explained_variance=value, l0=l0)
        for setting, value in (("wide", 0.8), ("narrow", None))
        for seed, l0 in ((0, 30.0), (1, 31.0))
    ]
    header, _rule, wide, narrow, _note = (re.split(" {2,}", line) for line in results_table(rows).splitlines())
    assert header == [
        *("setting", "variant", "seeds", "score", "forgetting", "forget accuracy", "retain"),
        *("explained variance", "l0", "cause of zero"),
    ]
    assert (wide[0], wide[-3:]) == ("wide", ["0.800", "30.5", "-"])
    assert (narrow[0], narrow[-3:]) == ("narrow", ["-", "30.5", "-"])
