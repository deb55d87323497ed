"""Results -> Markdown tables, the papers' numbers beside ours; "–" where there is no number.

Functions that take ``link``, from a result to what the last column shows of it, add that column: which run's file
a row comes from.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
from collections.abc import Callable, Mapping, Sequence

from ..files import outputs_directory, write_text
from ..runs.results import Result, by_seed
from . import papers
from .words import NAMES, epochs, label, network, schedule, sizes, training

SMOKE_NOTE = "\n\n**Profile smoke: these numbers only prove that every cell ran. They are no result.**"
NONE = "–"
TABLE2_EPOCH = 8  # the full-size cells of Table 2 are compared after this epoch of their 50, which all can reach
Link = Callable[[Result], str]
Row = tuple[Sequence[str], Sequence[Result]]  # what is shown, and the results it comes from


def runs(results: Sequence[Result]) -> str:
    """What was trained: the networks, their data and schedules."""
    rows = [
        (
            [
                network(result.spec),
                f"{result.spec.training_digits:,}",
                epochs([result]),
                f"{result.spec.batch_size}",
                schedule(result.spec),
                sizes(result.spec),
                f"{result.parameters:,}",
                f"{result.seconds:.0f}",
                result.path.name,
            ],
            [result],
        )
        for result in results
    ]
    header = ["Model", "Digits", "Epochs", "Batch", "Learning rate", "Sizes", "Parameters", "Seconds", "Result"]
    return _markdown(header, rows)


def table1(results: Sequence[Result], link: Link | None = None) -> str:
    """Table 1 of the 2022 paper: losses and accuracy on rotated test digits, CNN and G-CNN.

    Runs that differ in the seed alone and got as far share a row, mean ± standard deviation.
    """
    rows, shown = [], set()
    for group in by_seed(results):
        model = group[0].spec.model
        if model not in shown and model in papers.TABLE1:
            paper = papers.TABLE1[model]
            losses = [f"{paper[f'{part}_loss']}" for part in ("train", "validation", "test")]
            accuracy = f"{paper['test_accuracy']:.2%}"
            rows.append(([f"{NAMES[model]}, paper", "1", "50", *losses, NONE, accuracy, NONE, paper["parameters"]], []))
        shown.add(model)
        last = [result.history[-1] for result in group]
        numbers = [result.metrics for result in group]
        row = [
            f"**{label(group[0])}, ours**",
            f"{len(group)}",
            epochs(group),
            _mean(last, "train_paper_loss"),
            _mean(last, "validation_paper_loss"),
            _mean(numbers, "test_rotated_paper_loss"),
            _mean(numbers, "test_rotated_cross_entropy"),
            f"**{_mean(numbers, 'test_rotated_accuracy', percent=True)}**",
            _mean(numbers, "test_upright_accuracy", percent=True),
            f"{group[0].parameters:,}",
        ]
        rows.append((row, group))
    losses = ["Train loss", "Valid. loss", "Test loss", "Test cross-entropy"]
    header = ["Model", "Seeds", "Epochs", *losses, "Acc. rotated", "Acc. upright", "Params"]
    return _markdown(header, rows, link)


def accuracy_over_the_turn(results: Sequence[Result]) -> str:
    """How far accuracy falls while all test digits are turned by one angle after the other; seeds as in `table1`."""
    rows = []
    for group in by_seed(results):
        angles = group[0].metrics["angles"]
        accuracy = [statistics.mean(at) for at in zip(*(result.metrics["accuracy_by_angle"] for result in group))]
        lowest = min(accuracy)
        quarters = [value for angle, value in zip(angles, accuracy) if angle % 90 == 0]
        where = f"{lowest:.1%} at {angles[accuracy.index(lowest)]}°"
        row = [label(group[0]), f"{accuracy[angles.index(0)]:.1%}", f"{min(quarters):.1%}", where]
        rows.append((row, group))
    return _markdown(["Model", "Upright", "Quarter turns, lowest", "All angles, lowest"], rows)


# --- Table 2 --------------------------------------------------------------------------------------


def after_epoch(results: Sequence[Result], epoch: int) -> list[Result]:
    """The results that have reached an epoch as they then stood: history cut there, without the later metrics."""
    reached = (result for result in results if result.epochs_reached >= epoch)
    return [dataclasses.replace(result, history=result.history[:epoch], metrics={}) for result in reached]


def cells(results: Sequence[Result]) -> list[list[Result]]:
    """The results of each cell of a table, whatever their seeds and epochs."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(dataclasses.replace(result.spec, seed=0).key, []).append(result)
    return list(found.values())


