"""What the rotation explorer shows at one angle: a picture of all rows, and numbers. No widgets here."""

from __future__ import annotations

import copy
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from ..metrics import angle_between, latent_codes, squared_error, typical_angle
from ..rotation import rotate

STEP = 5  # degrees between the points of the plots and between the saved page's views
ANGLES = tuple(range(-180, 181, STEP))
LIMITS = -180, 180  # of the slider, which stands on whole degrees
TILE, ROW, STRIP = 64.0, 70.0, 524.0  # screen pixels: largest tile, height of a row, width of the picture
GAP = 4  # image pixels between tiles of a row
CLEAR = 255  # this grey level is transparent, so that the page shows between the tiles
YARDSTICK_IMAGES = 100
BATCH = 32  # images; larger ones are no faster per image (measured from 8 to 400), and end later

SAMPLE = 4096  # numbers of a large buffer that its checksum reads


@dataclass(frozen=True)
class Measures:
    """Means over the digits shown, of one model at one angle.

    Parameters
    ----------
    drift : angle (degrees) between the mean directions now and of the upright digit
    error : mean squared error per pixel against the *upright* original
    concentration : kappa of the posterior
    """

    drift: float
    error: float
    concentration: float


@dataclass(frozen=True)
class View:
    """One angle: PNG bytes of all rows, and per model its `Measures` and codes [N, d]."""

    angle: int
    png: bytes
    measures: Mapping[str, Measures]
    codes: Mapping[str, Tensor]


class Snapshot:
    """A model as it was: a copy in eval mode, which nobody trains, moves or switches while a thread computes with it.

    The model itself is only read, so its mode stays as it is.
    """

    def __init__(self, model: nn.Module):
        self._source, self._checksum = model, checksum(model)
        # what is no leaf of autograd's graph cannot be copied; escnn's expanded filters may be none
        kept = {id(buffer): buffer.detach().clone() for buffer in model.buffers() if not buffer.is_leaf}
        with torch.no_grad():
            self.model = copy.deepcopy(model, kept).eval().to(memory_format=torch.channels_last)  # a tenth faster
        self.device = next(self.model.parameters()).device

    def is_of(self, model: nn.Module) -> bool:
        """Whether it shows this model with its weights of now."""
        return model is self._source and checksum(model) == self._checksum

    @torch.no_grad()
    def answer(self, images: Tensor) -> Answer:
        """Encode and decode images [N, C, H, H]; the results on the CPU."""
        posterior = self.model.encode(images.to(self.device))
        decoded = self.model.decode(posterior.mode).clamp(0, 1)
        return Answer(posterior.mode.cpu(), posterior.concentration.cpu(), decoded.cpu())


@dataclass(frozen=True)
class Answer:
    """A model's codes [N, d], concentrations [N] and reconstructions [N, C, H, H] of N images."""

    codes: Tensor
    concentrations: Tensor
    reconstructions: Tensor

    def split(self, count: int) -> list[Answer]:
        parts = (self.codes.split(count), self.concentrations.split(count), self.reconstructions.split(count))
        return [Answer(*part) for part in zip(*parts)]


