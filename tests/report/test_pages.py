"""Pages of executed notebooks: what is in the text."""

import base64
import html
import re
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from gvae_core.report.pages import write_page

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.py"))


def page_of(notebook, tmp_path) -> str:
    nbformat.write(notebook, tmp_path / "executed.ipynb")
    write_page(tmp_path / "executed.ipynb", tmp_path / "page.html", title="A page", folder=tmp_path, pages=tmp_path)
    return (tmp_path / "page.html").read_text()


def page_of_text(text: str, tmp_path, **cell) -> str:
    page = page_of(new_notebook(cells=[new_markdown_cell(text, **cell)]), tmp_path)
    assert "<title>A page</title>" in page
    return page[page.index("<main>") :]


def test_formulas_are_mathml_and_code_is_not(tmp_path):
    page = page_of_text(r"The mean $\kappa^2 / 2d$ in `$HOME` and `$OUT`, and $$\frac{a}{b}$$", tmp_path)
    assert re.findall(r'<math [^>]*display="(\w+)"', page) == ["inline", "block"]
    assert "<msup><mi>κ</mi><mn>2</mn></msup>" in page and "<mfrac>" in page
    assert "<code>$HOME</code> and <code>$OUT</code>" in page


def test_a_formula_that_cannot_be_read_stays_tex(tmp_path):
    page = page_of_text(r"$a_1_2$ and $$\left(x$$ but $b$", tmp_path)
    assert "$a_1_2$" in page and r"$$\left(x$$" in page and page.count("<math ") == 1


def test_pictures_in_the_text_are_inside(tmp_path):
    (tmp_path / "beside.png").write_bytes(b"a file beside the notebook")
    attachments = {"pasted.png": {"image/png": base64.b64encode(b"a pasted picture").decode()}}
    page = page_of_text("![](beside.png) ![](attachment:pasted.png)", tmp_path, attachments=attachments)
    for content in (b"a file beside the notebook", b"a pasted picture"):
        assert base64.b64encode(content).decode() in page


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_reports_pages_take_nothing_from_the_network(path, tmp_path):
    page = page_of(jupytext.read(path), tmp_path)
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]* (?:src|href)=", page)
    assert not re.search(r"\$[^<$]+\$", page[page.index("<main>") :])  # no formula is left as TeX


def figure(*_: object) -> dict:
    return new_output("display_data", {"image/png": base64.b64encode(b"a figure").decode()})


def test_captions_come_from_the_notebook(tmp_path):
    cells = [
        new_markdown_cell('# Title\n\n## A heading\n\nSome *text* before.\n\n*Said of $x^2$ & "more",\nin two lines.*'),
        new_code_cell("1", outputs=[figure()]),
        new_markdown_cell("## Another *heading*\n\nText."),
        new_code_cell("2", outputs=[figure(), figure()]),
    ]
    page = page_of(new_notebook(cells=cells), tmp_path)
    captions = re.findall(r'<figure id="figure-(\d)">.*?<figcaption><p>(.*?)</p>', page, re.DOTALL)
    assert [number for number, _ in captions] == ["1", "2", "3"]
    assert captions[0][1].startswith("Said of <math") and "in two lines." in captions[0][1]
    assert [caption for _, caption in captions[1:]] == ["Another <em>heading</em>"] * 2
    assert page.count("in two lines") == 2  # under the figure and in its alt text, no longer above it


def test_an_explorer_is_shown_as_the_page_that_was_saved(tmp_path):
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "m", "version_major": 2, "version_minor": 0}}
    notebook = new_notebook(cells=[new_code_cell("explorer", outputs=[new_output("display_data", view)])])
    model = {"model_name": "VBoxModel", "state": {"_dom_classes": ["gvae", "gvae-page-mine"]}}
    notebook.metadata.widgets = {"application/vnd.jupyter.widget-state+json": {"state": {"m": model}}}
    assert "A widget stands here" in page_of(notebook, tmp_path)  # never saved
    (tmp_path / "mine.html").write_text('<head></head><p title="quoted">Drag & drop</p>')
    page = page_of(notebook, tmp_path)
    assert '<iframe class="live" id="mine"' in page and "A widget stands here" not in page
    assert '<p title="quoted">Drag & drop</p>' in html.unescape(page[page.index("<iframe") :])
