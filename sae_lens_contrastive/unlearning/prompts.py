"""Questions as token sequences whose next-token probabilities give the score of every option."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, permutations
from string import ascii_uppercase
from typing import Any, Literal, NamedTuple

from pydantic import Field, PositiveInt, model_validator

from sae_lens_contrastive.config import StrictModel
from sae_lens_contrastive.data.batching import encode_prompt, encode_text
from sae_lens_contrastive.data.questions import Question
from sae_lens_contrastive.errors import UserError

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
    """Text of the prompt; `{stem}` stands for the question's phrasing, `{subject}` for its domain, `{options}` for
    the lettered list of options. None takes the default of the style."""
    subjects: dict[str, str] = Field(default_factory=dict)
    """What `{subject}` reads, by domain; the name of any other domain with spaces for underscores."""
    answer_start: str = ""
    """How the answer begins: text after the template and, in a chat, after the header of the model's turn."""
    option_template: str = " {option}"
    """Text that is scored for an option by likelihood; `{option}` stands for the option."""
    letter_forms: list[str] = Field(default_factory=list)
    """Ways to write a letter, such as `{letter}` and ` {letter}`, each one token: the likeliest counts. Without any,
    the one that continues the prompt."""
    n_orders: PositiveInt = 1
    """Orders of the lettered options under all of which a question must be answered right to be known; 24 are all
    orders of four. The first is the published one, and edits are judged by it alone."""

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
        if wrong := [form for form in self.letter_forms if "{letter}" not in form]:
            raise ValueError(f"The letter form {wrong[0]!r} lacks {{letter}}. Example: ['{{letter}}', ' {{letter}}'].")
        if self.subjects and "{subject}" not in self.text:
            raise ValueError(f"subjects are given, but the template {self.text!r} has no {{subject}}.")
        if self.style == "likelihood" and (self.letter_forms or self.n_orders > 1):
            raise ValueError("letter_forms and n_orders need style: letter; by likelihood no options are listed.")
        return self

    @property
    def text(self) -> str:
        """The template in force."""
        return _DEFAULT_TEMPLATES[self.style] if self.template is None else self.template

    @property
    def pooling(self) -> Literal["sum", "max"]:
        """How the log-probabilities of an option's spots become its score."""
        return "max" if self.style == "letter" else "sum"


class Spot(NamedTuple):
    """One scored token: the model's log-probability of `token` after `position` counts for `option`."""

    position: int
    token: int
    option: int


@dataclass(frozen=True)
class Prompt:
    """Tokens of a question: a trunk, which the model is asked, and branches, the endings of options that it may be
    given. A token sees the trunk and the earlier tokens of its own branch; options that continue alike share theirs.
    """

    question: int
    """Index of the question."""
    phrasing: int
    """Index of the stem."""
    tokens: tuple[int, ...]
    """The trunk, then branch after branch, without the last token of an option: nothing is read after it."""
    spots: list[Spot] = field(default_factory=list)
    """Tokens whose log-probabilities are read; of letters in the order in which they are listed."""
    order: int = 0
    """Index of the order in which the options are listed."""
    branch: tuple[int, ...] = ()
    """Branch of each token: 0 is the trunk. Without any, the prompt is one plain sequence."""

    def __post_init__(self) -> None:
        if not self.branch:
            object.__setattr__(self, "branch", (0,) * len(self.tokens))

    @property
    def n_trunk(self) -> int:
        """Number of tokens of the trunk."""
        return self.branch.count(0)

    @property
    def n_asked(self) -> int:
        """Number of tokens before the answer; less than the trunk where an option's ending is part of it."""
        return 1 + min(spot.position for spot in self.spots)

    @property
    def positions(self) -> list[int]:
        """Place of each token in the sequence that it sees: every branch begins right after the trunk."""
        n_trunk, places = self.n_trunk, []
        lengths = dict.fromkeys(self.branch, n_trunk) | {0: 0}
        for branch in self.branch:
            places.append(lengths[branch])
            lengths[branch] += 1
        return places


