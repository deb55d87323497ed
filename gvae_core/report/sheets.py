"""Pictures of images that have no upright: found in a field, nearest to a query, on a map, and a picture in clusters' colours."""

from __future__ import annotations

import math
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment
from sklearn.manifold import TSNE
from torch import Tensor

from .figures import ORANGE, SIDE, image_rows, pictures, sheet

COLOURS = plt.get_cmap("Set2")  # of up to eight clusters


def found_in(field: Tensor, centres: Tensor, half_sides: Tensor, named: Mapping[str, int]) -> Figure:
    """A picture [3, H, W] with a square around each thing found, at centres [N, 2] (x, y); some have names."""
    figure = pictures({"": field}, width=11)
    (axes,) = figure.axes
    names = {index: name for name, index in named.items()}
    for index, ((x, y), half) in enumerate(zip(centres.tolist(), half_sides.tolist())):
        style = dict(edgecolor=ORANGE, lw=1.4) if index in names else dict(edgecolor="white", lw=0.5, alpha=0.5)
        axes.add_patch(plt.Rectangle((x - half, y - half), 2 * half, 2 * half, fill=False, **style))
        if index in names:
            axes.text(x, y - half - 4, names[index], color=ORANGE, ha="center", va="bottom", fontsize=9)
    return figure


def nearest(rows: Mapping[str, Tensor]) -> Figure:
    """Rows of images [1 + K, C, H, W]: a query, framed, and beside it its K nearest, the nearest first."""
    figure = image_rows(rows, ["query", *map(str, range(1, max(map(len, rows.values()))))])
    for row in range(len(rows)):
        figure.axes[0].add_patch(plt.Rectangle((0, row), SIDE, SIDE, fill=False, edgecolor=ORANGE, lw=3))
    return figure


def atlas(images: Tensor, codes: np.ndarray) -> Figure:
    """Images [N, C, H, W] on a square grid, alike beside alike: t-SNE of their codes [N, d], moved to the grid's places.

    The places are those with the least sum of squared ways from the points of the t-SNE. Only as many images as fill a
    square are shown.
    """
    side = math.isqrt(len(images))
    codes = codes[: side**2]
    plane = TSNE(init="pca", perplexity=min(30, (len(codes) - 1) / 3), random_state=0).fit_transform(codes)
    plane = (plane - plane.min(0)) / np.ptp(plane, 0)
    line = np.linspace(0, 1, side)
    places = np.stack(np.meshgrid(line, line), -1).reshape(-1, 1, 2)
    _, shown = linear_sum_assignment(((places - plane) ** 2).sum(-1))
    return pictures({"": sheet(images[shown], side)}, width=10)


def painted(picture: Tensor, clusters: Tensor, step: int) -> Tensor:
    """A picture [3, H, W], grey, in the colours of a map of clusters [h, w]: points ``step`` pixels apart, centred.

    White where the map says -1 or does not reach.
    """
    colours = torch.tensor([*(COLOURS(place)[:3] for place in range(8)), (1.0, 1.0, 1.0)])
    tiles = colours[clusters].permute(2, 0, 1).repeat_interleave(step, 1).repeat_interleave(step, 2)
    whole = torch.ones_like(picture)
    top, left = ((outer - inner) // 2 for outer, inner in zip(picture.shape[1:], tiles.shape[1:]))
    whole[:, top : top + tiles.shape[1], left : left + tiles.shape[2]] = tiles
    return whole * (0.3 + 0.7 * picture.mean(0))
