"""Results -> Markdown tables, the papers' numbers beside ours; "–" where there is no number.

Functions that take ``link``, from a result to what the last column shows of it, add that column: which run's file
a row comes from.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..files import outputs_directory, write_text
from ..runs.kinds import AUTOENCODERS, CLASSIFIERS
from ..runs.results import Result, by_seed, cells
from ..runs.spec import NAMES
from . import papers
from .words import epochs, schedule, sizes, trained

SMOKE_NOTE = "\n\n**Profile smoke: these numbers only prove that every cell ran. They are no result.**"
NONE = "–"
Link = Callable[[Result], str]
Shares = Sequence[tuple[Result, Mapping[str, float]]]  # of each model, by kind of input


def runs(results: Sequence[Result]) -> str:
    """What was trained: the networks, their data and schedules."""
    return _markdown(
        {
            "Model": result.spec.title,
            "Digits": f"{result.spec.training_digits:,}",
            "Epochs": epochs(result),
            "Batch": result.spec.batch_size,
            "Learning rate": schedule(result.spec),
            "Sizes": sizes(result.spec),
            "Parameters": f"{result.parameters:,}",
            "Seconds": f"{result.seconds:.0f}",
            "Result": result.path.name,
        }
        for result in results
    )


def table1(results: Sequence[Result], link: Link | None = None) -> str:
    """Table 1 of the 2022 paper: losses and accuracy on rotated test digits, CNN and G-CNN.

    Runs that differ in the seed alone and got as far share a row, mean ± standard deviation.
    """
    rows, shown = [], set()
    for group in by_seed(results):
        spec = group[0].spec
        if spec.model in papers.TABLE1.keys() - shown:
            paper = papers.TABLE1[spec.model] | {"Model": f"{NAMES[spec.model]}, paper", "Seeds": 1, "Epochs": 50}
            rows.append(paper | {"Acc. rotated": f"{paper['Acc. rotated']:.2%}"})
        shown.add(spec.model)
        last, numbers = [result.history[-1] for result in group], [result.metrics for result in group]
        rows.append(
            {
                "Model": f"**{spec.any_seed.title}, ours**",
                "Acc. rotated": f"**{_mean(numbers, 'test_rotated_accuracy', '{:.2%}')}**",
                "Acc. upright": _mean(numbers, "test_upright_accuracy", "{:.2%}"),
                "Seeds": len(group),
                "Epochs": epochs(group[0]),
                "Train loss": _mean(last, "train_paper_loss"),
                "Valid. loss": _mean(last, "validation_paper_loss"),
                "Test loss": _mean(numbers, "test_rotated_paper_loss"),
                "Test cross-entropy": _mean(numbers, "test_rotated_cross_entropy"),
                "Params": f"{group[0].parameters:,}",
                "Runs": group,
            }
        )
    return _markdown(rows, link)


def accuracy_over_the_turn(results: Sequence[Result]) -> str:
    """How far accuracy falls while all test digits are turned by one angle after the other; seeds as in `table1`."""
    rows = []
    for group in by_seed(results):
        at = zip(*(result.metrics["accuracy_by_angle"] for result in group))
        accuracy = dict(zip(group[0].metrics["angles"], map(statistics.mean, at)))
        lowest = min(accuracy, key=accuracy.get)
        rows.append(
            {
                "Model": group[0].spec.any_seed.title,
                "Upright": f"{accuracy[0]:.1%}",
                "Quarter turns, lowest": f"{min(accuracy[angle] for angle in accuracy if angle % 90 == 0):.1%}",
                "All angles, lowest": f"{accuracy[lowest]:.1%} at {lowest}°",
            }
        )
    return _markdown(rows)


def groups(results: Sequence[Result], link: Link | None = None) -> str:
    """G-CNNs by their fibre group: accuracy on turned test digits, on the same mirrored, and what training took."""
    return _markdown(
        (
            {
                "Group": group[0].spec.sizes.get("group", "SO(2)"),
                "Acc. rotated": f"**{_mean([r.metrics for r in group], 'test_rotated_accuracy', '{:.2%}')}**",
                "Rotated and mirrored": _mean([r.metrics for r in group], "test_mirrored_accuracy", "{:.2%}"),
                "Upright": _mean([r.metrics for r in group], "test_upright_accuracy", "{:.2%}"),
                "All angles, lowest": f"{min(min(r.metrics['accuracy_by_angle']) for r in group):.1%}",
                "Params": f"{group[0].parameters:,}",
                "Epochs": epochs(group[0]),
                "Seconds": f"{statistics.mean(r.seconds for r in group):.0f}",
                "Runs": group,
            }
            for group in by_seed(results)
        ),
        link,
    )


# --- Table 2 --------------------------------------------------------------------------------------


def after_epoch(results: Sequence[Result], epoch: int) -> list[Result]:
    """The results that have reached an epoch as they then stood: history cut there, without the later metrics."""
    reached = (result for result in results if result.epochs_reached >= epoch)
    return [dataclasses.replace(result, history=result.history[:epoch], metrics={}) for result in reached]


def thousands(result: Result) -> float:
    """The last validation loss in the unit of Table 2."""
    return result.history[-1]["validation_loss"] / 1000


def farthest(cell: Sequence[Result]) -> Result:
    """The result of a cell, of whatever seed, that has got farthest."""
    return max(cell, key=lambda result: result.epochs_reached)


def common_epoch(results: Sequence[Result]) -> int:
    """The last epoch that every cell of Table 2 has reached, by whichever seed: after it they can be compared."""
    return min(farthest(cell).epochs_reached for cell in cells(results))


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
            row = {
                "Model": NAMES[spec.model],
                "d": spec.latent_dim,
                "β": f"{spec.beta:g}",
                "Paper": f"{paper:.2f}k" if paper else NONE,
                "Ours": _mean(last, "thousands", "{:.2f}k"),
                "Squared error / image": _mean(last, "validation_squared_error", "{:.1f}"),
                "KL / image (nats)": _mean(last, "validation_kl", "{:.2f}"),
                "Epochs": epochs(group[0]) if group else NONE,
                "Seeds": len(group),
            }
            if epoch is not None:
                row["Latest epoch"] = f"{thousands(farthest(cell)):.2f}k after {farthest(cell).epochs_reached}"
            rows.append(row | {"Runs": group or cell})
    return _markdown(rows, link)


def seeds(results: Sequence[Result], link: Link | None = None) -> str:
    """The cells of Table 2 that were trained from several seeds: the loss of each after the last epoch that all have reached."""
    rows = []
    for cell in cells(results):
        if len(cell) == 1:
            continue
        spec, epoch = cell[0].spec, min(result.epochs_reached for result in cell)
        paper = papers.table2_loss(spec.model, spec.latent_dim, spec.beta)
        row = {
            "Model": NAMES[spec.model],
            "d": spec.latent_dim,
            "β": f"{spec.beta:g}",
            "Epochs": f"{epoch} of {spec.epochs}",
        }
        row |= {f"Seed {then.spec.seed}": f"{thousands(then):.2f}k" for then in after_epoch(cell, epoch)}
        rows.append(row | {"Paper, one run": f"{paper:.2f}k" if paper else NONE, "Runs": cell})
    return _markdown(rows, link) if rows else ""


def same_cells(others: Sequence[Result], results: Sequence[Result], link: Link | None = None) -> str:
    """Cells of Table 2 of another network, each beside ours and the papers' of Table 2 after the last epoch of all of them."""
    if not others:
        return ""

    def place(result: Result) -> tuple[int, float]:
        return result.spec.latent_dim, result.spec.beta

    places = list(map(place, others))
    there = [result for result in results if place(result) in places and result.spec.seed == others[0].spec.seed]
    compared = sorted([*others, *there], key=lambda result: places.index(place(result)))
    rows = []
    for result in after_epoch(compared, min(result.epochs_reached for result in compared)):
        spec, last = result.spec, result.history[-1]
        paper = None if spec.sizes else papers.table2_loss(spec.model, spec.latent_dim, spec.beta)
        rows.append(
            {
                "Network": spec.title,
                "Parameters": f"{result.parameters:,}",
                "Epochs": epochs(result),
                "Ours": f"**{thousands(result):.2f}k**",
                "Paper, 50 epochs": f"{paper:.2f}k" if paper else NONE,
                "Squared error / image": f"{last['validation_squared_error']:.1f}",
                "KL / image (nats)": f"{last['validation_kl']:.2f}",
                "Runs": [result],
            }
        )
    return _markdown(rows, link)


