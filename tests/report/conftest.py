import pytest
from made_results import (
    CURRICULUM,
    PRUNING,
    REINITIALISATION,
    RELEARNING,
    grouping,
    history,
    importance,
    row,
    stability,
)

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


@pytest.fixture
def study_folder(tmp_path):
    """A folder as a study leaves it: two settings, two seeds, two variants, one of which keeps every tracker."""
    rows = []
    trackers = {
        "grouping": grouping(),
        "importance": importance(),
        "pruning": PRUNING,
        "reinitialisation": REINITIALISATION,
        "stability": stability(),
        "curriculum": CURRICULUM,
        "a part that no figure shows": [],
    }
    for setting, d_sae in (("wide", 64), ("narrow", 16)):
        for seed in (0, 1):
            for variant in ("run0", "run5"):
                score = 0.0 if variant == "run0" else 0.5 + 0.1 * seed
                facts = {"study_setting": setting, "d_sae": d_sae, "layer": 21, "explained_variance": 0.8, "l0": 32.0}
                facts["measures"] = {"relearning": RELEARNING} if variant == "run5" else {}
                cause = None if score else "retain_gate"
                rows.append(row(variant, score, score, seed=seed, cause=cause, **facts))
                folder = tmp_path / setting / f"seed{seed}" / "train" / variant
                write_json(folder / "history.json", history(scale=1 + seed, threshold=0.2))
                write_json(folder / "summary.json", {"variant": variant, "seed": seed})
                if variant == "run5":
                    write_json(folder / "trackers.json", trackers)
    write_json(tmp_path / "results.json", rows)
    return tmp_path
