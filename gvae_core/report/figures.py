"""Results -> matplotlib figures. Nothing is computed here that a result does not hold."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..files import outputs_directory, write_atomically
from ..runs.results import Result, by_seed
from . import papers
from .tables import after_epoch, cells, thousands
from .words import NAMES, epochs, label

# Okabe and Ito's palette: distinct for colour-blind readers, too
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#7F7F7F"
COLOURS = {"cnn": ORANGE, "gcnn": BLUE, "svae": ORANGE, "sgvae": BLUE, "gaussian": GREEN}
ANGLE_TICKS = range(-180, 181, 45)
MARKERS = "osD^v<>"
EXACT = 1e-8  # an error of exactly 0 is drawn here, on the logarithmic axes


def save(figure: Figure, name: str, *, profile: str, source: str, folder: Path | None = None) -> Path:
    """Stamp profile and source on a figure and write NAME.png into ``folder``, by default OUTPUTS/figures/PROFILE."""
    figure.text(0.995, 0.004, f"profile {profile} · {source}", ha="right", va="bottom", fontsize=7, color=GREY)
    path = (folder or outputs_directory() / "figures" / profile) / f"{name}.png"
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110, bbox_inches="tight"))
    return path


# --- equivariance ---------------------------------------------------------------------------------


def error_by_angle(errors: Mapping[str, Sequence[float]], angles: Sequence[float], title: str) -> Figure:
    """Equivariance error over the angle (degrees), one curve per name, on a logarithmic axis."""
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for marker, (name, values) in zip(itertools.cycle(MARKERS), errors.items()):
        axes.semilogy(angles, np.maximum(values, EXACT), marker=marker, ms=4, lw=1.2, label=name)
    axes.axhline(2**0.5, color=GREY, ls=":", lw=1)
    axes.text(angles[0], 2**0.5 * 1.15, "another image", color=GREY, fontsize=8)
    axes.set(xlabel="rotation of the input (degrees)", ylabel="relative error", title=title)
    axes.set_xticks([a for a in angles if a % 45 == 0])
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def error_by_layer(errors: Mapping[str, Sequence[float]], layers: Sequence[str], title: str) -> Figure:
    """Equivariance error of each layer, one group of points per name, on a logarithmic axis."""
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for marker, (name, values) in zip(itertools.cycle(MARKERS), errors.items()):
        axes.semilogy(range(len(layers)), np.maximum(values, EXACT), marker=marker, lw=1, label=name)
    axes.set_xticks(range(len(layers)), layers, rotation=20)
    axes.axhline(1e-5, color=GREY, ls=":", lw=1)
    axes.text(0, 1.2e-5, "1e-5", color=GREY, fontsize=8)
    axes.set(ylabel="relative error", title=title)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def filters(kernels: Tensor, rows: Sequence[str], title: str) -> Figure:
    """Steerable filters [rows, columns, k, k], each row on its own scale."""
    count, columns = kernels.shape[:2]
    figure, grid = plt.subplots(count, columns, figsize=(1.1 * columns + 1, 1.15 * count + 0.5), squeeze=False)
    for row, axes_row in enumerate(grid):
        limit = kernels[row].abs().max().item()
        for axes, kernel in zip(axes_row, kernels[row]):
            axes.imshow(kernel.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
            axes.set(xticks=[], yticks=[])
        axes_row[0].set_ylabel(rows[row], rotation=0, ha="right", va="center", fontsize=9)
    figure.suptitle(title, fontsize=11)
    return figure


def vector_fields(images: Tensor, scalars: Tensor, vectors: Tensor, angles: Sequence[float], title: str) -> Figure:
    """Columns of turned inputs [K, H, H], a scalar feature [K, h, h] and a vector feature [K, 2, h, h].

    The vector field is the frequency-1 part of a feature field: its arrows turn with the image.
    """
    figure, grid = plt.subplots(3, len(angles), figsize=(1.9 * len(angles), 6), squeeze=False)
    limit = scalars.abs().max().item()
    for column, angle in enumerate(angles):
        top, middle, bottom = grid[:, column]
        top.imshow(images[column], cmap="gray", vmin=0, vmax=1)
        top.set_title(f"{angle:g}°", fontsize=10)
        middle.imshow(scalars[column], cmap="RdBu_r", vmin=-limit, vmax=limit)
        x, y = vectors[column].numpy()
        size = x.shape[-1]
        length = np.hypot(x, y)
        bottom.imshow(length, cmap="Greys", vmin=0, vmax=vectors.norm(dim=1).max().item())
        rows, columns = np.mgrid[:size, :size]
        bottom.quiver(columns, rows, x, y, color=RED, scale=8 * vectors.norm(dim=1).max().item(), width=0.012)
    for axes, name in zip(grid[:, 0], ("input", "frequency 0", "frequency 1")):
        axes.set_ylabel(name)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    figure.suptitle(title, fontsize=11)
    return figure


# --- classifiers ----------------------------------------------------------------------------------


def accuracy_by_angle(results: Sequence[Result]) -> Figure:
    """Test accuracy over the rotation angle, a mean over seeds; the paper's accuracy on random angles dotted."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for marker, group in zip(itertools.cycle(MARKERS), by_seed(results)):
        spec = group[0].spec
        accuracy = 100 * np.mean([result.metrics["accuracy_by_angle"] for result in group], axis=0)
        style = dict(ls="-") if spec.paper_loss else dict(ls="--", alpha=0.6)
        text = f"{label(group[0])}, ours" + (f" ({len(group)} seeds)" if len(group) > 1 else "")
        text += "" if group[0].complete else f", after {epochs(group)} epochs"
        axes.plot(
            group[0].metrics["angles"], accuracy, marker=marker, ms=4, color=COLOURS[spec.model], label=text, **style
        )
    for model in dict.fromkeys(result.spec.model for result in results):
        if model in papers.TABLE1:
            paper = 100 * papers.TABLE1[model]["test_accuracy"]
            axes.axhline(paper, color=COLOURS[model], ls=":", label=f"{NAMES[model]}, paper, random angles")
    axes.axhline(10, color=GREY, lw=0.8)
    axes.text(-178, 11, "chance", color=GREY, fontsize=8)
    axes.set(
        xlabel="rotation of the test digits (degrees)",
        ylabel="accuracy (%)",
        ylim=(0, 102),
        title="Trained on upright digits, tested on rotated ones",
    )
    axes.set_xticks(ANGLE_TICKS)
    figure.legend(fontsize=8, loc="outside lower center", ncols=2, frameon=False)
    return figure


