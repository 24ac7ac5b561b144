import pytest
from made_results import history, row

from sae_lens_contrastive.files import write_json


@pytest.fixture
def run_folder(tmp_path):
    """A folder as a demo leaves it."""
    write_json(
        tmp_path / "results.json",
        [row("baseline", 0.0, 0.0, cause="no_features"), row("contrastive", 0.81, 0.94)],
    )
    write_json(tmp_path / "train" / "baseline" / "history.json", history())
    write_json(
        tmp_path / "train" / "contrastive" / "history.json",
        history(scale=1.4, threshold=0.213, terms=("supervised_contrastive_loss", "forget_margin_loss")),
    )
    write_json(tmp_path / "train" / "contrastive" / "checkpoints" / "100" / "history.json", history(3))
    return tmp_path
