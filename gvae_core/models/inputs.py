"""What every network does with its images before its first layer: check, standardise, pad."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..rotation import rotate
from .arguments import check_whole

SMALLEST, LARGEST = 28, 128  # pixels: what the smallest layouts are made for, and twice doubled
BORDER = 2  # pixels that a canvas has around an image
OVERSHOOT = 0.01  # values may leave [0, 1] by this much: a step of bfloat16 at 1, or rounding after an interpolation


@dataclass(frozen=True)
class ImageFormat:
    """What images a network takes, [N, channels, size, size] in [0, 1], and what it makes of them; MNIST's by default.

    Parameters
    ----------
    size : pixels, 28 to 128
    channels : 1 for grey, 3 for colour, or as many as there are
    mean, std : (x - mean) / std is what a network sees; one number, or one for each channel
    fade : for images that are not black outside, see below

    Without ``fade`` images are padded and turned as they are, so that all outside is 0, MNIST's black. On another
    background the padding would draw a square frame, and a turn black wedges; and corners that turn out of the picture
    are noise in a loss. With ``fade`` an image is standardised first, then fades to 0 in the outer tenth of its
    inscribed disc, and only then is padded and turned. What it fades to is ``mean``, so that has to be what lies
    around: the background, where there is one. Any other value would need a second constant, and come to the same:
    the difference is one number in all of the plane, which the first batch norm takes out. `measured` finds it.

    ValueError where a value makes no sense.
    """

    size: int = 28
    channels: int = 1
    mean: float | Sequence[float] = 0.1307
    std: float | Sequence[float] = 0.3081
    fade: bool = False

    def __post_init__(self):
        check_whole(SMALLEST, size=self.size)
        check_whole(channels=self.channels)
        if self.size > LARGEST:
            raise ValueError(
                f"expected images of {SMALLEST} to {LARGEST} pixels, got size {self.size}; make them smaller"
            )
        for name in ("mean", "std"):
            value = getattr(self, name)
            several = isinstance(value, (Sequence, Tensor)) or getattr(value, "ndim", 0)
            value = tuple(float(v) for v in value) if several else float(value)  # JSON has lists
            object.__setattr__(self, name, value)
            numbers = value if several else (value,) * self.channels
            if len(numbers) != self.channels or not all(
                math.isfinite(v) and (v > 0 or name == "mean") for v in numbers
            ):
                positive = " above 0" if name == "std" else ""
                raise ValueError(
                    f"expected {name} to be finite{positive}, one number or {self.channels}, got {value!r}"
                )

    @classmethod
    def measured(cls, images: Tensor, *, fade: bool = True) -> ImageFormat:
        """The format of training images [N, C, H, H] in [0, 1].

        Per channel: with ``fade`` the median where images fade, the background if there is one, without it the mean;
        and the root of the mean square around that, or 1 for a channel that is the same everywhere.
        """
        channels, size = images.shape[1:3]
        flat = images.transpose(0, 1).flatten(2)  # [C, N, pixels]
        if fade:
            weights = _disc(size, images).flatten()
            mean = flat[..., (weights > 0) & (weights < 1)].flatten(1).median(1).values
            flat = flat[..., weights > 0]
        else:
            mean = flat.mean((1, 2))
        std = (flat - mean[:, None, None]).square().mean((1, 2)).sqrt()
        return cls(size, channels, tuple(mean.tolist()), tuple(std.where(std > 0, 1).tolist()), fade)

    @property
    def canvas_size(self) -> int:
        """Pixels of the canvas on which a decoder draws and losses are taken."""
        return self.size + 2 * BORDER

    def checked(self, images: Tensor, like: Tensor, training: bool = False) -> Tensor:
        """Images [N, channels, size, size] in the dtype of ``like``, a weight of the network; the check at its border.

        Their values are read, and on a GPU waited for, except where there are none to read: while torch.compile,
        torch.export or torch.jit trace, inside functorch's transforms and while a CUDA graph is captured. What looks
        like an image is taken as such: nobody can tell a dark digit on white from a light one on black.

        ValueError where images are not of this size, not of a floating-point dtype, not finite, outside [0, 1] by more
        than 0.01, or none at all in ``training``, where batch statistics are taken (otherwise none gives none).
        """
        if not isinstance(images, Tensor):
            raise ValueError(f"expected images as a torch.Tensor, got {type(images).__name__} (see torch.as_tensor)")
        shape = [self.channels, self.size, self.size]
        if images.ndim != 4 or list(images.shape[1:]) != shape:
            raise ValueError(f"expected images [N, {', '.join(map(str, shape))}], got {list(images.shape)}")
        if not images.is_floating_point():
            raise ValueError(
                f"expected images of floating-point values in [0, 1], got {images.dtype}; divide bytes by 255"
            )
        images = images.to(like.dtype)
        if not _readable(images):
            return images
        if training and not len(images):
            raise ValueError("expected at least one image in train mode, got none")
        if len(images):
            low, high = torch.stack(images.detach().aminmax()).tolist()
            if not (low >= -OVERSHOOT and high <= 1 + OVERSHOOT):  # a NaN makes both NaN
                raise ValueError(f"expected images of finite values in [0, 1], got values from {low:g} to {high:g}")
        return images

    def standardised(self, images: Tensor) -> Tensor:
        """(x - mean) / std, per channel."""
        parts = zip(images.split(1, dim=-3), *self._scales, strict=True)
        return torch.cat([(part - mean) / std for part, mean, std in parts], dim=-3)

    def restored(self, values: Tensor) -> Tensor:
        """The inverse of `standardised`."""
        parts = zip(values.split(1, dim=-3), *self._scales, strict=True)
        return torch.cat([part * std + mean for part, mean, std in parts], dim=-3)

    def turnable(self, images: Tensor) -> Tensor:
        """Images as they may be turned and padded with 0: themselves, or with ``fade`` standardised, 0 around a disc."""
        return self.standardised(images) * _disc(self.size, images) if self.fade else images

    def on_grid(self, images: Tensor, size: int, degrees: Sequence[float] = (0.0,)) -> Tensor:
        """Images standardised on a grid of [size, size], turned by each angle, one after the other along dimension 0."""
        on_grid = fit_to_grid(self.turnable(images), size)
        turned = torch.cat([rotate(on_grid, angle) if angle else on_grid for angle in degrees])
        return turned if self.fade else self.standardised(turned)

    def turned(self, images: Tensor, degrees: float | Tensor) -> Tensor:
        """Images as images, turned as `rotate` turns them; with ``fade`` a disc on the background, without wedges."""
        turned = rotate(self.turnable(images), degrees)
        return self.restored(turned) if self.fade else turned

    @property
    def _scales(self) -> list[Sequence[float]]:
        """Means and standard deviations of all channels: numbers, not tensors, which would have to follow the device."""
        return [(v,) * self.channels if isinstance(v, float) else v for v in (self.mean, self.std)]


MNIST_FORMAT = ImageFormat()


def image_format(images: ImageFormat | Mapping) -> ImageFormat:
    """A format, or one from its fields as a JSON file has them."""
    return images if isinstance(images, ImageFormat) else ImageFormat(**images)


def doublings(size: int) -> int:
    """How often 32 pixels are doubled up to a size: so many strides more than for MNIST a network has."""
    return max(0, int(size // 32).bit_length() - 1)


def _disc(size: int, like: Tensor) -> Tensor:
    """[size, size]: 1 inside, 0 outside the inscribed disc, half a wave in its outer tenth between them."""
    centres = torch.arange(size, device=like.device) - (size - 1) / 2
    radius = (centres[:, None] ** 2 + centres[None] ** 2).sqrt()
    outwards = ((radius - 0.4 * size) / (0.1 * size)).clamp(0, 1)
    return ((1 + (math.pi * outwards).cos()) / 2).to(like.dtype)


def _readable(images: Tensor) -> bool:
    return not (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or type(images) not in (Tensor, torch.nn.Parameter)  # fake tensors
        or images.is_meta
        or torch._C._functorch.is_functorch_wrapped_tensor(images)
        or (images.is_cuda and torch.cuda.is_current_stream_capturing())
    )


def fit_to_grid(images: Tensor, size: int) -> Tensor:
    """Zero-pad images [N, C, H, H] to [N, C, size, size] without moving their centre.

    Where ``size - H`` is odd no integer padding keeps the centre, so the images first go to the grid
    of size H + 1 through means over 2 x 2 pixels (a shift by half a pixel in both directions, which
    commutes exactly with quarter turns).
    """
    height = images.shape[-1]
    if size < height:
        raise ValueError(f"expected a grid of at least {height} pixels, the images' size; got {size}")
    if (size - height) % 2:
        images = F.avg_pool2d(images, 2, stride=1, padding=1)
        height += 1
    return F.pad(images, [(size - height) // 2] * 4)
