"""Trainings on made-up activations with every mechanism on."""

from dataclasses import dataclass

import torch
from sae_lens.config import SAETrainerConfig

from sae_lens_contrastive import distributed
from sae_lens_contrastive.data.activations import domain_labels, domain_sizes
from sae_lens_contrastive.losses import (
    FORGET,
    LOSS_TERMS,
    RETAIN,
    LossTerm,
    OutputSpace,
    Sequences,
    Sides,
    register_loss_term,
)
from sae_lens_contrastive.saes import TRAINING_ARCHITECTURES
from sae_lens_contrastive.training import ContrastiveSAETrainer

D_IN, D_SAE, BATCH = 16, 64, 96
ONLY = {
    "standard": {"l1_coefficient": 0.05},
    "topk": {"k": 6},
    "batchtopk": {"k": 6},
    "matryoshka_batchtopk": {"k": 6},
    "jumprelu": {"l0_coefficient": 0.05, "jumprelu_bandwidth": 0.1, "jumprelu_init_threshold": 0.05},
}
TERMS = {
    "group_contrastive": {"coefficient": 0.1, "separation_weight": 1.0},
    "forget_margin": {"coefficient": 1.0, "n_features": 4, "warm_up_steps": 4},
    "feature_kl": {"coefficient": 0.1},
    "supervised_contrastive": {"coefficient": 0.1, "max_tokens": 16},
    "mutual_information": {"coefficient": 0.1, "n_features": 8},
}
MECHANISMS = {
    "loss_terms": TERMS,
    "grouping": {"every_n_steps": 10, "percentile": 75, "window_tokens": 400},
    "importance": {
        "activation_weight": 0.35,
        "gradient_weight": 0.5,
        "mutual_information_weight": 0.15,
        "every_n_steps": 5,
    },
    "pruning": {"share": 0.2, "threshold": 0.2, "every_n_steps": 10, "start_step": 0},
    "reinitialisation": {"every_n_steps": 15},
    "coverage": {"every_n_steps": 10},
    "stability": {"every_n_steps": 10},
    "curriculum": {
        "stages": {
            "reconstruct": {"start": 0.0, "loss_terms": []},
            "unlearn": {"start": 0.1, "loss_terms": list(TERMS)},
        },
        "forget_share_start": 0.5,
    },
}


WHITE = {
    "loss_terms": {
        "sentence_margin": {"coefficient": 1.0, "n_features": 4, "n_sentences": 6, "n_sequences": 2},
        "output_kl": {
            "coefficient": 1.0,
            "every_n_steps": 3,
            "n_features": 4,
            "n_sequences": 3,
            "n_sentences": 5,
            "retain_per_forget": 2,
        },
        "own_term": {"coefficient": 0.1},
    },
    "whitening": {},
    "coverage": None,
    "curriculum": None,
}
"""What MECHANISMS cannot have beside the forget margin, terms on text of their own, and a term that knows no ranks."""


@dataclass(frozen=True)
class OwnTerm(LossTerm):
    """Cosine of the mean activations on forget and on retain tokens: no mean over tokens."""

    needs_domains = True

    def __call__(self, ctx):
        means = [ctx.feature_acts[ctx.labels() == domain].mean(dim=0) for domain in (FORGET, RETAIN)]
        return torch.cosine_similarity(*means, dim=0)


class Unembedding:
    """Stands in for the model above the hook."""

    def __init__(self, d_in, d_vocab=40):
        self.weight = torch.randn(d_in, d_vocab, generator=torch.Generator().manual_seed(5))

    def __call__(self, tokens, residual, positions):
        return residual.tanh()[positions] @ self.weight


def made_output_space(d_in=D_IN):
    generator = torch.Generator().manual_seed(6)

    def text(n, length, shift):
        lengths = torch.randint(4, length + 1, (n, 1), generator=generator)
        editable = (torch.arange(length) < lengths) & (torch.arange(length) > 0)
        residual = torch.randn(n, length, d_in, generator=generator) + shift
        return Sequences(torch.randint(0, 40, (n, length), generator=generator), residual, editable)

    shift = torch.randn(d_in, generator=generator)
    sentences = Sides(text(11, 9, shift), text(23, 9, 0))
    return OutputSpace(Unembedding(d_in), text(7, 40, shift), text(9, 40, 0), sentences=sentences)


