"""Figures and tables show what the results hold, with profile, source and the papers' numbers."""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import TINY_CNN, TINY_SGVAE
from PIL import Image

from gvae_core import run
from gvae_core.report import figures, papers, tables

STAMP = dict(profile="smoke", source="mnist5k")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def texts(figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(plt.Text))


def test_table_1_shows_paper_and_ours(outputs):
    result = run(dataclasses.replace(TINY_CNN, paper_loss=True), progress=False)
    text = tables.save(tables.table1([result]), "table1", **STAMP)
    assert "43.01%" in text and "2.025" in text and f"{result.metrics['test_rotated_accuracy']:.2%}" in text
    both = tables.table1([result, run(TINY_CNN, progress=False)])  # the variant shares the paper's row
    assert "CNN, plain cross-entropy, ours" in both and both.count("43.01%") == 1
    assert "Profile smoke, source mnist5k" in text and "no result" in text
    assert (outputs / "tables" / "smoke" / "table1.md").read_text() == text + "\n"


def test_seeds_share_a_row_and_epochs_are_named(outputs):
    results = [run(dataclasses.replace(TINY_CNN, seed=seed), progress=False) for seed in (0, 1)]
    (row,) = [line for line in tables.table1(results).splitlines() if "ours" in line]
    accuracies = 100 * np.array([result.metrics["test_rotated_accuracy"] for result in results])
    assert f"**{accuracies.mean():.2f} ± {accuracies.std(ddof=1):.2f}%**" in row and "| 2 | 2 |" in row
    stopped = run(dataclasses.replace(TINY_CNN, seed=2), progress=False, stop_after=1)
    assert "| 1 of 2 |" in tables.table1([stopped])


def test_table_2_and_heat_map_show_paper_and_ours(outputs):
    result = run(TINY_SGVAE, progress=False)
    ours = result.history[-1]["validation_loss"] / 1000
    assert f"| {ours:.2f}k |" in tables.table2([result]) and "| 43.13k |" in tables.table2([result])
    figure = figures.heat_maps([result])
    assert f"{ours:.1f}" in texts(figure) and "48.3" in texts(figure)


def test_smoke_numbers_are_never_a_result_and_others_are(outputs):
    assert "no result" in tables.save("x", "t", profile="smoke", source="mnist")
    assert "no result" not in tables.save("x", "t", profile="quick", source="mnist")


def test_saved_figures_carry_profile_and_source(outputs):
    figure = figures.curves([1, 2], {"a": [1, 2]}, xlabel="x", ylabel="y", title="t")
    path = figures.save(figure, "curve", **STAMP)
    assert path == outputs / "figures" / "smoke" / "curve.png"
    assert "profile smoke · mnist5k" in texts(figure)
    assert np.asarray(Image.open(path)).std() > 5  # something is drawn


def test_exact_zeros_stay_on_the_logarithmic_axis():
    figure = figures.error_by_layer({"net": [0.0, 1e-3]}, ["a", "b"], "t")
    assert min(figure.axes[0].lines[0].get_ydata()) == figures.EXACT


def test_image_rows_shows_every_image(digits):
    figure = figures.image_rows({"up": digits.images[:3], "down": digits.images[3:6]}, ["1", "2", "3"])
    assert len(figure.axes) == 6
    assert np.array_equal(figure.axes[4].images[0].get_array(), digits.images[4, 0])


def test_papers_numbers_have_the_grids_shape():
    for grid in papers.TABLE2.values():
        assert np.shape(grid) == (len(papers.LATENT_DIMS), len(papers.BETAS))


def test_sphere_and_latent_figures_draw_points(digits):
    points = torch.nn.functional.normalize(torch.randn(20, 3), dim=1)
    for figure, panels in (
        (figures.sphere_samples({"κ = 1": points}, points[0]), 1),
        (figures.latent_spaces(points, torch.randn(20, 2), digits.labels[:20]), 2),
    ):
        for axes in figure.axes[:panels]:
            drawn = sum(len(dots.get_offsets()) for dots in axes.collections if dots.get_offsets().shape[1] == 2)
            assert drawn >= 20