def agreement(results: Sequence[Result], epoch: int | None = None) -> str:
    """Where Table 2 agrees with the papers: level, order over d and β, the flat columns, the models' distance.

    Over the cells that have reached ``epoch`` (None: as far as each is) and that the papers have. Their cell
    (0.01, 10) of the S-GVAE, out of line with its neighbours, stands apart.
    """
    ours, theirs = {}, {}
    for cell in cells(results if epoch is None else after_epoch(results, epoch)):
        place = cell[0].spec.model, cell[0].spec.latent_dim, cell[0].spec.beta
        if paper := papers.table2_loss(*place):
            ours[place], theirs[place] = statistics.mean(map(thousands, cell)), paper
    outlier, beside = ("sgvae", 10, 0.01), ("sgvae", 10, 0.1)
    places = [place for place in ours if place != outlier]
    rows = []
    for model, dim in dict.fromkeys(place[:2] for place in places):
        here = [place for place in places if place[:2] == (model, dim)]
        flat = [place for place in here if place[2] <= 1]
        row = {"Model": NAMES[model], "d": dim, "Cells": len(here)}
        row["Mean deviation from the papers"] = f"{statistics.mean(ours[p] / theirs[p] - 1 for p in here):+.1%}"
        for name, values in (("Spread over β ≤ 1, ours", ours), ("papers", theirs)):
            spread = [values[place] for place in flat]
            row[name] = f"{max(spread) - min(spread):.2f}k" if len(flat) > 1 else NONE
        rows.append(row)
    lines = [_markdown(rows), ""] if rows else []

    pairs = list(itertools.combinations(places, 2))
    over_d = [(a, b) for a, b in pairs if (a[0], a[2]) == (b[0], b[2])]
    over_beta = [(a, b) for a, b in pairs if a[:2] == b[:2] and max(a[2], b[2]) > 1]
    for name, compared in (("d", over_d), ("β, one of them above 1", over_beta)):
        same = sum((ours[a] < ours[b]) == (theirs[a] < theirs[b]) for a, b in compared)
        if compared:
            lines += [f"- Order: as in the papers in {same} of {len(compared)} pairs of cells that differ in {name}."]
    if outlier in ours and lines:
        lines += [
            "- All of this without the papers' cell (0.01, 10) of the S-GVAE, which is out of line with its neighbours."
        ]
    if both := [place for place in places if place[0] == "sgvae" and ("svae", *place[1:]) in ours]:
        gaps = [statistics.mean(v[p] - v["svae", *p[1:]] for p in both) for v in (ours, theirs)]
        line = f"- S-GVAE minus S-VAE: {gaps[0]:+.2f}k, papers {gaps[1]:+.2f}k"
        lines += [f"{line}, mean over the {len(both)} d and β of both."]
    if outlier in ours:
        found = ", ".join(f"{ours[place]:.2f}k" for place in (outlier, beside) if place in ours)
        line = f"- The papers' {theirs[outlier]:.2f}k, S-GVAE (0.01, 10), beside {papers.table2_loss(*beside):.2f}k"
        lines += [f"{line} at β = 0.1: ours {found}."]
    return "\n".join(lines)


