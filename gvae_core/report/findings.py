"""What was found, in numbers read from results: for the index, whose template has the sentences."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from ..runs.results import Result, cells, read_result
from .profiles import TABLES
from .tables import drifts
from .words import trained


def numbers(runs: Path, profile: str, reconstructions: Path) -> dict[str, dict[str, object]]:
    """The numbers of each finding that the results of a profile support, whatever their source and seed.

    Parameters
    ----------
    runs : folder of the runs' JSONs; those that cannot be read are left out
    reconstructions : the JSON that `tables.save` kept of the table of reconstructions

    Returns
    -------
    By finding: ``classifiers``, ``reconstructions``, ``drift``, ``pose``; shares are in [0, 1], angles in degrees;
    how long a model was trained is in words.
    """
    stored = []
    for path in sorted(runs.glob("*.json")):
        with suppress(ValueError):
            stored.append(read_result(path))

    def of(table: str) -> list[Result]:
        specs = [spec for source in ("mnist", "mnist5k") for spec in TABLES[table](profile, source, 0)]
        keys = {spec.key for spec in specs}
        return [result for result in stored if result.spec.any_seed.key in keys and result.complete]

    upright = [result for result in of("reconstructions") if result.spec.protocol == "upright"]
    found = {
        "classifiers": _classifiers(of("table1")),
        "reconstructions": _reconstructions(upright, reconstructions),
        "drift": _drift([result for result in upright if "latent_drift" in result.metrics]),
        "pose": _pose(of("born_rotated")),
    }
    return {name: values for name, values in found.items() if values}


def _classifiers(results: Sequence[Result]) -> dict[str, object]:
    """The share of turned digits that the best G-CNN, the best CNN and the papers' G-CNN read right, means over their seeds."""
    best: dict[str, object] = {}
    for cell in cells(results):
        share = statistics.mean(result.metrics["test_rotated_accuracy"] for result in cell)
        model = cell[0].spec.model
        if model == "gcnn" and cell[0].spec.paper_loss and not cell[0].spec.sizes:
            best["papers_gcnn"] = share
        if share > best.get(model, 0):
            best |= {model: share, f"{model}_trained": trained(cell[0])}
    return best if {"cnn", "gcnn"} <= best.keys() else {}


def _reconstructions(results: Iterable[Result], path: Path) -> dict[str, object]:
    """The share of reconstructions of turned digits that the judge reads right, by model, of the best of each."""
    if not path.is_file():
        return {}
    shares = json.loads(path.read_text(encoding="utf-8"))["shares"]
    best: dict[str, object] = {}
    for result in results:
        share, model = shares.get(result.spec.key, {"rotated": -1})["rotated"], result.spec.model
        if share > best.get(model, -1):
            best |= {model: share, f"{model}_trained": trained(result)}
    return best if {"sgvae", "svae"} <= best.keys() else {}


def _drift(results: Iterable[Result]) -> dict[str, object]:
    """How far the code moves at most while a digit turns, by model, of the one whose code moves least."""
    best: dict[str, object] = {}
    for result in results:
        quarter, between = (max(moved.values()) for moved in drifts(result.metrics))
        moved = {"between": between, "quarter": quarter, "digits": result.metrics["typical_angle"]}
        if result.spec.model not in best or moved["between"] < best[result.spec.model]["between"]:
            best[result.spec.model] = moved
    return best if {"sgvae", "svae"} <= best.keys() else {}


def _pose(results: Sequence[Result]) -> dict[str, object]:
    """How well the angles found follow a turn, how well the digits of a class agree on an orientation, by the worst and the
    best class, and the share of digits named right by clusters of codes, with a pose and without.

    Means over seeds.
    """
    by_name = {"pose" if cell[0].spec.sizes.get("pose") else cell[0].spec.model: cell for cell in cells(results)}
    if not {"pose", "svae"} <= by_name.keys():
        return {}

    def mean(cell: Sequence[Result], group: str, name: str) -> float:
        return statistics.mean(result.metrics[group][name] for result in cell)

    coded = {name: cell for name, cell in by_name.items() if "codes" in cell[0].metrics}
    right = {name: mean(cell, "codes", "kmeans_hungarian") for name, cell in coded.items()}
    if not {"pose", "svae"} <= right.keys():
        return {}
    errors = {name: mean(by_name["pose"], "angle_errors", name) for name in ("mean", "median")}
    by_class = zip(*(result.metrics["resultant_by_class"] for result in by_name["pose"]))
    resultants = [statistics.mean(values) for values in by_class]
    agreement = {"lowest": min(resultants), "highest": max(resultants)}
    return {"errors": errors, "agreement": agreement, "right": right, "trained": trained(by_name["pose"][0])}
