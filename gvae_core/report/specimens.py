"""Images without an upright that come with scikit-image: galaxies of a Hubble Deep Field, patches of a section of tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from skimage import color, data, filters, measure, morphology, transform
from torch import Tensor
from torch.nn.functional import one_hot

from ..rotation import rotate


@dataclass(frozen=True)
class Galaxies:
    """What is found in a field: cutouts [N, 3, H, H] in [0, 1], and where: centres [N, 2] (x, y) and half sides [N], in pixels.

    ``field`` is the picture itself, [3, H, W].
    """

    field: Tensor
    images: Tensor
    centres: Tensor
    half_sides: Tensor

    def nearest(self, x: float, y: float) -> int:
        """Which galaxy lies nearest to a place in the field."""
        return int((self.centres - torch.tensor([x, y])).norm(dim=1).argmin())


def hubble_galaxies(size: int = 32, least: int = 30) -> Galaxies:
    """Galaxies of the Hubble Deep Field of at least so many pixels, each in the middle of a cutout of ``size`` pixels.

    A galaxy is a connected region five times the noise above the sky, after a blur of one pixel. Its cutout is as wide as
    it needs to be, so that all have one size and brightness; other galaxies in it are blotted out. Those at the border of
    the field are left out. The largest come first.
    """
    field = data.hubble_deep_field() / 255
    smooth = filters.gaussian(color.rgb2gray(field), 1)
    smooth -= np.median(smooth)
    labels = measure.label(smooth > 5 * 1.4826 * np.median(np.abs(smooth)))
    light = field - np.median(field, axis=(0, 1))
    cutouts, places = [], []
    for region in measure.regionprops(labels, intensity_image=smooth):
        if region.area < least:
            continue
        (y, x), half = region.centroid_weighted, 0.6 * region.axis_major_length + 2.5
        if min(x, y, field.shape[1] - 1 - x, field.shape[0] - 1 - y) < half:
            continue
        top, left = int(y - half), int(x - half)
        window = slice(top, int(y + half) + 2), slice(left, int(x + half) + 2)
        own = labels[window] == region.label
        others = morphology.dilation((labels[window] > 0) & ~own, morphology.disk(2)) & ~own
        scale = 2 * half / size
        seen = filters.gaussian(np.where(others[..., None], 0, light[window]), max(scale - 1, 0) / 2, channel_axis=-1)
        place = transform.SimilarityTransform(scale=scale, translation=(x - half - left, y - half - top))
        cutout = transform.warp(seen, place, output_shape=(size, size), order=3)
        cutouts.append((cutout / np.percentile(cutout.max(-1), 99.5)).clip(0, 1))
        places.append((x, y, half))
    largest_first = np.argsort([-half for _, _, half in places], kind="stable")
    x, y, half = torch.tensor(places, dtype=torch.float32)[largest_first].T
    return Galaxies(_planes(field), _planes(np.stack(cutouts)[largest_first]), torch.stack([x, y], 1), half)


def tissue() -> Tensor:
    """A section of colon, [3, 512, 512] in [0, 1]: one protein is stained brown, nuclei blue."""
    return _planes(data.immunohistochemistry() / 255)


def _planes(pictures: np.ndarray) -> Tensor:
    """[..., H, W, C] -> float32 [..., C, H, W]."""
    return torch.from_numpy(np.moveaxis(pictures, -1, -3).astype(np.float32))


def patches(picture: Tensor, size: int, step: int) -> Tensor:
    """Overlapping patches [rows, columns, C, size, size] of a picture [C, H, W], ``step`` pixels apart, their grid centred.

    ValueError where ``step`` does not divide what is left beside one patch: the grid would not be centred.
    """
    if any((side - size) % step for side in picture.shape[1:]):
        raise ValueError(f"expected a step that divides {list(picture.shape[1:])} less {size}, got {step}")
    return picture.unfold(1, size, step).unfold(2, size, step).permute(1, 2, 0, 3, 4)


def turned_back(clusters: Tensor, degrees: float) -> Tensor:
    """A map of clusters [H, H] of a picture that was turned by ``degrees``, as a map of the picture before."""
    return rotate(one_hot(clusters).permute(2, 0, 1)[None].float(), -degrees)[0].argmax(0)
