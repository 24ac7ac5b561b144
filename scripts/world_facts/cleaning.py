"""Which of the sampled texts are worth keeping."""

from __future__ import annotations

import re
from collections import Counter

# Forty tokens, at about 0.75 words a token.
MIN_WORDS = 30
_REFUSALS = ("i'm sorry", "i am sorry", "i apologize", "as an ai", "as a language model",
             "i cannot", "i can't", "i don't have personal", "i'm not able to")  # fmt: skip
# The full stop of a list number ("4.") ends no sentence.
_SENTENCE_END = re.compile(r"(?<!\s\d)(?<!\s\d\d)[.!?][\"')\]*]*(?=\s|$)")


def trimmed(text: str, ended: bool) -> str:
    """The text up to its last full sentence; all of it if the model ended it itself."""
    text = text.strip()
    if ended:
        return text
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]].rstrip() if ends else ""


def before_loop(text: str, size: int = 8, limit: int = 3) -> str:
    """The text up to the end of the sentence before some run of `size` words occurs the `limit`-th time."""
    words = list(re.finditer(r"[^\W\d]+", text))  # numbers out: "4. It is a country. 5. It is a country."
    runs: Counter[tuple[str, ...]] = Counter()
    for i in range(len(words) - size + 1):
        run = tuple(word.group().casefold() for word in words[i : i + size])
        runs[run] += 1
        if runs[run] == limit:
            return trimmed(text[: words[i].start()], ended=False)
    return text


def babbles(text: str) -> bool:
    """Whether the words hardly vary, or one character in twenty is outside Latin script."""
    words = text.casefold().split()
    foreign = sum(ord(character) > 0x24F and not 0x2010 <= ord(character) <= 0x2026 for character in text)
    return len(set(words)) < 0.3 * len(words) or 20 * foreign > len(text)


def refuses(text: str) -> bool:
    """Whether the model declined, or spoke of itself, at the start."""
    head = text[:200].casefold().replace("\u2019", "'")
    return any(phrase in head for phrase in _REFUSALS)


def kept_text(text: str, ended: bool) -> str | None:
    """The part of an answer worth keeping, or None if that is little, a refusal or babble."""
    text = before_loop(trimmed(text, ended))
    return None if len(text.split()) < MIN_WORDS or refuses(text) or babbles(text) else text