def thousands(result: Result) -> float:
    """The last validation loss in the unit of Table 2."""
    return result.history[-1]["validation_loss"] / 1000


def table2(results: Sequence[Result], epoch: int | None = None, link: Link | None = None) -> str:
    """Table 2: the validation loss in the papers' unit, with its two terms per image; seeds as in `table1`.

    With ``epoch`` every cell is shown as it stood after that epoch, "–" if it has not got there, and beside it
    the loss after the last epoch that any of its seeds has reached.
    """
    rows = []
    for cell in cells(results):
        spec = cell[0].spec
        for group in by_seed(cell) if epoch is None else by_seed(after_epoch(cell, epoch)) or [[]]:
            last = [result.history[-1] | {"thousands": thousands(result)} for result in group]
            paper = papers.table2_loss(spec.model, spec.latent_dim, spec.beta)
            row = [
                NAMES[spec.model],
                f"{spec.latent_dim}",
                f"{spec.beta:g}",
                f"{paper:.2f}k" if paper else NONE,
                _mean(last, "thousands", digits=2, unit="k"),
                _mean(last, "validation_squared_error", digits=1),
                _mean(last, "validation_kl", digits=2),
                epochs(group) if group else NONE,
                f"{len(group)}",
            ]
            if epoch is not None:
                farthest = max(cell, key=lambda result: result.epochs_reached)
                row.append(f"{thousands(farthest):.2f}k after {farthest.epochs_reached}")
            rows.append((row, group or cell))
    header = ["Model", "d", "β", "Paper", "Ours", "Squared error / image", "KL / image (nats)", "Epochs", "Seeds"]
    return _markdown(header if epoch is None else [*header, "Farthest"], rows, link)


