"""Upload a folder to the Hugging Face hub: SAEs through SAELens, the rest beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.utils import HFValidationError, validate_repo_id
from sae_lens import upload_saes_to_huggingface

from sae_lens_contrastive.errors import UserError, first_line
from sae_lens_contrastive.hub.repository import CARD_FILE, OTHER_FILES, SAE_FILES


def check_repo_id(repo_id: str) -> None:
    """Raise `UserError` for what cannot name a repository."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"--repo {repo_id!r} cannot name a repository: {first_line(error)}") from None
    if "/" not in repo_id:
        raise UserError(f"--repo {repo_id!r} names no owner. Give it as OWNER/NAME.")


def push(folder: Path, repo_id: str, *, private: bool = False) -> str:
    """Upload a folder that `write_repository` made to `repo_id`, which is created if it is not there, and return its
    address.

    A model card that is there already is kept, which is printed: it may speak of more than these SAEs. A file of an
    earlier push that one of these SAEs has no longer, such as its forget edit, is deleted. Raises `UserError` without a
    token, for a repository that is there and public if `private` is asked for, and for whatever the hub refuses.
    """
    check_repo_id(repo_id)
    if get_token() is None:
        raise UserError("There is no token for the Hugging Face hub. Run `hf auth login`, or set HF_TOKEN.")
    saes = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}
    api = HfApi()
    try:
        # None leaves a new repository to the default of its owner, which may be private.
        url = api.create_repo(repo_id, private=private or None, exist_ok=True)
        if private and not api.repo_info(repo_id).private:
            raise UserError(
                f"{repo_id} is there and public; --private makes only a new repository private. Nothing was uploaded. "
                "Make it private in its settings on the hub, or give another one with --repo."
            )
        upload_saes_to_huggingface(dict(saes), repo_id, add_default_readme=False)
        kept = [CARD_FILE] if api.file_exists(repo_id, CARD_FILE) else []
        api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=[CARD_FILE, *(f"*/{file}" for file in OTHER_FILES)],
            ignore_patterns=kept,
            delete_patterns=_lacking(saes),
            commit_message=f"Add evaluations and forget edits of {', '.join(saes)}",
        )
        if kept:
            print(
                f"{CARD_FILE} of {repo_id} is kept as it is; push with --dry-run --out DIR writes the new one to DIR."
            )
    except UserError:
        raise
    # The hub client raises errors of its HTTP library, which differs between its versions.
    except Exception as error:
        raise UserError(
            f"{repo_id} could not be uploaded to: {first_line(error)} Check the name, the token's rights and the "
            "network, and run the same command again; what is there already is not uploaded twice."
        ) from error
    return str(url)


def _lacking(saes: Mapping[str, Path]) -> list[str]:
    """Files that an SAE can have and these have not, as they are called on the hub."""
    files = (*SAE_FILES, *OTHER_FILES)
    return [f"{name}/{file}" for name, folder in saes.items() for file in files if not (folder / file).is_file()]
