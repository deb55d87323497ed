"""What the explorer is given to show: images and labels of any kind, of which only a few are read at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from .snapshot import YARDSTICK_IMAGES, yardstick_sample
from .tiles import border

MNIST_SIDE = 28


class ImageBatches(Protocol):
    """Images that need not be in memory: ``images[indices]`` gives float images [n, C, H, H] in [0, 1].

    They may have ``labels`` [N] or None, the ``classes`` that these count, and ``names``, one an image.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, indices: list[int]) -> Tensor: ...


class Images:
    """Images read when they are asked for, and checked then, as float32 on the CPU; with their classes and names.

    Parameters
    ----------
    images : [N, 1, H, H] or [N, 3, H, H] in [0, 1], tensor, array or list; or `ImageBatches`
    labels : [N] classes, numbers or words, or None for those of ``images.labels``, if it has any

    Raises
    ------
    ValueError : shapes, values or the number of labels do not fit; for images read later, when they are read
    """

    def __init__(self, images: ArrayLike | ImageBatches, labels: ArrayLike | None = None):
        if isinstance(images, (list, tuple)):
            images = np.array(images)
        self._images = images.detach() if isinstance(images, Tensor) else images
        if len(images) == 0:
            raise ValueError(f"expected images [N, 1, H, W] or [N, 3, H, W] with N > 0, got {_shape(images)}")
        about = None if isinstance(images, (Tensor, np.ndarray)) else images  # a tensor's names are other things
        own = labels is None
        self.labels, self.classes = _classes(getattr(about, "labels", None) if own else labels, len(images))
        if own and self.labels is not None and hasattr(about, "classes"):  # there labels are places in that list
            self.classes = [str(about.classes[int(label)]) for label in self.classes]
        self.names: Sequence[str | int] | None = getattr(about, "names", None)
        side = self[[0]].shape[-1]
        sample = yardstick_sample(len(images), self.labels, max(30, YARDSTICK_IMAGES * MNIST_SIDE // side))
        self.sample = self[sample.tolist()], None if self.labels is None else self.labels[sample]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, indices: list[int]) -> Tensor:
        """Images [n, C, H, H] in [0, 1]."""
        batch = self._images[indices]
        batch = batch if isinstance(batch, Tensor) else torch.from_numpy(np.asarray(batch))
        if batch.ndim != 4 or batch.shape[1] not in (1, 3):
            raise ValueError(f"expected images [N, 1, H, W] or [N, 3, H, W] with N > 0, got {_shape(self._images)}")
        if batch.shape[2] != batch.shape[3]:
            raise ValueError(f"expected square images, got {_shape(self._images)}")
        if not batch.is_floating_point():
            raise ValueError(f"expected images as floats in [0, 1], got {batch.dtype}; divide by 255?")
        low, high = (value.item() for value in batch.aminmax())  # not a number where one of them is none
        if not (low >= 0 and high <= 1):
            raise ValueError(f"expected images in [0, 1], got values from {low:g} to {high:g}")
        return batch.cpu().float()

    @property
    def on_black(self) -> bool:
        """Whether the borders are black, so that images can be shown as squares at any angle."""
        images, _ = self.sample
        return (border(images) > 0.1).float().mean().item() < 0.02


def _shape(images: object) -> list[int]:
    return list(getattr(images, "shape", [len(images)]))


def _classes(labels: ArrayLike | None, count: int) -> tuple[Tensor | None, list[str]]:
    """Labels of any kind, numbers or words -> index [N] of each image's class, and the classes' names."""
    if labels is None:
        return None, []
    values = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if values.shape != (count,):
        raise ValueError(f"expected {count} labels, one an image, got {list(values.shape)}")
    names, indices = np.unique(values, return_inverse=True)
    names = [f"{name:g}" if isinstance(name, float) else str(name) for name in names.tolist()]
    return torch.from_numpy(indices), names
