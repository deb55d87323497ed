"""HTML and SVG of the rotation explorer, for the notebook and the saved page alike. No widgets here.

The plots have two layers of the same size: a background, drawn once per choice of digits and models,
and a marker, drawn at every angle.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .tiles import ROW
from .turn import ANGLES, Found, Turn, View

PLOT = 236  # side of a plot in screen pixels
HEADING = "Drag the slider: what turns along, and what stands still?"
COLOURS = ("var(--gvae-1)", "var(--gvae-2)")  # of the first and the second model
# Okabe and Ito's palette, its brighter half on dark pages; JupyterLab's own variables for all else.
DARK = "--gvae-1: #56B4E9; --gvae-2: #E69F00"
STYLE = """
.gvae { --gvae-1: #0072B2; --gvae-2: #D55E00; color: var(--jp-ui-font-color1); line-height: 1.35 }
[data-jp-theme-light="false"] .gvae { DARK }
.gvae .widget-html-content { line-height: inherit; font-size: inherit }
.gvae .gvae-heading { font-size: 17px; font-weight: 600; margin: 2px 0 6px }
.gvae .gvae-picture { display: block; width: 100%; height: 100% }
.gvae .gvae-column { display: flex; flex-direction: column; font-size: 13px }
.gvae .gvae-cell { height: var(--gvae-row); display: flex; flex-direction: column; justify-content: center;
  white-space: nowrap; overflow: hidden }
.gvae .gvae-name { font-weight: 600; font-size: 14px; overflow: hidden; text-overflow: ellipsis; padding-right: 4px }
.gvae .gvae-name::before { content: ""; display: inline-block; width: 10px; height: 10px; margin-right: 7px;
  background: var(--swatch, transparent); border-radius: var(--round, 0) }
.gvae .gvae-name:not([style])::before { display: none }
.gvae .gvae-name[style] + .gvae-small { margin-left: 17px; white-space: normal; line-height: 14px }
.gvae .gvae-small { font-size: 12px; color: var(--jp-ui-font-color2); overflow: hidden; text-overflow: ellipsis }
.gvae .gvae-bar { height: 6px; width: 160px; margin: 2px 0; background: var(--jp-border-color2); border-radius: 3px }
.gvae .gvae-bar div { height: 100%; border-radius: 3px }
.gvae .gvae-title { font-weight: 600; font-size: 13px; margin: 0 }
.gvae .gvae-error { color: var(--jp-error-color0, #b00020) }
.gvae .gvae-pad { background: black; cursor: crosshair; touch-action: none; border-radius: 4px;
  outline: 1px solid var(--jp-border-color1) }
.gvae .noUi-handle { background: var(--gvae-1) }
.gvae .gvae-pick { height: 62px; margin: 2px 4px 2px 2px; padding: 42px 0 0; line-height: 18px;
  opacity: .4; background: var(--jp-layout-color2) no-repeat center 3px / 40px 40px; border-radius: 4px;
  box-shadow: none !important }
.gvae .gvae-pick.mod-active { opacity: 1; outline: 2px solid var(--gvae-1); background-color: var(--jp-layout-color2) }
.gvae svg { display: block }
.gvae svg text { font: 11px var(--jp-ui-font-family, system-ui, sans-serif); fill: var(--jp-ui-font-color2) }
.gvae svg .gvae-grid { fill: none; stroke: var(--jp-border-color1); stroke-width: 1 }
.gvae svg .gvae-hand { stroke: var(--jp-ui-font-color1); stroke-width: 1; opacity: .55 }
.gvae svg .gvae-mark { stroke: var(--jp-layout-color0); stroke-width: 1.5 }
.gvae svg .gvae-arc { fill: none; opacity: .35 }
""".replace("DARK", DARK)


# --- the columns beside the picture ---------------------------------------------------------------


def names(turn: Turn) -> str:
    """What each row of the picture shows; of a model's name the parts " · " separates: title, then details."""
    cells = ['<div class="gvae-name">rotated input</div>']
    for (name, rows), colour, rounding in zip(turn.rows.items(), COLOURS, ("50%", "0")):
        title, *details = (html.escape(part) for part in name.split(" · "))
        swatch = f'<div class="gvae-name" style="--swatch:{colour};--round:{rounding}">'
        detail = details[0] if details else ""
        cells.append(f'{swatch}{title}</div><div class="gvae-small" title="{detail}">{detail}</div>')
        if rows == 2:
            cells.append(f'{swatch}canonical view</div><div class="gvae-small">input, turned back</div>')
    return _column(cells, turn.tiles.row)


def numbers(view: View, yardsticks: Mapping[str, float], row: float = ROW) -> str:
    """The `Measures` beside each row: drift as a bar against the typical angle between images; and the angle found."""
    cells = [f"<div>turned by <b>{view.angle}°</b></div>"]
    for (name, measures), colour in zip(view.measures.items(), COLOURS):
        typical, found = yardsticks[name], view.found.get(name)
        known = math.isfinite(typical) and typical > 0
        share = min(100.0, 100 * measures.drift / typical) if known else 0
        compared = "image as it came, turned" if found else "upright original"
        cells.append(
            f'<div title="angle between the latent means now and at 0°">code moved <b>{measures.drift:.1f}°</b></div>'
            f'<div class="gvae-bar"><div style="width:{share:.0f}%;background:{colour}"></div></div>'
            '<div class="gvae-small" title="typical angle between the codes of images of different classes, '
            'or of different images where there are no classes">'
            + (f"of {typical:.0f}° between images</div>" if known else "</div>")
            + f'<div class="gvae-small" title="mean squared error per pixel against the {compared}; '
            f'concentration of the posterior">error {measures.error:.3f} · κ {measures.concentration:.0f}</div>'
        )
        if found:
            cells.append(
                '<div title="the pose found now less that at 0°; of several images the mean direction">'
                f"angle found <b>{found.mean:.1f}°</b></div>"
                '<div class="gvae-small" title="half the arc that holds 90 % of the posterior; of several images the '
                f'mean">90 % within ±{found.arcs.mean():.0f}°</div>'
            )
    return _column(cells, row)


def _column(cells: Sequence[str], row: float) -> str:
    inside = "".join(f'<div class="gvae-cell">{cell}</div>' for cell in cells)
    return f'<div class="gvae-column" style="--gvae-row:{row:g}px">{inside}</div>'


# --- plots ----------------------------------------------------------------------------------------


def _svg(content: str, description: str = "") -> str:
    label = f' role="img" aria-label="{html.escape(description)}"' if description else ' aria-hidden="true"'
    half = PLOT / 2
    return f'<svg width="{PLOT}" height="{PLOT}" viewBox="{-half} {-half} {PLOT} {PLOT}"{label}>{content}</svg>'


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _mark(x: float, y: float, index: int, size: float = 5, title: str = "") -> str:
    """A dot for the first model, a square for the second: not told apart by colour alone."""
    fill = f'class="gvae-mark" style="fill:{COLOURS[index]}"'
    inside = f"<title>{html.escape(title)}</title>" if title else ""
    if index == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:g}" {fill}>{inside}</circle>'
    x, y, side = x - 0.9 * size, y - 0.9 * size, 1.8 * size
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{side:g}" height="{side:g}" {fill}>{inside}</rect>'


def _on_circle(angle: float, radius: float) -> tuple[float, float]:
    """0° is up, and angles grow counter-clockwise, as the images turn."""
    radians = math.radians(angle)
    return -radius * math.sin(radians), -radius * math.cos(radians)


def _compass() -> str:
    """Names of the four directions, around the plot."""
    edge = PLOT / 2
    return (
        f'<text y="{-edge + 18}" text-anchor="middle">0°</text><text x="{-edge}" y="4">90°</text>'
        f'<text y="{edge - 12}" text-anchor="middle">180°</text><text x="{edge}" y="4" text-anchor="end">−90°</text>'
    )


def note(*lines: str) -> str:
    """Lines of text in place of a plot."""
    parts = [f'<circle r="{PLOT / 2 - 27}" class="gvae-grid" style="stroke-dasharray:1 5"/>']
    parts += [f'<text y="{16 * row}" text-anchor="middle">{html.escape(line)}</text>' for row, line in enumerate(lines)]
    return _svg("".join(parts))


def error(exception: Exception) -> str:
    """An exception as a line on the page."""
    return f'<div class="gvae-error"><b>{type(exception).__name__}</b>: {html.escape(str(exception))}</div>'


DIAL = "Angle found", "thin: the slider; bold: found; a ring an image"
POLAR = "How far the code moves", "distance from the centre; dashed: to another image"
SPHERE = "Codes on the latent sphere", "lines: the full turn; pale: the far side"


class Dial:
    """The angle found beside the slider's, for the models with a pose: 0° is up, and all turns as the images do.

    The hand is the slider's angle. Each image has a ring of its own, the first one innermost, with a mark at the angle
    that the model finds, against that at 0°, and the arc that holds 90 % of its posterior; the needle is their mean
    direction. `Dial.of` gives None if no model has a pose.
    """

    radius = PLOT / 2 - 27
    inner = 0.5  # where the rings begin

    def __init__(self, turn: Turn):
        self._digits = list(turn.digits)
        self._index = {name: index for index, name in enumerate(turn.models)}

    @classmethod
    def of(cls, turn: Turn) -> Dial | None:
        return cls(turn) if any(rows == 2 for rows in turn.rows.values()) else None

    @property
    def _step(self) -> float:
        """From one image's ring to the next."""
        return (1 - self.inner) * self.radius / (len(self._digits) + 1)

    @property
    def _rings(self) -> list[float]:
        return [self.inner * self.radius + self._step * ring for ring in range(1, len(self._digits) + 1)]

    @property
    def background(self) -> str:
        parts = [f'<circle r="{self.radius:g}" class="gvae-grid"/>', _compass()]
        parts += [f'<circle r="{ring:.1f}" class="gvae-grid" style="opacity:.35"/>' for ring in self._rings]
        for angle in range(0, 360, 15):
            long = 8 if angle % 90 == 0 else 4
            line = _path([_on_circle(angle, self.radius), _on_circle(angle, self.radius - long)])
            parts.append(f'<path d="{line}" class="gvae-grid"/>')
        return _svg("".join(parts), "the angle found beside the slider's")

    def marker(self, view: View) -> str:
        """The slider's hand, and what each model finds at the view's angle."""
        x, y = _on_circle(view.angle, self.radius)
        parts = [f'<line x2="{x:.1f}" y2="{y:.1f}" class="gvae-hand"/>']
        parts += [self._of_model(self._index[name], found) for name, found in view.found.items()]
        return _svg("".join(parts))

    def _of_model(self, index: int, found: Found) -> str:
        colour, size, width = COLOURS[index], max(2, min(5, self._step / 2)), min(14, 0.9 * self._step)
        arcs, marks = [], []
        for name, ring, angle, half in zip(self._digits, self._rings, found.angles.tolist(), found.arcs.tolist()):
            (x, y), (u, v) = (_on_circle(angle + side * min(half, 179.9), ring) for side in (-1, 1))
            path = f"M{x:.1f} {y:.1f}A{ring:.1f} {ring:.1f} 0 {int(half > 90)} 0 {u:.1f} {v:.1f}"
            arcs.append(f'<path d="{path}" class="gvae-arc" style="stroke:{colour};stroke-width:{width:.1f}"/>')
            title = f"{name}: found {angle:.1f}°, 90 % within ±{half:.0f}°"
            marks.append(_mark(*_on_circle(angle, ring), index, size, title))
        x, y = _on_circle(found.mean, self._rings[0])
        needle = f'<line x2="{x:.1f}" y2="{y:.1f}" style="stroke:{colour};stroke-width:3" stroke-linecap="round"/>'
        return "".join([*arcs, needle, *marks])


class PolarPlot:
    """Latent drift over the full turn: 0° is up, the hand turns as the digit does, the centre is "not moved".

    Dashed circles: the typical angle between different images (``yardsticks``, by model).
    """

    radius = PLOT / 2 - 27

    def __init__(self, turn: Turn, yardsticks: Mapping[str, float]):
        self._drifts = {name: turn.drifts(name) for name in turn.models}
        self._yardsticks = [yardsticks[name] for name in turn.models]
        finite = [value for value in self._yardsticks if math.isfinite(value)]
        self.limit = 1.04 * max([1e-3, *finite, *(value for drift in self._drifts.values() for value in drift)])

    def _point(self, angle: float, drift: float) -> tuple[float, float]:
        return _on_circle(angle, self.radius * drift / self.limit)

    @property
    def background(self) -> str:
        step = next(step for step in (0.1, 1, 5, 10, 15, 30, 45, 90) if 4.5 * step >= self.limit)
        rings = [step * k for k in range(1, int(self.limit / step) + 1)]
        parts = [f'<circle r="{self.radius * ring / self.limit:.1f}" class="gvae-grid"/>' for ring in rings]
        for ring in rings:
            x, y = self._point(-150, ring)
            parts.append(f'<text x="{x + 2:.1f}" y="{y:.1f}">{ring:g}°</text>')
        for angle in (0, 90, 180, -90):
            x, y = self._point(angle, self.limit)
            parts.append(f'<line x2="{x:.1f}" y2="{y:.1f}" class="gvae-grid"/>')
        parts.append(_compass())
        for typical, colour in zip(self._yardsticks, COLOURS):
            if math.isfinite(typical):
                parts.append(
                    f'<circle r="{self.radius * typical / self.limit:.1f}" fill="none" '
                    f'style="stroke:{colour};stroke-width:1.2;stroke-dasharray:2 4"/>'
                )
        for drift, colour in zip(self._drifts.values(), COLOURS):
            line = _path([self._point(angle, value) for angle, value in zip(ANGLES, drift)])
            parts.append(
                f'<path d="{line}" fill="none" style="stroke:{colour};stroke-width:2.2" stroke-linejoin="round"/>'
            )
        return _svg("".join(parts), "latent drift over the full turn")

    def marker(self, view: View) -> str:
        """A hand at the view's angle, and each model's drift on it."""
        x, y = self._point(view.angle, self.limit)
        parts = [f'<line x2="{x:.1f}" y2="{y:.1f}" class="gvae-hand"/>']
        for index, measures in enumerate(view.measures.values()):
            parts.append(_mark(*self._point(view.angle, measures.drift), index))
        return _svg("".join(parts))


class SpherePlot:
    """Codes on the sphere in 3-space while the digits turn, for the first of the models with d = 3.

    Seen from the mean of the upright codes; what lies on the far side is pale. `SpherePlot.of` gives
    None if no model has d = 3.
    """

    radius = PLOT / 2 - 20

    def __init__(self, turn: Turn, name: str):
        self.name, self._digits = name, list(turn.digits)
        self._index = list(turn.models).index(name)
        self._upright, self._trail = turn.upright[name], turn.trail(name)
        self._axes = _screen_axes(self._upright.mean(0))

    @staticmethod
    def shows(turn: Turn) -> bool:
        """Whether there is a model with d = 3."""
        return any(codes.shape[1] == 3 for codes in turn.upright.values())

    @classmethod
    def of(cls, turn: Turn) -> SpherePlot | None:
        for name, codes in turn.upright.items():
            if codes.shape[1] == 3:
                return cls(turn, name)
        return None

    def _project(self, codes: Tensor) -> list[tuple[float, float, bool]]:
        """Codes [N, 3] -> (x, y, on the near side)."""
        seen = codes @ self._axes.T.to(codes)
        return [(self.radius * x, -self.radius * y, z >= 0) for x, y, z in seen.tolist()]

    @property
    def background(self) -> str:
        colour, r = COLOURS[self._index], self.radius
        parts = [f'<circle r="{r:.1f}" class="gvae-grid"/>']
        for share in (0.35, 0.75):
            parts.append(f'<ellipse rx="{r * share:.1f}" ry="{r:.1f}" class="gvae-grid" style="opacity:.6"/>')
            parts.append(f'<ellipse rx="{r:.1f}" ry="{r * share:.1f}" class="gvae-grid" style="opacity:.6"/>')
        for digit in range(self._trail.shape[1]):
            points = self._project(self._trail[:, digit])
            for near in (False, True):
                line = "".join(
                    _path([(a[0], a[1]), (b[0], b[1])])
                    for a, b in itertools.pairwise(points)
                    if (a[2] and b[2]) == near
                )
                opacity = 0.75 if near else 0.2
                parts.append(
                    f'<path d="{line}" fill="none" style="stroke:{colour};opacity:{opacity}"/>' if line else ""
                )
        for (x, y, near), digit in zip(self._project(self._upright), self._digits):
            side, anchor = (-7, "end") if x > 0.6 * r else (7, "start")  # inside the plot
            parts.append(
                f'<text x="{x + side:.1f}" y="{y - 5:.1f}" text-anchor="{anchor}" '
                'style="font-size:13px;font-weight:600;'
                f'fill:var(--jp-ui-font-color1);opacity:{1 if near else 0.35}">{html.escape(digit)}</text>'
            )
        return _svg("".join(parts), "codes on the latent sphere while the digits turn")

    def marker(self, view: View) -> str:
        """The codes at the view's angle."""
        dots = [
            f'<g style="opacity:{1 if near else 0.35}">{_mark(x, y, self._index)}</g>'
            for x, y, near in self._project(view.codes[self.name])
        ]
        return _svg("".join(dots))


def _screen_axes(direction: Tensor) -> Tensor:
    """Rows: right, up, towards the viewer, who stands in ``direction`` [3]."""
    towards = direction.double()
    towards = towards / towards.norm() if towards.norm() > 1e-6 else torch.tensor([0.0, 0.0, 1.0]).double()
    helper = torch.eye(3).double()[towards.abs().argmin()]  # the axis least like it
    right = torch.linalg.cross(helper, towards)
    right = right / right.norm()
    return torch.stack((right, torch.linalg.cross(towards, right), towards))
