"""A run = target + variant, merged and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from sae_lens import LanguageModelSAERunnerConfig, LoggingConfig

from sae_lens_contrastive.config import StrictModel, load_yaml, merge, parse_config, without_nulls
from sae_lens_contrastive.data.activations import domain_sizes
from sae_lens_contrastive.data.sources import check_corpus_sources, held_out_entities, load_question_sources
from sae_lens_contrastive.errors import ConfigError, unknown_choice
from sae_lens_contrastive.models import check_device, check_model_name
from sae_lens_contrastive.options import build_options
from sae_lens_contrastive.saes import TRAINING_ARCHITECTURES, ContrastiveObjectiveConfig
from sae_lens_contrastive.saes.warm_start import WarmStart
from sae_lens_contrastive.training.requirements import check_runner_config
from sae_lens_contrastive.training.runner import BRIDGE_CLASS_NAME
from sae_lens_contrastive.wandb_session import check_wandb


class CorporaConfig(StrictModel):
    """Texts of a target.

    A source is `world_facts/NAME`, the path of a .jsonl, .jsonl.gz or .txt file, or a dataset of the Hugging Face hub,
    which is streamed: `hub:NAME#CONFIG@SPLIT:COLUMN`, of which only NAME must be given.
    """

    general: tuple[str, ...] = Field(min_length=1)
    """Sources of the text that every variant reconstructs."""
    forget: tuple[str, ...] = ()
    """Sources of text about what is to be forgotten; needed by terms that use labels."""
    retain: tuple[str, ...] = ()
    """Sources of text about what must be kept."""
    forget_share: float = Field(default=0.25, gt=0, lt=1)
    """Share of the tokens of a batch taken from the forget corpus."""
    retain_share: float = Field(default=0.25, gt=0, lt=1)
    """Share of the tokens of a batch taken from the retain corpus."""
    output_space_sequences: int = Field(default=64, gt=0)
    """Sequences of the forget corpus, and of the retain corpus, that output-space terms take turns on."""
    output_space_sentences: int = Field(default=0, ge=0)
    """Sentences of the forget corpus, and of the retain and general corpora together, at most, that output-space terms
    see besides; each is a sequence of its own, as a question is."""
    hold_out_entities_of: tuple[str, ...] = ()
    """Question sources whose held-out entities are left out of the forget text."""

    @model_validator(mode="after")
    def _both_or_none(self) -> CorporaConfig:
        if bool(self.forget) != bool(self.retain):
            raise ConfigError("Give a forget and a retain corpus, or neither.")
        return self


class TrainingOptions(StrictModel):
    """Optimisation and activation generation, under SAELens' own names."""

    training_tokens: int = Field(gt=0)
    """Tokens the SAE is trained on, repeats counted."""
    train_batch_size_tokens: int = Field(default=4096, gt=0)
    """Tokens in one optimiser step."""
    context_size: int = Field(default=128, gt=1)
    """Tokens in one sequence of the model."""
    store_batch_size_prompts: int = Field(default=32, gt=0)
    """Sequences in one forward pass of the model."""
    n_batches_in_buffer: int = Field(default=20, gt=0)
    """Sequences mixed with each other when activations are streamed, in units of context_size tokens."""
    cache_tokens: int = Field(default=0, ge=0)
    """Activations of each corpus collected once and reused, in tokens; 0 streams them from the model instead."""
    lr: float = Field(default=3e-4, gt=0)
    """Learning rate of Adam."""
    lr_scheduler_name: Literal["constant", "cosineannealing", "cosineannealingwarmrestarts"] = "constant"
    """Learning-rate schedule after the warm-up."""
    lr_warm_up_steps: int = Field(default=0, ge=0)
    """Steps of linear learning-rate warm-up."""
    lr_decay_steps: int = Field(default=0, ge=0)
    """Steps of linear decay to zero at the end."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of Adam's first moment."""
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    """Decay of Adam's second moment."""
    dead_feature_window: int = Field(default=1000, gt=0)
    """Steps without firing after which a feature counts as dead."""
    feature_sampling_window: int = Field(default=2000, gt=0)
    """Steps over which firing rates are logged."""
    n_batches_for_norm_estimate: int = Field(default=1000, gt=0)
    """Batches used to estimate the scale of the activations."""
    n_checkpoints: int = Field(default=4, ge=0)
    """Checkpoints written during training; a run that was killed goes on from the last one."""
    prefetch_llm_batches: bool = False
    """Generate activations in a background thread."""
    autocast: bool = False
    """Train the SAE in mixed precision."""
    autocast_lm: bool = False
    """Run the model in mixed precision."""
    log_to_wandb: bool = False
    """Log to Weights & Biases."""
    wandb_project: str = "sae_lens_contrastive"
    """Project logged to."""