def agreement(results: Sequence[Result], epoch: int | None = None) -> str:
    """Where Table 2 agrees with the papers: level, order over d and β, the flat columns, the models' distance.

    Over the cells that have reached ``epoch`` (None: as far as each is) and that the papers have. Their cell
    (0.01, 10) of the S-GVAE, out of line with its neighbours, stands apart.
    """
    at = results if epoch is None else after_epoch(results, epoch)
    ours, theirs = {}, {}
    for cell in cells(at):
        place = cell[0].spec.model, cell[0].spec.latent_dim, cell[0].spec.beta
        if paper := papers.table2_loss(*place):
            ours[place], theirs[place] = statistics.mean(map(thousands, cell)), paper
    outlier = ("sgvae", 10, 0.01)
    places = [place for place in ours if place != outlier]
    rows = []
    for model, dim in dict.fromkeys(place[:2] for place in places):
        here = [place for place in places if place[:2] == (model, dim)]
        flat = [place for place in here if place[2] <= 1]
        deviation = statistics.mean(ours[place] / theirs[place] - 1 for place in here)
        spreads = [f"{max(v[p] for p in flat) - min(v[p] for p in flat):.2f}k" for v in (ours, theirs)]
        spreads = spreads if len(flat) > 1 else [NONE, NONE]
        rows.append(([NAMES[model], f"{dim}", f"{len(here)}", f"{deviation:+.1%}", *spreads], []))
    header = ["Model", "d", "Cells", "Mean deviation from the papers", "Spread over β ≤ 1, ours", "papers"]
    lines = [_markdown(header, rows), ""] if rows else []

    pairs = list(itertools.combinations(places, 2))
    over_d = [(a, b) for a, b in pairs if (a[0], a[2]) == (b[0], b[2])]
    over_beta = [(a, b) for a, b in pairs if a[:2] == b[:2] and max(a[2], b[2]) > 1]
    for name, compared in (("d", over_d), ("β, one of them above 1", over_beta)):
        same = sum((ours[a] < ours[b]) == (theirs[a] < theirs[b]) for a, b in compared)
        if compared:
            lines += [f"- Order: as in the papers in {same} of {len(compared)} pairs of cells that differ in {name}."]
    both = [place for place in places if place[0] == "sgvae" and ("svae", *place[1:]) in ours]
    if both:
        gaps = [statistics.mean(v[p] - v["svae", *p[1:]] for p in both) for v in (ours, theirs)]
        lines += [
            f"- S-GVAE minus S-VAE: {gaps[0]:+.2f}k, papers {gaps[1]:+.2f}k, mean over the {len(both)} d and β of both."
        ]
    if outlier in ours:
        beside = ours.get(("sgvae", 10, 0.1))
        neighbour = f", {beside:.2f}k" if beside else ""
        lines += [
            f"- The papers' {papers.table2_loss(*outlier):.2f}k, S-GVAE (0.01, 10), beside"
            f" {papers.table2_loss('sgvae', 10, 0.1):.2f}k at β = 0.1: ours {ours[outlier]:.2f}k{neighbour}."
        ]
    return "\n".join(lines)


# --- codes and reconstructions --------------------------------------------------------------------


def drift(results: Sequence[Result], link: Link | None = None) -> str:
    """How far the code moves on the latent sphere while a digit turns, at quarter turns and between them (degrees)."""
    rows = []
    for result in results:
        numbers = result.metrics
        turn = list(zip(numbers["angles"], numbers["latent_drift"]))
        between = [(moved, angle) for angle, moved in turn if angle % 90]
        quarter = max(moved for angle, moved in turn if angle % 90 == 0)
        farthest, where = max(between)
        row = [
            f"{NAMES[result.spec.model]} ({training(result)})",
            f"{quarter:.1f}°" if quarter > 0.1 else f"{quarter:.0e}°",
            f"{statistics.mean(moved for moved, _ in between):.1f}°",
            f"{farthest:.1f}° at {abs(where)}°",
            f"{numbers['typical_angle']:.1f}°",
        ]
        rows.append((row, [result]))
    header = [
        "Codes of the",
        "Quarter turns, largest",
        "Between them, mean",
        "Between them, largest",
        "Different digits",
    ]
    return _markdown(header, rows, link)


Shares = Sequence[tuple[Result, Mapping[str, float]]]  # of each model, by kind of input


def reconstructions(read: Shares, link: Link | None = None) -> str:
    """Tiny paper, Table 1: the share of reconstructions that a classifier reads right, by kind of input."""
    rows, inputs = [], list(read[0][1])
    for model in dict.fromkeys(result.spec.model for result, _ in read):
        if paper := papers.RECONSTRUCTION_ACCURACY.get(model):
            shown = [f"{paper[name]:.0%}" if name in paper else NONE for name in inputs]
            rows.append(([f"{NAMES[model]}, paper", *shown], []))
        for result, shares in read:
            if result.spec.model == model:
                shown = [f"**{shares[name]:.1%}**" for name in inputs]
                rows.append(([f"**{NAMES[model]}, ours** ({training(result)})", *shown], [result]))
    return _markdown(["Reconstructions of", *inputs], rows, link)


