"""Pages of executed notebooks: what is in the text."""

import base64
import re
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

from gvae_core.report.pages import write_page

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.py"))


def page_of(notebook, tmp_path) -> str:
    nbformat.write(notebook, tmp_path / "executed.ipynb")
    write_page(tmp_path / "executed.ipynb", tmp_path / "page.html", title="A page", folder=tmp_path)
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