# --- codes and reconstructions --------------------------------------------------------------------


def drifts(metrics: Mapping) -> tuple[dict[int, float], dict[int, float]]:
    """The latent drift by angle of the turn (both in degrees): at quarter turns, and between them."""
    quarter, between = {}, {}
    for angle, moved in zip(metrics["angles"], metrics["latent_drift"]):
        (between if angle % 90 else quarter)[angle] = moved
    return quarter, between


def drift(results: Sequence[Result], link: Link | None = None) -> str:
    """How far the code moves on the latent sphere while a digit turns, at quarter turns and between them (degrees)."""
    rows = []
    for result in results:
        quarters, between = drifts(result.metrics)
        quarter, where = max(quarters.values()), max(between, key=lambda angle: (between[angle], angle))
        rows.append(
            {
                "Codes of the": f"{result.spec.title} ({trained(result)})",
                "Quarter turns, largest": f"{quarter:.1f}°" if quarter > 0.1 else f"{quarter:.0e}°",
                "Between them, mean": f"{statistics.mean(between.values()):.1f}°",
                "Between them, largest": f"{between[where]:.1f}° at {abs(where)}°",
                "Different digits": f"{result.metrics['typical_angle']:.1f}°",
                "Runs": [result],
            }
        )
    return _markdown(rows, link)


