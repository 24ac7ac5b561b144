"""What an evaluation shows of an SAE: the features that speak for the forget domain and a few answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from sae_lens_contrastive.config import StrictModel

EXAMPLES_FOLDER = "examples"
"""Where an evaluation keeps them, beside its results."""

MAX_FEATURES = 8
"""Features of an SAE."""
MAX_SNIPPETS = {"forget": 3, "retain": 2}
"""Snippets of a feature from each corpus."""
MAX_TOKENS = 32
"""Tokens of a snippet."""
MAX_TOKEN_CHARACTERS = 64
"""Characters of a token; the end of a longer one is left out."""
MAX_QUESTIONS = {"forget": 4, "retain": 2, "near": 2}
"""Questions of each side."""
MAX_OPTIONS = 10
"""Options of a question; questions with more are passed over."""
MAX_TEXT_CHARACTERS = 500
"""Characters of a stem or an option; the end of a longer one is left out."""

_Name = Annotated[str, StringConstraints(max_length=200)]
_Text = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARACTERS)]
_Token = Annotated[str, StringConstraints(max_length=MAX_TOKEN_CHARACTERS)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Activation = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0, le=2**62)]


class Snippet(StrictModel):
    """Text around a token on which a feature fires strongly."""

    corpus: Literal["forget", "retain"]
    """Corpus that the text is from."""
    tokens: list[_Token] = Field(min_length=1, max_length=MAX_TOKENS)
    """Text of each token; of a character that several tokens make, the last has it."""
    activations: list[_Activation] = Field(min_length=1, max_length=MAX_TOKENS)
    """Activation of the feature on each token."""

    @model_validator(mode="after")
    def _has_an_activation_for_each_token(self) -> Snippet:
        if len(self.tokens) != len(self.activations):
            raise ValueError("tokens and activations differ in length.")
        return self


class FeatureExamples(StrictModel):
    """One feature."""

    feature: _Count
    """Index into the dictionary; of an ensemble, into its members' dictionaries one after another."""
    forget_rate: _Share
    """Share of the forget corpus' tokens on which it fires."""
    retain_rate: _Share
    """Share of the retain corpus' tokens on which it fires."""
    snippets: list[Snippet] = Field(max_length=sum(MAX_SNIPPETS.values()))
    """Contexts in which it fires most strongly, those of the forget corpus first; at most one of each context."""


class QuestionExample(StrictModel):
    """One known held-out question, before the edit and after it."""

    side: Literal["forget", "retain", "near"]
    """What the edit should do to it; `near` questions have no say in the choice of the edit."""
    domain: _Name
    """Knowledge domain."""
    stem: _Text
    """First phrasing."""
    options: list[_Text] = Field(min_length=2, max_length=MAX_OPTIONS)
    """What is chosen from."""
    answer_index: Annotated[int, Field(ge=0, lt=MAX_OPTIONS)]
    """Place of the right option."""
    before: list[_Share]
    """Probability of each option among the options: softmax of their scores, in the unedited model."""
    after: list[_Share]
    """The same under the edit."""

    @model_validator(mode="after")
    def _has_probabilities_for_each_option(self) -> QuestionExample:
        if not self.answer_index < len(self.options) == len(self.before) == len(self.after):
            raise ValueError("options, before and after differ in length, or answer_index is none of the options.")
        return self


class EvaluationExamples(StrictModel):
    """The examples of one evaluated SAE, bounded in every size."""

    variant: _Name
    """Named set of loss terms, trackers and surgeries it was trained with."""
    seed: _Count
    """Seed it was trained with."""
    forget_domain: _Name
    """What was to be forgotten."""
    features_from: Literal["edit", "rates"]
    """`edit`: features of the chosen edit, in its order. `rates`: none was chosen, and these have the largest
    difference of firing rates, forget corpus less retain corpus."""
    features: list[FeatureExamples] = Field(max_length=MAX_FEATURES)
    """Features that speak for the forget domain."""
    questions: list[QuestionExample] = Field(max_length=sum(MAX_QUESTIONS.values()))
    """Known held-out questions, evenly spaced among those put; none without a chosen edit."""