class Batches:
    """Sparse sums of fixed directions; forget and retain tokens have some of their own."""

    def __init__(self, batch=BATCH, d_in=D_IN):
        self.domains = domain_labels(domain_sizes(batch, 0.25, 0.25))
        self.generator = torch.Generator().manual_seed(0)
        self.directions = torch.randn(48, d_in, generator=self.generator)
        self.rates = torch.full((batch, 48), 0.1)
        for domain, first in ((FORGET, 0), (RETAIN, 8)):
            self.rates[self.domains == domain, first : first + 8] = 0.5
            self.rates[self.domains != domain, first : first + 8] = 0.02

    def __iter__(self):
        return self

    def __next__(self):
        active = torch.rand(self.rates.shape, generator=self.generator) < self.rates
        return (active * torch.rand(self.rates.shape, generator=self.generator)) @ self.directions


def made_trainer(
    architecture="standard", steps=100, batch=BATCH, output_space=None, d_in=D_IN, scaled=True, **sections
):
    torch.manual_seed(0)
    sae_class, config_class = TRAINING_ARCHITECTURES[architecture]
    sizes = {"d_in": d_in, "d_sae": D_SAE, "normalize_activations": "expected_average_only_in" if scaled else "none"}
    sae = sae_class(config_class(**sizes, **ONLY[architecture], **{**MECHANISMS, **sections}))
    cfg = SAETrainerConfig(
        total_training_samples=steps * batch,
        train_batch_size_samples=batch,
        lr=1e-3,
        lr_end=1e-3,
        dead_feature_window=10,
        n_batches_for_norm_estimate=4,
    )
    batches = Batches(batch, d_in)
    return ContrastiveSAETrainer(cfg, sae, batches, batches.domains, output_space=output_space)


def state_of(trainer):
    """Everything that ranks must agree in."""
    return {
        "weights": {name: tensor.detach().clone() for name, tensor in trainer.sae.state_dict().items()},
        "features": trainer.features.state_dict(),
        "parts": {part.name: part.state_dict() for part in trainer.parts},
        "passes": trainer.n_forward_passes_since_fired,
        "frequencies": trainer.act_freq_scores,
        "n_samples": trainer.n_training_samples,
        "n_frac_active": trainer.n_frac_active_samples,
        "history": trainer.history,
        "records": trainer.records(),
    }


def train(*arguments, **options):
    trainer = made_trainer(*arguments, **options)
    trainer.fit()
    return state_of(trainer)


def train_white(*arguments):
    register_loss_term("own_term")(OwnTerm)
    try:
        return train(*arguments, output_space=made_output_space(), **WHITE)
    finally:
        LOSS_TERMS.pop("own_term")


def train_all(cases):
    """What trainings of these names and arguments come to, and how many ranks there were."""
    trained = {"train": train, "train_white": train_white}
    return distributed.n_ranks(), [trained[name](*arguments) for name, *arguments in cases]


def train_until(folder, steps, architecture):
    """A training that ends early, with a checkpoint."""
    trainer = made_trainer(architecture, scaled=False)
    trainer.cfg.checkpoint_path = str(folder)
    trainer.cfg.total_training_samples = steps * BATCH
    trainer.cfg.save_final_checkpoint = True
    trainer.fit()


def train_from(checkpoint, architecture):
    """The rest of a training, from a checkpoint."""
    trainer = made_trainer(architecture, scaled=False)
    trainer.load_trainer_state(checkpoint)
    trainer.sae.load_weights_from_checkpoint(checkpoint)
    for _ in range(trainer.n_training_steps):
        next(trainer.data_provider)
    trainer.fit()
    return state_of(trainer)
