"""Configuration of the contrastive objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from sae_lens.config import dict_field
from sae_lens.saes.sae import TrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAEConfig

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.feature_stats.importance import ImportanceOptions
from sae_lens_contrastive.feature_stats.stability import StabilityOptions
from sae_lens_contrastive.features.coverage import CoverageOptions
from sae_lens_contrastive.features.grouping import GroupingOptions
from sae_lens_contrastive.features.surgery import RESCALES_EACH_TOKEN, PruningOptions, ReinitialisationOptions
from sae_lens_contrastive.features.whitening import WhiteningOptions
from sae_lens_contrastive.losses import build_loss_terms
from sae_lens_contrastive.losses.curriculum import CurriculumOptions
from sae_lens_contrastive.options import build_options

SECTIONS: dict[type[Any], str] = {
    GroupingOptions: "grouping",
    ImportanceOptions: "importance",
    PruningOptions: "pruning",
    ReinitialisationOptions: "reinitialisation",
    WhiteningOptions: "whitening",
    CoverageOptions: "coverage",
    StabilityOptions: "stability",
    CurriculumOptions: "curriculum",
}
"""Options class of each optional section, and the field that holds it."""

T_OPTIONS = TypeVar("T_OPTIONS")


@dataclass(kw_only=True)
class ContrastiveObjectiveConfig(TrainingSAEConfig):
    """Configuration of the contrastive objective, mixed into a SAELens training configuration.

    The fields stay plain dictionaries: SAELens writes them to JSON and parses them from its command line. A section
    that is None is off; its keys are the fields of its options class.
    """

    loss_terms: dict[str, dict[str, Any]] = dict_field({})
    """Terms added to the host's loss: {name: {coefficient, warm_up_steps, ...options of the term}}."""

    grouping: dict[str, Any] | None = dict_field(None)
    """Correlation groups or clusters during training (`GroupingOptions`)."""

    importance: dict[str, Any] | None = dict_field(None)
    """Importance of every feature during training (`ImportanceOptions`)."""

    pruning: dict[str, Any] | None = dict_field(None)
    """Masking of unimportant features (`PruningOptions`); needs importance."""

    reinitialisation: dict[str, Any] | None = dict_field(None)
    """New weights for pruned and dead features (`ReinitialisationOptions`)."""

    whitening: dict[str, Any] | None = dict_field(None)
    """Reserved features whose encoder learns in white coordinates (`WhiteningOptions`); needs a term that reserves
    features and one that reads text at the hook."""

    coverage: dict[str, Any] | None = dict_field(None)
    """Reserved features spread over the forget domain (`CoverageOptions`); needs a term that reserves features."""

    stability: dict[str, Any] | None = dict_field(None)
    """How much features, groups and importance change (`StabilityOptions`)."""

    curriculum: dict[str, Any] | None = dict_field(None)
    """Stages of the training and the growth of the forget share (`CurriculumOptions`)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_sizes()
        terms = build_loss_terms(self.loss_terms)
        sections = {name: self.section(options_class) for options_class, name in SECTIONS.items()}
        if (terms or any(sections.values())) and getattr(self, "use_sparse_activations", False):
            raise ConfigError(
                "loss_terms, trackers and surgeries need dense activations. Set use_sparse_activations: false."
            )
        reserved = set(self.host_coefficients()) & set(terms)
        if reserved:
            raise ConfigError(f"loss_terms: {sorted(reserved)[0]!r} is a coefficient of the host architecture already.")
        for name, weighted in terms.items():
            if weighted.term.needs_groups and self.grouping is None:
                raise ConfigError(
                    f"loss_terms.{name} works on correlation groups, but the SAE configuration has no grouping. "
                    "Add for example grouping: {every_n_steps: 100, percentile: 75}."
                )
            if weighted.term.needs_output_space:
                self._check_scale_is_one_number(f"loss_terms.{name}")
            if weighted.term.n_reserved > self.d_sae:
                raise ConfigError(
                    f"loss_terms.{name} reserves {weighted.term.n_reserved} features, but d_sae is {self.d_sae}. "
                    f"Lower its n_features to at most {self.d_sae}, or raise d_sae."
                )
        self._check_scaling_of_tokens()
        if self.pruning is not None and self.importance is None:
            raise ConfigError("pruning goes by importance, but there is no importance section. Add importance: {}.")
        for name in ("coverage", "whitening"):
            if getattr(self, name) is not None and not any(each.term.n_reserved for each in terms.values()):
                raise ConfigError(
                    f"{name} works on reserved features, but no loss term reserves any. Add loss_terms.forget_margin, "
                    "loss_terms.sentence_margin, or loss_terms.output_kl with features: reserved."
                )
        if self.whitening is not None:
            self._check_scale_is_one_number("whitening")
            if "forget_margin" in terms:
                raise ConfigError(
                    "whitening keeps the gradients of the batch from reserved features, but forget_margin learns from "
                    "the batch. Use loss_terms.sentence_margin in its place, or drop whitening."
                )
            if self.coverage is not None:
                raise ConfigError(
                    "coverage begins reserved features anew, but whitening writes their weights after every step. Drop "
                    "one of them."
                )
        if (curriculum := self.section(CurriculumOptions)) is not None:
            curriculum.check_terms(list(terms))

    @classmethod
    def host_coefficients(cls) -> tuple[str, ...]:
        """Names of the coefficients that the host classes schedule themselves."""
        return ("l0", "l1")

    def section(self, options_class: type[T_OPTIONS]) -> T_OPTIONS | None:
        """A section as checked options; None if it is off, `ConfigError` for a key or value that does not fit."""
        name = SECTIONS[options_class]
        values = getattr(self, name)
        return None if values is None else build_options(name, options_class, values)

    def needs_domains(self) -> list[str]:
        """What cannot do without a forget and a retain corpus: keys of the configuration."""
        terms = build_loss_terms(self.loss_terms)
        needing = [f"loss_terms.{name}" for name, (term, *_) in terms.items() if term.needs_domains]
        importance = self.section(ImportanceOptions)
        if importance is not None and importance.mutual_information_weight > 0:
            needing.append("importance.mutual_information_weight")
        if self.coverage is not None:
            needing.append("coverage")
        return needing

    def terms_that_need_output_space(self) -> list[str]:
        """Names of the terms that read text at the hook or run the model above it."""
        terms = build_loss_terms(self.loss_terms)
        return [name for name, weighted in terms.items() if weighted.term.needs_output_space]

    def terms_that_run_model(self) -> list[str]:
        """Names of the terms that run the model above the hook."""
        return [name for name, (term, *_) in build_loss_terms(self.loss_terms).items() if term.runs_model]

    def terms_that_need_sentences(self) -> list[str]:
        """Names of the terms that read single sentences of both sides."""
        return [name for name, (term, *_) in build_loss_terms(self.loss_terms).items() if term.needs_sentences]

    def _check_sizes(self) -> None:
        for name in ("d_in", "d_sae"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        k = getattr(self, "k", 1)
        if not 1 <= k <= self.d_sae:
            raise ConfigError(f"k is {k}; it must be from 1 to d_sae ({self.d_sae}).")

    def _check_scaling_of_tokens(self) -> None:
        if self.normalize_activations not in RESCALES_EACH_TOKEN:
            return
        # SAELens says so itself, at the first dead feature.
        refusing = "the auxiliary loss of this architecture" if isinstance(self, TopKTrainingSAEConfig) else None
        if self.reinitialisation is not None:
            refusing = "reinitialisation"
        if refusing:
            raise ConfigError(
                f"{refusing} does not work with normalize_activations {self.normalize_activations!r}. Use none, "
                "expected_average_only_in or covariance_whitening."
            )

    def _check_scale_is_one_number(self, where: str) -> None:
        allowed = ("none", "expected_average_only_in")
        if self.normalize_activations not in allowed:
            raise ConfigError(
                f"{where} edits the model's own residual stream, which normalize_activations "
                f"{self.normalize_activations!r} does not allow. Choose one of: {', '.join(allowed)}."
            )
