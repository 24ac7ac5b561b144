"""A folder in the place of the Hugging Face hub."""

import shutil
from pathlib import Path
from types import SimpleNamespace

from sae_lens import SAE
from sae_lens.training import upload_saes_to_huggingface as uploader

from sae_lens_contrastive.hub import download, upload
from sae_lens_contrastive.saes import stock


class FolderHub:
    """What the uploaders ask of the hub's client, on a folder."""

    def __init__(self, root):
        self.root = root
        self.private = None
        self.private_by_default = False

    def repo_info(self, repo_id):
        return SimpleNamespace(id=repo_id, private=self.private)

    def create_repo(self, repo_id, private, exist_ok):
        assert exist_ok
        if not (self.root / repo_id).is_dir():
            self.private = self.private_by_default if private is None else private
            (self.root / repo_id).mkdir(parents=True)
        return f"hub/{repo_id}"

    def file_exists(self, repo_id, name):
        return (self.root / repo_id / name).is_file()

    def upload_folder(
        self,
        *,
        folder_path,
        repo_id,
        allow_patterns,
        path_in_repo="",
        ignore_patterns=(),
        delete_patterns=(),
        **_said,
    ):
        for pattern in delete_patterns:
            for path in (self.root / repo_id / path_in_repo).glob(pattern):
                path.unlink()
        for pattern in allow_patterns:
            for path in set(Path(folder_path).glob(pattern)) if pattern not in ignore_patterns else ():
                target = self.root / repo_id / path_in_repo / path.relative_to(folder_path)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)


def folder_in_place_of_the_hub(root, monkeypatch):
    """What is uploaded lies in a folder from now on, and what is loaded comes from there."""
    hub = FolderHub(root)
    monkeypatch.setattr(upload, "get_token", lambda: "a token")
    for module in (upload, uploader):
        monkeypatch.setattr(module, "HfApi", lambda: hub)
    monkeypatch.setattr(download, "hf_hub_download", lambda repo_id, name: str(root / repo_id / name))
    monkeypatch.setattr(
        stock.SAE,
        "from_pretrained",
        lambda release, sae_id, device: SAE.load_from_disk(root / release / sae_id, device=device),
    )
    return hub
