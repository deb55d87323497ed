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
    turn : the digits and models to show
    yardsticks : typical angle (degrees) between different digits, by model

    Raises
    ------
    ValueError : the file would be larger than `LIMIT`; nothing is written
    """
    width, height = turn.screen_size
    plots = {"polar": markup.PolarPlot(turn, yardsticks), "sphere": markup.SpherePlot.of(turn)}
    views = []
    for view in turn.views(ANGLES):
        views.append(
            {
                "picture": _webp(view.png),
                "numbers": markup.numbers(view, yardsticks),
                **{name: plot.marker(view) for name, plot in plots.items() if plot},
            }
        )
    text = string.Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        style=markup.STYLE,
        dark=markup.DARK,
        heading=markup.HEADING,
        names=markup.names(list(turn.models)),
        width=f"{width:.0f}",
        height=f"{height:.0f}",
        pixels="{} {}".format(*turn.size),
        plot=markup.PLOT,
        polar_title=markup.POLAR[0],
        polar_caption=markup.POLAR[1],
        sphere_title=markup.SPHERE[0],
        sphere_caption=markup.SPHERE[1],
        step=STEP,
        polar=plots["polar"].background,
        sphere=plots["sphere"].background if plots["sphere"] else "",
        hidden="" if plots["sphere"] else "hidden",
        views=json.dumps(views, ensure_ascii=False).replace("</", "<\\/"),
    )
    size = len(text.encode())
    if size > LIMIT:
        raise ValueError(f"expected a page of at most {LIMIT:,} bytes, got {size:,}; show fewer digits")
    write_text(Path(path), text)
    return Path(path)


def _webp(png: bytes) -> str:
    """PNG -> WebP as a data URI; a tenth of the size."""
    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(png))
    (image if image.mode == "RGBA" else image.convert("LA").convert("RGBA")).save(buffer, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
