"""Results, and what notebooks computed, -> matplotlib figures."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython import get_ipython
from IPython.display import Image, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..files import outputs_directory, write_atomically
from ..runs.results import Result, by_seed, cells
from ..runs.spec import NAMES
from . import papers
from .tables import after_epoch, farthest, thousands
from .words import epochs

# Okabe and Ito's palette: distinct for colour-blind readers, too
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#7F7F7F"
DISTINCT = (ORANGE, BLUE, RED, GREEN, "#CC79A7", "#56B4E9", "#000000", "#F0E442")
COLOURS = {"cnn": ORANGE, "gcnn": BLUE, "svae": ORANGE, "sgvae": BLUE, "gaussian": GREEN, "spatial": RED}
ANGLE_TICKS = range(-180, 181, 45)
MARKERS = "osD^v<>"
EXACT = 1e-8  # an error of exactly 0 is drawn here, on the logarithmic axes
GREYS = dict(cmap="gray", vmin=0, vmax=1)
SIDE = 0.95  # of an image in `image_rows`, where the next begins at 1
DIGITS = dict(cmap="tab10", vmin=-0.5, vmax=9.5, lw=0)  # dots coloured by digit


def save(figure: Figure, name: str, *, profile: str, source: str, folder: Path | None = None) -> Path:
    """Stamp profile and source on a figure and write NAME.png into ``folder``, by default OUTPUTS/figures/PROFILE.

    A notebook shows the file, so that a figure is drawn once.
    """
    # below the figure, where nothing else stands
    figure.text(0.995, -0.01, f"profile {profile} · {source}", ha="right", va="top", fontsize=7, color=GREY)
    path = (folder or outputs_directory() / "figures" / profile) / f"{name}.png"
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110, bbox_inches="tight"))
    if get_ipython():
        display(Image(path.read_bytes(), format="png"))
        plt.close(figure)
    return path


# --- what several figures share -------------------------------------------------------------------


def _chart(height: float, **settings: object) -> tuple[Figure, Axes]:
    """One chart 8 wide; ``settings`` of its axes, labels among them."""
    figure, axes = plt.subplots(figsize=(8, height), layout="constrained")
    axes.set(**settings)
    return figure, axes


def _panels(content: Mapping, width: float, height: float, draw: Callable, sharey: bool = False) -> Figure:
    """Panels side by side, one for each entry of ``content``, under its name; ``draw(axes, value)`` fills one."""
    size = (width * len(content), height)
    figure, grid = plt.subplots(1, len(content), figsize=size, squeeze=False, sharey=sharey, layout="constrained")
    for axes, (name, value) in zip(grid[0], content.items()):
        draw(axes, value)
        axes.set_title(name, fontsize=10)
    return figure


def _image_grid(
    rows: int, columns: int, names: Sequence[str], title: str, *, width: float, height: float
) -> tuple[Figure, np.ndarray]:
    """Axes [rows, columns] without ticks for images, each so large, each row under its name at the left."""
    size = (width * columns + 1.3, height * rows + 0.5)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    for axes, name in zip(grid[:, 0], names):
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    figure.suptitle(title, fontsize=11)
    return figure, grid


def _numbers(axes: Axes, values: np.ndarray, text: Callable, dark: Callable[[float], bool], **style: object) -> None:
    """Write ``text(value)`` into the cells of a heat map, white where the colour is dark."""
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if dark(value) else "black"
        axes.text(column, row, text(value), ha="center", va="center", color=colour, **style)


def pixels(image: Tensor) -> np.ndarray:
    """[C, H, W] in [0, 1] as matplotlib wants it: colour where there are three channels, their mean otherwise."""
    return image.permute(1, 2, 0).numpy() if len(image) == 3 else image.mean(0).numpy()


def pictures(content: Mapping[str, Tensor], width: float = 4.6) -> Figure:
    """Pictures [C, H, W] in [0, 1] side by side, each under its name."""

    def draw(axes: Axes, picture: Tensor) -> None:
        axes.imshow(pixels(picture), **GREYS)
        axes.set(xticks=[], yticks=[])

    highest = max(picture.shape[1] / picture.shape[2] for picture in content.values())
    return _panels(content, width, width * highest + 0.5, draw)


def sheet(images: Tensor, columns: int) -> Tensor:
    """Images [N, C, H, W] in rows without gaps, as one [C, rows * H, columns * W]; the last row is filled up with white."""
    blank = images.new_ones(-len(images) % columns, *images.shape[1:])
    return torch.cat([torch.cat(list(row), 2) for row in torch.cat([images, blank]).split(columns)], 1)


# --- equivariance ---------------------------------------------------------------------------------


def error_curves(errors: Mapping[str, Sequence[float]], places: Sequence, title: str, xlabel: str = "") -> Figure:
    """Equivariance error over angles (degrees) or layers, one curve per name, on a logarithmic axis."""
    figure, axes = _chart(4, xlabel=xlabel, ylabel="relative error", title=title)
    for marker, (name, values) in zip(itertools.cycle(MARKERS), errors.items()):
        axes.semilogy(places, np.maximum(values, EXACT), marker=marker, ms=4, lw=1.2, label=name)
    lines = [(1e-5, "rounding in float32 stays below"), (2**0.5, "another image")]
    if any(value <= EXACT for values in errors.values() for value in values):
        lines += [(EXACT, "exactly 0")]
    for level, says in lines:
        axes.axhline(level, color=GREY, ls=":", lw=1)
        axes.text(places[0], 1.15 * level, says, color=GREY, fontsize=8)
    if not isinstance(places[0], str):
        axes.set_xticks([angle for angle in places if angle % 45 == 0])
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def filters(kernels: Tensor, rows: Sequence[str], title: str) -> Figure:
    """Steerable filters [rows, columns, k, k], each row on its own scale."""
    figure, grid = _image_grid(*kernels.shape[:2], rows, title, width=1.1, height=1.15)
    for axes_row, row in zip(grid, kernels):
        limit = row.abs().max().item()
        for axes, kernel in zip(axes_row, row):
            axes.imshow(kernel.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
    return figure


def vector_fields(images: Tensor, scalars: Tensor, vectors: Tensor, angles: Sequence[float], title: str) -> Figure:
    """Columns of turned inputs [K, H, H], a scalar feature [K, h, h] and a vector feature [K, 2, h, h].

    The vector field is the frequency-1 part of a feature field: its arrows turn with the image.
    """
    names = ("input", "frequency 0", "frequency 1")
    figure, grid = _image_grid(3, len(angles), names, title, width=1.9, height=1.85)
    limit, longest = scalars.abs().max().item(), vectors.norm(dim=1).max().item()
    rows, columns = np.mgrid[: vectors.shape[-2], : vectors.shape[-1]]
    for (top, middle, bottom), image, scalar, vector, angle in zip(grid.T, images, scalars, vectors, angles):
        top.imshow(image, **GREYS)
        top.set_title(f"{angle:g}°", fontsize=10)
        middle.imshow(scalar, cmap="RdBu_r", vmin=-limit, vmax=limit)
        bottom.imshow(vector.norm(dim=0), cmap="Greys", vmin=0, vmax=longest)
        bottom.quiver(columns, rows, *vector.numpy(), color=RED, scale=8 * longest, width=0.012)
    return figure


# --- classifiers ----------------------------------------------------------------------------------


def accuracy_by_angle(results: Sequence[Result]) -> Figure:
    """Test accuracy over the rotation angle, a mean over seeds; the paper's accuracy on random angles dotted."""
    title = "Trained on upright digits, tested on rotated ones"
    figure, axes = _chart(5, xlabel="rotation of the test digits (degrees)", ylabel="accuracy (%)", title=title)
    groups = by_seed(results)
    several = len(groups) > 4  # then each has its colour, and else each model
    for marker, colour, group in zip(itertools.cycle(MARKERS), itertools.cycle(DISTINCT), groups):
        spec, numbers = group[0].spec, group[0].metrics
        colour = colour if several else COLOURS[spec.model]
        accuracy = 100 * np.mean([result.metrics["accuracy_by_angle"] for result in group], axis=0)
        style = dict(ls="-") if spec.paper_loss else dict(ls="--", alpha=0.6)
        text = f"{spec.any_seed.title}, ours" + (f" ({len(group)} seeds)" if len(group) > 1 else "")
        text += "" if group[0].complete else f", after {epochs(group[0])} epochs"
        axes.plot(numbers["angles"], accuracy, marker=marker, ms=4, color=colour, label=text, **style)
    for model in dict.fromkeys(result.spec.model for result in results):
        if model in papers.TABLE1:
            accuracy = 100 * papers.TABLE1[model]["Acc. rotated"]
            axes.axhline(accuracy, color=COLOURS[model], ls=":", label=f"{NAMES[model]}, paper, random angles")
    axes.axhline(10, color=GREY, lw=0.8)
    axes.text(-178, 11, "chance", color=GREY, fontsize=8)
    axes.set(ylim=(0, 102), xticks=ANGLE_TICKS)
    figure.legend(fontsize=8, loc="outside lower center", ncols=2, frameon=False)
    return figure


