"""A forget edit from a repository of the hub."""

from __future__ import annotations

from huggingface_hub import hf_hub_download

from sae_lens_contrastive.errors import UserError, first_line
from sae_lens_contrastive.forget_edit import FORGET_EDIT_FILE, ForgetEdit, load_forget_edit


def download_forget_edit(repo_id: str, sae_id: str) -> ForgetEdit:
    """The edit that was pushed beside an SAE; `UserError` if the hub does not give it or it is damaged."""
    try:
        path = hf_hub_download(repo_id, f"{sae_id}/{FORGET_EDIT_FILE}")
    # As in uploading.
    except Exception as error:
        raise UserError(
            f"No forget edit of {sae_id!r} could be had from {repo_id!r}: {first_line(error)} Check the names and the "
            "network, or give a file with --edit."
        ) from error
    return load_forget_edit(path)
