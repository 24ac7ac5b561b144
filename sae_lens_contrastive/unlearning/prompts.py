"""Questions as token sequences whose next-token probabilities give the score of every option."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any, Literal, NamedTuple

from pydantic import model_validator

from sae_lens_contrastive.config import StrictModel
from sae_lens_contrastive.data.questions import Question
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.unlearning.batching import bos_tokens, encode_text

_DEFAULT_TEMPLATES = {
    "likelihood": "{stem}",
    "letter": (
        "Which option completes the sentence? Answer with its letter only.\n\n{stem} ...\n\n{options}\n\nAnswer:"
    ),
}


class PromptSpec(StrictModel):
    """How a question is put to the model and its answer read."""

    style: Literal["likelihood", "letter"] = "likelihood"
    """`likelihood`: an option's score is the sum of the log-probabilities of its tokens after the stem.
    `letter`: the options are listed as A, B, C, ... and the probabilities of the letters are compared."""
    chat: bool = False
    """Wrap the prompt in the tokenizer's chat template, as a message of the user."""
    template: str | None = None
    """Text of the prompt; `{stem}` stands for the question's phrasing, `{options}` for the lettered list of
    options. None takes the default of the style."""
    option_template: str = " {option}"
    """Text that is scored for an option by likelihood; `{option}` stands for the option."""

    @model_validator(mode="after")
    def _has_placeholders(self) -> PromptSpec:
        needed = ["{stem}"] + (["{options}"] if self.style == "letter" else [])
        for placeholder in needed:
            if placeholder not in self.text:
                raise ValueError(f"template {self.text!r} lacks {placeholder}; style {self.style!r} needs it.")
        if "{option}" not in self.option_template:
            raise ValueError(
                f"option_template {self.option_template!r} lacks {{option}}. The default is ' {{option}}'."
            )
        return self

    @property
    def text(self) -> str:
        """The template in force."""
        return _DEFAULT_TEMPLATES[self.style] if self.template is None else self.template


class Spot(NamedTuple):
    """One scored token: the model's log-probability of `token` after `position` counts for `option`."""

    position: int
    token: int
    option: int


@dataclass(frozen=True)
class Prompt:
    """One token sequence of a question; options that continue alike share it."""

    question: int
    """Index of the question."""
    phrasing: int
    """Index of the stem."""
    tokens: tuple[int, ...]
    """The sequence, without the last token of an option: nothing is read after it."""
    spots: list[Spot] = field(default_factory=list)
    """Tokens whose log-probabilities are read."""


class PromptWriter:
    """Turns questions into prompts for one tokenizer; raises `UserError` where the style does not fit it."""

    def __init__(self, tokenizer: Any, spec: PromptSpec) -> None:
        if spec.chat and not tokenizer.chat_template:
            raise UserError(
                "prompt.chat is true, but the model's tokenizer has no chat template. Set prompt.chat: false."
            )
        self.tokenizer = tokenizer
        self.spec = spec

    def prompts(self, questions: Sequence[Question]) -> list[Prompt]:
        """Prompts of all phrasings of all questions."""
        write = self._by_letter if self.spec.style == "letter" else self._by_likelihood
        return [
            prompt
            for index, question in enumerate(questions)
            for phrasing, stem in enumerate(question.stems)
            for prompt in write(index, phrasing, stem, question.options)
        ]

    def _by_likelihood(self, question: int, phrasing: int, stem: str, options: Sequence[str]) -> list[Prompt]:
        start = self._encode(self._wrapped(self.spec.text.replace("{stem}", stem)))
        endings = [
            encode_text(self.tokenizer, self.spec.option_template.replace("{option}", option)) for option in options
        ]
        prompts: list[Prompt] = []
        # Longest first, so that a shorter sequence finds the one it is a beginning of: causal attention makes
        # them one.
        for option in sorted(range(len(options)), key=lambda i: -len(endings[i])):
            tokens = (*start, *endings[option][:-1])
            shared = next((p for p in prompts if p.tokens[: len(tokens)] == tokens), None)
            if shared is None:
                shared = Prompt(question, phrasing, tokens)
                prompts.append(shared)
            first = len(start) - 1
            shared.spots.extend(Spot(first + i, token, option) for i, token in enumerate(endings[option]))
        return prompts

    def _by_letter(self, question: int, phrasing: int, stem: str, options: Sequence[str]) -> list[Prompt]:
        if len(options) > len(ascii_uppercase):
            raise UserError(f"A question has {len(options)} options; prompt.style letter takes at most 26.")
        letters = ascii_uppercase[: len(options)]
        listed = "\n".join(f"{letter}. {option}" for letter, option in zip(letters, options, strict=True))
        text = self._wrapped(self.spec.text.replace("{stem}", stem).replace("{options}", listed))
        tokens = self._encode(text)
        spots = [
            Spot(len(tokens) - 1, token, option) for option, token in enumerate(self._letter_tokens(text, letters))
        ]
        return [Prompt(question, phrasing, tuple(tokens), spots)]

    def _letter_tokens(self, text: str, letters: str) -> list[int]:
        """Token of each letter as it follows the prompt, with the space before it if that makes it one
        token."""
        start = encode_text(self.tokenizer, text)
        for space in ("", " ") if text[-1].isspace() else (" ", ""):
            continued = [encode_text(self.tokenizer, f"{text}{space}{letter}") for letter in letters]
            if all(tokens[:-1] == start for tokens in continued):
                return [tokens[-1] for tokens in continued]
        raise UserError(
            f"The letters {letters} are not single tokens after a prompt that ends in {text[-12:]!r}. "
            "Change the end of prompt.template or set prompt.style: likelihood."
        )

    def _wrapped(self, text: str) -> str:
        if not self.spec.chat:
            return text
        return self.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
        )

    def _encode(self, text: str) -> list[int]:
        tokens, bos = encode_text(self.tokenizer, text), bos_tokens(self.tokenizer)
        # Some chat templates write the BOS token themselves.
        return tokens if tokens[: len(bos)] == bos else [*bos, *tokens]
