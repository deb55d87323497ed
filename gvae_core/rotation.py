"""Rotate images: bilinear in general, an exact permutation of the pixels for quarter turns."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor
from torch.nn import functional


def rotate(images: Tensor, degrees: float | Tensor) -> Tensor:
    r"""Rotate each image counter-clockwise about its centre, as seen with row 0 at the top.

    With the origin in the image centre, x to the right and y upwards,

    .. math:: \text{out}(p) = \text{in}(R_{-\theta}\, p), \qquad
        R_\theta = \begin{pmatrix}\cos\theta & -\sin\theta\\ \sin\theta & \cos\theta\end{pmatrix},

    where ``in`` is interpolated bilinearly between pixel centres and is zero outside the image.
    Multiples of 90° (also 360, -180, 450, ...) move whole pixels, without interpolation: there the
    result equals ``torch.rot90`` bit for bit, also in a batch with other angles.

    `images`: [N, C, H, H], square, of any floating-point dtype (interpolated in float32 at least), on
    any device; `degrees`: one finite angle for all or [N], one per image. The result has the images'
    dtype and device, in new memory. Differentiable in the images; the angle is a constant, so a
    tensor that requires a gradient is refused (`turn` takes it). Anything else is a ValueError.

    >>> image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> rotate(image, 90)
    tensor([[[[2., 4.],
              [1., 3.]]]])
    """
    _check_images(images, square=True)
    if isinstance(degrees, Real) and not isinstance(degrees, bool) and math.isfinite(degrees):
        degrees = float(degrees)
        turns, rest = divmod(degrees, 90)  # known without a look at a tensor, which a GPU would be waited for
        if not rest:
            return torch.rot90(images, int(turns) % 4, (2, 3)).clone(memory_format=torch.contiguous_format)
        return _interpolate(images, torch.full((len(images),), degrees, dtype=torch.float64, device=images.device))
    angles = _angles(degrees, len(images), "cpu")
    if angles.requires_grad:
        raise ValueError("expected degrees without gradient, got a tensor that requires one")
    bad = angles[~torch.isfinite(angles)]
    if bad.numel():
        raise ValueError(f"expected finite degrees, got {bad[0].item()}")

    quarter_turns = torch.round(angles / 90).long() % 4
    exact = torch.remainder(angles, 90) == 0
    rotated = torch.empty_like(images, memory_format=torch.contiguous_format)
    for turns in range(4):
        chosen = (exact & (quarter_turns == turns)).nonzero()[:, 0].to(images.device)
        if len(chosen):
            rotated[chosen] = torch.rot90(images[chosen], turns, (2, 3))
    chosen = (~exact).nonzero()[:, 0]
    if len(chosen):
        on_device = chosen.to(images.device)
        rotated[on_device] = _interpolate(images[on_device], angles[chosen])
    return rotated


def turn(images: Tensor, degrees: float | Tensor) -> Tensor:
    """Rotate as `rotate` does, but bilinearly at every angle and differentiably in the angle too.

    The sampler of spatial transformer networks (M. Jaderberg et al., NeurIPS 2015). Its derivative in
    the angle jumps where a pixel lands on another's centre, as all do at quarter turns; there each
    pixel's is that of one side. Arguments, result and errors as for `rotate`, except: `images` may be
    oblong, [N, C, H, W]; `degrees` may require a gradient, and is not looked at, which would hold a
    GPU up at every step: an angle that is not finite makes its image NaN.

    >>> image = torch.tensor([[[[0.0, 0, 0], [0, 0, 1], [0, 0, 0]]]])  # a pixel at the right
    >>> degrees = torch.tensor(45.0, requires_grad=True)
    >>> top = turn(image, degrees)[0, 0, 0, 1]  # sin(45°) (1 - cos(45°)), rising
    >>> top.detach(), torch.autograd.grad(top, degrees)[0]
    (tensor(0.2071), tensor(0.0123))
    """
    _check_images(images)
    return _interpolate(images, _angles(degrees, len(images)))


def mirrored(images: Tensor, hands: Tensor) -> Tensor:
    """Images [N, C, H, W], those whose hand, of [N], is negative mirrored at the horizontal axis: upside down."""
    return torch.where(hands[:, None, None, None] < 0, images.flip(2), images)


def random_angles(count: int, seed: int) -> Tensor:
    """`count` >= 0 angles uniformly from [-180, 180) degrees: [count], float32, on the CPU.

    Each call seeds its own generator: the same seed gives the same angles on every device, and a
    shorter draw is not promised to be the start of a longer one. ValueError for a negative count.
    """
    if count < 0:
        raise ValueError(f"expected a count of at least 0, got {count}")
    generator = torch.Generator().manual_seed(seed)
    # rand < 1 - 2^-24 stays below 180 after rounding in float32
    return torch.rand(count, generator=generator, dtype=torch.float32) * 360 - 180


def wrapped(degrees: Tensor) -> Tensor:
    """The same angles in [-180, 180)."""
    turned = torch.remainder(degrees + 180, 360)
    return torch.where(turned < 360, turned, 0) - 180  # of a tiny negative number the remainder rounds to 360


def in_disc(size: int, radius: float, device: torch.device | None = None) -> Tensor:
    """[size, size]: which pixel centres lie within ``radius`` pixels of an image's centre."""
    centres = torch.arange(size, device=device) - (size - 1) / 2
    return centres[:, None] ** 2 + centres[None] ** 2 <= radius**2


