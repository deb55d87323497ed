"""What the rotation explorer shows at one angle: a picture of all rows, and numbers. No widgets here."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
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
TILE, ROW, STRIP = 64.0, 70.0, 524.0  # screen pixels: largest tile, height of a row, width of the picture
GAP = 4  # image pixels between tiles of a row
CLEAR = 255  # this grey level is transparent, so that the page shows between the tiles
YARDSTICK_IMAGES = 100


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


class Turn:
    """Some digits and some models through the full turn; every whole angle is computed at most once.

    Parameters
    ----------
    models : name -> `SphericalVAE`, one row of reconstructions each
    digits : name -> image [1, 1, H, H] in [0, 1], upright
    """

    def __init__(self, models: Mapping[str, nn.Module], digits: Mapping[str, Tensor]):
        self.models, self.digits = dict(models), dict(digits)
        self.images = torch.cat(list(digits.values()))
        self.upright = {name: latent_codes(model, self.images) for name, model in self.models.items()}
        self._views: dict[int, View] = {}  # at most one per whole degree

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

    def view(self, angle: int) -> View:
        """The digits turned counter-clockwise by ``angle`` whole degrees, and their reconstructions."""
        if angle not in self._views:
            self._views[angle] = self._compute(angle)
        return self._views[angle]

    def measure_next(self) -> bool:
        """Compute one more of `ANGLES`, from 0 outwards; False once all of them are there."""
        missing = [angle for angle in ANGLES if angle not in self._views]
        if missing:
            self.view(min(missing, key=abs))
        return len(missing) > 1

    def drifts(self, name: str) -> list[float]:
        """Mean drift (degrees) at each of `ANGLES`."""
        return [self.view(angle).measures[name].drift for angle in ANGLES]

    def trail(self, name: str) -> Tensor:
        """Codes [angles, N, d] at each of `ANGLES`."""
        return torch.stack([self.view(angle).codes[name] for angle in ANGLES])

    @torch.no_grad()
    def _compute(self, angle: int) -> View:
        turned = rotate(self.images, angle)
        rows, measures, codes = [turned], {}, {}
        for name, model in self.models.items():
            if model.training:  # a user may train on; asking every module would cost milliseconds
                model.eval()
            posterior = model.encode(turned.to(next(model.parameters()).device))
            rows.append(model.decode(posterior.mode).clamp(0, 1).cpu())
            codes[name] = posterior.mode.cpu()
            measures[name] = Measures(
                angle_between(codes[name], self.upright[name]).mean().item(),
                squared_error(rows[-1], self.images).mean().item(),
                posterior.concentration.mean().item(),
            )
        return View(angle, png(picture(rows, self.row_gap)), measures, codes)


def picture(rows: list[Tensor], row_gap: int = 0) -> np.ndarray:
    """Rows of images [N, 1, H, W] in [0, 1] -> grey levels [height, width], `CLEAR` between the tiles."""
    levels = torch.cat(rows, 1).mul(CLEAR - 1).round().byte()  # [N, rows, H, W]
    above = row_gap // 2
    spaced = functional.pad(levels, (0, GAP, above, row_gap - above), value=CLEAR)
    return spaced.permute(1, 2, 0, 3).flatten(2).flatten(0, 1)[:, :-GAP].numpy()


def png(levels: np.ndarray) -> bytes:
    """Grey levels [height, width] as PNG; compressed lightly, because time counts more than bytes."""
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG", compress_level=1, transparency=CLEAR)
    return buffer.getvalue()


def yardstick(model: nn.Module, images: Tensor, labels: Tensor | None) -> float:
    """Typical angle (degrees) between codes of different digits; of different images without labels.

    Measured on the first `YARDSTICK_IMAGES` images; not a number where they hold one class only.
    """
    images = images[:YARDSTICK_IMAGES]
    labels = torch.arange(len(images)) if labels is None else labels[: len(images)]
    return typical_angle(latent_codes(model, images), labels)
