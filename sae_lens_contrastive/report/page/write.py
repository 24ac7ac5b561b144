"""Write the page: everything in one file, nothing from anywhere else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from sae_lens_contrastive.files import write_bytes_atomic
from sae_lens_contrastive.report.examples import FoundExamples, load_examples
from sae_lens_contrastive.report.measures import measures_cells
from sae_lens_contrastive.report.page.parts import plot_data, plot_sections, shown_features
from sae_lens_contrastive.report.page.text import plotly_json, visible
from sae_lens_contrastive.report.provenance import hash_cells, load_configurations, version_cells
from sae_lens_contrastive.report.results import SavedResults
from sae_lens_contrastive.report.table import Cells, results_cells

PAGE_FILE = "report.html"


@dataclass(frozen=True)
class Table:
    """A table of the page."""

    caption: str
    """What it shows."""
    cells: Cells
    """Header and lines."""

    @property
    def row_header(self) -> int:
        """Place of the column that names a line."""
        return self.cells.header.index("variant") if "variant" in self.cells.header else 0


def write_page(results: SavedResults, folder: Path | str) -> Path:
    """Write `report.html` into a folder and return its path.

    Beside the results, it shows the examples and the configurations found below the folder. Raises `UserError` for a
    file among them that is damaged.
    """
    folder = Path(folder)
    examples = load_examples(folder)
    sections = plot_sections(results)
    plotly, script = _script(get_plotlyjs()), _script(_asset("page.js"))
    html = (
        _environment()
        .get_template("page.html")
        .render(
            title=_title(results, folder),
            tables=_tables(results),
            sections=sections,
            features=[(found, shown_features(found)) for found in examples if found.examples.features],
            questions=[found for found in examples if found.examples.questions],
            seeds=_seeds(results, examples),
            provenance=_provenance(results),
            configurations=load_configurations(folder),
            plots=plotly_json(plot_data(sections)),
            scripts=[plotly, script],
            style=Markup(_asset("page.css")),
            policy=_policy([plotly, script]),
            version=version("sae-lens-contrastive"),
        )
    )
    return write_bytes_atomic(folder / PAGE_FILE, html.encode())


def _environment() -> Environment:
    # Every value goes through `visible`, then is escaped.
    return Environment(
        loader=PackageLoader(__name__.rpartition(".")[0], "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _title(results: SavedResults, folder: Path) -> str:
    domains = ", ".join(dict.fromkeys(row["forget_domain"] for row in results.rows))
    return f"Forgetting {domains}" if domains else f"Training in {folder.resolve().name}"


def _tables(results: SavedResults) -> list[tuple[str, Table]]:
    if not results.rows:
        return []
    tables = [("Results", Table("What each SAE makes the model forget and keep", results_cells(results.rows)))]
    if (measures := measures_cells(results.rows)) is not None:
        tables.append(("Measures", Table("What was measured beside the questions, at the chosen setting", measures)))
    return tables


def _provenance(results: SavedResults) -> list[Table]:
    found = (
        ("Packages that computed the results", version_cells(results.rows)),
        ("SHA-256 of what each result depends on", hash_cells(results.rows)),
    )
    return [Table(caption, cells) for caption, cells in found if cells is not None]


def _seeds(results: SavedResults, examples: Sequence[FoundExamples]) -> list[int]:
    """Seeds of everything on the page."""
    seeds: list[Any] = [row["seed"] for row in results.rows]
    seeds += [run.seed for run in results.runs] + [found.examples.seed for found in examples]
    return sorted(set(seeds))


def _asset(name: str) -> str:
    return (Path(__file__).parent / "assets" / name).read_text(encoding="utf-8")


def _script(text: str) -> Markup:
    # A script's hash is of what the parser hands on: line ends become one character.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    assert "</script" not in text.lower()
    return Markup(text)


def _policy(scripts: Sequence[str]) -> str:
    """Content-Security-Policy: only these two scripts run, and nothing is requested from anywhere.

    Plotly writes style elements, so styles are allowed to the page itself.
    """
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    return "; ".join(
        (
            "default-src 'none'",
            "script-src " + " ".join(f"'sha256-{each}'" for each in hashes),
            "style-src 'unsafe-inline'",
            # A plot that is saved as a picture passes through a URL of the page's own.
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
