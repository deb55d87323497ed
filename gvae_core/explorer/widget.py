"""The rotation explorer: drag a slider, the images turn, and see what each model makes of them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import ipywidgets as widgets
from numpy.typing import ArrayLike
from torch import nn

from ..files import user_path
from ..models import SphericalVAE
from . import markup
from .images import ImageBatches, Images
from .pad import SIZE, DrawingPad
from .page import save_page
from .picker import Picker
from .picture import Drawn, Picture
from .snapshot import Snapshot, yardstick
from .tiles import STRIP
from .turn import Turn, View
from .worker import PAUSE, Request, Worker, in_loop

ROWS = 2  # models shown at once
_TURN = dict(min=-180, max=180, value=0)


class RotationExplorer(widgets.VBox):
    """Rotated images above, two models' reconstructions below, updated while the slider is dragged.

    Beside each row stand its numbers. A model with a pose has a second row, the canonical view, which stands still
    while the reconstruction turns along, and a dial with the angle that it finds beside the slider's. Below: the images
    and models to pick from, the latent drift over the full turn, the codes on the sphere where a model has d = 3, and,
    for images like MNIST's, a pad to draw on. `save_html` keeps all this as a page that needs no kernel. An error in a
    callback appears in a line at the end instead of vanishing.

    Parameters
    ----------
    models : a `SphericalVAE`, or name -> `SphericalVAE`; the first two are shown, all can be picked.
        A name's part before the first " · " is its title. A value is read only when it is shown, so a
        mapping may load late (`trained_models`); then again at every look at its weights. Models stay as
        they are, in mode and memory: the explorer computes with copies, made anew when weights change
    images : [N, 1, H, H] or [N, 3, H, H] in [0, 1], a tensor or array of any float type; or what has a length and gives
        such images [n, C, H, H] for a list of n indices. Only the images looked at are read, and checked
    labels : [N] classes, numbers or words, if not those of ``images.labels``; images are then picked by class, otherwise
        one by one from pages of thumbnails

    Raises
    ------
    ValueError : there is no model or no image, a model is not a `SphericalVAE` or takes images of another size or
        other channels, shapes or values do not fit

    Examples
    --------
    >>> from gvae_core import load_mnist, sgvae
    >>> digits = load_mnist("mnist5k")
    >>> explorer = RotationExplorer(sgvae(fields=(2, 2, 4), frequency=2), digits.test_images[:50])
    >>> explorer.slider.value = 90
    """

    def __init__(
        self,
        models: nn.Module | Mapping[str, nn.Module],
        images: ArrayLike | ImageBatches,
        labels: ArrayLike | None = None,
    ):
        self.models = {"reconstruction": models} if isinstance(models, nn.Module) else models
        if len(self.models) == 0:
            raise ValueError("expected at least one model, got none")
        self.images = Images(images, labels)
        self.turn: Turn | None = None  # what is shown: some images and models through all angles
        self._dial: markup.Dial | None = None
        self._plots: dict[str, markup.PolarPlot | markup.SpherePlot] = {}
        self._snapshots: dict[str, Snapshot] = {}
        self._yardsticks: dict[str, float] = {}
        self._worker = Worker(self._prepare, self._show, self._give, lambda turn: self.measure_turn(), self._complain)
        self._angle = 0  # what is shown
        self._writing: asyncio.TimerHandle | None = None
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
        self._changed = self._guarded(lambda *_: self._worker.submit(self._request()))
        self.slider.observe(self._changed, names="value")

        self.names = widgets.HTML()
        self.numbers = widgets.HTML(layout=widgets.Layout(margin="0 0 0 20px"))

        self.digits = Picker(self.images, self._changed, self._guarded)
        options, one = list(self.models), len(self.models) == 1
        self.picks = [
            widgets.Dropdown(options=options, value=name, disabled=one, layout=widgets.Layout(width="342px"))
            for name in options[:ROWS]
        ]
        for pick in self.picks:
            pick.observe(self._changed, names="value")

        self.dial, self.polar, self.sphere = (Panel(*text) for text in (markup.DIAL, markup.POLAR, markup.SPHERE))
        parts = dict(numbers=self.numbers, dial=self.dial.marker, polar=self.polar.marker, sphere=self.sphere.marker)
        self.image = Picture(self.slider, parts, self._draw, self._guarded(lambda: self._give(self.turn)))
        self.pad = DrawingPad(self._guarded(lambda digit: self.digits.draw(digit)))
        panels = [self.dial, self.polar, self.sphere]
        if self.images.sample[0].shape[1:] == (1, SIZE, SIZE):
            panels.append(widgets.VBox([_title("Draw your own digit"), self.pad]))
        self.message = widgets.HTML()
        strip = widgets.HBox([self.image], layout=widgets.Layout(width=f"{STRIP:.0f}px", margin="0"))
        return [
            head,
            _row(self.play, self.slider, self.number, widgets.HTML("degrees")),
            _row(self.names, strip, self.numbers, align="flex-start"),
            _row(_title("Images"), self.digits),
            _row(_title("Models"), *self.picks),
            widgets.HBox(panels, layout=widgets.Layout(flex_flow="row wrap", margin="10px 0 0")),
            self.message,
        ]

    # --- from the controls to the picture ---------------------------------------------------------

    def _guarded(self, callback: Callable) -> Callable:
        """A callback whose errors go to the message line; ipywidgets would swallow them."""

        @functools.wraps(callback)
        def guarded(*arguments: object) -> None:
            try:
                callback(*arguments)
            except Exception as error:
                self._complain(error)

        return guarded

    def _request(self) -> Request:
        """All that decides what is to be seen: models, images, angle."""
        names = tuple(dict.fromkeys(pick.value for pick in self.picks))
        return names, self.digits.digits, self.slider.value

    def _prepare(self, request: Request) -> Turn:
        """What shows these models, with their weights of now, and images; in a thread, so no widget is touched here."""
        names, digits, _ = request
        for name in names:
            model = _spherical(name, self.models[name])
            if name not in self._snapshots or not self._snapshots[name].is_of(model):
                snapshot = Snapshot(model)
                try:
                    self._yardsticks[name] = yardstick(snapshot.model, *self.images.sample)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from error
                self._snapshots[name] = snapshot
        snapshots, turn = {name: self._snapshots[name] for name in names}, self._worker.turn
        if turn is None or turn.models != snapshots or not turn.is_of(names, digits):
            disc = not self.images.on_black and not all(snapshot.fades for snapshot in snapshots.values())
            turn = Turn(snapshots, digits, disc)
        return turn

    def _show(self, turn: Turn, view: View) -> None:
        """Show a view: at once in the browser that has it or is sent it, and then, or without one, in the widgets."""
        if self.turn is not turn:
            self.turn = turn
            self._lay_out()
            self.image.begin()
            self._give(turn)
        self._angle = view.angle
        self.image.show(view.angle)
        if self._writing:
            self._writing.cancel()
        if self.image.attached and in_loop():  # a page that is opened later, or once more, begins with what is written
            self._writing = asyncio.get_running_loop().call_later(PAUSE, self._write)
        else:
            self._write()

    def _write(self) -> None:
        self.image.write(self._angle)
        self.message.value = ""

    def _draw(self, angle: int) -> Drawn:
        view = self.turn.view(angle)
        html = {name: plot.marker(view) for name, plot in self._plots.items()}
        html["dial"] = self._dial.marker(view) if self._dial else ""
        html["numbers"] = markup.numbers(view, self._yardsticks, self.turn.tiles.row)
        return view.png, dict.fromkeys(self.image.parts, "") | html

    def _give(self, turn: Turn, angles: Iterable[int] | None = None) -> None:
        """Send the browser views of what is shown ahead, all there are if none are named."""
        if turn is self.turn:
            self.image.add(turn.angles if angles is None else filter(turn.seen, angles))

    def _lay_out(self) -> None:
        """For new images or models: sizes, names, the dial, and empty plots until the full turn is measured."""
        width, height = self.turn.tiles.screen_size
        self.image.layout.width, self.image.layout.height = f"{width:.0f}px", f"{height:.0f}px"
        self.names.value = markup.names(self.turn)
        self._dial = markup.Dial.of(self.turn)
        self.dial.background.value = self._dial.background if self._dial else ""
        self.dial.layout.display = None if self._dial else "none"
        self.sphere.layout.display = "none" if self._dial and not markup.SpherePlot.shows(self.turn) else None
        self._plots = {}
        for panel in (self.polar, self.sphere):
            panel.clear(markup.note("measuring the full turn …"))

    def measure_turn(self) -> None:
        """Draw the plots, once; in a notebook this happens by itself, when there is nothing else to do."""
        if self._plots:
            return
        self._plots = {"polar": markup.PolarPlot(self.turn, self._yardsticks)}
        if sphere := markup.SpherePlot.of(self.turn):
            self._plots["sphere"] = sphere
        else:
            self.sphere.clear(markup.note("pick a model with d = 3", "to see its codes here"))
        for panel, plot in self._plots.items():
            getattr(self, panel).background.value = plot.background
        self._show(self.turn, self.turn.view(self.slider.value))
        self._give(self.turn)

    def _complain(self, error: Exception) -> None:
        self.message.value = markup.error(error)

    def save_html(self, path: str | Path) -> Path:
        """Write what is shown as one HTML file whose slider and play button work without a kernel.

        Raises ValueError if it would be larger than `page.LIMIT`.
        """
        return save_page(user_path(path), self._prepare(self._request()), self._yardsticks)


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
