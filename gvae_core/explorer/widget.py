"""The rotation explorer: drag a slider, the digits turn, and see what each model makes of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ..models import SphericalVAE
from . import markup
from .pad import SIZE, DrawingPad
from .page import save_page
from .picker import DigitPicker
from .turn import STRIP, Snapshot, Turn, View, yardstick, yardstick_sample
from .worker import Request, Worker

ROWS = 2  # models shown at once
_TURN = dict(min=-180, max=180, value=0)


def _guarded(callback: Callable) -> Callable:
    """A callback whose errors go to the explorer's message line; ipywidgets would swallow them."""

    @functools.wraps(callback)
    def guarded(self: RotationExplorer, *arguments: object) -> None:
        try:
            callback(self, *arguments)
        except Exception as error:
            self._complain(error)

    return guarded


class RotationExplorer(widgets.VBox):
    """Rotated digits above, two models' reconstructions below, updated while the slider is dragged.

    Beside each row stand its numbers. Below: the digits and models to pick from, the latent drift over
    the full turn, the codes on the sphere where a model has d = 3, and a pad to draw on. `save_html`
    keeps all this as a page that needs no kernel. An error in a callback appears in a line at the end
    instead of vanishing.

    Parameters
    ----------
    models : a `SphericalVAE`, or name -> `SphericalVAE`; the first two are shown, all can be picked.
        A name's part before the first " · " is its title. A value is read only when it is shown, so a
        mapping may load late (`trained_models`); then again at every look at its weights. Models stay as
        they are, in mode and memory: the explorer computes with copies, made anew when weights change
    images : [N, 1, H, H] or [N, 3, H, H] in [0, 1], upright; a tensor or array of any float type
    labels : [N] classes, numbers or words; digits are then picked by class, otherwise one by one

    Raises
    ------
    ValueError : there is no model or no image, a model is not a `SphericalVAE`, shapes or values do not fit

    Examples
    --------
    >>> from gvae_core import load_mnist, sgvae
    >>> digits = load_mnist("mnist5k")
    >>> explorer = RotationExplorer(sgvae(fields=(2, 2, 4), frequency=2), digits.test_images[:50])
    >>> explorer.slider.value = 90
    """

    def __init__(self, models: nn.Module | Mapping[str, nn.Module], images: ArrayLike, labels: ArrayLike | None = None):
        self.models = {"reconstruction": models} if isinstance(models, nn.Module) else models
        if len(self.models) == 0:
            raise ValueError("expected at least one model, got none")
        self.images = images = _converted(images)
        self.labels, self._class_names = _classes(labels, len(images))
        sample = yardstick_sample(len(images), self.labels)
        self._sample = images[sample], None if self.labels is None else self.labels[sample]
        self.turn: Turn | None = None  # what is shown: some digits and models through all angles
        self._plots: list[tuple[Panel, markup.PolarPlot | markup.SpherePlot]] = []
        self._snapshots: dict[str, Snapshot] = {}
        self._yardsticks: dict[str, float] = {}
        self._worker = Worker(self._prepare, self._show, lambda turn: self.measure_turn(), self._complain)
        super().__init__(self._build())
        self.add_class("gvae")
        self._worker.answer(self._request())  # an error in here is the caller's
        self._worker.start()

    def _build(self) -> list[widgets.Widget]:
        head = widgets.HTML(f"<style>{markup.STYLE}</style><div class='gvae-heading'>{markup.HEADING}</div>")
        self.play = widgets.Play(**_TURN, step=3, interval=60, repeat=True, show_repeat=False)
        self.slider = widgets.IntSlider(**_TURN, readout=False, layout=widgets.Layout(width=f"{STRIP:.0f}px"))
        self.number = widgets.BoundedIntText(**_TURN, layout=widgets.Layout(width="70px", margin="2px 4px 2px 20px"))
        # Linked in the browser: a drag is one stream of events to the kernel, the slider's own.
        self._links = [widgets.jslink((c, "value"), (self.slider, "value")) for c in (self.play, self.number)]
        self.slider.observe(self._changed, names="value")

        self.names = widgets.HTML()
        self.image = widgets.Image(format="png")
        self.numbers = widgets.HTML(layout=widgets.Layout(margin="0 0 0 20px"))

        self.digits = DigitPicker(self.images, self.labels, self._class_names, self._changed)
        options, one = list(self.models), len(self.models) == 1
        self.picks = [
            widgets.Dropdown(options=options, value=name, disabled=one, layout=widgets.Layout(width="342px"))
            for name in options[:ROWS]
        ]
        for pick in self.picks:
            pick.observe(self._changed, names="value")

        self.polar = Panel(*markup.POLAR)
        self.sphere = Panel(*markup.SPHERE)
        self.pad = DrawingPad(_guarded(lambda self, digit: self.digits.draw(digit)).__get__(self))
        panels = [self.polar, self.sphere]
        if self.images.shape[1:] == (1, SIZE, SIZE):
            panels.append(widgets.VBox([_title("Draw your own digit"), self.pad]))
        self.message = widgets.HTML()
        strip = widgets.HBox([self.image], layout=widgets.Layout(width=f"{STRIP:.0f}px", margin="0"))
        return [
            head,
            _row(self.play, self.slider, self.number, widgets.HTML("degrees")),
            _row(self.names, strip, self.numbers, align="flex-start"),
            _row(_title("Digits"), self.digits),
            _row(_title("Models"), *self.picks),
            widgets.HBox(panels, layout=widgets.Layout(flex_flow="row wrap", margin="10px 0 0")),
            self.message,
        ]

    # --- from the controls to the picture ---------------------------------------------------------

    @_guarded
    def _changed(self, *_: object) -> None:
        self._worker.submit(self._request())

    def _request(self) -> Request:
        """All that decides what is to be seen: models, digits, angle."""
        names = tuple(dict.fromkeys(pick.value for pick in self.picks))
        return names, self.digits.digits, self.slider.value

    def _prepare(self, request: Request) -> Turn:
        """What shows these models, with their weights of now, and digits; in a thread, so no widget is touched here."""
        names, digits, _ = request
        for name in names:
            model = _spherical(name, self.models[name])
            if name not in self._snapshots or not self._snapshots[name].is_of(model):
                self._snapshots[name] = Snapshot(model)
                self._yardsticks[name] = yardstick(self._snapshots[name].model, *self._sample)
        snapshots, turn = {name: self._snapshots[name] for name in names}, self._worker.turn
        if turn is None or turn.models != snapshots or not turn.is_of(names, digits):
            turn = Turn(snapshots, digits)
        return turn

    def _show(self, turn: Turn, view: View) -> None:
        """Replace the picture's bytes and the numbers in place, so that nothing flickers."""
        if self.turn is not turn:
            self.turn = turn
            self._lay_out()
        self.image.value = view.png
        self.numbers.value = markup.numbers(view, self._yardsticks)
        for panel, plot in self._plots:
            panel.marker.value = plot.marker(view)
        self.message.value = ""

    def _lay_out(self) -> None:
        """For new digits or models: sizes, names, and empty plots until the full turn is measured."""
        width, height = self.turn.screen_size
        self.image.layout.width, self.image.layout.height = f"{width:.0f}px", f"{height:.0f}px"
        self.names.value = markup.names(list(self.turn.models))
        self._plots = []
        for panel in (self.polar, self.sphere):
            panel.clear(markup.note("measuring the full turn …"))

    def measure_turn(self) -> None:
        """Draw the plots, once; in a notebook this happens by itself, when there is nothing else to do."""
        if self._plots:
            return
        self._plots = [(self.polar, markup.PolarPlot(self.turn, self._yardsticks))]
        if sphere := markup.SpherePlot.of(self.turn):
            self._plots.append((self.sphere, sphere))
        else:
            self.sphere.clear(markup.note("pick a model with d = 3", "to see its codes here"))
        view = self.turn.view(self.slider.value)
        for panel, plot in self._plots:
            panel.background.value, panel.marker.value = plot.background, plot.marker(view)

    def _complain(self, error: Exception) -> None:
        self.message.value = markup.error(error)

    def save_html(self, path: str | Path) -> Path:
        """Write what is shown as one HTML file whose slider and play button work without a kernel.

        Raises ValueError if it would be larger than `page.LIMIT`.
        """
        return save_page(Path(path).expanduser(), self._prepare(self._request()), self._yardsticks)


