import pytest

from sae_lens_contrastive import packaged
from sae_lens_contrastive.config import load_yaml
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.packaged import packaged_file


def test_shipped_configurations_are_found():
    assert load_yaml(packaged_file("configs/targets/tiny.yaml"))["model"] == "tiny-random-gemma-2"


def test_an_installed_wheel_finds_them_inside_the_package(tmp_path, monkeypatch):
    inside = tmp_path / "site" / "pkg" / "packaged" / "configs"
    inside.mkdir(parents=True)
    (inside / "a.yaml").write_text("a: 1\n")
    monkeypatch.setattr(packaged, "files", lambda _name: tmp_path / "site" / "pkg")
    assert packaged_file("configs/a.yaml") == inside / "a.yaml"


def test_an_incomplete_installation_is_said():
    with pytest.raises(UserError, match=r"installed without configs/gone\.yaml\. Install it again"):
        packaged_file("configs/gone.yaml")