def latents(results: Sequence[Result], link: Link | None = None) -> str:
    """S-GVAEs beside VAEs with the same encoder and a Gaussian latent: what is drawn from the code, and its KL."""
    return _markdown(
        (
            {
                "Model": NAMES[group[0].spec.model],
                "d": group[0].spec.latent_dim,
                "Degrees of freedom": group[0].spec.latent_dim - (group[0].spec.model == "sgvae"),
                "Epochs": epochs(group[0]),
                "Seeds": len(group),
                "Squared error / image": _mean([r.metrics for r in group], "test_upright_squared_error", "{:.1f}"),
                "of turned digits": _mean([r.metrics for r in group], "test_rotated_squared_error", "{:.1f}"),
                "KL / image (nats)": _mean([r.metrics for r in group], "test_upright_kl", "{:.2f}"),
                "Runs": group,
            }
            for group in by_seed(results)
        ),
        link,
    )


def reconstructions(read: Shares, link: Link | None = None) -> str:
    """Tiny paper, Table 1: the share of reconstructions that a classifier reads right, by kind of input."""
    rows, shown = [], set()
    models = [result.spec.model for result, _ in read]
    for result, shares in sorted(read, key=lambda pair: models.index(pair[0].spec.model)):  # one model's together
        model = result.spec.model
        if model in papers.RECONSTRUCTION_ACCURACY.keys() - shown:
            paper = papers.RECONSTRUCTION_ACCURACY[model]
            known = {name: f"{paper[name]:.0%}" for name in shares if name in paper}
            rows.append({"Reconstructions of": f"{NAMES[model]}, paper"} | known)
        shown.add(model)
        ours = {name: f"**{share:.1%}**" for name, share in shares.items()}
        rows.append(
            {"Reconstructions of": f"**{result.spec.title}, ours** ({trained(result)})", **ours, "Runs": [result]}
        )
    return _markdown(rows, link)


def searches(found: Shares, link: Link | None = None) -> str:
    """The share of codes whose nearest known codes have their label, by kind of input."""
    return _markdown(
        (
            {"Nearest codes of": result.spec.title, **{kind: f"{share:.1%}" for kind, share in shares.items()}}
            | {"Runs": [result]}
            for result, shares in found
        ),
        link,
    )


def poses(results: Sequence[Result], link: Link | None = None) -> str:
    """Whether the angles found follow a turn, then whether a class has one orientation: `runs.measures.pose_numbers`.

    Here and in `codes` runs that differ in the seed alone and got as far share a row, mean ± standard deviation.
    """
    follows, agrees = [], []
    for group in by_seed(results):
        numbers = [result.metrics for result in group]
        errors = [record["angle_errors"] for record in numbers]
        which = {"Model": _read(group[0]), "Seeds": len(group), "Runs": group}
        mean, median = (_mean(errors, name, "{:.2f}°") for name in ("mean", "median"))
        follows.append(
            which
            | {
                "Follows a turn: mean / median error": f"{mean} / {median}",
                "Within 10°": _mean(errors, "within_10", "{:.1%}"),
                "Half a turn off": _mean(errors, "half_turn", "{:.1%}"),
                "R": _mean(errors, "resultant", "{:.4f}"),
            }
        )
        row = which | {"Angle inside its 90 % arc": _mean(numbers, "coverage", "{:.1%}")}
        for name, key in (("R in class 0 … 9", "by_class"), ("from the images alone", "by_class_synchronised")):
            by_class = zip(*(record[f"resultant_{key}"] for record in numbers))
            row[name] = " ".join(f"{statistics.mean(values):.2f}" for values in by_class)
        agrees.append(row)
    return f"{_markdown(follows, link)}\n\n{_markdown(agrees, link)}"


