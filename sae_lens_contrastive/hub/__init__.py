"""Trained SAEs and their forget edits as a repository of the Hugging Face hub."""

from sae_lens_contrastive.hub.download import download_forget_edit as download_forget_edit
from sae_lens_contrastive.hub.publication import Publication as Publication
from sae_lens_contrastive.hub.publication import gather as gather
from sae_lens_contrastive.hub.repository import write_repository as write_repository
from sae_lens_contrastive.hub.upload import check_repo_id as check_repo_id
from sae_lens_contrastive.hub.upload import push as push
