"""Text at the hook in contexts of one length, read once for everything that is drawn of it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from sae_lens.tokenization_and_batching import concat_and_batch_sequences
from torch import Tensor
from tqdm import tqdm

from sae_lens_contrastive.config import load_yaml, parse_config
from sae_lens_contrastive.data.batching import check_fits_context, encode_text
from sae_lens_contrastive.data.sequences import editable_positions
from sae_lens_contrastive.data.sources import check_corpus_sources, load_corpus_sources
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.models import residual_at_hook
from sae_lens_contrastive.training import RunConfig
from sae_lens_contrastive.training.train import CONFIG_FILE

# English text has four or five characters a token; twice that leaves a choice.
_CHARACTERS_PER_TOKEN = 10
_BATCH_TOKENS = 2048
CONTEXT_SIZE = 128
"""Tokens of a context, as many as Neuronpedia's own dashboards have."""


@dataclass(frozen=True)
class TextAtHook:
    """Contexts of several texts and the residual stream of each token."""

    hook_name: str
    """Where it was read."""
    tokens: Int[Tensor, "n_contexts pos"]
    """What the model read."""
    residual: Float[Tensor, "n_contexts pos d_in"]
    """Residual stream at the hook, in host memory and in the model's own precision."""
    counted: Bool[Tensor, "n_contexts pos"]
    """Tokens that count in firing rates: neither position 0 nor special tokens."""
    sources: dict[str, list[str]]
    """Where each text is from."""
    n_contexts_of: dict[str, int]
    """Contexts of each text, in their order."""

    def of_text(self) -> dict[str, Float[Tensor, "n_tokens d_in"]]:
        """Residual stream of the tokens of each text that count."""
        n_contexts = list(self.n_contexts_of.values())
        parts = zip(self.n_contexts_of, self.residual.split(n_contexts), self.counted.split(n_contexts), strict=True)
        return {text: residual[counted] for text, residual, counted in parts}


def texts_of_training(sae_folder: Path | None) -> dict[str, list[str]]:
    """Sources of the forget and the general text that an SAE was trained on, by the `config.yaml` of its run.

    Raises `UserError` if there is none beside the SAE's folder, or no folder (None).
    """
    if sae_folder is None:
        raise UserError("Name the text to read with --text: a release does not hold the text of its training.")
    path = sae_folder.resolve().parent / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"No {CONFIG_FILE} of a training run beside {sae_folder}. Name the text to read with --text.")
    corpora = parse_config(RunConfig, load_yaml(path), source=str(path)).corpora
    return {
        name: list(sources) for name, sources in (("forget", corpora.forget), ("general", corpora.general)) if sources
    }


def check_texts(texts: Mapping[str, Sequence[str]], max_tokens: int) -> None:
    """Raise `UserError` for local sources that cannot be read, or fewer tokens than a context of each text."""
    for sources in texts.values():
        check_corpus_sources(sources)
    if max_tokens < CONTEXT_SIZE * len(texts):
        raise UserError(
            f"{max_tokens} tokens are less than one context of {CONTEXT_SIZE} for each of {len(texts)} texts. "
            f"Read {CONTEXT_SIZE * len(texts)} or more."
        )


def read_text(
    model: Any, hook_name: str, texts: Mapping[str, Sequence[str]], *, max_tokens: int, seed: int = 0
) -> TextAtHook:
    """Read at most `max_tokens` tokens, in equal parts of each of `texts`, {name: sources}, their documents shuffled.

    Contexts are packed as SAELens packs them for training: documents one after the other, the BOS token between them
    and at the beginning of each context. Raises `UserError` as `check_texts` does and for a text that fills no
    context, `ConfigError` for a hook that the model lacks or a model of shorter contexts.
    """
    check_texts(texts, max_tokens)
    check_fits_context(CONTEXT_SIZE, model, "A context", "Choose a model with longer ones.")
    most = max_tokens // len(texts)
    contexts = {name: _contexts(model.tokenizer, name, sources, most, seed) for name, sources in texts.items()}
    tokens = torch.cat(list(contexts.values()))
    parts = [
        residual_at_hook(model, hook_name, batch.to(model.cfg.device)).cpu()
        for batch in tqdm(tokens.split(_BATCH_TOKENS // CONTEXT_SIZE), desc="reading text", unit="batch")
    ]
    return TextAtHook(
        hook_name=hook_name,
        tokens=tokens,
        residual=torch.cat(parts),
        counted=editable_positions(tokens, model.tokenizer),
        sources={name: list(sources) for name, sources in texts.items()},
        n_contexts_of={name: len(found) for name, found in contexts.items()},
    )


def _contexts(
    tokenizer: Any, name: str, sources: Sequence[str], max_tokens: int, seed: int
) -> Int[Tensor, "n_contexts pos"]:
    documents = load_corpus_sources(sources, max_characters=_CHARACTERS_PER_TOKEN * max_tokens)
    random.Random(seed).shuffle(documents)
    packed = concat_and_batch_sequences(
        (torch.tensor(encode_text(tokenizer, document.text), dtype=torch.long) for document in documents),
        CONTEXT_SIZE,
        begin_batch_token_id=tokenizer.bos_token_id,
        sequence_separator_token_id=tokenizer.bos_token_id,
    )
    found = list(islice(packed, max_tokens // CONTEXT_SIZE))
    if not found:
        raise UserError(f"The {name} text fills no context of {CONTEXT_SIZE} tokens. Give more text.")
    return torch.stack(found)
