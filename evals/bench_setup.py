"""What the benchmarks train: SAELens' trainer and this package's, on activations and sentences made for them.

Activations are sparse sums of fixed directions, so that features correlate as on a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer

from sae_lens_contrastive.data.activations import domain_labels, domain_sizes
from sae_lens_contrastive.losses import FORGET, LOSS_TERMS, OutputSpace, Sequences, Sides
from sae_lens_contrastive.saes import TRAINING_ARCHITECTURES
from sae_lens_contrastive.training import ContrastiveSAETrainer

STOCK = {"topk": (TopKTrainingSAE, TopKTrainingSAEConfig), "standard": (StandardTrainingSAE, StandardTrainingSAEConfig)}
TERMS = tuple(name for name in LOSS_TERMS if not LOSS_TERMS[name].runs_model)
"""All terms but output-space KL, which runs the model."""
GROUPING_STEPS = 10
TRACKERS = {
    "grouping": {"every_n_steps": 100, "percentile": 75},
    "importance": {
        "activation_weight": 0.35,
        "gradient_weight": 0.5,
        "mutual_information_weight": 0.15,
        "every_n_steps": 50,
    },
    "pruning": {"share": 0.05, "threshold": 0.01, "every_n_steps": 50},
    "stability": {"every_n_steps": 100},
}
_N_DIRECTIONS, _FAMILY = 1024, 8
_SENTENCE_TOKENS, _SEQUENCE_TOKENS = 32, 128


@dataclass(frozen=True)
class StepShape:
    """Sizes of a training step."""

    architecture: str
    d_sae: int
    d_in: int = 576
    batch: int = 4096
    """Tokens in a step; the default is SAELens'."""
    k: int = 32
    """Active features of a TopK SAE."""
    device: str = "cpu"
    bfloat16: bool = False
    """Whether the forward pass runs in bfloat16, by SAELens' autocast."""
    compiled: bool = False
    """Whether the forward pass of the SAE is compiled, as SAELens' `compile_sae` does it."""

    @property
    def sae_options(self) -> dict[str, Any]:
        """Options of an SAE of either side."""
        only = {"topk": {"k": self.k}, "standard": {"l1_coefficient": 1.0}}[self.architecture]
        return {"d_in": self.d_in, "d_sae": self.d_sae, "device": self.device, **only}

    @property
    def trainer_config(self) -> SAETrainerConfig:
        """Options of a trainer of either side."""
        return SAETrainerConfig(
            total_training_samples=self.batch * 100_000,
            train_batch_size_samples=self.batch,
            lr=1e-3,
            lr_end=1e-3,
            device=self.device,
            autocast=self.bfloat16,
        )

    @property
    def domains(self) -> torch.Tensor:
        """Domain of every token of a batch."""
        return domain_labels(domain_sizes(self.batch, 0.25, 0.25))


def host_trainer(shape: StepShape) -> SAETrainer[Any, Any]:
    """SAELens' own trainer of its own SAE."""
    sae_class, config_class = STOCK[shape.architecture]
    return _compiled(SAETrainer(shape.trainer_config, sae_class(config_class(**shape.sae_options)), iter(())), shape)


def our_trainer(
    shape: StepShape, terms: Sequence[str] = (), space: OutputSpace | None = None, **parts: Any
) -> ContrastiveSAETrainer:
    """This package's trainer with some loss terms and some trackers."""
    our_class, our_config = TRAINING_ARCHITECTURES[shape.architecture]
    if any(LOSS_TERMS[name].needs_groups for name in terms):
        parts.setdefault("grouping", {**TRACKERS["grouping"], "every_n_steps": GROUPING_STEPS})
    loss_terms = {name: {"coefficient": 0.1} for name in terms}
    sae: Any = our_class(our_config(**shape.sae_options, loss_terms=loss_terms, **parts))
    trainer = ContrastiveSAETrainer(shape.trainer_config, sae, iter(()), shape.domains, output_space=space)
    return _compiled(trainer, shape)


def _compiled(trainer: Any, shape: StepShape) -> Any:
    if shape.compiled:
        trainer.sae.training_forward_pass = torch.compile(trainer.sae.training_forward_pass)
    return trainer


def batches(shape: StepShape, n: int = 8) -> list[torch.Tensor]:
    """Batches of activations on the device; forget tokens have some directions of their own."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(_N_DIRECTIONS, shape.d_in, generator=generator) / shape.d_in**0.5
    rates = torch.full((shape.batch, _N_DIRECTIONS), 0.02)
    is_forget = shape.domains == FORGET
    rates[is_forget, :64], rates[~is_forget, :64] = 0.1, 0.002
    made = []
    for _ in range(n):
        # Directions of a family are active together.
        family = torch.rand(shape.batch, _N_DIRECTIONS // _FAMILY, generator=generator)
        family = family.repeat_interleave(_FAMILY, dim=1)
        active = (torch.rand(shape.batch, _N_DIRECTIONS, generator=generator) * family) < rates / 2
        strengths = 5 * active * (1 + torch.rand(shape.batch, _N_DIRECTIONS, generator=generator))
        made.append((strengths @ directions).to(shape.device))
    return made


def sentence_space(d_in: int, device: str = "cpu", n_sentences: int = 2304) -> OutputSpace:
    """Sentences and sequences with random residual streams, for terms that read some and run no model.

    A number of sentences that the turns of a step divide: a real stock of 12,000 begins again, which costs a copy,
    once in 31 steps.
    """
    sequences = _sequences(64, _SEQUENCE_TOKENS, d_in, device)
    sentences = _sequences(n_sentences, _SENTENCE_TOKENS, d_in, device)
    return OutputSpace(_runs_no_model, sequences, sequences, sentences=Sides(sentences, sentences))  # pyright: ignore[reportArgumentType]


def _sequences(n: int, n_tokens: int, d_in: int, device: str) -> Sequences:
    generator = torch.Generator().manual_seed(n)
    residual = torch.randn(n, n_tokens, d_in, generator=generator)
    lengths = torch.randint(5, n_tokens + 1, (n, 1), generator=generator)
    place = torch.arange(n_tokens)
    tokens = torch.zeros(n, n_tokens, dtype=torch.int64)
    return Sequences(tokens, residual, (place < lengths) & (place > 0)).to(device)


def _runs_no_model(*_: Any) -> torch.Tensor:
    raise AssertionError("no term of these runs the model")
