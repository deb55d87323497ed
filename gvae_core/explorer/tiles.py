"""The explorer's picture: rows of images as tiles of one PNG, and how large they are."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

TILE, ROW, STRIP = 64.0, 70.0, 524.0  # screen pixels: a small image's largest tile, a row of them, width of the picture
GAPS = 7  # a gap between two tiles is a seventh of a tile
CLEAR = 255  # this grey level is transparent, so that the page shows between the tiles


@dataclass(frozen=True)
class Tiles:
    """Rows of ``count`` images of ``side`` pixels: tiles as large as fits, larger ones for larger images.

    Where ``disc`` is set a tile is the disc that stays in the picture at every angle. Images are drawn with their own
    pixels, or with the screen's where those are fewer.
    """

    count: int
    side: int
    rows: int
    disc: bool = False

    @property
    def tile(self) -> float:
        """Side of a tile in screen pixels."""
        return min(max(TILE, self.side), STRIP / (self.count + (self.count - 1) / GAPS))

    @property
    def row(self) -> float:
        """Height of a row in screen pixels."""
        return max(ROW, self.tile + ROW - TILE)

    @property
    def drawn(self) -> int:
        """Side of a tile in the picture's pixels."""
        return min(self.side, round(self.tile))

    @property
    def scale(self) -> float:
        """Screen pixels per pixel of the picture."""
        return self.tile / self.drawn

    @property
    def gap(self) -> int:
        """The picture's pixels between two tiles of a row."""
        return max(1, self.drawn // GAPS)

    @property
    def row_gap(self) -> int:
        """The picture's pixels between two rows."""
        return round(self.row / self.scale) - self.drawn

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture in its pixels; half a row gap above and below."""
        return self.count * (self.drawn + self.gap) - self.gap, self.rows * (self.drawn + self.row_gap)

    @property
    def screen_size(self) -> tuple[float, float]:
        """Width and height of the picture in screen pixels."""
        return self.scale * self.size[0], self.row * self.rows

    def draw(self, images: Tensor) -> Tensor:
        """Images [N, C, H, H] in [0, 1] -> bytes [N, C, h, h]; colours, and discs, with one more channel: the opacity."""
        if self.drawn < self.side:
            images = functional.interpolate(images, size=(self.drawn,) * 2, mode="bilinear", antialias=True)
        levels = images.mul(CLEAR - 1).round().byte()
        if not self.disc and levels.shape[1] == 1:
            return levels
        opacity = torch.full_like(levels[:, :1], 255)
        if self.disc:
            centres = torch.arange(self.drawn) - (self.drawn - 1) / 2
            inside = self.drawn / 2 - torch.hypot(centres[:, None], centres[None])
            opacity = opacity.mul(inside.add(0.5).clamp(0, 1)).round().byte()
        return torch.cat((levels, opacity), 1)

    def picture(self, rows: Sequence[Tensor]) -> np.ndarray:
        """Rows of what `draw` gives -> levels [height, width], or [height, width, channels and opacity].

        Between the tiles grey levels are `CLEAR`, and where there is an opacity it is 0.
        """
        levels = torch.stack(list(rows), 1)  # [N, rows, C, h, h]
        above = self.row_gap // 2
        clear = CLEAR if levels.shape[2] == 1 else 0
        spaced = functional.pad(levels, (0, self.gap, above, self.row_gap - above), value=clear)
        placed = spaced.permute(1, 3, 0, 4, 2).flatten(2, 3).flatten(0, 1)[:, : -self.gap]  # [height, width, channels]
        return placed.squeeze(-1).numpy()


def border(images: Tensor) -> Tensor:
    """The pixels along the four sides of images [N, C, H, H]: [N, C, 4 H]."""
    return torch.cat([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], -1)


def thumbnail(image: Tensor, largest: int) -> bytes:
    """An image [1, C, H, H] in [0, 1] as PNG of at most so many pixels a side."""
    side = min(image.shape[-1], largest)
    if side < image.shape[-1]:
        image = functional.interpolate(image, size=(side, side), mode="bilinear", antialias=True)
    return png(image[0].mul(255).round().byte().permute(1, 2, 0).squeeze(-1).numpy(), clear=None)


def png(levels: np.ndarray, clear: int | None = CLEAR) -> bytes:
    """Levels of `Tiles.picture` as PNG; compressed lightly, because time counts more than bytes.

    Grey levels of ``clear`` are transparent.
    """
    buffer = io.BytesIO()
    transparency = {"transparency": clear} if levels.ndim == 2 and clear is not None else {}
    Image.fromarray(levels).save(buffer, "PNG", compress_level=1, **transparency)
    return buffer.getvalue()
