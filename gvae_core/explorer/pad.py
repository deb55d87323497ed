"""The explorer's drawing pad: strokes of mouse, pen or finger, and the MNIST-like digit they become."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import ipywidgets as widgets
import numpy as np
import torch
from ipycanvas import Canvas
from PIL import Image, ImageDraw
from torch import Tensor

SIDE = 196  # of the pad, in screen pixels
SIZE, BOX = 28, 20  # MNIST: a digit fits a 20 x 20 box, in a picture of 28 x 28
PEN = 2.2  # width of MNIST's lines, in its pixels
FINE = 8  # each pixel is the mean over FINE x FINE

Stroke = Sequence[tuple[float, float]]


def digit_from_strokes(strokes: Sequence[Stroke]) -> Tensor:
    """Pen strokes, lists of points (x, y) with y downwards, any unit -> an image [1, 1, 28, 28] in [0, 1].

    As MNIST was made: scaled with its aspect kept to fit a 20 x 20 box, grey by antialiasing, the
    centre of mass in the centre of the picture (moved by at most 4 pixels, so that the box stays in
    it). Y. LeCun, C. Cortes, C. Burges, *The MNIST database*, section on the file formats.

    Raises
    ------
    ValueError : there is no point
    """
    points = np.array([point for stroke in strokes for point in stroke], float)
    if len(points) == 0:
        raise ValueError("expected at least one point in the strokes, got none")
    low, high = points.min(0), points.max(0)
    extent = (high - low).max()
    scale = (BOX - PEN) / extent if extent > 0 else 1.0
    placed = [(np.array(stroke, float) - (low + high) / 2) * scale + SIZE / 2 for stroke in strokes if len(stroke)]
    ink = _rasterise(placed)
    grid = np.arange(SIZE) + 0.5
    mass = np.array([ink.sum(0) @ grid, ink.sum(1) @ grid]) / ink.sum()
    border = (SIZE - BOX) / 2
    shift = np.clip(SIZE / 2 - mass, -border, border)
    return torch.from_numpy(_rasterise([stroke + shift for stroke in placed]))[None, None]


def _rasterise(strokes: Sequence[np.ndarray]) -> np.ndarray:
    """Round-ended lines through points in pixels -> grey levels [28, 28], float32 in [0, 1]."""
    fine = Image.new("L", (SIZE * FINE, SIZE * FINE))
    draw = ImageDraw.Draw(fine)
    radius = PEN * FINE / 2
    for stroke in strokes:
        points = [tuple(point) for point in stroke * FINE - 0.5]  # PIL counts from pixel centres
        if len(points) > 1:
            draw.line(points, fill=255, width=round(2 * radius), joint="curve")
        for x, y in points:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    blocks = np.asarray(fine, np.float32).reshape(SIZE, FINE, SIZE, FINE)
    return blocks.mean((1, 3)) / 255


class DrawingPad(widgets.VBox):
    """Draw with mouse, pen or finger; after each stroke ``drawn`` gets the image [1, 1, 28, 28], after "clear" None."""

    def __init__(self, drawn: Callable[[Tensor | None], None]):
        self._drawn = drawn
        self._pen_down = False
        self.strokes: list[list[tuple[float, float]]] = []
        self.canvas = Canvas(width=SIDE, height=SIDE, layout=widgets.Layout(width=f"{SIDE}px", height=f"{SIDE}px"))
        self.canvas.add_class("gvae-pad")
        self.clear = widgets.Button(description="clear", layout=widgets.Layout(width="80px"))
        self.canvas.on_mouse_down(self._down)
        self.canvas.on_mouse_move(self._move)
        self.canvas.on_mouse_up(self._up)
        self.canvas.on_mouse_out(self._up)
        # ipycanvas gives all fingers on the screen; the first one draws, and the page does not scroll under it
        self.canvas.on_touch_start(lambda touches: self._pen_down or self._down(*touches[0]))
        self.canvas.on_touch_move(lambda touches: self._move(*touches[0]))
        self.canvas.on_touch_end(lambda touches: self._up())
        self.canvas.on_touch_cancel(lambda touches: self._up())
        self.canvas.on_client_ready(self._redraw)  # a page that opens later has seen none of the drawing
        self.clear.on_click(lambda _: self.wipe())
        self._redraw()
        super().__init__([self.canvas, self.clear])

    def wipe(self) -> None:
        """Empty the pad."""
        self.strokes, self._pen_down = [], False
        self._redraw()
        self._drawn(None)

    def _redraw(self) -> None:
        # ipycanvas tells the page only once which canvas is drawn on, also where the page opens later
        self.canvas._canvas_manager._current_canvas = None
        self.canvas.clear()  # the black of the pad is the page's (`markup.STYLE`)
        self.canvas.stroke_style = self.canvas.fill_style = "white"
        self.canvas.line_width, self.canvas.line_cap = PEN * SIDE / SIZE, "round"
        for stroke in self.strokes:
            self._dot(*stroke[0])
            for start, end in itertools.pairwise(stroke):
                self.canvas.stroke_line(*start, *end)

    def _dot(self, x: float, y: float) -> None:
        self.canvas.fill_circle(x, y, self.canvas.line_width / 2)

    def _down(self, x: float, y: float) -> None:
        self._pen_down = True
        self.strokes.append([(x, y)])
        self._dot(x, y)

    def _move(self, x: float, y: float) -> None:
        if self._pen_down:
            self.canvas.stroke_line(*self.strokes[-1][-1], x, y)
            self.strokes[-1].append((x, y))

    def _up(self, *_: float) -> None:
        if self._pen_down:
            self._pen_down = False
            self._drawn(digit_from_strokes(self.strokes))
