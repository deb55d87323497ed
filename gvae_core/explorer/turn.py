"""What the rotation explorer shows at one angle: a picture of all rows, and numbers. No widgets here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..metrics import angle_between, mean_direction, squared_error
from ..rotation import mirrored, rotate, wrapped
from .snapshot import Answer, Snapshot
from .tiles import Tiles, border, png

STEP = 5  # degrees between the points of the plots and between the saved page's views
ANGLES = tuple(range(-180, 181, STEP))
LIMITS = -180, 180  # of the slider, which stands on whole degrees
BATCH = 32  # images; larger ones are no faster per image (measured from 8 to 400), and end later


@dataclass(frozen=True)
class Measures:
    """Means over the images shown, of one model at one angle.

    Parameters
    ----------
    drift : angle (degrees) between the mean directions now and of the upright image
    error : mean squared error per pixel against the *upright* original; of a model with a pose, whose reconstruction
        turns along, against the turned image
    concentration : kappa of the posterior
    """

    drift: float
    error: float
    concentration: float


@dataclass(frozen=True)
class Found:
    """How far N images are turned, as a model with a pose finds it.

    Parameters
    ----------
    angles : [N] degrees in [-180, 180), the pose now less that at 0°
    arcs : [N] degrees, half the arc that holds 90 % of the pose's posterior
    """

    angles: Tensor
    arcs: Tensor

    @property
    def mean(self) -> float:
        """Direction of the mean of the angles' unit vectors, in degrees."""
        return mean_direction(self.angles)


@dataclass(frozen=True)
class View:
    """One angle: PNG bytes of all rows, and per model its `Measures` and codes [N, d], with a pose what it `Found`."""

    angle: int
    png: bytes
    measures: Mapping[str, Measures]
    codes: Mapping[str, Tensor]
    found: Mapping[str, Found]


@dataclass(frozen=True)
class Rows:
    """What is kept of a model's answer at one angle.

    ``tiles`` are the reconstructions and, of a model with a pose, the canonical views, as `Tiles.draw` gives them.
    """

    codes: Tensor
    measures: Measures
    tiles: tuple[Tensor, ...]
    found: Found | None = None

    def turned(self, quarters: int) -> Rows:
        """The rows where the images are turned by so many quarter turns more, which changes a pose and nothing else."""
        if self.found is None:
            return self
        reconstructions, canonical = self.tiles
        found = replace(self.found, angles=wrapped(self.found.angles + 90 * quarters))
        return replace(self, tiles=(torch.rot90(reconstructions, quarters, (2, 3)), canonical), found=found)


