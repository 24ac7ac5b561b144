"""Trainings on made-up activations with every mechanism on."""

import torch
from sae_lens.config import SAETrainerConfig

from sae_lens_contrastive.data.activations import domain_labels, domain_sizes
from sae_lens_contrastive.losses import FORGET, RETAIN
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


def made_trainer(architecture="standard", steps=100, batch=BATCH, output_space=None, d_in=D_IN, **sections):
    torch.manual_seed(0)
    sae_class, config_class = TRAINING_ARCHITECTURES[architecture]
    sizes = {"d_in": d_in, "d_sae": D_SAE, "normalize_activations": "expected_average_only_in"}
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