def _check_images(images: Tensor, square: bool = False) -> None:
    if not isinstance(images, Tensor):
        raise ValueError(f"expected images as a tensor, got {type(images).__name__}")
    if images.ndim != 4 or 0 in images.shape[2:] or (square and images.shape[2] != images.shape[3]):
        expected = "square images of shape [N, C, H, H]" if square else "images of shape [N, C, H, W]"
        raise ValueError(f"expected {expected}, got shape {list(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"expected images of a floating-point dtype, got {images.dtype}")


def _angles(degrees: float | Tensor, count: int, device: str | None = None) -> Tensor:
    """The angles as float64 [count], with their graph; where they are if `device` is None."""
    if not isinstance(degrees, (Real, Tensor)):
        raise ValueError(f"expected degrees as a number or a tensor, got {type(degrees).__name__}")
    angles = torch.as_tensor(degrees)
    if angles.dtype.is_complex or angles.dtype == torch.bool:
        raise ValueError(f"expected real degrees, got {angles.dtype}")
    if angles.ndim and angles.shape != (count,):
        raise ValueError(f"expected degrees as one number or of shape [{count}], got {list(angles.shape)}")
    # Python's float carries more digits than as_tensor's default float32
    return torch.as_tensor(degrees, dtype=torch.float64, device=device).expand(count)


def _interpolate(images: Tensor, degrees: Tensor) -> Tensor:
    """The images turned by float64 angles [N], bilinearly."""
    wide = images.to(torch.promote_types(images.dtype, torch.float32))
    # pixel centres in grid_sample's units, -1 and 1 being the image's outer edges
    double = dict(dtype=torch.float64, device=images.device)
    x, y = ((2 * torch.arange(n, **double) + 1) / n - 1 for n in (images.shape[3], images.shape[2]))
    x, y = x.to(wide)[None, None, :], y.to(wide)[None, :, None]
    aspect = images.shape[2] / images.shape[3]
    radians = torch.deg2rad(torch.fmod(degrees, 360))  # fmod is exact
    cos, sin = (f(radians).to(wide)[:, None, None] for f in (torch.cos, torch.sin))
    # y points down here, which turns the sign of sin; elementwise, because affine_grid's matrix
    # product may run in reduced precision on a GPU
    grid = torch.stack((cos * x - sin * y * aspect, sin * x / aspect + cos * y), dim=-1)
    turned = functional.grid_sample(wide, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (turned + 0 * cos[..., None]).to(images.dtype)  # grid_sample takes a NaN for the corner