def codes(results: Sequence[Result], pixels: Mapping[str, float] | None = None, link: Link | None = None) -> str:
    """What codes of turned test digits are worth: `runs.measures.code_numbers`, under ``codes`` in a result's metrics.

    Last the ``pixels`` as codes of themselves, and classifiers, which need every label: their accuracy stands where
    neighbours have as many.
    """
    groups = by_seed(results)
    rows = [_code_row(group) for group in groups if group[0].spec.model in AUTOENCODERS]
    rows += [{"Codes of": "pixels"} | _code_numbers([pixels])] if pixels else []
    for group in groups:
        spec = group[0].spec
        if spec.model in CLASSIFIERS:
            row = {"Codes of": f"no code: {spec.any_seed.title}, supervised", "Seeds": len(group), "Runs": group}
            found = _mean([result.metrics for result in group], "test_rotated_accuracy", "{:.1%}")
            rows.append(row | {_labels(spec.training_digits): found})
    return _markdown(rows, link)


def _code_row(group: Sequence[Result]) -> dict[str, object]:
    row = {"Codes of": _read(group[0]), "Seeds": len(group), "Runs": group}
    row |= _code_numbers([result.metrics["codes"] for result in group])
    if "squared_error_per_pixel" in group[0].metrics:
        errors = [result.metrics for result in group]
        row["Squared error per pixel"] = _mean(errors, "squared_error_per_pixel", "{:.4f}")
    return row


def _read(result: Result) -> str:
    """The title of all seeds, and how many turned copies of a digit were read where these are more than in training."""
    frames = result.metrics.get("frames", 1)
    return result.spec.any_seed.title + (f", read in {frames} frames" if frames > 1 else "")


def _code_numbers(records: Sequence[Mapping[str, float]]) -> dict[str, str]:
    row = {}
    for method, words in (("kmeans", "k-means"), ("mixture", "Gaussian mixture")):
        right, purity = (_mean(records, f"{method}_{score}", "{:.1%}") for score in ("hungarian", "purity"))
        row[f"{words}: right / purity"] = f"{right} / {purity}"
    for key in records[0]:
        if key.startswith("neighbours_"):
            row[_labels(*map(int, key.split("_")[1::2]))] = _mean(records, key, "{:.1%}")
    if "moved" in records[0]:
        for words, name in _ANGLES.items():
            row[words] = _mean(records, name, "{:.1f}°")
    return row


# Between codes: of a digit and the same turned, of two of one digit, of two digits.
_ANGLES = {"A turn moves it": "moved", "Two of a digit": "typical_same_class", "Two digits": "typical_other_class"}


def _labels(known: int, read: int | None = None) -> str:
    return f"5-NN, {known:,} labels" + (f", {read:,} test digits" if read else "")


def others() -> str:
    """What others report on rotated MNIST, or digits turned like it, without labels; each with its own protocol."""
    rows = (
        {"By": by, "Reported": value, "Protocol, theirs": protocol} for by, value, protocol in papers.ROTATED_DIGITS
    )
    return _markdown(rows)


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


def _mean(records: Sequence[Mapping[str, float]], name: str, form: str = "{:.3f}") -> str:
    """Mean of one number over the seeds, ± the standard deviation where there are several, in the format ``form``."""
    values = [record[name] for record in records]
    if not values:
        return NONE
    spread = " ± " + form.format(statistics.stdev(values)) if len(values) > 1 else ""
    return form.format(statistics.mean(values)) + spread


def _markdown(rows: Iterable[Mapping[str, object]], link: Link | None = None) -> str:
    """A table of rows {heading: value}; under ``Runs`` are the results that a row comes from, shown with ``link``."""
    rows = [dict(row) for row in rows]
    for row in rows:
        results = row.pop("Runs", [])
        row |= {"Runs": " ".join(map(link, results)) or NONE} if link else {}
    longest = sorted(rows, key=len, reverse=True)  # the papers' rows lack some numbers
    header = list(dict.fromkeys(name for row in longest for name in row))
    lines = [header, ["---"] * len(header), *([row.get(name, NONE) for name in header] for row in rows)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
