"""Pages of HTML in which the text of tokens stays text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.report.page.text import visible

# The JSON of a page stands on a line of its own.
_DATA = re.compile(r"^( *return )(\{.*\})(;)$", re.MULTILINE)
_TOKEN = "${tok}"
_ESCAPED = "${asText(tok)}"
_AS_TEXT = """
function asText(tok) {
    return tok.replace(/[&<>"'`]/g, (character) => `&#${character.charCodeAt(0)};`);
}
"""


@dataclass(frozen=True)
class IndexRow:
    """What the index says of a feature."""

    feature: int
    """Its number."""
    page: str
    """Its page, from the folder of the index."""
    rates: Sequence[float]
    """Share of the tokens of each text on which it fires."""
    highest: float
    """Its highest activation on all of them."""


def index_page(name: str, model: str, hook_name: str, texts: dict[str, list[str]], rows: Sequence[IndexRow]) -> str:
    """A page that lists the features; `texts` are {name: sources}."""
    environment = Environment(
        loader=PackageLoader(__name__.rpartition(".")[0], "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("index.html").render(
        name=name, model=model, hook_name=hook_name, texts=texts, rows=rows
    )


def harmless(page: str) -> str:
    """A page of SAEDashboard in which no token can be markup.

    SAEDashboard writes tokens into a script element and into HTML as they are. Raises `UserError` if the page is not
    built as expected.
    """
    page, n_data = _DATA.subn(lambda found: f"{found[1]}{found[2].replace('<', chr(92) + 'u003c')}{found[3]}", page)
    if n_data != 1 or _TOKEN not in page:
        raise UserError(
            "This version of sae-dashboard writes other pages than 0.8.0 does. Install sae-dashboard==0.8.0."
        )
    return page.replace(_TOKEN, _ESCAPED).replace("<script>", f"<script>{_AS_TEXT}", 1)