def training_curves(results: Sequence[Result], key: str, ylabel: str) -> Figure:
    """One loss over the epochs, training dashed and validation solid."""
    figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    for result in results:
        epochs = [record["epoch"] for record in result.history]
        colour = COLOURS[result.spec.model]
        for part, style in (("train", "--"), ("validation", "-")):
            values = [record[f"{part}_{key}"] for record in result.history]
            axes.plot(epochs, values, style, color=colour, label=f"{label(result)}, {part}")
    axes.set(xlabel="epoch", ylabel=ylabel)
    axes.legend(fontsize=8)
    return figure


# --- the sphere -----------------------------------------------------------------------------------


def sphere_samples(samples: Mapping[str, Tensor], mean_direction: Tensor) -> Figure:
    """Samples [N, 3] on the unit sphere, one sphere per name; those on the far side are pale."""
    figure, grid = plt.subplots(1, len(samples), figsize=(2.8 * len(samples), 3.2), layout="constrained")
    for axes, (name, points) in zip(np.atleast_1d(grid), samples.items()):
        _globe(axes)
        x, y, z = points.T.numpy()
        axes.scatter(x[y > 0], z[y > 0], s=4, color=BLUE, alpha=0.15, lw=0)
        axes.scatter(x[y <= 0], z[y <= 0], s=4, color=BLUE, alpha=0.8, lw=0)
        axes.scatter(mean_direction[0], mean_direction[2], marker="x", s=60, color=RED)
        axes.set_title(name, fontsize=10)
    return figure


def _globe(axes) -> None:
    """Outline, equator and meridians of the unit sphere seen along +y, slightly from above."""
    turn = np.linspace(0, 2 * np.pi, 100)
    axes.plot(np.cos(turn), np.sin(turn), color=GREY, lw=0.8)
    for width in (0.35, 0.75):
        axes.plot(width * np.cos(turn), np.sin(turn), color=GREY, lw=0.3)
        axes.plot(np.cos(turn), 0.3 * width * np.sin(turn), color=GREY, lw=0.3)
    axes.set_aspect("equal")
    axes.axis("off")


