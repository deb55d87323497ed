"""Images without an upright: found, cut out, put on sheets, and clusters as colours."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from gvae_core import rotate
from gvae_core.report import sheets, specimens
from gvae_core.rotation import in_disc


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def galaxies():
    return specimens.hubble_galaxies(32)


def test_galaxies_lie_in_the_middle_of_their_cutouts_the_largest_first(galaxies):
    images = galaxies.images
    assert images.shape[1:] == (3, 32, 32) and 400 < len(images) < 600
    assert images.min() >= 0 and images.max() <= 1
    light = images.mean(1).square()
    line = torch.arange(32.0) - 15.5
    centroids = (
        torch.stack([(light * line).sum((1, 2)), (light * line[:, None]).sum((1, 2))], 1) / light.sum((1, 2))[:, None]
    )
    assert centroids.norm(dim=1).quantile(0.9) < 3
    assert images.amax((1, 2, 3)).min() > 0.9  # all of one brightness
    assert (galaxies.half_sides.diff() <= 0).all()


def test_a_galaxy_is_found_by_its_place(galaxies):
    index = galaxies.nearest(580, 405)  # the edge-on one right of the middle
    assert (galaxies.centres[index] - torch.tensor([580, 405])).norm() < 3
    left, right = galaxies.images[index][:, 12:20].mean((0, 1)).split(16)
    assert galaxies.images[index].mean(0)[14:18].sum() > 4 * galaxies.images[index].mean(0)[4:8].sum()  # it lies flat
    assert 0.3 < left.sum() / right.sum() < 3


def test_patches_overlap_and_their_grid_is_centred():
    picture = torch.arange(3 * 20 * 24.0).view(3, 20, 24)
    grid = specimens.patches(picture, 8, 4)
    assert grid.shape == (4, 5, 3, 8, 8)
    assert torch.equal(grid[1, 2], picture[:, 4:12, 8:16])
    with pytest.raises(ValueError, match="expected a step that divides"):
        specimens.patches(picture, 8, 5)


def test_clusters_turned_along_are_turned_back():
    kinds = torch.zeros(41, 41, dtype=torch.long)
    kinds[:15], kinds[20:, 25:] = 1, 2
    assert torch.equal(specimens.turned_back(torch.rot90(kinds), 90), kinds)
    along = rotate(torch.nn.functional.one_hot(kinds).permute(2, 0, 1)[None].float(), 37)[0].argmax(0)
    disc = in_disc(41, 18)
    assert disc.sum() == pytest.approx(np.pi * 18**2, rel=0.02)
    assert (
        (specimens.turned_back(along, 37) == kinds)[disc].float().mean() > 0.95 > (along == kinds)[disc].float().mean()
    )


def test_a_picture_is_painted_where_its_patches_lie():
    picture = torch.ones(3, 20, 24)
    picture[:, :, :12] = 0.5
    kinds = torch.tensor([[0, 0, 1, 1], [0, 0, 1, -1]])
    painted = sheets.painted(picture, kinds, 4)
    grey, white = painted[:, 0, 0], painted[:, 0, -1]
    assert torch.allclose(grey, torch.tensor(0.65)) and torch.allclose(white, torch.tensor(1.0))
    first, second = (torch.tensor(sheets.COLOURS(place)[:3], dtype=torch.float32) for place in (0, 1))
    assert torch.allclose(painted[:, 8, 5], 0.65 * first) and torch.allclose(painted[:, 8, 13], second)
    assert torch.allclose(painted[:, 11, 19], white)  # -1


def test_things_found_stand_in_squares_and_some_have_names(galaxies):
    figure = sheets.found_in(galaxies.field, galaxies.centres[:5], galaxies.half_sides[:5], {"mine": 3})
    (axes,) = figure.axes
    assert len(axes.patches) == 5 and [text.get_text() for text in axes.texts] == ["mine"]
    assert axes.patches[3].get_center() == pytest.approx(galaxies.centres[3].tolist())


def test_a_query_is_framed_beside_its_nearest():
    rows = {"one": torch.rand(4, 3, 8, 8), "two": torch.rand(4, 3, 8, 8)}
    (axes,) = sheets.nearest(rows).axes
    assert [frame.get_xy() for frame in axes.patches] == [(0, 0), (0, 1)]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["query", "1", "2", "3"]
    assert np.array_equal(axes.images[5].get_array(), rows["two"][1].permute(1, 2, 0))


def test_on_the_atlas_alike_lies_beside_alike():
    kinds = torch.arange(38) % 2
    images = kinds[:, None, None, None] * torch.ones(38, 1, 4, 4) / 2 + torch.arange(38)[:, None, None, None] / 100
    codes = np.eye(8)[kinds] + 0.05 * np.random.default_rng(0).standard_normal((38, 8))
    figure = sheets.atlas(images, codes)
    shown = figure.axes[0].images[0].get_array()[::4, ::4]
    assert shown.shape == (6, 6) and np.allclose(np.sort(shown.ravel()), np.sort(images[:36, 0, 0, 0].numpy()))
    light = shown > 0.43
    assert ((light[1:] == light[:-1]).mean() + (light[:, 1:] == light[:, :-1]).mean()) / 2 > 0.75
