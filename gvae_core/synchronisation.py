"""One common orientation, and one handedness, for many images that have no upright, found without labels.

Angular synchronisation: A. Singer, *Angular synchronization by eigenvectors and semidefinite programming*
(2011), on a graph of images that look alike after a turn, as in A. Singer and H.-T. Wu, *Vector diffusion
maps and the connection Laplacian* (2012).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from scipy.sparse.linalg import ArpackError, eigsh
from torch import Tensor

from .rotation import in_disc, rotate, wrapped

_NEIGHBOURS = 10  # (image, turn) that an image is compared with
_TURNS = 24  # of each image that are tried, over the full turn
_SIZE = 16  # pixels of a side at which images are compared
_STEPS, _RANK = 1_000, 5  # of the power iteration that finds hands
_ROWS = 50  # images compared with all others at a time: memory grows with N, not with N^2


@torch.no_grad()
def common_orientation(images: Tensor, *, sweeps: int = 1) -> Tensor:
    r"""How each image is turned against an orientation that all of them share as well as they can.

    ``rotate(images, -result)`` lie alike: images that look the same after a turn are turned the same way. For each
    image its ten nearest neighbours under 24 turns are looked up; the relative angles make a Hermitian
    matrix :math:`H_{ij} = w_{ij} e^{i \alpha_{ij}}`, where turning image i by :math:`\alpha_{ij}` gives image j, and
    the phases of its first eigenvector, after division by the degrees, are the angles that agree with most of them.
    The orientation itself is arbitrary: adding one angle to all results is an equally good answer.

    Parameters
    ----------
    images : [N, C, H, H], 0 where there is nothing, as corners turn out of sight (see `ImageFormat.turnable`); at least
        12, else ValueError
    sweeps : how often it is done, each time from the last result: a second time finds better neighbours

    Returns degrees [N], counter-clockwise, in [-180, 180).
    """
    guess = torch.zeros(_checked_count(images))
    for _ in range(sweeps):
        guess = _refined(images, guess)
    return guess


def _refined(images: Tensor, guess: Tensor) -> Tensor:
    count = len(images)
    views = _reduced(rotate(images, -guess))
    similarity, found, angles = _neighbours(views, views, copies=1)
    row = np.repeat(np.arange(count), _NEIGHBOURS)
    column, radians = found.flatten().numpy(), torch.deg2rad(angles).flatten().numpy()
    weights = similarity.clamp(min=0).pow(4).flatten().numpy()  # so that good matches decide
    half = sparse.coo_matrix((weights * np.exp(1j * radians), (row, column)), (count, count)).tocsr()
    connection = (half + half.conj().T) / 2
    scale = sparse.diags(1 / np.sqrt(np.maximum(abs(connection).sum(axis=1).A1, 1e-12)))
    matrix, ones = scale @ connection @ scale, np.ones(count, dtype=complex)
    try:
        _, vector = eigsh(matrix, k=1, which="LA", v0=ones)
    except ArpackError:  # nothing is alike, or all is from any side: many vectors are as good
        vector = ones[:, None]
        if matrix.count_nonzero():
            _, vector = eigsh(matrix, k=1, which="LA", v0=ones, ncv=min(count - 1, 100), tol=1e-4)
    correction = np.rad2deg(np.angle(vector[:, 0]))
    return wrapped(guess - torch.from_numpy(correction).float())


@torch.no_grad()
def orientation_among(images: Tensor, known: Tensor, degrees: Tensor) -> Tensor:
    """How images [N, C, H, H] are turned against the common orientation of ``known`` ones [M, C, H, H].

    ``degrees`` [M] are what `common_orientation` found for those. Each image has the mean of the turns under which its
    nearest known neighbours lie like it; the cost is N M instead of (N + M)^2. Returns degrees [N].
    """
    similarity, _, angles = _neighbours(_reduced(images), _reduced(rotate(known, -degrees)))
    radians = torch.deg2rad(angles)
    weights = similarity.clamp(min=0).pow(4)
    return -torch.rad2deg(torch.atan2((weights * radians.sin()).sum(1), (weights * radians.cos()).sum(1)))


@torch.no_grad()
def common_handedness(images: Tensor) -> Tensor:
    r"""Which images are mirrored against a handedness that all of them share as well as they can.

    `rotation.mirrored` by the result they are alike up to turns. Synchronisation over :math:`\{1, -1\}`, A. Singer and H.-T.
    Wu, *Orientability and diffusion maps* (2011): for each image its nearest neighbours are looked up among the others and
    their mirror images, under 24 turns. The first eigenvector of that graph may live on a few classes of images
    alone; here each image has a vector of length 1, all are multiplied by the matrix and scaled back, and the signs are
    those along their principal axis (S. Burer, R. Monteiro, *A nonlinear programming algorithm for solving semidefinite
    programs via low-rank factorization*, 2003). Which of the two hands is which is arbitrary; a figure that is its
    own mirror image has either.

    Images and errors as for `common_orientation`. Returns 1 or -1, [N].
    """
    count = _checked_count(images)
    views = _reduced(images)
    weights, found = _hands_of_neighbours(views, views)
    row = np.repeat(np.arange(count), _NEIGHBOURS)
    half = sparse.coo_matrix((weights.flatten().numpy(), (row, found.flatten().numpy())), (count, count)).tocsr()
    connection = half + half.T
    connection += sparse.diags(abs(connection).sum(axis=1).A1)  # so that no step swaps the vectors of two images
    vectors = np.random.default_rng(0).normal(size=(count, _RANK))
    for _ in range(_STEPS):
        vectors = connection @ vectors
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-12
    along = vectors @ np.linalg.svd(vectors, full_matrices=False)[2][0]
    return torch.from_numpy(np.where(along < 0, -1.0, 1.0)).float()


@torch.no_grad()
def handedness_among(images: Tensor, known: Tensor) -> Tensor:
    """The hands of images [N, C, H, H], 1 or -1, [N], by their nearest ``known`` ones [M, C, H, H], which all have hand 1."""
    weights, _ = _hands_of_neighbours(_reduced(images), _reduced(known))
    return torch.where(weights.sum(1) < 0, -1.0, 1.0)


def _hands_of_neighbours(views: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Of each view's nearest others and mirrored others weight, negative where mirrored, and index, each [N, 10]."""
    copies = 2 if others is views else 0
    similarity, found, _ = _neighbours(views, torch.cat([others, others.flip(2)]), copies)
    sign = torch.where(found < len(others), 1.0, -1.0)
    return sign * similarity.clamp(min=0).pow(4), found % len(others)