class Panel(widgets.VBox):
    """A title, a plot of two layers (the background and, over it, the marker), and a caption."""

    def __init__(self, title: str, caption: str):
        layers = dict(grid_area="1 / 1", margin="0", width=f"{markup.PLOT}px", height=f"{markup.PLOT}px")
        self.background = widgets.HTML(layout=widgets.Layout(**layers))
        self.marker = widgets.HTML(layout=widgets.Layout(**layers))
        stack = widgets.GridBox([self.background, self.marker])
        small = widgets.HTML(f"<div class='gvae-small'>{caption}</div>")
        super().__init__([_title(title), stack, small], layout=widgets.Layout(margin="0 28px 0 0"))

    def clear(self, text: str) -> None:
        self.background.value, self.marker.value = text, ""


def _row(first: widgets.Widget, *others: widgets.Widget, align: str = "center") -> widgets.HBox:
    """Widgets side by side, the first in a column of its own that all rows share."""
    first.layout.width, first.layout.flex = "142px", "0 0 auto"
    return widgets.HBox([first, *others], layout=widgets.Layout(align_items=align, margin="4px 0"))


def _title(text: str) -> widgets.HTML:
    return widgets.HTML(f"<div class='gvae-title'>{text}</div>")


def _spherical(name: str, model: nn.Module) -> SphericalVAE:
    if not isinstance(model, SphericalVAE):
        raise ValueError(f"expected {name!r} to be a SphericalVAE, got {type(model).__name__}")
    return model


def _converted(images: ArrayLike) -> Tensor:
    """Images of any kind of array as float32 on the CPU, [N, C, H, H] in [0, 1]."""
    if not isinstance(images, Tensor):
        images = torch.from_numpy(np.array(images))
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"expected images [N, 1, H, W] or [N, 3, H, W] with N > 0, got {list(images.shape)}")
    if images.shape[2] != images.shape[3]:
        raise ValueError(f"expected square images, got {list(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"expected images as floats in [0, 1], got {images.dtype}; divide by 255?")
    images = images.detach().cpu().float()
    low, high = (value.item() for value in images.aminmax())  # not a number where one of them is none
    if not (low >= 0 and high <= 1):
        raise ValueError(f"expected images in [0, 1], got values from {low:g} to {high:g}")
    return images


def _classes(labels: ArrayLike | None, count: int) -> tuple[Tensor | None, list[str]]:
    """Labels of any kind, numbers or words -> index [N] of each image's class, and the classes' names."""
    if labels is None:
        return None, []
    values = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if values.shape != (count,):
        raise ValueError(f"expected {count} labels, one an image, got {list(values.shape)}")
    names, indices = np.unique(values, return_inverse=True)
    names = [f"{name:g}" if isinstance(name, float) else str(name) for name in names.tolist()]
    return torch.from_numpy(indices), names