def training_curves(results: Sequence[Result], key: str, ylabel: str) -> Figure:
    """One loss over the epochs, training dashed and validation solid."""
    figure, axes = _chart(3.4, xlabel="epoch", ylabel=ylabel, title="Loss over the epochs")
    axes.xaxis.get_major_locator().set_params(integer=True)
    for result in results:
        for part, style in (("train", "--"), ("validation", "-")):
            values = [record[f"{part}_{key}"] for record in result.history]
            text = f"{result.spec.title}, {part}"
            axes.plot(range(1, len(values) + 1), values, style, color=COLOURS[result.spec.model], label=text)
    axes.legend(fontsize=8)
    return figure


def confusion_matrices(counts: Mapping[str, Tensor]) -> Figure:
    """What a classifier reads [10, 10], rows the true digits, in percent of each row; one matrix per name."""

    def draw(axes: Axes, matrix: Tensor) -> None:
        percent = (100 * matrix / matrix.sum(1, keepdim=True).clamp(min=1)).numpy()
        axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
        _numbers(
            axes, percent, lambda value: f"{value:.0f}" if value >= 2 else "", lambda value: value > 55, fontsize=7
        )
        axes.set(xticks=range(10), yticks=range(10), xlabel="read as", ylabel="digit")

    return _panels(counts, 4.6, 4.4, draw)


