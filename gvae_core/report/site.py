"""The report's folder as a web site: an index that opens with the findings, its pictures, and links to the pages."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import nbformat
from jinja2 import Environment

from ..files import COMMITTED, write_atomically, write_text
from . import pages, papers, words

TEMPLATE = Path(__file__).with_name("index.html.j2")


@dataclass
class Row:
    """A notebook on the index; what its executed .ipynb shows is read by `write_index`."""

    name: str
    title: str
    result: str
    page: str = ""
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    lead: str = ""  # the first paragraph
    figures: list[dict[str, str]] = field(default_factory=list)
    explorers: list[str] = field(default_factory=list)


def write_index(folder: Path, rows: list[Row], profile: str, outputs: Path) -> Path:
    """Write ``folder``/index.html over the notebooks' pages in it, and the pictures that it shows.

    Findings are those that `publish` kept of the committed results, beside them what the runs in ``outputs`` say of
    this profile.
    """
    committed = COMMITTED.parent
    shutil.rmtree(folder / "pictures", ignore_errors=True)
    file = committed / "findings.json"
    full = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    here = {}
    if profile == "quick":  # of paper they are the same, of smoke they are no result
        from . import findings  # loads torch

        here = findings.numbers(outputs / "runs", profile, outputs / "tables" / profile / "reconstructions.json")
    pictures = {name: path for name in words.FIGURES if (path := committed / f"{name}_full_size.png").is_file()}
    for path in pictures.values():
        write_atomically(folder / "pictures" / path.name, partial(shutil.copyfile, path))
    for row in rows:
        if row.page and (folder / f"{row.name}.ipynb").is_file():
            _read(row, folder, outputs / "figures" / profile)
    text = Environment(autoescape=True, trim_blocks=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
    shown = dict(
        style=pages.STYLE.read_text(encoding="utf-8"),
        profile=profile,
        rows=rows,
        linked=[row.name for row in rows if row.page],
        failed=sum(row.result == "FAILED" for row in rows),
        full=full,
        here=here,
        pictures={name: path.name for name, path in pictures.items()},
        captions=words.FIGURES,
        papers=papers,
    )
    write_text(folder / "index.html", text.render(shown))
    return folder / "index.html"


def _read(row: Row, folder: Path, explorers: Path) -> None:
    """Fill a row from its executed notebook, and write the pictures that it shows of its figures."""
    notebook = nbformat.read(folder / f"{row.name}.ipynb", as_version=4)
    first = notebook.cells[0] if notebook.cells else {"cell_type": ""}
    title, *paragraphs = first["source"].split("\n\n", 2) if first["cell_type"] == "markdown" else [""]
    if row.title == row.name and title.startswith("# "):  # of an earlier batch
        row.title = title.removeprefix("# ")
    row.lead = pages.markdown(paragraphs[0]) if paragraphs else ""
    row.explorers = [page.stem for page in pages.explorers(notebook, explorers)]
    for figure in pages.figures(notebook):
        number, caption = figure.metadata.figure, pages.markdown(figure.metadata.caption)
        row.figures.append({"file": f"{row.name}-{number}.png", "anchor": f"figure-{number}", "caption": caption})
        png = base64.b64decode(figure.data["image/png"])
        write_atomically(folder / "pictures" / row.figures[-1]["file"], lambda path: path.write_bytes(png))
