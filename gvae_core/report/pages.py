"""An executed notebook -> one HTML page that stands alone: it needs neither kernel nor network."""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Mapping
from pathlib import Path

import nbformat
from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors import CoalesceStreamsPreprocessor, Preprocessor
from nbformat import NotebookNode

from ..files import write_text
from . import live

_VIEW = "application/vnd.jupyter.widget-view+json"
_STATE = "application/vnd.jupyter.widget-state+json"
# nbconvert's plainest template, without scripts from the network: formulas are MathML, widgets still or live.
TEMPLATE = Path(__file__).with_name("page.html.j2")
STYLE = Path(__file__).with_name("style.css")
# The explorer's page is made for a window of its own.
_IN_FRAME = "<style>body { margin: 0; padding: 0; max-width: none } canvas { max-width: 100%; height: auto !important }"
_CAPTION = re.compile(r"(?:\A|\n\n)\*(?!\*)([^*]+)\*\s*\Z")


def write_page(executed: Path, page: Path, *, title: str, folder: Path, pages: Path | None = None) -> None:
    """Write the executed notebook as a page, figures and explorers inside.

    Parameters
    ----------
    title : of the page
    folder : pictures in the notebook's text are relative to it
    pages : folder of what `live.save` wrote; a widget without one is shown as a still picture
    """
    exporter = HTMLExporter(
        template_name="basic",
        raw_template=TEMPLATE.read_text(encoding="utf-8"),
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    exporter.log.setLevel(logging.ERROR)  # nbconvert warns about every figure without a text
    exporter.register_filter("markdown2html", _markdown2html)
    # Outputs inside widgets first, then their text bars are reduced to the final state as well.
    for preprocessor in (_Captions, _Widgets, CoalesceStreamsPreprocessor):
        exporter.register_preprocessor(preprocessor, enabled=True)
    metadata = {"name": title, "path": str(folder)}
    resources = {"metadata": metadata, "style": STYLE.read_text(encoding="utf-8"), "pages": pages}
    text, _ = exporter.from_notebook_node(nbformat.read(executed, as_version=4), resources)
    write_text(page, text)


def figures(notebook: NotebookNode) -> list[NotebookNode]:
    """The figures of an executed notebook: outputs whose metadata then have ``figure``, the number, and ``caption``.

    A caption is the emphasised last paragraph of the text above the figure, or else the heading above it.
    """
    found, caption = [], ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            own, headings = _CAPTION.search(cell.source), re.findall(r"^#+ +(.*)", cell.source, re.MULTILINE)
            caption = own[1] if own else headings[-1] if headings else caption
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                found.append(output)
                output.metadata.update(figure=len(found), caption=caption)
    return found


def explorers(notebook: NotebookNode, folder: Path) -> list[Path]:
    """The pages in ``folder`` of the explorers that an executed notebook shows."""
    state = _state(notebook)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [page for output in outputs if (page := _live(output, state, folder))]


def markdown(source: str, **renderer: object) -> str:
    """Markdown -> HTML with formulas as MathML; what may be wider than a page scrolls in itself."""
    text = MarkdownWithMath(renderer=_Renderer(escape=False, embed_images=True, **renderer)).render(source)
    return text.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")


class _Renderer(IPythonRenderer):
    """nbconvert's, but formulas become MathML; one that cannot be read stays TeX."""

    def inline_math(self, body: str) -> str:
        return _mathml(body, "inline") or super().inline_math(body)

    def block_math(self, body: str) -> str:
        formula = _mathml(body, "block")
        return f'<div class="wide">{formula}</div>' if formula else super().block_math(body)


def _mathml(formula: str, display: str) -> str:
    try:
        return convert(formula, display=display)
    except Exception:  # latex2mathml's errors share no base class
        return ""


@pass_context
def _markdown2html(context: Mapping, source: str) -> str:
    attachments = context.get("cell", {}).get("attachments", {})
    return markdown(source, attachments=attachments, path=context["resources"]["metadata"]["path"])


class _Captions(Preprocessor):
    """Number the figures; a caption that stands in the text goes under its figure."""

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        used = {output.metadata.caption for output in figures(nb)}
        for cell in nb.cells:
            if cell.cell_type == "markdown" and (own := _CAPTION.search(cell.source)) and own[1] in used:
                cell.source = cell.source[: own.start()]
        return nb, resources


class _Widgets(Preprocessor):
    """Replace widget views, which need a kernel, by their live pages, or by the pictures and outputs that they hold."""

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        state = _state(nb)
        nb.metadata.pop("widgets", None)
        for cell in nb.cells:
            if cell.cell_type == "code":
                cell.outputs = [shown for out in cell.outputs for shown in _shown(out, state, resources["pages"])]
        return nb, resources


def _state(notebook: NotebookNode) -> Mapping[str, Mapping]:
    """The widgets of an executed notebook, by model."""
    return notebook.metadata.get("widgets", {}).get(_STATE, {}).get("state", {})


def _live(output: Mapping, state: Mapping[str, Mapping], folder: Path | None) -> Path | None:
    """The page to be shown for an output that is a view of a widget; None where none was saved."""
    view = output.get("data", {}).get(_VIEW, {"model_id": ""})
    classes = state.get(view["model_id"], {}).get("state", {}).get("_dom_classes", ())
    return live.page(classes, folder) if folder else None


def _shown(output: NotebookNode, state: Mapping[str, Mapping], folder: Path | None) -> list[NotebookNode]:
    view = output.get("data", {}).get(_VIEW)
    if view is None:
        return [output]
    if page := _live(output, state, folder):
        text = page.read_text(encoding="utf-8").replace("</head>", f"{_IN_FRAME}</style></head>", 1)
        frame = f'<iframe class="live" id="{page.stem}" title="{page.stem}" onload="fit(this)" srcdoc="%s"></iframe>'
        return [nbformat.v4.new_output("display_data", {"text/html": frame % html.escape(text)})]
    note = "<p><em>A widget stands here: open the notebook in JupyterLab to use it.</em></p>"
    note = nbformat.v4.new_output("display_data", {"text/html": note})
    return [note, *_inside(view["model_id"], state)]


def _inside(model: str, state: Mapping[str, Mapping]) -> list[NotebookNode]:
    widget = state.get(model, {"state": {}})
    found = [nbformat.from_dict(out) for out in widget["state"].get("outputs", ())]
    for buffer in widget.get("buffers", ()):
        if widget.get("model_name") == "ImageModel" and buffer["path"] == ["value"]:
            mime = f"image/{widget['state'].get('format') or 'png'}"
            found.append(nbformat.v4.new_output("display_data", {mime: buffer["data"]}))
    for child in widget["state"].get("children", ()):
        found += _inside(child.removeprefix("IPY_MODEL_"), state)
    return [still for out in found for still in _shown(out, state, None)]
