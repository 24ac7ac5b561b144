import importlib.util
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "check_documents.py"
GOOD = """\
Run `make demo`, then [the guide](docs/guide.md#start) and `docs/guide.md`.

```
sae-lens-contrastive train configs/a.yaml --out runs/mine
```
See <https://example.org/docs/none.md>, `google/gemma-2-2b`, `configs/*.yaml` and `runs/mine/sae/cfg.json`.
"""


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("check_documents", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def repository(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        subprocess.run(["git", "add", name], cwd=tmp_path, check=True)

    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    write("Makefile", "demo: x\n\ttrue\n")
    write("sae_lens_contrastive/cli/parser.py", 'commands.add_parser(\n    "train",\n)\n')
    write("docs/guide.md", "# Start\n")
    write("configs/a.yaml", "a: 1\n")
    write("README.md", GOOD)
    return tmp_path, write


def test_true_documents_pass(script, repository, capsys):
    root, _write = repository
    assert script.main(root) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("`configs/b.yaml`", "README.md: configs/b.yaml does not exist"),
        ("```\npython docs/run.py\n```", "README.md: docs/run.py does not exist"),
        ("`sae_lens_contrastive/losses/`", "README.md: sae_lens_contrastive/losses/ does not exist"),
        ("`NOTES.md`", "README.md: NOTES.md does not exist"),
        ("[x](docs/gone.md#a)", "README.md: the link docs/gone.md leads nowhere"),
        ("`make tests`", "README.md: the Makefile has no target tests"),
        ("`sae-lens-contrastive evaluate x`", "README.md: the command line has no evaluate"),
    ],
)
def test_a_citation_of_nothing_is_found(script, repository, capsys, text, problem):
    root, write = repository
    write("README.md", GOOD + text + "\n")
    assert script.main(root) == 1
    assert capsys.readouterr().out.splitlines() == [problem]


def test_long_files_and_machine_paths_are_found(script, repository, capsys):
    root, write = repository
    write("long.py", "x = 1\n" * 301)
    write("fine.py", "x = 1\n" * 300)
    write("notes.txt", "see\n" + "/".join(["", "root", "x"]) + "\n")
    write("urls.txt", "https://example.org" + "/".join(["", "work", "x"]) + "\n")
    assert script.main(root) == 1
    assert capsys.readouterr().out.splitlines() == [
        "long.py: 301 lines, more than 300",
        "notes.txt:2: names a path of one machine",
    ]
