"""Figures and tables show what the results hold, with profile, source and the papers' numbers."""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from examples import TINY_CNN, TINY_SGVAE
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
    assert f"**{accuracies.mean():.2f}% ± {accuracies.std(ddof=1):.2f}%**" in row and "| 2 | 2 |" in row
    stopped = run(dataclasses.replace(TINY_CNN, seed=2), progress=False, stop_after=1)
    assert "| 1 of 2 |" in tables.table1([stopped])


def test_table_2_and_heat_map_show_paper_and_ours(outputs):
    result = run(TINY_SGVAE, progress=False)
    ours = result.history[-1]["validation_loss"] / 1000
    assert f"| {ours:.2f}k |" in tables.table2([result]) and "| 43.13k |" in tables.table2([result])
    figure = figures.heat_maps([result])
    assert f"{ours:.1f}" in texts(figure) and "48.3" in texts(figure)


def at_epochs(result, losses: list[float], **changes):
    """A result like this one that has these validation losses (thousands) after its epochs."""
    history = [result.history[0] | {"epoch": i, "validation_loss": 1000 * loss} for i, loss in enumerate(losses, 1)]
    spec = dataclasses.replace(result.spec, epochs=50, **changes)
    return dataclasses.replace(result, spec=spec, history=history)


@pytest.fixture
def table2_cells(outputs):
    """Cells of Table 2: two seeds that have got unequally far, one that is not there yet, one of another beta."""
    cell = run(TINY_SGVAE, progress=False)
    return [
        at_epochs(cell, [44, 43, 42.0], seed=0),
        at_epochs(cell, [45, 44.0], seed=1),
        at_epochs(cell, [50.5], latent_dim=6),
        at_epochs(cell, [39, 38.0], beta=7.0),
        at_epochs(cell, [30, 20.0], model="gaussian", latent_dim=2, beta=1.0),
    ]


def test_table_2_after_an_epoch_that_all_cells_can_reach(table2_cells):
    assert tables.common_epoch(table2_cells) == 1 and tables.common_epoch(table2_cells[:2]) == 3
    rows = [line.split(" | ") for line in tables.table2(table2_cells, epoch=2).splitlines()[2:]]
    shown = [(row[3], row[4].split(" ±")[0], row[7], row[8], row[9].removesuffix(" |")) for row in rows]
    assert shown == [
        ("43.13k", "43.50k", "2 of 50", "2", "42.00k after 3"),
        ("30.04k", "–", "–", "0", "50.50k after 1"),
        ("–", "38.00k", "2 of 50", "1", "38.00k after 2"),
        ("–", "20.00k", "2 of 50", "1", "20.00k after 2"),
    ]
    words = texts(figures.heat_maps(table2_cells, epoch=2))
    assert "ours: after 2 of 50 epochs of 96 digits" in words and "42.0 after 3" in words and "50.5 after 1" in words
    assert "Gaussian VAE, papers" in words


def test_seeds_of_unequal_progress_share_no_row(table2_cells):
    rows = [line for line in tables.table2(table2_cells[:2]).splitlines() if "43.13k" in line]
    assert ["| 42.00k |" in row and "| 3 of 50 | 1 |" in row for row in rows] == [True, False]
    assert "| 44.00k |" in rows[1] and "| 2 of 50 | 1 |" in rows[1]
    assert "42.0" in texts(figures.heat_maps(table2_cells[:2]))  # the farthest, no mean of both


def test_what_the_papers_lack_has_a_dash(outputs, digits):
    gaussian = run(dataclasses.replace(TINY_SGVAE, model="gaussian", beta=2.0), progress=False)
    assert "| Gaussian VAE | 3 | 2 | – |" in tables.table2([gaussian])
    figures.heat_maps([gaussian])
    read = tables.reconstructions([(gaussian, {"upright": 0.5, "rotated 3s": 0.25})])
    assert "Gaussian VAE, d = 3, β = 2, ours" in read and "**25.0%**" in read and "paper" not in read
    sgvae = run(TINY_SGVAE, progress=False)
    assert "| S-GVAE, paper | 91% | – |" in tables.reconstructions([(sgvae, {"upright": 0.5, "rotated 3s": 0.25})])


def test_agreement_with_the_papers_in_numbers(outputs):
    cell = run(TINY_SGVAE, progress=False)
    theirs = {(m, d, b): papers.table2_loss(m, d, b) for m in papers.TABLE2 for d in (3, 6, 10) for b in papers.BETAS}
    ours = {place: 1.1 * loss for place, loss in theirs.items()} | {("sgvae", 10, 0.01): 24.0}
    results = [
        at_epochs(cell, [loss, 0.0], model=model, latent_dim=dim, beta=beta, sizes={})
        for (model, dim, beta), loss in ours.items()
    ]
    text = tables.agreement(results, epoch=1)
    assert text.count("| +10.0% |") == 6  # the outlier stands apart
    assert "| S-GVAE | 6 | 5 | +10.0% | 0.99k | 0.90k |" in text
    assert "in 28 of 28 pairs of cells that differ in d." in text
    assert "S-GVAE minus S-VAE: +8.47k, papers +7.70k, mean over the 14 d and β of both." in text
    assert "48.27k, S-GVAE (0.01, 10), beside 24.45k at β = 0.1: ours 24.00k, 26.90k." in text
    assert "+" not in tables.agreement(results[:1], epoch=3)  # nobody has got there
    heavy = [result for result in results if result.spec.beta > 1]  # no flat columns yet
    assert "| S-GVAE | 6 | 2 | +10.0% | – | – |" in tables.agreement(heavy, epoch=1)


