"""Rotate images: bilinear in general, an exact permutation of the pixels for quarter turns."""

from __future__ import annotations

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

    Parameters
    ----------
    images : Tensor [N, C, H, H]
        Square images, float32 or float64, on any device. Differentiable.
    degrees : float or Tensor [N]
        One angle for all images or one angle per image, in degrees, finite. A constant: no
        gradient reaches it, so a tensor that requires one is refused.

    Returns
    -------
    Tensor [N, C, H, H]
        New memory, of the images' dtype and device.

    Raises
    ------
    ValueError
        If the images are not [N, C, H, H] of float32 or float64, or the angles are not finite,
        real, without gradient, and one or N.

    Examples
    --------
    >>> image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> rotate(image, 90)
    tensor([[[[2., 4.],
              [1., 3.]]]])
    """
    _check_images(images)
    angles = _angles(degrees, len(images))

    quarter_turns = torch.round(angles / 90).long() % 4
    exact = torch.remainder(angles, 90) == 0
    rotated = torch.empty_like(images, memory_format=torch.contiguous_format)
    for turns in range(4):
        chosen = (exact & (quarter_turns == turns)).nonzero()[:, 0].to(images.device)
        if len(chosen):
            rotated[chosen] = torch.rot90(images[chosen], turns, (2, 3))
    chosen = (~exact).nonzero()[:, 0]
    if len(chosen):
        radians = torch.deg2rad(angles[chosen])
        chosen = chosen.to(images.device)
        rotated[chosen] = _interpolate(images[chosen], radians)
    return rotated


def random_angles(count: int, seed: int) -> Tensor:
    """Draw ``count`` angles uniformly from [-180, 180) degrees, from a generator seeded anew.

    Parameters
    ----------
    count : int
        How many, at least 0.
    seed : int
        Seed of the generator; the same seed gives the same angles on every device, and a shorter
        draw is not promised to be the start of a longer one.

    Returns
    -------
    Tensor [count]
        Degrees, float32, on the CPU.

    Raises
    ------
    ValueError
        If ``count`` is negative.

    Examples
    --------
    >>> angles = random_angles(1000, seed=0)
    >>> bool((angles >= -180).all() and (angles < 180).all())
    True
    """
    if count < 0:
        raise ValueError(f"expected a count of at least 0, got {count}")
    generator = torch.Generator().manual_seed(seed)
    # rand < 1 - 2^-24 stays below 180 after rounding in float32
    return torch.rand(count, generator=generator, dtype=torch.float32) * 360 - 180


def _check_images(images: Tensor) -> None:
    if not isinstance(images, Tensor):
        raise ValueError(f"expected images as a tensor, got {type(images).__name__}")
    if images.ndim != 4 or images.shape[2] != images.shape[3] or images.shape[2] == 0:
        raise ValueError(
            f"expected square images of shape [N, C, H, H], got shape {list(images.shape)}"
        )
    if images.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"expected images of float32 or float64, got {images.dtype}")


def _angles(degrees: float | Tensor, count: int) -> Tensor:
    """The angles as float64 [count] on the CPU, reduced to (-360, 360); fmod is exact."""
    if not isinstance(degrees, (Real, Tensor)):
        raise ValueError(f"expected degrees as a number or a tensor, got {type(degrees).__name__}")
    angles = torch.as_tensor(degrees)
    if angles.dtype.is_complex or angles.dtype == torch.bool:
        raise ValueError(f"expected real degrees, got {angles.dtype}")
    if angles.requires_grad:
        raise ValueError("expected degrees without gradient, got a tensor that requires one")
    if angles.ndim and angles.shape != (count,):
        raise ValueError(
            f"expected degrees as one number or of shape [{count}], got {list(angles.shape)}"
        )
    # Python's float carries more digits than as_tensor's default float32
    angles = torch.as_tensor(degrees, dtype=torch.float64, device="cpu")
    bad = angles[~torch.isfinite(angles)]
    if bad.numel():
        raise ValueError(f"expected finite degrees, got {bad.flatten()[0].item()}")
    return torch.fmod(angles, 360).expand(count)


def _interpolate(images: Tensor, radians: Tensor) -> Tensor:
    size = images.shape[-1]
    # pixel centres in grid_sample's units, -1 and 1 being the image's outer edges
    centres = (2 * torch.arange(size, dtype=torch.float64) + 1) / size - 1
    centres = centres.to(images)
    cos = torch.cos(radians).to(images)[:, None, None]
    sin = torch.sin(radians).to(images)[:, None, None]
    x, y = centres[None, None, :], centres[None, :, None]
    # y points down here, which turns the sign of sin; elementwise, because affine_grid's matrix
    # product may run in reduced precision on a GPU
    grid = torch.stack((cos * x - sin * y, sin * x + cos * y), dim=-1)
    return functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