class RunConfig(StrictModel):
    """One training run: a model, a hook and its corpora, an SAE and its objective."""

    variant: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name of the variant, and of its folder."""
    target: str = ""
    """Name of the target."""
    description: str = ""
    """What the variant is for."""
    model: str
    """Model by name: a TransformerLens name, a local folder or an embedded model."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the model and of the activations."""
    device: str = "cpu"
    """Device of the model and the SAE, such as cpu or cuda."""
    hook_name: str
    """TransformerLens hook whose activations are decomposed, such as blocks.19.hook_resid_post."""
    seed: int = Field(default=0, ge=0)
    """Seed of initialisation and of the order of texts and tokens."""
    corpora: CorporaConfig
    """Texts the activations come from."""
    sae: dict[str, Any]
    """`architecture` (standard, topk, batchtopk, jumprelu, matryoshka_batchtopk) and the fields of its training
    configuration, such as loss_terms, of which null takes one out."""
    architectures: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Defaults for `sae` that hold with one architecture only, such as topk: {k: 32}."""
    warm_start: WarmStart | None = None
    """A trained SAE to begin with: {path} of a folder, or {release, sae_id} as SAELens names it."""
    training: TrainingOptions
    """Optimisation and activation generation."""

    @field_validator("sae")
    @classmethod
    def _known_architecture(cls, sae: dict[str, Any]) -> dict[str, Any]:
        architecture = sae.get("architecture")
        if not isinstance(architecture, str) or architecture not in TRAINING_ARCHITECTURES:
            raise unknown_choice("sae.architecture", architecture, TRAINING_ARCHITECTURES)
        return {**sae, "loss_terms": without_nulls(sae["loss_terms"])} if "loss_terms" in sae else sae

    @field_validator("architectures")
    @classmethod
    def _known_architectures(cls, architectures: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name in architectures:
            if name not in TRAINING_ARCHITECTURES:
                raise unknown_choice("architecture", name, TRAINING_ARCHITECTURES)
        return architectures

    def sae_config(self) -> ContrastiveObjectiveConfig:
        """The SAE's training configuration; `ConfigError` for an unknown field or a value that does not fit."""
        architecture = self.sae["architecture"]
        values = {**self.architectures.get(architecture, {}), **self.sae}
        del values["architecture"]
        config_class = TRAINING_ARCHITECTURES[architecture][1]
        for managed in ("dtype", "device", "metadata"):
            if managed in values:
                raise ConfigError(f"sae.{managed} is set by the run itself; set {managed} at the top level.")
        return build_options("sae", config_class, {**values, "device": self.device, "dtype": "float32"})

    def runner_config(self, output_path: Path | None) -> LanguageModelSAERunnerConfig[Any]:
        """The stock SAELens runner configuration of this run."""
        shared = {field.name for field in fields(LanguageModelSAERunnerConfig)} & set(TrainingOptions.model_fields)
        training = self.training.model_dump()
        return LanguageModelSAERunnerConfig(
            sae=self.sae_config(),
            model_name=self.model,
            model_class_name=BRIDGE_CLASS_NAME,
            hook_name=self.hook_name,
            dataset_path=",".join(self.corpora.general),
            streaming=False,
            is_dataset_tokenized=False,
            exclude_special_tokens=True,
            dtype=self.dtype,
            device=self.device,
            seed=self.seed,
            logger=LoggingConfig(
                log_to_wandb=self.training.log_to_wandb,
                wandb_project=self.training.wandb_project,
                run_name=self.variant,
            ),
            checkpoint_path=None,
            output_path=None if output_path is None else str(output_path / "sae"),
            verbose=False,
            **{name: training[name] for name in shared},
        )

    def left_out_entities(self) -> list[str]:
        """Entities that the forget text must not name."""
        return held_out_entities(load_question_sources(self.corpora.hold_out_entities_of))

    def check(self) -> None:
        """Raise `UserError` for everything that can be known to fail before a model is loaded."""
        check_model_name(self.model)
        check_device(self.device)
        if self.training.log_to_wandb:
            check_wandb()
        if self.warm_start is not None:
            self.warm_start.check()
        for sources in (self.corpora.general, self.corpora.retain):
            check_corpus_sources(sources)
        if self.corpora.forget:
            check_corpus_sources(self.corpora.forget, self.left_out_entities())
            batch_size = self.training.train_batch_size_tokens
            domain_sizes(batch_size, self.corpora.forget_share, self.corpora.retain_share)
        if self.corpora.output_space_sentences == 0 and (needing := self.sae_config().terms_that_need_sentences()):
            raise ConfigError(
                f"loss_terms.{needing[0]} reads single sentences, but corpora.output_space_sentences is 0. Set it, for "
                "example to 6000."
            )
        check_runner_config(self.runner_config(None), has_domains=bool(self.corpora.forget))


def resolve_run(
    target: Path | str, variant: Path | str, overrides: dict[str, Any] | None = None, *, any_device: bool = False
) -> RunConfig:
    """Merge target, variant and overrides, in this order, and check the result.

    The variant's file name is its name unless it gives one. With `any_device` the device need not be on this machine.
    Raises `UserError` for a missing file, an unknown key or a value that cannot be used.
    """
    names = {"variant": Path(variant).stem, "target": Path(target).stem}
    values = merge(names, load_yaml(target), load_yaml(variant), overrides or {})
    run = parse_config(RunConfig, values, source=f"{target} + {variant}")
    (run.model_copy(update={"device": "cpu"}) if any_device else run).check()
    return run


def resolve_runs(
    target: Path | str,
    variants: Sequence[Path | str],
    overrides: dict[str, Any] | None = None,
    *,
    any_device: bool = False,
) -> list[RunConfig]:
    """Resolve several variants on one target; `ConfigError` if two have the same name."""
    runs = [resolve_run(target, variant, overrides, any_device=any_device) for variant in variants]
    names = [run.variant for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"Two variants are named {name!r}. Give one of them another `variant:` name.")
    return runs