class PromptWriter:
    """Turns questions into prompts for one tokenizer; raises `UserError` where the style does not fit it.

    `packed` makes one prompt with a branch for every distinct ending. Otherwise every ending is a prompt of its own, a
    plain sequence, for models that take no attention mask.
    """

    def __init__(self, tokenizer: Any, spec: PromptSpec, packed: bool = False) -> None:
        if spec.chat and not tokenizer.chat_template:
            raise UserError(
                "prompt.chat is true, but the model's tokenizer has no chat template. Set prompt.chat: false."
            )
        self.tokenizer = tokenizer
        self.spec = spec
        self.packed = packed
        # The template is wrapped, not the filled text: chat templates trim what they wrap.
        self.text = self._wrapped(spec.text) + spec.answer_start

    def prompts(self, questions: Sequence[Question]) -> list[Prompt]:
        """Prompts of all phrasings of all questions, under all orders of their options."""
        write = self._by_letter if self.spec.style == "letter" else self._by_likelihood
        return [
            prompt
            for index, question in enumerate(questions)
            for phrasing in range(len(question.stems))
            for prompt in write(index, question, phrasing)
        ]

    def _by_likelihood(self, index: int, question: Question, phrasing: int) -> list[Prompt]:
        start = encode_prompt(self.tokenizer, _filled(self.text, self._values(question, phrasing)))
        endings = [self._ending(option) for option in question.options]
        # Longest first, so that an ending finds the one it is the beginning of.
        longest_first = sorted(range(len(endings)), key=lambda i: -len(endings[i]))
        bodies: list[list[int]] = []
        body_of: dict[int, int] = {}
        for option in longest_first:
            body = endings[option][:-1]
            shared = next((k for k, other in enumerate(bodies) if other[: len(body)] == body), len(bodies))
            if shared == len(bodies):
                bodies.append(body)
            body_of[option] = shared
        if self.packed:
            branch = chain([0] * len(start), *([k] * len(body) for k, body in enumerate(bodies, start=1)))
            prompts = [Prompt(index, phrasing, (*start, *chain(*bodies)), branch=tuple(branch))] * len(bodies)
            begins = [len(start) + sum(map(len, bodies[:k])) for k in range(len(bodies))]
        else:
            prompts = [Prompt(index, phrasing, (*start, *body)) for body in bodies]
            begins = [len(start)] * len(bodies)
        for option in longest_first:
            begin = begins[body_of[option]]
            positions = (len(start) - 1, *range(begin, begin + len(endings[option]) - 1))
            spots = [Spot(at, token, option) for at, token in zip(positions, endings[option], strict=True)]
            prompts[body_of[option]].spots.extend(spots)
        return prompts[:1] if self.packed else prompts

    def _by_letter(self, index: int, question: Question, phrasing: int) -> list[Prompt]:
        if len(question.options) > len(ascii_uppercase):
            raise UserError(f"A question has {len(question.options)} options; prompt.style letter takes at most 26.")
        letters = ascii_uppercase[: len(question.options)]
        prompts = []
        orders = islice(permutations(range(len(letters))), self.spec.n_orders)
        for order, listed in enumerate(orders):
            lines = [f"{letter}. {question.options[i]}" for letter, i in zip(letters, listed, strict=True)]
            text = _filled(self.text, {**self._values(question, phrasing), "options": "\n".join(lines)})
            tokens, last = encode_prompt(self.tokenizer, text), self._letter_tokens(text, letters)
            spots = [
                Spot(len(tokens) - 1, token, option)
                for forms in last
                for option, token in zip(listed, forms, strict=True)
            ]
            prompts.append(Prompt(index, phrasing, tuple(tokens), spots, order))
        return prompts

    def _letter_tokens(self, text: str, letters: str) -> list[list[int]]:
        """Tokens of the letters in each of their forms; without forms, as they follow the prompt, with the space
        before them if that makes each one token."""
        if self.spec.letter_forms:
            return [self._form_tokens(form, letters) for form in self.spec.letter_forms]
        start = encode_text(self.tokenizer, text)
        for space in ("", " ") if text[-1].isspace() else (" ", ""):
            continued = [encode_text(self.tokenizer, f"{text}{space}{letter}") for letter in letters]
            if all(tokens[:-1] == start for tokens in continued):
                return [[tokens[-1] for tokens in continued]]
        raise UserError(
            f"The letters {letters} are not single tokens after a prompt that ends in {text[-12:]!r}. "
            "Change the end of prompt.template or set prompt.style: likelihood."
        )

    def _form_tokens(self, form: str, letters: str) -> list[int]:
        encoded = [encode_text(self.tokenizer, form.replace("{letter}", letter)) for letter in letters]
        if any(len(tokens) != 1 for tokens in encoded):
            raise UserError(
                f"prompt.letter_forms: {form!r} with the letters {letters} does not give single tokens. Leave it out."
            )
        return [tokens[0] for tokens in encoded]

    def _ending(self, option: str) -> list[int]:
        tokens = encode_text(self.tokenizer, self.spec.option_template.replace("{option}", option))
        if not tokens:
            raise UserError(
                f"The option {option!r} has no token to score. Change prompt.option_template or the option."
            )
        return tokens

    def _values(self, question: Question, phrasing: int) -> dict[str, str]:
        subject = self.spec.subjects.get(question.domain, question.domain.replace("_", " "))
        return {"stem": question.stems[phrasing], "subject": subject}

    def _wrapped(self, text: str) -> str:
        if not self.spec.chat:
            return text
        return self.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
        )


def _filled(text: str, values: Mapping[str, str]) -> str:
    """The text with `{name}` replaced by its value, in one pass: braces in a value are text."""
    return re.sub("|".join(f"{{({name})}}" for name in values), lambda match: values[match[0][1:-1]], text)
