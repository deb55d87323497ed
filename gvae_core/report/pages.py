"""An executed notebook -> one HTML page that stands alone: it needs neither kernel nor network."""

from __future__ import annotations

import logging
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

_VIEW = "application/vnd.jupyter.widget-view+json"
_STATE = "application/vnd.jupyter.widget-state+json"
# The lab template without its scripts, which come from the network: widgets are still, formulas are MathML.
_TEMPLATE = """
{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
"""


def write_page(executed: Path, page: Path, *, title: str, folder: Path) -> None:
    """Write the executed notebook as a page, figures inside; pictures in its text are relative to ``folder``."""
    exporter = HTMLExporter(raw_template=_TEMPLATE, embed_images=True)
    exporter.log.setLevel(logging.ERROR)  # nbconvert warns about every figure without a text
    exporter.register_filter("markdown2html", _markdown)
    # Outputs inside widgets first, then their text bars are reduced to the final state as well.
    exporter.register_preprocessor(_StillWidgets, enabled=True)
    exporter.register_preprocessor(CoalesceStreamsPreprocessor, enabled=True)
    metadata = {"name": title, "path": str(folder)}
    text, _ = exporter.from_notebook_node(nbformat.read(executed, as_version=4), {"metadata": metadata})
    write_text(page, text)


class _Renderer(IPythonRenderer):
    """nbconvert's, but formulas become MathML; one that cannot be read stays TeX."""

    def inline_math(self, body: str) -> str:
        return _mathml(body, "inline") or super().inline_math(body)

    def block_math(self, body: str) -> str:
        return _mathml(body, "block") or super().block_math(body)


def _mathml(formula: str, display: str) -> str:
    try:
        return convert(formula, display=display)
    except Exception:  # latex2mathml's errors share no base class
        return ""


@pass_context
def _markdown(context: Mapping, source: str) -> str:
    renderer = _Renderer(
        escape=False,
        attachments=context.get("cell", {}).get("attachments", {}),
        embed_images=True,
        path=context["resources"]["metadata"]["path"],
    )
    return MarkdownWithMath(renderer=renderer).render(source)


class _StillWidgets(Preprocessor):
    """Replace widget views, which need a kernel, by the pictures and the outputs that they hold."""

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        state = nb.metadata.pop("widgets", {}).get(_STATE, {}).get("state", {})
        for cell in nb.cells:
            if cell.cell_type == "code":
                cell.outputs = [still for out in cell.outputs for still in _still(out, state)]
        return nb, resources


def _still(output: NotebookNode, state: Mapping[str, Mapping]) -> list[NotebookNode]:
    view = output.get("data", {}).get(_VIEW)
    if view is None:
        return [output]
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
    return [still for out in found for still in _still(out, state)]