def searches(found: Shares, link: Link | None = None) -> str:
    """The share of codes whose nearest known codes have their label, by kind of input."""
    inputs = list(found[0][1])
    rows = [
        ([NAMES[result.spec.model], *(f"{shares[kind]:.1%}" for kind in inputs)], [result]) for result, shares in found
    ]
    return _markdown(["Nearest codes of", *inputs], rows, link)


def poses(found: Mapping[str, Mapping]) -> str:
    """How well models say how digits are turned, found[model] as `runs.kinds.pose_numbers` gives it."""
    rows = []
    for name, numbers in found.items():
        errors, by_class = numbers["angle_errors"], numbers["resultant_by_class"]
        rows.append(
            [
                name,
                f"{errors['resultant']:.4f}",
                f"{errors['mean']:.2f}° / {errors['median']:.2f}°",
                f"{errors['within_10']:.1%}",
                f"{errors['half_turn']:.1%}",
                f"{numbers['coverage']:.1%}",
                " ".join(f"{value:.2f}" for value in by_class),
            ]
        )
    header = [
        "Model",
        "R",
        "Mean / median error",
        "Within 10°",
        "Half turns",
        "90 % arcs that hold",
        "R in class 0 … 9",
    ]
    return _markdown(header, [(row, []) for row in rows])


def codes(found: Mapping[str, Mapping]) -> str:
    """What codes of turned digits are worth, found[model] as `runs.kinds.code_numbers` gives it."""
    counts = [name for name in next(iter(found.values())) if name.startswith("neighbours_")]
    rows = []
    for name, numbers in found.items():
        row = [name, f"{numbers['kmeans_hungarian']:.1%} / {numbers['kmeans_purity']:.1%}"]
        row += [f"{numbers['mixture_hungarian']:.1%} / {numbers['mixture_purity']:.1%}"]
        row += [f"{numbers[count]:.1%}" for count in counts]
        moved, same, other = (numbers[key] for key in ("moved", "typical_same_class", "typical_other_class"))
        rows.append([*row, f"{moved:.1f}° of {same:.0f}° / {other:.0f}°"])
    labels = [f"5-NN, {int(count.partition('_')[2]):,} labels" for count in counts]
    header = [
        "Codes of",
        "k-means: right / purity",
        "mixture: right / purity",
        *labels,
        "Moved by a turn, of same / other digit",
    ]
    return _markdown(header, [(row, []) for row in rows])


def measured(shares: Shares, **numbers: object) -> dict:
    """What `save` keeps of a table whose numbers are in no run's JSON: the shares by the runs' keys, and more."""
    return numbers | {"shares": {result.spec.key: dict(found) for result, found in shares}}


def save(text: str, name: str, *, profile: str, source: str, numbers: Mapping | None = None) -> str:
    """Write OUTPUTS/tables/PROFILE/NAME.md, and NAME.json if there are ``numbers``; returns the text with its stamp."""
    text += f"\n\nProfile {profile}, source {source}."
    text += SMOKE_NOTE if profile == "smoke" else ""
    folder = outputs_directory() / "tables" / profile
    write_text(folder / f"{name}.md", text + "\n")
    if numbers is not None:
        write_text(folder / f"{name}.json", json.dumps({"source": source} | numbers, indent=1) + "\n")
    return text


def _mean(
    records: Sequence[Mapping[str, float]], name: str, *, digits: int = 3, percent: bool = False, unit: str = ""
) -> str:
    """Mean of one number over the seeds, ± the standard deviation where there are several."""
    scale, digits, unit = (100, 2, "%") if percent else (1, digits, unit)
    values = [scale * record[name] for record in records]
    if not values:
        return NONE
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}{unit}"


def _markdown(header: Sequence[str], rows: Sequence[Row], link: Link | None = None) -> str:
    lines = [list(header), ["---"] * len(header), *(list(row) for row, _ in rows)]
    if link:
        lines[0].append("Runs")
        lines[1].append("---")
        for line, (_, results) in zip(lines[2:], rows):
            line.append(" ".join(map(link, results)) or NONE)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
