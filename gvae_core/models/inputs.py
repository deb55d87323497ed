"""What every network does with its images before its first layer: check, pad, standardise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MNIST_MEAN, MNIST_STD = 0.1307, 0.3081
IMAGE_SIZE = 28
CANVAS_SIZE = 32
OVERSHOOT = 0.01  # values may leave [0, 1] by this much: a step of bfloat16 at 1, or rounding after an interpolation


def as_input(images: Tensor, like: Tensor, training: bool = False) -> Tensor:
    """Images [N, 1, 28, 28] in the dtype of ``like``, a weight of the network; the check at its border.

    Their values are read, and on a GPU waited for, except where there are none to read: while torch.compile,
    torch.export or torch.jit trace, inside functorch's transforms and while a CUDA graph is captured. What looks
    like digits is taken as such: nobody can tell a dark digit on white from a light one on black.

    ValueError where images are not [N, 1, 28, 28], not of a floating-point dtype, not finite, outside [0, 1] by more
    than 0.01, or none at all in ``training``, where batch statistics are taken (otherwise none gives none).
    """
    if not isinstance(images, Tensor):
        raise ValueError(f"expected images as a torch.Tensor, got {type(images).__name__} (see torch.as_tensor)")
    if images.ndim != 4 or images.shape[1:] != (1, IMAGE_SIZE, IMAGE_SIZE):
        raise ValueError(f"expected images [N, 1, {IMAGE_SIZE}, {IMAGE_SIZE}], got {list(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"expected images of floating-point values in [0, 1], got {images.dtype}; divide bytes by 255")
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


def standardise(images: Tensor) -> Tensor:
    """(x - 0.1307) / 0.3081, the mean and standard deviation of MNIST's training pixels."""
    return (images - MNIST_MEAN) / MNIST_STD
