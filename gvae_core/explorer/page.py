"""The explorer as one HTML file: views at every few degrees, and a slider that needs no kernel."""

from __future__ import annotations

import base64
import io
import json
import string
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from ..files import write_text
from . import markup
from .turn import ANGLES, STEP, Turn

LIMIT = 3_000_000  # bytes of the file
QUALITY = 80  # of WebP, whose artefacts at this size nobody sees
_TEMPLATE = Path(__file__).with_suffix(".html")


def save_page(path: str | Path, turn: Turn, yardsticks: Mapping[str, float]) -> Path:
    """Write the full turn, in steps of `STEP` degrees, as a page that works from disk, light and dark.

    Parameters
    ----------
    turn : the images and models to show
    yardsticks : typical angle (degrees) between different images, by model

    Raises
    ------
    ValueError : the file would be larger than `LIMIT`; nothing is written
    """
    width, height = turn.tiles.screen_size
    plots = {
        "dial": markup.Dial.of(turn),
        "polar": markup.PolarPlot(turn, yardsticks),
        "sphere": markup.SpherePlot.of(turn),
    }
    texts = {"dial": markup.DIAL, "polar": markup.POLAR, "sphere": markup.SPHERE}
    views = []
    for view in turn.views(ANGLES):
        views.append(
            {
                "picture": _webp(view.png),
                "numbers": markup.numbers(view, yardsticks, turn.tiles.row),
                **{name: plot.marker(view) for name, plot in plots.items() if plot},
            }
        )
    text = string.Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        style=markup.STYLE,
        dark=markup.DARK,
        heading=markup.HEADING,
        names=markup.names(turn),
        width=f"{width:.0f}",
        height=f"{height:.0f}",
        pixels="{} {}".format(*turn.tiles.size),
        plot=markup.PLOT,
        step=STEP,
        plots="\n".join(_section(name, *texts[name], plot.background) for name, plot in plots.items() if plot),
        views=json.dumps(views, ensure_ascii=False).replace("</", "<\\/"),
    )
    size = len(text.encode())
    if size > LIMIT:
        raise ValueError(f"expected a page of at most {LIMIT:,} bytes, got {size:,}; show fewer images")
    write_text(Path(path), text)
    return Path(path)


def _section(name: str, title: str, caption: str, background: str) -> str:
    """A plot: its background and, over it, where the script puts the marker."""
    stack = f'<div class="stack"><div>{background}</div><div id="{name}"></div></div>'
    return f'<section><p class="gvae-title">{title}</p>\n{stack}<p class="gvae-small">{caption}</p></section>'


def _webp(png: bytes) -> str:
    """PNG -> WebP as a data URI; a tenth of the size."""
    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(png))
    (image if image.mode == "RGBA" else image.convert("LA").convert("RGBA")).save(buffer, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
