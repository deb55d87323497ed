"""The explorer's digit picker: a thumbnail per class, several at once, and one for the drawn digit."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Sequence

import ipywidgets as widgets
from torch import Tensor

from .turn import picture, png

SLOTS = 10  # without labels: thumbnails, the images dealt out to them in turn
DRAWN = "yours"
_classes = itertools.count()  # names of CSS classes, so that two explorers on one page do not mix


class DigitPicker(widgets.HBox):
    """Toggle buttons with thumbnails, and "another one", which takes the next image of each class shown.

    Parameters
    ----------
    images : [N, 1, H, W]
    labels : [N] indices of classes; without them the images are dealt out to `SLOTS` thumbnails
    names : of the classes
    changed : called after every change of the choice
    """

    def __init__(self, images: Tensor, labels: Tensor | None, names: Sequence[str], changed: Callable[[], None]):
        self._images, self._changed = images, changed
        self._indices = _slots(len(images), labels, names)
        self._position = dict.fromkeys(self._indices, 0)
        self._drawing: Tensor | None = None
        self._before_drawing: list[str] = []
        self._css = {name: f"gvae-pick-{next(_classes)}" for name in [*self._indices, DRAWN]}
        self.buttons = {}
        for number, name in enumerate(self._css):
            shown = number < SLOTS and name != DRAWN
            button = widgets.ToggleButton(description=name, tooltip=f"show {name}", value=shown)
            button.add_class("gvae-pick")
            button.add_class(self._css[name])
            button.observe(self._toggled, names="value")
            self.buttons[name] = button
        self.another = widgets.Button(
            description="another one",
            tooltip="other digits of the same classes",
            layout=widgets.Layout(width="100px", margin="2px 2px 2px 16px"),
        )
        self.another.on_click(self._next)
        self._style = widgets.HTML(layout=widgets.Layout(display="none"))
        self._show_drawing(None)
        super().__init__(
            [*self.buttons.values(), self.another, self._style],
            layout=widgets.Layout(flex_flow="row wrap", align_items="center"),
        )

    @property
    def digits(self) -> dict[str, Tensor]:
        """The digits shown: name -> image [1, 1, H, W].

        Raises ValueError if none is picked.
        """
        shown = {name: self._image(name) for name, button in self.buttons.items() if button.value}
        if not shown:
            raise ValueError("expected at least one digit to be picked, got none")
        return shown

    def draw(self, digit: Tensor | None) -> None:
        """Show a drawn digit [1, 1, H, W] alone, and large; with None the others come back."""
        if digit is None and self._drawing is None:
            return
        if self._drawing is None:
            self._before_drawing = [name for name, button in self.buttons.items() if button.value]
        self._show_drawing(digit)
        self.select([DRAWN] if digit is not None else self._before_drawing)

    def select(self, names: list[str]) -> None:
        """Show exactly these digits."""
        for name in names:
            if name not in self.buttons:
                raise ValueError(f"expected digits among {', '.join(self.buttons)}; got {name!r}")
        for name, button in self.buttons.items():
            button.unobserve(self._toggled, names="value")  # one change, not one for each button
            button.value = name in names
            button.observe(self._toggled, names="value")
        self._changed()

    def _toggled(self, _: object) -> None:
        self._changed()

    def _next(self, _: object) -> None:
        for name, button in self.buttons.items():
            if button.value and name != DRAWN:
                self._position[name] = (self._position[name] + 1) % len(self._indices[name])
        self._draw_thumbnails()
        self._changed()

    def _image(self, name: str) -> Tensor:
        if name == DRAWN:
            return self._drawing
        index = self._indices[name][self._position[name]]
        return self._images[index : index + 1]

    def _show_drawing(self, digit: Tensor | None) -> None:
        self._drawing = digit
        self.buttons[DRAWN].layout.display = "none" if digit is None else None
        self._draw_thumbnails()

    def _draw_thumbnails(self) -> None:
        """Buttons cannot hold pictures, but CSS can give them one."""
        rules = []
        for name, css in self._css.items():
            if name != DRAWN or self._drawing is not None:
                data = base64.b64encode(png(picture([self._image(name)]))).decode()
                rules.append(f'.{css} {{ background-image: url("data:image/png;base64,{data}") !important }}')
        self._style.value = f"<style>{''.join(rules)}</style>"


def _slots(count: int, labels: Tensor | None, names: Sequence[str]) -> dict[str, list[int]]:
    """Name of a thumbnail -> indices of its images."""
    if labels is None:
        slots = min(count, SLOTS)
        return {f"#{slot + 1}": list(range(slot, count, slots)) for slot in range(slots)}
    return {name: (labels == label).nonzero()[:, 0].tolist() for label, name in enumerate(names)}
