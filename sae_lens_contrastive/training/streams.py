"""What a run reads: three corpora through the model, or activations collected once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from sae_lens import LanguageModelSAERunnerConfig
from sae_lens.config import HfDataset
from sae_lens.training.activations_store import ActivationsStore
from torch import Tensor

from sae_lens_contrastive.data.activations import (
    CachedActivations,
    DomainMix,
    collect_activations,
    domain_labels,
    domain_sizes,
)
from sae_lens_contrastive.data.sentences import collect_sentences, kept_sentences
from sae_lens_contrastive.data.sequences import collect_sequences
from sae_lens_contrastive.data.streams import PrefetchedStream, ResumableStream, StreamedActivations
from sae_lens_contrastive.losses import FORGET, GENERAL, RETAIN
from sae_lens_contrastive.losses.output_space import OutputSpace, Sequences, Sides
from sae_lens_contrastive.models import ModelAboveHook

DOMAIN_NAMES = {GENERAL: "general", FORGET: "forget", RETAIN: "retain"}


@dataclass(frozen=True)
class SentenceSources:
    """Texts by source, so that sentences of all of them are seen equally often."""

    forget: tuple[HfDataset, ...]
    """Texts of the domain to be forgotten, in a column `text`."""
    retain: tuple[HfDataset, ...]
    """Texts of what must be kept, general text included."""
    n_sentences: int
    """Sentences of all forget sources together, and of all retain sources, at most."""


@dataclass(frozen=True)
class DomainData:
    """The two labelled corpora of a run and their share of every batch."""

    forget: HfDataset
    """Texts of the domain to be forgotten, in a column `text` (or tokenised, as SAELens takes it)."""
    retain: HfDataset
    """Texts of what must be kept."""
    forget_share: float = 0.25
    """Share of the tokens of a batch that comes from the forget corpus."""
    retain_share: float = 0.25
    """Share of the tokens of a batch that comes from the retain corpus; the rest is the general corpus."""
    output_space_sequences: int = 64
    """Sequences of either corpus that output-space terms take turns on."""
    sentences: SentenceSources | None = None
    """Where single sentences come from, if output-space terms see some."""


@dataclass(frozen=True)
class ActivationCacheOptions:
    """Collect activations once and train from them, instead of running the model during training."""

    folder: Path
    """Where the activations of each domain are kept."""
    max_tokens: int
    """Tokens kept of each domain at most."""
    fingerprint: str
    """Names model, hook and corpora; activations with another fingerprint are collected anew."""


class CorpusStreams:
    """The corpora of a run as SAELens' activation stores, and what is made from them."""

    def __init__(
        self,
        model: Any,
        cfg: LanguageModelSAERunnerConfig[Any],
        general: HfDataset,
        domain_data: DomainData | None,
        cache: ActivationCacheOptions | None,
    ) -> None:
        self.model = model
        self.cfg = cfg
        self.domain_data = domain_data
        self.cache = cache
        self.datasets = {GENERAL: general}
        if domain_data is not None:
            self.datasets |= {FORGET: domain_data.forget, RETAIN: domain_data.retain}

    def activations(self) -> tuple[ResumableStream[Tensor], Tensor | None]:
        """The activation stream of the run and the domain of every token of its batches."""
        if self.domain_data is None:
            stream: ResumableStream[Tensor] = self._stream(GENERAL, self.cfg.train_batch_size_tokens)
            domains = None
        else:
            data = self.domain_data
            sizes = domain_sizes(self.cfg.train_batch_size_tokens, data.forget_share, data.retain_share)
            stream = DomainMix({domain: self._stream(domain, size) for domain, size in sizes.items()})
            domains = domain_labels(sizes)
        if self.cfg.prefetch_llm_batches:
            return PrefetchedStream(stream, prefetch=int(self.cfg.prefetch_llm_batches)), domains
        return stream, domains

    def output_space(self) -> OutputSpace:
        """The model above the hook with sequences of both labelled corpora, which the run must have."""
        assert self.domain_data is not None
        n_sequences = self.domain_data.output_space_sequences
        forget, retain = (
            collect_sequences(
                self._store(domain, self.cfg.train_batch_size_tokens),
                self.model,
                self.cfg.hook_name,
                n_sequences,
                DOMAIN_NAMES[domain],
            )
            for domain in (FORGET, RETAIN)
        )
        above = ModelAboveHook(self.model, self.cfg.hook_name)
        return OutputSpace(above, forget, retain, sentences=self._sentences())

    def _sentences(self) -> Sides | None:
        assert self.domain_data is not None
        if (sources := self.domain_data.sentences) is None:
            return None
        forget, retain = (
            self._sentences_of(DOMAIN_NAMES[domain], side, sources.n_sentences)
            for domain, side in ((FORGET, sources.forget), (RETAIN, sources.retain))
        )
        return Sides(forget, retain)

    def _sentences_of(self, label: str, side: Sequence[HfDataset], n_sentences: int) -> Sequences:
        def collect() -> Sequences:
            texts = [map(itemgetter("text"), texts) for texts in side]
            return collect_sentences(texts, self.model, self.cfg.hook_name, n_sentences, self.cfg.seed, label)

        if self.cache is None:
            return collect()
        name = f"sentences_{label}_{n_sentences}"
        return kept_sentences(
            self.cache.folder / f"{name}.safetensors", f"{self.cache.fingerprint}/{name}", collect
        ).to(self.cfg.device)

    def _stream(self, domain: int, batch_size: int) -> ResumableStream[Tensor]:
        store = self._store(domain, batch_size)
        seed = self.cfg.seed * 3 + domain
        if self.cache is None:
            return StreamedActivations(store, batch_size, seed, DOMAIN_NAMES[domain])
        name = DOMAIN_NAMES[domain]
        path = collect_activations(
            store,
            self.cache.folder / f"{name}.safetensors",
            self.cache.max_tokens,
            name,
            f"{self.cache.fingerprint}/{name}",
        )
        return CachedActivations(path, batch_size, seed=seed, device=self.cfg.device)

    def _store(self, domain: int, batch_size: int) -> ActivationsStore:
        # The store reads these fields only; a full copy of the configuration would derive its paths a second time.
        cfg = copy.copy(self.cfg)
        cfg.train_batch_size_tokens = batch_size
        return ActivationsStore.from_config(self.model, cfg, override_dataset=self.datasets[domain])