def test_seeds_of_a_cell_are_compared_after_the_last_epoch_of_all(outputs):
    cell = run(TINY_SGVAE, progress=False)
    place = dict(model="sgvae", latent_dim=10, beta=0.01, sizes={})
    losses = {0: [27.0, 26.0, 21.0], 1: [28.0, 25.5], 2: [29.0, 26.5, 23.0]}
    results = [at_epochs(cell, losses[seed], seed=seed, **place) for seed in losses]
    alone = at_epochs(cell, [50.0], **place | {"beta": 500.0})
    (row,) = tables.seeds([*results, alone]).splitlines()[2:]
    assert "| 2 of 50 | 26.00k | 25.50k | 26.50k | 48.27k |" in row
    assert tables.seeds([alone]) == ""


def test_runs_are_shown_in_words(outputs):
    result = run(TINY_SGVAE, progress=False)
    table = tables.runs([result])
    assert "S-GVAE, d = 3, β = 1 | 96 | 2 | 32 | 0.01, × 0.9 an epoch | " in table
    assert f"frequency 2; invariants 8 | {result.parameters:,} |" in table and f"{result.path.name} |" in table


def test_drift_says_how_far_at_quarter_turns_and_between(outputs):
    result = run(TINY_SGVAE, progress=False)
    numbers = result.metrics | dict(
        angles=[-90, -45, 0, 30, 90], latent_drift=[2e-5, 20, 0, 10, 1e-5], typical_angle=90
    )
    row = tables.drift([dataclasses.replace(result, metrics=numbers)]).splitlines()[-1]
    assert row.endswith("| 2e-05° | 15.0° | 20.0° at 45° | 90.0° |")


CODES = {f"{method}_{kind}": 0.25 for method in ("kmeans", "mixture") for kind in ("hungarian", "purity", "nmi")}


def test_codes_of_models_pixels_and_a_classifier_share_columns(outputs):
    vae, cnn = run(TINY_SGVAE, progress=False), run(TINY_CNN, progress=False)
    moved = dict(moved=10.0, typical_same_class=50.0, typical_other_class=90.0)
    numbers = CODES | {"neighbours_96": 0.5, "neighbours_96_of_50000": 0.625} | moved
    coded = dataclasses.replace(vae, metrics={"codes": numbers, "squared_error_per_pixel": 0.01234, "frames": 3})
    older = dataclasses.replace(TINY_SGVAE, beta=2.0)
    old = dataclasses.replace(vae, spec=older, metrics={"codes": CODES | {"neighbours_96": 0.125} | moved})
    read = dataclasses.replace(cnn, metrics={"test_rotated_accuracy": 0.75})
    lines = tables.codes([read, old, coded], CODES | {"neighbours_96": 0.375}).splitlines()
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    labels, many, pixel = (
        header.index(name)
        for name in ("5-NN, 96 labels", "5-NN, 96 labels, 50,000 test digits", "Squared error per pixel")
    )
    assert [row[labels] for row in rows] == ["12.5%", "50.0%", "37.5%", "75.0%"]
    assert [row[many] for row in rows] == ["–", "62.5%", "–", "–"]
    assert [row[pixel] for row in rows] == ["–", "0.0123", "–", "–"]
    assert [row[0].endswith(", read in 3 frames") for row in rows] == [False, True, False, False]
    assert rows[2][0] == "pixels" and rows[3][0].endswith("supervised")
    another = dataclasses.replace(coded, spec=dataclasses.replace(TINY_SGVAE, seed=1))
    another = dataclasses.replace(another, metrics=coded.metrics | {"codes": numbers | {"neighbours_96": 0.75}})
    row = tables.codes([coded, another]).splitlines()[-1]
    assert "| 2 | " in row and "62.5% ± 17.7%" in row and "seed" not in row


def test_what_others_report_comes_with_its_protocol():
    rows = tables.others().splitlines()[2:]
    assert len(rows) == len(papers.ROTATED_DIGITS) and all(row.count(" | ") == 2 and "–" not in row for row in rows)


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
    figure = figures.error_curves({"net": [0.0, 1e-3]}, ["a", "b"], "t")
    assert min(figure.axes[0].lines[0].get_ydata()) == figures.EXACT


def test_image_rows_shows_every_image(digits):
    figure = figures.image_rows({"up": digits.images[:3], "down": digits.images[3:6]}, ["1", "2", "3"])
    (axes,) = figure.axes
    assert len(axes.images) == 6 and np.array_equal(axes.images[4].get_array(), digits.images[4, 0])
    assert axes.images[4].get_extent() == [1, 1.95, 1.95, 1]  # the second of the second row
    assert [label.get_text() for label in axes.get_xticklabels() + axes.get_yticklabels()] == [
        "1",
        "2",
        "3",
        "up",
        "down",
    ]


def test_a_notebook_shows_the_file_and_the_figure_once(outputs, monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "get_ipython", lambda: True)
    monkeypatch.setattr(figures, "display", shown.append)
    path = figures.save(figures.curves([1, 2], {"a": [1, 2]}, xlabel="x", ylabel="y", title="t"), "curve", **STAMP)
    assert [image.data for image in shown] == [path.read_bytes()] and not plt.get_fignums()


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