class Turn:
    """Some images and some models through the full turn; every whole angle is computed at most once.

    Where turning uncovers corners they are filled with the image's background, the median along its border; of a model
    that fades images out towards a disc, what it sees is shown.

    Parameters
    ----------
    models : name -> `Snapshot`; one row of reconstructions each, with a pose also one of canonical views, the images
        turned back by the angle found
    digits : name -> image [1, C, H, H] in [0, 1], upright
    disc : whether tiles are clipped to a disc

    Raises
    ------
    ValueError : a model takes images of another size or other channels
    """

    def __init__(self, models: Mapping[str, Snapshot], digits: Mapping[str, Tensor], disc: bool = False):
        self.models, self.digits = dict(models), dict(digits)
        self.images = torch.cat(list(digits.values()))
        self.rows = {name: 1 + model.has_pose for name, model in models.items()}
        self.tiles = Tiles(len(self.images), self.images.shape[-1], 1 + sum(self.rows.values()), disc)
        self._background = _background(self.images)
        self._seen = next((model.seen for model in models.values() if model.fades), lambda images: images)
        self._stopped = False
        self._claimed: set[int] = set()  # angles that a thread works on, or has worked on
        self._views: dict[int, View] = {}  # at most one per whole degree
        self._upright: dict[str, Answer] = {}
        self._rows: dict[str, dict[int, Rows]] = {name: {} for name in models}
        self._periods = {name: self._period(name) for name in models}
        self.upright = {name: answer.codes for name, answer in self._upright.items()}

    def is_of(self, models: Sequence[str], digits: Mapping[str, Tensor]) -> bool:
        """Whether it shows just these models and digits."""
        return (
            list(models) == list(self.models)
            and list(digits) == list(self.digits)
            and torch.equal(torch.cat(list(digits.values())), self.images)
        )

    # --- which angles, and when --------------------------------------------------------------------

    def seen(self, angle: int) -> View | None:
        """The view at ``angle`` if it is there."""
        return self._views.get(angle)

    @property
    def angles(self) -> list[int]:
        """Those whose view is there."""
        return list(self._views)

    def view(self, angle: int) -> View:
        """The digits turned counter-clockwise by ``angle`` whole degrees, and their reconstructions."""
        if angle not in self._views:
            self._compute([angle])
        return self._views[angle]

    def views(self, angles: Iterable[int]) -> list[View]:
        """The views at these angles; what is missing is computed in batches."""
        angles = list(angles)
        missing = [angle for angle in angles if angle not in self._views]
        for start in range(0, len(missing), self._batch):
            self._compute(missing[start : start + self._batch])
        return [self._views[angle] for angle in angles]

    def drifts(self, name: str) -> list[float]:
        """Mean drift (degrees) at each of `ANGLES`."""
        return [view.measures[name].drift for view in self.views(ANGLES)]

    def trail(self, name: str) -> Tensor:
        """Codes [angles, N, d] at each of `ANGLES`."""
        return torch.stack([view.codes[name] for view in self.views(ANGLES)])

    def next_batch(self, angle: int, ahead: int = 0, one: bool = False) -> list[int]:
        """The missing angles to compute next, or the first ``one`` of them; none when there is no more to do.

        Without a drag the nearest to ``angle`` come first, then those at the slider's ends, where keys, play and a
        drag across the whole range begin; those of the plots (`ANGLES`) somewhat before the others. In a drag
        those from ``angle + ahead`` on in its direction, the sign of ``ahead``.
        """

        def order(other: int) -> float:
            away = other - angle - ahead
            if ahead:
                return abs(away) * (4 if away * ahead < 0 else 1)
            distance = min(abs(away), 15 + LIMITS[1] - abs(other))
            return distance * (0.5 if other % STEP == 0 else 1)

        missing = [other for other in range(LIMITS[0], LIMITS[1] + 1) if other not in self._claimed]
        batch = sorted(missing, key=order)[: 1 if one else self._batch]
        self._claimed.update(batch)
        return batch

    def compute(self, angles: Sequence[int]) -> None:
        """Compute the views at the angles of `next_batch`; may run in several threads at once."""
        self._compute([angle for angle in angles if angle not in self._views], lambda: self._stopped)

    def stop(self) -> None:
        """Let `compute` end early: nobody looks any more."""
        self._stopped = True

    @property
    def complete(self) -> bool:
        """Whether all that the plots need is there."""
        return all(angle in self._views for angle in ANGLES)

    @property
    def _batch(self) -> int:
        return max(1, BATCH // len(self.images))

    # --- one batch of angles ------------------------------------------------------------------------

    @torch.no_grad()
    def _compute(self, angles: Sequence[int], stopped: Callable[[], bool] = lambda: False) -> None:
        if not angles:
            return
        self._claimed.update(angles)
        turned = dict(zip(angles, self._turned(angles)))
        for name in self.models:
            if stopped():
                return
            if new := {angle % self._periods[name] for angle in angles} - self._rows[name].keys():
                self._ask(name, sorted(new))
        for angle, images in turned.items():
            self._views[angle] = self._view(angle, images)

    def _turned(self, angles: Sequence[int]) -> Sequence[Tensor]:
        count = len(self.images)
        return self._rotated(torch.tensor(angles, dtype=torch.float64).repeat_interleave(count)).split(count)

    def _rotated(self, degrees: Tensor) -> Tensor:
        """All images, as often as there are angles for them, each turned by its own."""
        images, level = (x.repeat(len(degrees) // len(x), 1, 1, 1) for x in (self.images, self._background))
        return rotate(images - level, degrees) + level

    def _ask(self, name: str, angles: Sequence[int]) -> list[Answer]:
        """A model's answers to the images turned by these angles, the first time by 0° first; their rows are kept."""
        turned = self._turned(angles)
        answers = self.models[name].answer(torch.cat(turned)).split(len(self.images))
        self._upright.setdefault(name, answers[0])
        rows = (self._row(name, *seen) for seen in zip(angles, turned, answers))
        self._rows[name].update(zip(angles, rows))
        return answers

    def _view(self, angle: int, images: Tensor) -> View:
        rows = {}
        for name, period in self._periods.items():
            reduced = angle % period
            rows[name] = self._rows[name][reduced].turned((angle - reduced) // 90)
        tiles = [self.tiles.draw(self._seen(images)), *(tiles for row in rows.values() for tiles in row.tiles)]
        return View(
            angle,
            png(self.tiles.picture(tiles)),
            {name: row.measures for name, row in rows.items()},
            {name: row.codes for name, row in rows.items()},
            {name: row.found for name, row in rows.items() if row.found},
        )

    def _row(self, name: str, angle: int, images: Tensor, answer: Answer) -> Rows:
        """What to keep of the answer to the images turned by an angle."""
        model, upright, found = self.models[name], self._upright[name], None
        tiles = [self.tiles.draw(answer.reconstructions)]
        if answer.poses is not None:
            found = Found(wrapped(answer.poses - upright.poses), answer.arcs)
            back = self._rotated(angle - answer.poses.double())
            tiles.append(self.tiles.draw(model.seen(back if answer.hands is None else mirrored(back, answer.hands))))
        measures = Measures(
            angle_between(answer.codes, upright.codes).mean().item(),
            squared_error(answer.reconstructions, model.seen(images if found else self.images)).mean().item(),
            answer.concentrations.mean().item(),
        )
        return Rows(answer.codes, measures, tuple(tiles), found)

    def _period(self, name: str) -> int:
        """90 where quarter turns change nothing but a pose, by as much: then a model answers every fourth angle only.

        Quarter turns move whole pixels, so a steerable encoder with a sampling grid that they map onto itself is
        exact there, up to rounding. That is measured on the images themselves, upright and at 30°.
        """
        try:
            answers = self._ask(name, (0, 30, 90, 120))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        codes, others = (torch.cat([answer.codes for answer in pair]) for pair in (answers[:2], answers[2:]))
        same = angle_between(codes, others).max() < 0.01
        if answers[0].poses is not None:
            poses, others = (torch.cat([answer.poses for answer in pair]) for pair in (answers[:2], answers[2:]))
            same &= wrapped(others - poses - 90).abs().max() < 0.1
        return 90 if same else 360


def _background(images: Tensor) -> Tensor:
    """Median along the border of each image and channel [N, C, H, H]: [N, C, 1, 1]."""
    return border(images).median(-1).values[..., None, None]