def _checked_count(images: Tensor) -> int:
    if len(images) < _NEIGHBOURS + 2:
        raise ValueError(f"expected at least {_NEIGHBOURS + 2} images for {_NEIGHBOURS} neighbours, got {len(images)}")
    return len(images)


def _reduced(images: Tensor) -> Tensor:
    """[N, C, 16, 16] of mean 0 and norm 1 inside the inscribed disc."""
    small = F.interpolate(images, size=(_SIZE, _SIZE), mode="area" if images.shape[-1] >= _SIZE else "bilinear")
    disc = in_disc(_SIZE, _SIZE / 2).to(small)
    small = (small - (small * disc).sum((1, 2, 3), keepdim=True) / (disc.sum() * images.shape[1])) * disc
    return F.normalize(small.flatten(1), dim=1).view_as(small)


def _neighbours(views: Tensor, others: Tensor, copies: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """For each view the nearest others under all turns: similarity, index and angle (degrees), each [N, 10].

    Where the others begin with so many ``copies`` of the views, mirrored or not, a view is not its own neighbour.
    """
    known = others.flatten(1).T
    similarities, indices = [], []
    for rows in torch.arange(len(views)).split(_ROWS):
        turned = torch.stack([rotate(views[rows], 360 * turn / _TURNS).flatten(1) for turn in range(_TURNS)], 1)
        alike = turned @ known
        for copy in range(copies):
            alike[torch.arange(len(rows)), :, rows + copy * len(views)] = -1
        best = alike.flatten(1).topk(_NEIGHBOURS)  # over (turn, view)
        similarities.append(best.values)
        indices.append(best.indices)
    index = torch.cat(indices)
    return torch.cat(similarities), index % len(others), (index // len(others)) * (360 / _TURNS)
