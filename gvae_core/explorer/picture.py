"""The picture that turns, and all beside it that changes with the angle: sent ahead to the browser, which shows them.

A drag then does not wait for messages between the browser and the kernel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import anywidget
import ipywidgets as widgets
import traitlets

AT_A_TIME = 8  # views in a message; the next goes when the browser has taken it, so that a slow line is never full
PATIENCE = 3.0  # seconds after which a message is given up; what was in it is sent when the slider comes there

Drawn = tuple[bytes, Mapping[str, str]]  # what is seen at an angle: a PNG, and by the part's name its HTML


class Picture(anywidget.AnyWidget):
    """A PNG and HTML parts beside it, which the browser exchanges by itself when the slider moves.

    As long as no browser has answered (a script, a batch) nothing is sent, and `attached` is false.

    Parameters
    ----------
    slider : its value is the angle
    parts : the `ipywidgets.HTML` that change with the angle, by name
    draw : angle -> what is seen there
    attach : called when a browser has opened the page, and has no view yet

    Attributes
    ----------
    value : the PNG that a page begins with
    """

    _esm = Path(__file__).with_suffix(".js")
    value = traitlets.Bytes().tag(sync=True)
    slider = traitlets.Instance(widgets.Widget).tag(sync=True, **widgets.widget_serialization)
    parts = traitlets.Dict().tag(sync=True, **widgets.widget_serialization)

    def __init__(
        self,
        slider: widgets.Widget,
        parts: Mapping[str, widgets.HTML],
        draw: Callable[[int], Drawn],
        attach: Callable[[], None],
    ):
        super().__init__(slider=slider, parts=dict(parts))
        self._draw, self._attach = draw, attach
        self.attached = False
        self._turn = 0
        self._taken: set[int] = set()  # angles whose view the browser has said it has
        self._waiting: set[int] = set()
        self._under_way = 0.0  # until when the browser may still take the last message
        self.on_msg(self._hear)

    def begin(self) -> None:
        """From now on the views are those of other images or models."""
        self._turn += 1
        self._taken, self._waiting, self._under_way = set(), set(), 0.0

    def add(self, angles: Iterable[int]) -> None:
        """Send these views soon, the nearest to the slider first; where the browser has the PNG, the HTML alone."""
        if self.attached:
            self._waiting |= set(angles)
            self._post_next()

    def show(self, angle: int) -> None:
        """Send a view at once unless the browser has it, to be shown though the slider may have gone on."""
        if self.attached and angle not in self._taken:
            self._post([angle], now=True)
        self._post_next()

    def write(self, angle: int) -> None:
        """Make a view what a page begins with."""
        self.value, html = self._draw(angle)
        for name, text in html.items():
            self.parts[name].value = text

    def _post_next(self) -> None:
        if self._waiting and time.monotonic() > self._under_way:
            self._under_way = time.monotonic() + PATIENCE
            nearest = sorted(self._waiting, key=lambda angle: abs(angle - self.slider.value))
            self._post(nearest[:AT_A_TIME])

    def _post(self, angles: list[int], now: bool = False) -> None:
        views, buffers = [], []
        for angle in angles:
            png, html = self._draw(angle)
            views.append(dict(angle=angle, html=html, buffer=None if angle in self._taken else len(buffers)))
            if angle not in self._taken:
                buffers.append(png)
        self._waiting -= set(angles)
        self.send(dict(turn=self._turn, now=now, views=views), buffers)

    def _hear(self, _: widgets.Widget, content: dict, buffers: list) -> None:
        if content.get("ready"):
            self.attached = True
            self.begin()
            self._attach()
        elif content.get("turn") == self._turn:
            self._taken |= set(content["taken"])
            self._under_way = 0.0
            self._post_next()
