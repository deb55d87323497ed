"""The explorer's picker: a thumbnail per class, or pages of one per image; several at once, and one for the drawn digit."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Sequence

import ipywidgets as widgets
from torch import Tensor

from .images import Images
from .tiles import STRIP, thumbnail

PAGE = 20  # thumbnails at once
FIRST = 10  # of them are picked in the beginning
PIXELS = 64  # of a thumbnail at most
DRAWN = "yours"
_css_names = itertools.count()  # so that two explorers on one page do not mix


class Picker(widgets.HBox):
    """Toggle buttons with thumbnails, a page of them at a time.

    With labels a button stands for a class, and "another one" takes the next image of each class picked; without them
    it stands for an image.

    Parameters
    ----------
    images : of them only those of the page and those picked are read
    changed : called after every change of the choice
    guard : makes of a callback one whose errors are seen
    """

    def __init__(self, images: Images, changed: Callable[[], None], guard: Callable[[Callable], Callable]):
        self._images, self._changed = images, changed
        self._names: Sequence[str] = images.classes
        if images.labels is None:
            self._names = [f"#{number}" for number in range(1, len(images) + 1)]
        else:
            self._members = images.labels.argsort(stable=True).split(images.labels.bincount().tolist())
            self._position = [0] * len(self._members)
        self._picked = set(range(min(FIRST, len(self._names))))  # places in the list of names
        self._drawing: Tensor | None = None
        self._drawing_picked = False
        self._before_drawing: list[str] = []
        self._digits: dict[str, Tensor] = {}

        width = min(96, max(46, 12 + 8 * max(map(len, self._names))))
        self._slots = [self._button(width) for _ in range(min(PAGE, len(self._names)))]
        self._own = self._button(width)
        self.another = widgets.Button(
            description="another one",
            tooltip="other images of the same classes",
            layout=widgets.Layout(width="100px", margin="2px 2px 2px 16px"),
        )
        self.another.on_click(guard(self._next))
        self._style = widgets.HTML(layout=widgets.Layout(display="none"))
        self.pages = -(-len(self._names) // PAGE)
        self.page = widgets.BoundedIntText(value=1, min=1, max=self.pages, layout=widgets.Layout(width="74px"))
        self.previous, self.next = (
            widgets.Button(description=sign, tooltip=tooltip, layout=widgets.Layout(width="34px"))
            for sign, tooltip in (("‹", "previous page"), ("›", "next page"))
        )
        self.previous.on_click(guard(lambda _: self._turn_page(-1)))
        self.next.on_click(guard(lambda _: self._turn_page(1)))
        self.page.observe(guard(lambda _: self._draw()), names="value")
        of = widgets.HTML(f"of {self.pages:,}", layout=widgets.Layout(margin="2px 6px"))
        beside = widgets.Layout(align_items="center", margin="0 0 0 12px")
        pager = widgets.HBox([self.previous, self.page, of, self.next], layout=beside)
        self._draw()
        in_rows = widgets.Layout(flex_flow="row wrap", max_width=f"{STRIP:.0f}px" if len(self._slots) > FIRST else None)
        controls = [pager] * (self.pages > 1) + [self.another] * (images.labels is not None)
        super().__init__(
            [widgets.HBox([*self._slots, self._own], layout=in_rows), *controls, self._style],
            layout=widgets.Layout(flex_flow="row wrap", align_items="center"),
        )

    def _button(self, width: int) -> widgets.ToggleButton:
        button = widgets.ToggleButton(layout=widgets.Layout(width=f"{width}px"))
        button.css = f"gvae-pick-{next(_css_names)}"
        button.add_class("gvae-pick")
        button.add_class(button.css)
        button.observe(self._toggled, names="value")
        return button

    # --- what is picked -----------------------------------------------------------------------------

    @property
    def buttons(self) -> dict[str, widgets.ToggleButton]:
        """The page's buttons by name, and that of the drawn digit."""
        first = self._first
        return dict(zip(self._names[first : first + PAGE], self._slots)) | {DRAWN: self._own}

    @property
    def digits(self) -> dict[str, Tensor]:
        """The images picked, on this page or another: name -> image [1, C, H, H].

        Raises ValueError if none is picked.
        """
        if not self._digits:
            places = sorted(self._picked)
            images = self._images[[self._index(place) for place in places]].split(1) if places else ()
            self._digits = {self._names[place]: image for place, image in zip(places, images)}
            if self._drawing_picked:
                self._digits[DRAWN] = self._drawing
        if not self._digits:
            raise ValueError("expected at least one image to be picked, got none")
        return self._digits

    def draw(self, digit: Tensor | None) -> None:
        """Show a drawn digit [1, 1, H, W] alone, and large; with None the others come back."""
        if digit is None and self._drawing is None:
            return
        if self._drawing is None:
            self._before_drawing = [self._names[place] for place in sorted(self._picked)]
        self._drawing = digit
        self.select([DRAWN] if digit is not None else self._before_drawing)

    def select(self, names: list[str]) -> None:
        """Show exactly these images."""
        for name in names:
            if name not in self._names and name != DRAWN:
                few = self._names if len(self._names) <= PAGE else [*self._names[:3], "…", self._names[-1]]
                raise ValueError(f"expected images among {', '.join(few)}; got {name!r}")
        self._picked = {self._names.index(name) for name in names if name != DRAWN}
        self._drawing_picked = DRAWN in names and self._drawing is not None
        self._update()

    def _toggled(self, change: dict) -> None:
        if change["owner"] is self._own:
            self._drawing_picked = change["new"]
        else:
            place = self._first + self._slots.index(change["owner"])
            self._picked ^= {place}
        self._digits = {}
        self._changed()

    def _next(self, _: object) -> None:
        for place in self._picked:
            self._position[place] = (self._position[place] + 1) % len(self._members[place])
        self._update()

    def _index(self, place: int) -> int:
        """Which image stands at a place in the list of names."""
        if self._images.labels is None:
            return place
        return self._members[place][self._position[place]].item()

    # --- the page -----------------------------------------------------------------------------------

    @property
    def _first(self) -> int:
        return PAGE * (self.page.value - 1)

    def _turn_page(self, by: int) -> None:
        self.page.value = min(max(self.page.value + by, 1), self.pages)

    def _update(self) -> None:
        self._digits = {}
        self._draw()
        self._changed()

    def _draw(self) -> None:
        """The page's names and thumbnails. Buttons cannot hold pictures, but CSS can give them one."""
        places = range(self._first, min(self._first + PAGE, len(self._names)))
        indices = [self._index(place) for place in places]
        images = dict(zip(self._slots, self._images[indices].split(1)))
        if self._drawing is not None:
            images[self._own] = self._drawing
        for slot, place, index in itertools.zip_longest(self._slots, places, indices):
            slot.layout.visibility = "hidden" if place is None else "visible"
            if place is not None:
                slot.description = self._names[place]
                known = self._images.names is not None and self._images.labels is None
                slot.tooltip = f"show {self._images.names[index] if known else self._names[place]}"
                self._set(slot, place in self._picked)
        self._own.description, self._own.tooltip = DRAWN, f"show {DRAWN}"
        self._own.layout.display = "none" if self._drawing is None else None
        self._set(self._own, self._drawing_picked)
        self.previous.disabled, self.next.disabled = self.page.value == 1, self.page.value == self.pages
        rules = []
        for button, image in images.items():
            data = base64.b64encode(thumbnail(image, PIXELS)).decode()
            rules.append(f'.{button.css} {{ background-image: url("data:image/png;base64,{data}") !important }}')
        self._style.value = f"<style>{''.join(rules)}</style>"

    def _set(self, button: widgets.ToggleButton, value: bool) -> None:
        """Press or release a button; that is no change of the choice."""
        button.unobserve(self._toggled, names="value")
        button.value = value
        button.observe(self._toggled, names="value")