def curves(
    x: Sequence[float], ys: Mapping[str, Sequence[float]], *, xlabel: str, ylabel: str, title: str, log: str = ""
) -> Figure:
    """Plain line chart; ``log`` names the logarithmic axes, "x", "y" or "xy"."""
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(ys)))
    for (name, y), colour in zip(ys.items(), colours):
        axes.plot(x, y, "-", color=colour, label=name)
    axes.set(
        xlabel=xlabel,
        ylabel=ylabel,
        title=title,
        xscale="log" if "x" in log else "linear",
        yscale="log" if "y" in log else "linear",
    )
    axes.legend(fontsize=8)
    return figure


def histogram_against_density(samples: Mapping[str, tuple[Tensor, Tensor, Tensor]], xlabel: str) -> Figure:
    """Histograms of samples under exact densities; values are (samples [N], x [M], density [M])."""
    figure, grid = plt.subplots(1, len(samples), figsize=(3.2 * len(samples), 2.8), layout="constrained")
    for axes, (name, (values, x, density)) in zip(np.atleast_1d(grid), samples.items()):
        axes.hist(values.numpy(), bins=80, density=True, color=BLUE, alpha=0.45, label="samples")
        axes.plot(x.numpy(), density.numpy(), color=RED, lw=1.5, label="exact density")
        axes.set(title=name, xlabel=xlabel, yticks=[])
        axes.title.set_fontsize(10)
    np.atleast_1d(grid)[0].legend(fontsize=8)
    return figure