def checksum(model: nn.Module) -> int:
    """CRC-32 of all parameters and buffers: training, loading and writes through ``.data`` change it.

    Of a buffer with more than `SAMPLE` numbers only so many, evenly spread: those are tables, and filters that
    escnn expands from the weights, together up to forty times as large as these (135 MB).
    """
    value = 0
    for tensor, buffer in _tensors(model):
        in_memory = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)  # so that flattening copies nothing
        flat = tensor.detach().permute(in_memory).reshape(-1)
        if buffer and len(flat) > SAMPLE:
            flat = flat[:: len(flat) // SAMPLE]
        value = zlib.crc32(flat.cpu().contiguous().view(torch.uint8).numpy(), value)
    return value


def _tensors(module: nn.Module) -> Iterator[tuple[Tensor, bool]]:
    """Parameters and buffers, and which of the two; ``modules()`` would hash escnn's bases, for milliseconds."""
    for kept, buffers in ((module._parameters, False), (module._buffers, True)):
        yield from ((tensor, buffers) for tensor in kept.values() if tensor is not None)
    for child in module._modules.values():
        if child is not None:
            yield from _tensors(child)


class Turn:
    """Some digits and some models through the full turn; every whole angle is computed at most once.

    Parameters
    ----------
    models : name -> `Snapshot`, one row of reconstructions each
    digits : name -> image [1, C, H, H] in [0, 1], upright
    """

    def __init__(self, models: Mapping[str, Snapshot], digits: Mapping[str, Tensor]):
        self.models, self.digits = dict(models), dict(digits)
        self.images = torch.cat(list(digits.values()))
        self._stopped = False
        self._claimed: set[int] = set()  # angles that a thread works on, or has worked on
        self._views: dict[int, View] = {}  # at most one per whole degree
        self._answers: dict[str, dict[int, Answer]] = {name: {} for name in models}
        self._periods = {name: self._period(name) for name in models}
        self.upright = {name: answers[0].codes for name, answers in self._answers.items()}

    @property
    def scale(self) -> float:
        """Screen pixels per image pixel: tiles are as large as fits, rows always `ROW` high."""
        count, side = len(self.images), self.images.shape[-1]
        return min(TILE / side, STRIP / (count * (side + GAP) - GAP))

    @property
    def row_gap(self) -> int:
        """Image pixels between two rows."""
        return round(ROW / self.scale) - self.images.shape[-1]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture in image pixels; half a row gap above and below."""
        count, side = len(self.images), self.images.shape[-1]
        return count * (side + GAP) - GAP, (len(self.models) + 1) * (side + self.row_gap)

    @property
    def screen_size(self) -> tuple[float, float]:
        """Width and height of the picture in screen pixels; rows are exactly `ROW` high."""
        return self.scale * self.size[0], ROW * (len(self.models) + 1)

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
            self._answer(name, turned)
        for angle, images in turned.items():
            answers = {name: self._answers[name][self._reduced(name, angle)] for name in self.models}
            self._views[angle] = self._view(angle, images, answers)

    def _turned(self, angles: Sequence[int]) -> Sequence[Tensor]:
        count = len(self.images)
        degrees = torch.tensor(angles, dtype=torch.float64).repeat_interleave(count)
        return rotate(self.images.repeat(len(angles), 1, 1, 1), degrees).split(count)

    def _answer(self, name: str, turned: Mapping[int, Tensor]) -> None:
        """Let a model see the turned digits, unless it gave its answer to them at another quarter turn."""
        new = {}
        for angle, images in turned.items():
            if (reduced := self._reduced(name, angle)) not in self._answers[name]:
                new[reduced] = images
        if new:
            answer = self.models[name].answer(torch.cat(list(new.values())))
            self._answers[name].update(zip(new, answer.split(len(self.images))))

    def _view(self, angle: int, images: Tensor, answers: Mapping[str, Answer]) -> View:
        measures = {
            name: Measures(
                angle_between(answer.codes, self.upright[name]).mean().item(),
                squared_error(answer.reconstructions, self.images).mean().item(),
                answer.concentrations.mean().item(),
            )
            for name, answer in answers.items()
        }
        rows = [images, *(answer.reconstructions for answer in answers.values())]
        codes = {name: answer.codes for name, answer in answers.items()}
        return View(angle, png(picture(rows, self.row_gap)), measures, codes)

    def _reduced(self, name: str, angle: int) -> int:
        return angle % self._periods[name]

    def _period(self, name: str) -> int:
        """90 where quarter turns change nothing: then a model answers every fourth angle only.

        Quarter turns move whole pixels, so a steerable encoder with a sampling grid that they map onto itself is
        exact there, up to rounding. That is measured on the digits themselves, upright and at 30°.
        """
        angles = (0, 30, 90, 120)
        answer = self.models[name].answer(torch.cat(tuple(self._turned(angles))))
        answers = dict(zip(angles, answer.split(len(self.images))))
        self._answers[name].update(answers)
        here, there = (torch.cat([answers[a].reconstructions for a in pair]) for pair in ((0, 30), (90, 120)))
        codes, others = (torch.cat([answers[a].codes for a in pair]) for pair in ((0, 30), (90, 120)))
        same = (here - there).abs().max() < 0.1 / CLEAR and angle_between(codes, others).max() < 0.01
        return 90 if same else 360


def picture(rows: list[Tensor], row_gap: int = 0) -> np.ndarray:
    """Rows of images [N, C, H, W] in [0, 1] -> levels [height, width], grey, or [height, width, 4] where C = 3.

    Between the tiles grey levels are `CLEAR`, and colours have no opacity.
    """
    levels = torch.stack(rows, 1).mul(CLEAR - 1).round().byte()  # [N, rows, C, H, W]
    if levels.shape[2] > 1:
        levels = torch.cat((levels, torch.full_like(levels[:, :, :1], 255)), 2)
    above = row_gap // 2
    clear = CLEAR if levels.shape[2] == 1 else 0
    spaced = functional.pad(levels, (0, GAP, above, row_gap - above), value=clear)
    placed = spaced.permute(1, 3, 0, 4, 2).flatten(2, 3).flatten(0, 1)[:, :-GAP]  # [height, width, channels]
    return placed.squeeze(-1).numpy()


def png(levels: np.ndarray) -> bytes:
    """Levels of `picture` as PNG; compressed lightly, because time counts more than bytes."""
    buffer = io.BytesIO()
    clear = {"transparency": CLEAR} if levels.ndim == 2 else {}
    Image.fromarray(levels).save(buffer, "PNG", compress_level=1, **clear)
    return buffer.getvalue()


def yardstick(model: nn.Module, images: Tensor, labels: Tensor | None) -> float:
    """Typical angle (degrees) between codes of different classes, or of different images where no two classes are.

    Not a number for a single image. Meant for the images of `yardstick_sample`.
    """
    if labels is None or len(labels.unique()) < 2:
        labels = torch.arange(len(images))
    return typical_angle(latent_codes(model, images), labels) if len(images) > 1 else float("nan")


def yardstick_sample(count: int, labels: Tensor | None) -> Tensor:
    """Indices of at most `YARDSTICK_IMAGES` of ``count`` images: random, seeded, of each class as many.

    ``labels`` are [count] or None.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    if labels is not None:
        rank = torch.empty(count, dtype=torch.long)  # an image is the how-manieth of its class
        for label in labels.unique():
            chosen = order[labels[order] == label]
            rank[chosen] = torch.arange(len(chosen))
        order = order[rank[order].argsort(stable=True)]
    return order[:YARDSTICK_IMAGES].sort().values
