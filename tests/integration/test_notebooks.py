"""The notebooks of the documentation, executed from top to bottom on the tiny model."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

NOTEBOOKS = Path(__file__).parents[2] / "docs" / "notebooks"
SHORT = {"training_tokens": 4096, "train_batch_size_tokens": 256, "cache_tokens": 1024}
EVERY = {"every_n_steps": 4}
SMALL = {"d_sae": 128, "grouping": {**EVERY, "n_clusters": 4, "min_size": 2}, "importance": EVERY}
TINY = {
    "train_and_forget": {
        "TARGET": "configs/targets/tiny.yaml",
        "VARIANTS": ["configs/variants/baseline.yaml", "configs/variants/run4.yaml"],
        "SPEC": "evals/world_facts_tiny.yaml",
        "CHANGED_IN_RUNS": {"training": SHORT, "sae": SMALL},
        "CHANGED_IN_SPEC": {
            "max_questions": 12,
            "max_corpus_tokens": 400,
            "retain_gate": 0.01,
            "n_bootstrap": 50,
            "n_features": [2],
            "selectors": {"firing_rate": {"retain_threshold": [0.9]}},
            "interventions": {"gated": {"multiplier": 50}},
            "measures": {"random_baseline": None},
        },
        "SHORT_RUN_TOKENS": 2048,
        "CHAT": True,
    },
    "look_inside": {},
}


def executed(name, folder, **parameters):
    """A notebook after its last cell, its parameters replaced."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    (place,) = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    replaced = "\n".join(f"{key} = {value!r}" for key, value in {**TINY[name], **parameters}.items())
    notebook.cells.insert(place + 1, new_code_cell(replaced))
    client = NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    return client.execute()


def outputs(notebook, kind):
    """What the cells showed, of one kind: `text/plain`, `text/html`, `image/png`, or `stdout`."""
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    if kind == "stdout":
        return "".join(output["text"] for output in shown if output.get("name") == "stdout")
    return [output["data"][kind] for output in shown if kind in output.get("data", {})]


def test_the_notebooks_run(tmp_path, model_cache):
    trained = executed("train_and_forget", tmp_path, OUT="out")
    said = outputs(trained, "stdout")
    assert "baseline" in said
    assert "unedited: " in said
    assert "changed: " in said
    assert len(outputs(trained, "image/png")) == 1

    looked = executed("look_inside", tmp_path, RUN="out/train/run4", EVALUATION="out/eval")
    assert "blocks.19.hook_resid_post standard 128 features" in outputs(looked, "stdout")
    assert len(outputs(looked, "image/png")) == 4
    pages = outputs(looked, "text/html")
    assert sum("<b>feature " in page for page in pages) == 2
    assert sum("<th>before</th>" in page for page in pages) > 1


@pytest.mark.parametrize("name", TINY)
def test_a_notebook_is_small_and_names_nobodys_machine(name):
    path = NOTEBOOKS / f"{name}.ipynb"
    assert path.stat().st_size < 1_000_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    # Progress and warnings are of one machine on one day.
    assert all(output.get("name") != "stderr" for cell in notebook.cells for output in cell.get("outputs", []))