def log_heatmap(
    values: np.ndarray, rows: Sequence, columns: Sequence, *, xlabel: str, ylabel: str, title: str
) -> Figure:
    """Powers of ten in cells [rows, columns]; for accuracy charts."""
    figure, axes = plt.subplots(figsize=(9, 0.35 * len(rows) + 1.6), layout="constrained")
    image = axes.imshow(values, cmap="viridis", vmin=-17, vmax=0, aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    for row, column in np.ndindex(values.shape):
        colour = "white" if values[row, column] < -6 else "black"
        axes.text(column, row, f"{values[row, column]:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    figure.colorbar(image, label="log10 of the relative error")
    return figure


def latent_spaces(sphere: Tensor, plane: Tensor, labels: Tensor) -> Figure:
    """Codes [N, 3] on the sphere (Mollweide projection) beside codes [N, 2] in the plane, by digit."""
    figure = plt.figure(figsize=(13, 4.6), layout="constrained")
    left = figure.add_subplot(1, 2, 1, projection="mollweide")
    right = figure.add_subplot(1, 2, 2)
    digits = labels.numpy()
    dots = dict(c=digits, cmap="tab10", vmin=-0.5, vmax=9.5, s=9, lw=0)
    x, y, z = sphere.T.numpy()
    left.scatter(np.arctan2(y, x), np.arcsin(np.clip(z, -1, 1)), **dots)
    left.grid(True, lw=0.3)
    left.set(xticklabels=[], yticklabels=[])
    left.set_title("S-GVAE, d = 3: the sphere, no centre and no edge", fontsize=10)
    image = right.scatter(*plane.T.numpy(), **dots)
    turn = np.linspace(0, 2 * np.pi, 100)
    for sigmas in (1, 2, 3):
        right.plot(sigmas * np.cos(turn), sigmas * np.sin(turn), color=GREY, lw=0.6)
    right.set_aspect("equal")
    right.set_title("Gaussian VAE, d = 2: the plane, its prior around the origin (circles: 1, 2, 3 σ)", fontsize=10)
    figure.colorbar(image, ax=right, ticks=range(10), label="digit")
    return figure


# --- the grid of Table 2 --------------------------------------------------------------------------


def heat_maps(results: Sequence[Result], epoch: int | None = None) -> Figure:
    """Validation loss in thousands, the papers' unit: ours left, the papers' right, one row a model.

    With ``epoch`` each of our cells is shown as it stood after that epoch, in small letters the farthest it has got.
    """
    kinds = [kind for kind in ("sgvae", "svae", "gaussian") if any(r.spec.model == kind for r in results)]
    dims = sorted({*papers.LATENT_DIMS, *(r.spec.latent_dim for r in results)})
    betas = sorted({*papers.BETAS, *(r.spec.beta for r in results)})
    height = 0.9 * len(dims) * len(kinds)
    figure, grid = plt.subplots(len(kinds), 2, figsize=(12, height), squeeze=False, layout="constrained")
    for axes_row, kind in zip(grid, kinds):
        ours, below = np.full((len(dims), len(betas)), np.nan), {}
        theirs = np.array([[papers.table2_loss(kind, dim, beta) or np.nan for beta in betas] for dim in dims])
        mine = [result for result in results if result.spec.model == kind]
        for cell in cells(mine):
            place = dims.index(cell[0].spec.latent_dim), betas.index(cell[0].spec.beta)
            farthest = max(cell, key=lambda result: result.epochs_reached)
            if epoch is None:  # seeds that got less far do not count
                at = [result for result in cell if result.epochs_reached == farthest.epochs_reached]
            else:
                at = after_epoch(cell, epoch)
                if farthest.epochs_reached != epoch:
                    below[place] = f"\n{thousands(farthest):.1f} after {farthest.epochs_reached}"
            ours[place] = np.mean([thousands(result) for result in at]) if at else np.nan
        shown = after_epoch(mine, epoch) if epoch else mine
        title = (
            f"ours: {_epochs_and_digits(shown or mine)}" if shown or not epoch else f"ours: none after {epoch} epochs"
        )
        for axes, values, name, small in (
            (axes_row[0], ours, title, below),
            (axes_row[1], theirs, "papers: 50 epochs of 30,000 digits", {}),
        ):
            image = axes.imshow(values, cmap="viridis_r", vmin=10, vmax=55, aspect="auto")
            axes.set_xticks(range(len(betas)), [f"{beta:g}" for beta in betas])
            axes.set_yticks(range(len(dims)), dims)
            axes.set(xlabel="β", ylabel="d")
            axes.set_title(f"{NAMES[kind]}, {name}", fontsize=10)
            for place in np.ndindex(values.shape):
                colour = "white" if values[place] > 35 else "black"
                text = "–" if np.isnan(values[place]) else f"{values[place]:.1f}"
                axes.text(*place[::-1], text, ha="center", va="center", color=colour)
                axes.text(*place[::-1], small.get(place, ""), ha="center", va="top", color=colour, fontsize=7)
        figure.colorbar(image, ax=axes_row, label="loss (thousands)")
    return figure


def _epochs_and_digits(results: Sequence[Result]) -> str:
    counts = dict.fromkeys(epochs([result]) for result in sorted(results, key=lambda result: result.epochs_reached))
    return f"after {', '.join(counts)} epochs of {_join({r.spec.training_digits for r in results})} digits"


def _join(values) -> str:
    return ", ".join(f"{value:,}" for value in sorted(values))


# --- rotated digits and their reconstructions -----------------------------------------------------


def image_rows(rows: Mapping[str, Tensor], columns: Sequence[str] = (), title: str = "") -> Figure:
    """Rows of images [K, 1, H, W] under each other, named at the left; Figure 1 of the report."""
    count = max(len(images) for images in rows.values())
    figure, grid = plt.subplots(len(rows), count, figsize=(0.85 * count + 1.6, 0.9 * len(rows) + 0.5), squeeze=False)
    for axes_row, (name, images) in zip(grid, rows.items()):
        for axes, image in zip(axes_row, images):
            axes.imshow(image[0].numpy(), cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
        axes_row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    for axes, name in zip(grid[0], columns):
        axes.set_title(name, fontsize=8)
    figure.subplots_adjust(wspace=0.05, hspace=0.05)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def contact_sheets(sheets: Mapping[str, Tensor], columns: int = 10) -> Figure:
    """Sheets of images [N, 1, H, W] side by side, each under its name, without gaps."""
    height = 0.5 * (max(map(len, sheets.values())) // columns) + 0.5
    figure, grid = plt.subplots(1, len(sheets), figsize=(5 * len(sheets), height), layout="constrained")
    for axes, (name, images) in zip(np.atleast_1d(grid), sheets.items()):
        rows = [torch.cat(list(images[i : i + columns, 0]), 1) for i in range(0, len(images) - columns + 1, columns)]
        axes.imshow(torch.cat(rows).numpy(), cmap="gray", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
        axes.set_title(name, fontsize=10)
    return figure


def angles_found(true: Tensor, found: Tensor, labels: Tensor, apart: Sequence[int]) -> Figure:
    """Found against true angles [N] (degrees), one point an image; classes that have a symmetry ``apart``, right."""
    figure, grid = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", sharey=True)
    symmetric = torch.isin(labels, torch.tensor(apart))
    names = ("digits with one orientation", f"digits with a symmetry: {', '.join(map(str, apart))}")
    for axes, chosen, name in zip(grid, (~symmetric, symmetric), names):
        points = axes.scatter(
            true[chosen], found[chosen], c=labels[chosen], s=6, lw=0, cmap="tab10", vmin=-0.5, vmax=9.5
        )
        for offset in (-360, 0, 360):
            axes.plot([-180, 180], [-180 + offset, 180 + offset], color=GREY, lw=0.6, zorder=0)
        axes.set(xlabel="angle by which the digit was turned (degrees)", title=name, xlim=(-180, 180), ylim=(-180, 180))
        axes.set_xticks(range(-180, 181, 90))
        axes.set_yticks(range(-180, 181, 90))
    grid[0].set_ylabel("angle found, less the class's own (degrees)")
    figure.colorbar(points, ax=grid, ticks=range(10), label="digit")
    return figure


def confusion_matrices(counts: Mapping[str, Tensor]) -> Figure:
    """What a classifier reads [10, 10], rows the true digits, in percent of each row; one matrix per name."""
    figure, grid = plt.subplots(1, len(counts), figsize=(4.6 * len(counts), 4.4), layout="constrained")
    for axes, (name, matrix) in zip(np.atleast_1d(grid), counts.items()):
        percent = (100 * matrix / matrix.sum(1, keepdim=True).clamp(min=1)).numpy()
        axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
        for row, column in np.argwhere(percent >= 2):
            value = percent[row, column]
            axes.text(
                column,
                row,
                f"{value:.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if value > 55 else "black",
            )
        axes.set(xticks=range(10), yticks=range(10), xlabel="read as", ylabel="digit", title=name)
    return figure


def angle_histograms(angles: Mapping[str, Mapping[str, Tensor]], xlabel: str) -> Figure:
    """Histograms of angles (degrees): one panel per name, one outline per group of angles [N]."""
    figure, grid = plt.subplots(1, len(angles), figsize=(4.6 * len(angles), 3.2), sharey=True, layout="constrained")
    for axes, (name, groups) in zip(np.atleast_1d(grid), angles.items()):
        for colour, (group, values) in zip((BLUE, ORANGE, GREEN, RED), groups.items()):
            axes.hist(
                values.numpy(),
                bins=np.arange(0, 181, 6),
                density=True,
                histtype="step",
                lw=1.6,
                color=colour,
                label=group,
            )
        axes.set(xlabel=xlabel, yticks=[], title=name)
        axes.set_xticks(range(0, 181, 45))
        axes.legend(fontsize=8)
    return figure


def drift_by_angle(results: Sequence[Result]) -> Figure:
    """Angle between the codes of a turned and the upright digit, over the turn; dotted: other digits."""
    figure, axes = plt.subplots(figsize=(8, 3.8), layout="constrained")
    for result in results:
        model, numbers = result.spec.model, result.metrics
        axes.plot(
            numbers["angles"],
            numbers["latent_drift"],
            "o-",
            ms=4,
            color=COLOURS[model],
            label=f"{NAMES[model]}, d = {result.spec.latent_dim}",
        )
        axes.axhline(
            numbers["typical_angle"],
            color=COLOURS[model],
            ls=":",
            label=f"{NAMES[model]}, between different digits",
        )
    axes.set(
        xlabel="rotation of the digit (degrees)",
        ylabel="angle between codes (degrees)",
        title="How far the latent code moves while the digit turns",
        ylim=(0, None),
    )
    axes.set_xticks(ANGLE_TICKS)
    axes.legend(fontsize=8)
    return figure
