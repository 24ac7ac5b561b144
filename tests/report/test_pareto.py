import pytest
from PIL import Image

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import write_json
from sae_lens_contrastive.report.pareto import best_pairs, front_table, write_pareto_front


def trial(number, forget=None, retain=None, variance=None, on_front=False, **params):
    values = {"forget_accuracy": forget, "retain_accuracy": retain, "explained_variance": variance}
    return {"number": number, "values": values if forget is not None else None, "on_front": on_front, "params": params}


TRIALS = [
    trial(0, 0.9, 1.0, 0.8, True, k=8, lr=0.000123456),
    trial(1, 0.4, 0.97, 0.82, True, k=16, lr=0.01),
    trial(2, 0.4, 0.97, 0.82, True, k=16, lr=0.01),
    trial(3, 0.95, 0.9, 0.7),
    trial(4),
]


def test_the_front_is_drawn_and_listed(tmp_path):
    write_json(tmp_path / "pareto.json", {"trials": TRIALS})
    with Image.open(write_pareto_front(tmp_path)) as image:
        assert min(image.size) >= 400
        assert len(image.convert("RGB").getcolors(maxcolors=2**24)) > 100
    assert front_table(tmp_path).splitlines() == [
        "trial  forget  retain  explained variance  values",
        "-------------------------------------------------",
        "001    0.400   0.970   0.820               k=16, lr=0.01",
        "002    0.400   0.970   0.820               k=16, lr=0.01",
        "000    0.900   1.000   0.800               k=8, lr=0.000123",
    ]


def test_without_a_measured_trial_there_is_no_figure(tmp_path):
    write_json(tmp_path / "pareto.json", {"trials": [trial(0)]})
    assert write_pareto_front(tmp_path) is None


def test_one_trial_alone_is_drawn(tmp_path):
    write_json(tmp_path / "pareto.json", {"trials": [trial(0, 1.0, 1.0, 0.5, True)]})
    assert write_pareto_front(tmp_path).stat().st_size > 5000


def test_the_best_pairs_by_hand():
    # Forgetting more costs retain accuracy along the line; (0.8, 0.5) and (0.9, 0.7) are dominated by (0.9, 0.4).
    pairs = [(0.9, 0.4), (1.0, 0.8), (0.8, 0.5), (0.7, 0.1), (0.9, 0.7), (1.0, 0.8)]
    assert best_pairs(pairs) == [(0.7, 0.1), (0.9, 0.4), (1.0, 0.8)]


@pytest.mark.parametrize(
    "content", ["[]", '{"trials": 3}', '{"trials": [{"number": 0, "values": {}, "on_front": true}]}']
)
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "pareto.json").write_text(content)
    with pytest.raises(UserError, match=r"pareto\.json is not the result of a search\. Run the search again"):
        write_pareto_front(tmp_path)