# --- the sphere -----------------------------------------------------------------------------------


def sphere_samples(samples: Mapping[str, Tensor], mean_direction: Tensor) -> Figure:
    """Samples [N, 3] on the unit sphere, one sphere per name; those on the far side are pale."""
    turn = np.linspace(0, 2 * np.pi, 100)

    def draw(axes: Axes, points: Tensor) -> None:
        axes.plot(np.cos(turn), np.sin(turn), color=GREY, lw=0.8)  # seen along +y, slightly from above
        for width in (0.35, 0.75):
            axes.plot(width * np.cos(turn), np.sin(turn), color=GREY, lw=0.3)
            axes.plot(np.cos(turn), 0.3 * width * np.sin(turn), color=GREY, lw=0.3)
        x, y, z = points.T.numpy()
        axes.scatter(x, z, s=4, color=BLUE, alpha=np.where(y > 0, 0.15, 0.8), lw=0)
        axes.scatter(mean_direction[0], mean_direction[2], marker="x", s=60, color=RED)
        axes.set_aspect("equal")
        axes.axis("off")

    return _panels(samples, 2.8, 3.2, draw)


def curves(x: Sequence[float], ys: Mapping[str, Sequence[float]], *, log: str = "", **labels: str) -> Figure:
    """Plain line chart; ``log`` names the logarithmic axes, "x", "y" or "xy"; ``labels``: xlabel, ylabel, title."""
    figure, axes = _chart(3.6, **labels, **{f"{axis}scale": "log" for axis in log})
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(ys)))
    for (name, y), colour in zip(ys.items(), colours):
        axes.plot(x, y, "-", color=colour, label=name)
    axes.legend(fontsize=8)
    return figure


def histogram_against_density(samples: Mapping[str, tuple[Tensor, Tensor, Tensor]], xlabel: str) -> Figure:
    """Histograms of samples under exact densities; values are (samples [N], x [M], density [M])."""

    def draw(axes: Axes, panel: tuple[Tensor, Tensor, Tensor]) -> None:
        values, x, density = (part.numpy() for part in panel)
        axes.hist(values, bins=80, density=True, color=BLUE, alpha=0.45, label="samples")
        axes.plot(x, density, color=RED, lw=1.5, label="exact density")
        axes.set(xlabel=xlabel, yticks=[])

    figure = _panels(samples, 3.2, 2.8, draw)
    figure.axes[0].set_ylabel("density")
    figure.axes[0].legend(fontsize=8)
    return figure


def log_heatmap(values: np.ndarray, rows: Sequence, columns: Sequence, **labels: str) -> Figure:
    """Powers of ten in cells [rows, columns]; for accuracy charts; ``labels``: xlabel, ylabel, title."""
    figure, axes = plt.subplots(figsize=(9, 0.35 * len(rows) + 1.6), layout="constrained")
    image = axes.imshow(values, cmap="viridis", vmin=-17, vmax=0, aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    _numbers(axes, values, "{:.0f}".format, lambda value: value < -6, fontsize=7)
    axes.set(**labels)
    figure.colorbar(image, label="log10 of the relative error")
    return figure


def latent_spaces(sphere: Tensor, plane: Tensor, labels: Tensor) -> Figure:
    """Codes [N, 3] on the sphere (Mollweide projection) beside codes [N, 2] in the plane, by digit."""
    figure = plt.figure(figsize=(13, 4.6), layout="constrained")
    left, right = figure.add_subplot(1, 2, 1, projection="mollweide"), figure.add_subplot(1, 2, 2)
    x, y, z = sphere.T.numpy()
    left.scatter(np.arctan2(y, x), np.arcsin(np.clip(z, -1, 1)), c=labels, s=9, **DIGITS)
    left.grid(True, lw=0.3)
    left.set(xticklabels=[], yticklabels=[])
    left.set_title("S-GVAE, d = 3: the sphere, no centre and no edge", fontsize=10)
    image = right.scatter(*plane.T.numpy(), c=labels, s=9, **DIGITS)
    for sigmas in (1, 2, 3):
        right.add_patch(plt.Circle((0, 0), sigmas, fill=False, color=GREY, lw=0.6))
    right.set_aspect("equal")
    right.set(xlabel="first number of the code", ylabel="second")
    right.set_title("Gaussian VAE, d = 2: the plane, its prior around the origin (circles: 1, 2, 3 σ)", fontsize=10)
    figure.colorbar(image, ax=right, ticks=range(10), label="digit")
    return figure


# --- the cells of Table 2 -------------------------------------------------------------------------


def heat_maps(results: Sequence[Result], epoch: int | None = None) -> Figure:
    """Validation loss in thousands, the papers' unit: ours left, the papers' right, one row a model.

    With ``epoch`` each of our cells is shown as it stood after that epoch, in small letters the farthest it has got.
    """
    kinds = [kind for kind in ("sgvae", "svae", "gaussian") if any(r.spec.model == kind for r in results)]
    dims = sorted({*papers.LATENT_DIMS, *(r.spec.latent_dim for r in results)})
    betas = sorted({*papers.BETAS, *(r.spec.beta for r in results)})
    size = (12, 0.9 * len(dims) * len(kinds))
    figure, grid = plt.subplots(len(kinds), 2, figsize=size, squeeze=False, layout="constrained")
    for axes_row, kind in zip(grid, kinds):
        ours, below = np.full((len(dims), len(betas)), np.nan), {}
        theirs = np.array([[papers.table2_loss(kind, dim, beta) or np.nan for beta in betas] for dim in dims])
        mine = [result for result in results if result.spec.model == kind]
        for cell in cells(mine):
            place = dims.index(cell[0].spec.latent_dim), betas.index(cell[0].spec.beta)
            reached = farthest(cell).epochs_reached
            if epoch not in (None, reached):
                below[place] = f"\n{thousands(farthest(cell)):.1f} after {reached}"
            if at := after_epoch(cell, epoch or reached):  # seeds that got less far do not count
                ours[place] = np.mean([thousands(result) for result in at])
        shown = after_epoch(mine, epoch) if epoch else mine
        words = f"ours: {_epochs_and_digits(shown)}" if shown else f"ours: none after {epoch} epochs"
        for axes, values, name in (
            (axes_row[0], ours, words),
            (axes_row[1], theirs, "papers: 50 epochs of 30,000 digits"),
        ):
            image = axes.imshow(values, cmap="viridis_r", vmin=10, vmax=55, aspect="auto")
            axes.set_xticks(range(len(betas)), [f"{beta:g}" for beta in betas])
            axes.set_yticks(range(len(dims)), dims)
            axes.set(xlabel="β", ylabel="d")
            axes.set_title(f"{NAMES[kind]}, {name}", fontsize=10)
            _numbers(axes, values, lambda value: "–" if np.isnan(value) else f"{value:.1f}", lambda value: value > 35)
        for place, text in below.items():
            colour = "white" if ours[place] > 35 else "black"
            axes_row[0].text(*place[::-1], text, ha="center", va="top", color=colour, fontsize=7)
        figure.colorbar(image, ax=axes_row, label="loss (thousands)")
    return figure


def _epochs_and_digits(results: Sequence[Result]) -> str:
    counts = dict.fromkeys(map(epochs, sorted(results, key=lambda result: result.epochs_reached)))
    digits = sorted({result.spec.training_digits for result in results})
    return f"after {', '.join(counts)} epochs of {', '.join(f'{count:,}' for count in digits)} digits"


# --- rotated digits, their reconstructions and codes ----------------------------------------------


def image_rows(rows: Mapping[str, Tensor], columns: Sequence[str] = ()) -> Figure:
    """Rows of images [K, C, H, W] under each other, named at the left; Figure 1 of the report."""
    count = max(map(len, rows.values()))
    # one pair of axes for all: a pair for each image takes twenty times as long to draw
    figure = plt.figure(figsize=(0.85 * count, height := 0.85 * len(rows) + 0.2))
    axes = figure.add_axes((0, 0.2 / height, 1, 1 - 0.2 / height))
    for row, images in enumerate(rows.values()):
        for column, image in enumerate(images):
            axes.imshow(pixels(image), extent=(column, column + SIDE, row + SIDE, row), **GREYS)
    axes.set(xlim=(-0.02, count), ylim=(len(rows), -0.02), frame_on=False)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.set_xticks(np.arange(len(columns)) + SIDE / 2, columns, fontsize=8)
    axes.set_yticks(np.arange(len(rows)) + SIDE / 2, list(rows), fontsize=9)
    return figure


def contact_sheets(sheets: Mapping[str, Tensor], columns: int = 10) -> Figure:
    """Sheets of images [N, C, H, W] side by side, each under its name, without gaps."""
    return pictures({name: sheet(images, columns) for name, images in sheets.items()}, width=0.5 * columns)


def angles_found(true: Tensor, found: Tensor, labels: Tensor, apart: Sequence[int]) -> Figure:
    """Found against true angles [N] (degrees), one point an image; classes that have a symmetry ``apart``, right."""
    symmetric = torch.isin(labels, torch.tensor(apart))
    ticks = range(-180, 181, 90)

    def draw(axes: Axes, chosen: Tensor) -> None:
        axes.scatter(true[chosen], found[chosen], c=labels[chosen], s=6, **DIGITS)
        for offset in (-360, 0, 360):
            axes.plot([-180, 180], [-180 + offset, 180 + offset], color=GREY, lw=0.6, zorder=0)
        axes.set(xlim=(-180, 180), ylim=(-180, 180), xticks=ticks, yticks=ticks)
        axes.set_xlabel("angle by which the digit was turned (degrees)")

    names = ("digits with one orientation", f"digits with a symmetry: {', '.join(map(str, apart))}")
    figure = _panels(dict(zip(names, (~symmetric, symmetric))), 5.5, 4.6, draw, sharey=True)
    figure.axes[0].set_ylabel("angle found, less the class's own (degrees)")
    figure.colorbar(figure.axes[0].collections[0], ax=figure.axes, ticks=range(10), label="digit")
    return figure


def angle_histograms(angles: Mapping[str, Mapping[str, Tensor]], xlabel: str) -> Figure:
    """Histograms of angles (degrees): one panel per name, one outline per group of angles [N]."""

    def draw(axes: Axes, groups: Mapping[str, Tensor]) -> None:
        style = dict(bins=np.arange(0, 181, 6), density=True, histtype="step", lw=1.6)
        for colour, (group, values) in zip((BLUE, ORANGE, GREEN, RED), groups.items()):
            axes.hist(values.numpy(), color=colour, label=group, **style)
        axes.set(xlabel=xlabel, xticks=range(0, 181, 45), yticks=[])
        axes.legend(fontsize=8)

    figure = _panels(angles, 4.6, 3.2, draw, sharey=True)
    figure.axes[0].set_ylabel("density")
    return figure


def drift_by_angle(results: Sequence[Result]) -> Figure:
    """Angle between the codes of a turned and the upright digit, over the turn; dotted: other digits."""
    title = "How far the latent code moves while the digit turns"
    figure, axes = _chart(
        3.8, xlabel="rotation of the digit (degrees)", ylabel="angle between codes (degrees)", title=title
    )
    for result in results:
        numbers, colour, name = result.metrics, COLOURS[result.spec.model], NAMES[result.spec.model]
        axes.plot(numbers["angles"], numbers["latent_drift"], "o-", ms=4, color=colour, label=result.spec.title)
        axes.axhline(numbers["typical_angle"], color=colour, ls=":", label=f"{name}, between different digits")
    axes.set(ylim=(0, None), xticks=ANGLE_TICKS)
    figure.legend(fontsize=8, loc="outside lower center", ncols=2, frameon=False)
    return figure
