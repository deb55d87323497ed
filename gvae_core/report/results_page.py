"""outputs/README.md: every committed table and figure, which run's JSON each number came from, what is missing.

Made from the committed JSONs alone, those of ``runs`` and the tables' own, so a fresh clone can make it again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from ..runs.results import Result, read_result
from ..runs.spec import AUTOENCODERS, CLASSIFIERS, RunSpec
from . import tables
from .profiles import TABLES, best_models
from .words import network, schedule, sizes

# Figures that are committed, by their name without `_full_size`, with the sentence under each.
FIGURES = {
    "accuracy_by_angle": "Accuracy over the angle of the test digits: the G-CNNs' is nearly flat, the CNNs' is not.",
    "table2": "Table 2 as heat maps, ours beside the papers'.",
    "figure1": "Rotated digits above; the S-GVAE's reconstructions are upright, the S-VAE's are not.",
    "full_turn_2": "One digit through the full turn, and what the two models make of it.",
    "six_and_nine": "Rotated 6s and 9s, and what the models make of them.",
    "latent_drift": "How far the code moves while a digit turns; dotted, the angle between different digits.",
    "latent_spaces": "Codes by digit: the S-GVAE's sphere, d = 3, and a Gaussian VAE's plane, d = 2.",
    "explorer": "The rotation explorer: ten digits turned by 60°, their reconstructions, how far the codes move.",
    "explorer_drawing": "A 2 drawn in the explorer beside other digits, their codes on the latent sphere.",
}
PROFILES = {
    "paper": (
        "At the papers' size",
        "_full_size",
        "Profile `paper`: 30,000 digits of the full MNIST, the papers' networks, batch and schedules, with variants of"
        " ours beside them. Where Epochs says “12 of 50”, the run was stopped there and goes on when the command is run"
        " again; it is not the papers' number yet.",
    ),
    "quick": (
        "Small trainings",
        "",
        "Profile `quick`, what `gvae report` trains on a laptop: small networks, a few epochs on 4,000 digits. The"
        " pattern is to be compared with the papers', not the level.",
    ),
}


def page(outputs: Path) -> str:
    """The text of outputs/README.md for the committed files in ``outputs``/PROFILE."""
    parts = [
        "# Results\n\nWritten by `gvae publish` from the JSON files beside this page: every row names the runs that its"
        " numbers came from. Everything is trained on upright digits only, unless it says so. “–” means that there is"
        " no such number. Where a row stands for several seeds it shows mean ± standard deviation."
    ]
    for profile, (title, suffix, about) in PROFILES.items():
        parts += [f"## {title}\n\n{about}", *_profile(outputs / profile, profile, suffix)]
    cards = [_card(result, outputs) for result in _stored(outputs / "paper") if result.checkpoint.is_file()]
    parts += [
        "## Trained models that come with the project",
        "`gvae_core.runs.run.load_model(path)` loads one.",
        *cards,
    ]
    return "\n\n".join(parts) + "\n"


def committed(folder: Path, profile: str, lists: Callable[[str, str, int], list[RunSpec]]) -> list[Result]:
    """The committed results of a list of runs, in its order, all seeds of each."""
    found: dict[str, list[Result]] = {}
    for result in sorted(_stored(folder), key=lambda result: result.spec.seed):
        found.setdefault(dataclasses.replace(result.spec, seed=0).key, []).append(result)
    specs = [spec for source in ("mnist", "mnist5k") for spec in lists(profile, source, 0)]
    return [result for spec in specs for result in found.get(spec.key, [])]


def shown_models(folder: Path, profile: str) -> list[Result]:
    """The autoencoders whose codes and reconstructions are shown, trained upright: first those to their last epoch."""
    lists = TABLES["reconstructions"] if profile == "paper" else lambda *which: list(best_models(*which).values())
    results = committed(folder, profile, lists)
    return [r for r in results if r.spec.model in AUTOENCODERS and r.spec.protocol == "upright"]


def _stored(folder: Path) -> list[Result]:
    return [read_result(path) for path in sorted((folder / "runs").glob("*.json"))]


def _profile(folder: Path, profile: str, suffix: str) -> list[str]:
    def link(result: Result) -> str:
        return f"[{result.spec.key}]({profile}/runs/{result.path.name})"

    def figure(name: str) -> str:
        file = f"{name}{suffix}.png"
        return f"![{FIGURES[name]}]({profile}/{file})\n\n*{FIGURES[name]}*" if (folder / file).is_file() else ""

    table1, table2 = (committed(folder, profile, TABLES[name]) for name in ("table1", "table2"))
    models = shown_models(folder, profile)
    epoch = tables.TABLE2_EPOCH if profile == "paper" else None
    of_epochs = f", after {epoch} of 50 epochs" if epoch else ""
    parts = []
    if table1:
        parts += [
            "### Table 1: classifiers, tested on rotated digits",
            tables.table1(table1, link),
            "The 2022 paper's loss is the cross-entropy of *softmax outputs*; some rows train with plain cross-entropy."
            " The turn of all test digits by one angle, every 15°:",
            tables.accuracy_over_the_turn(table1),
            figure("accuracy_by_angle"),
            _missing("table1", profile, table1),
        ]
    if table2:
        parts += [
            f"### Table 2: validation loss of the autoencoders{of_epochs}",
            "Sum over 100 images of the squared error on standardised 32 × 32 images, plus β times the mean KL.",
            tables.table2(table2, epoch, link),
            figure("table2"),
            "What agrees with the papers, and what does not:",
            tables.agreement(table2, epoch),
            _missing("table2", profile, table2),
        ]
    file = f"reconstructions{suffix}.json"
    read, shares = _measured(folder / file)
    if shares:
        parts += [
            "### Accuracy on reconstructions (tiny paper, Table 1)",
            f"The share of reconstructions of {read['digits']:,} test digits ({read['source']}) that a CNN trained on"
            f" upright digits reads right ({_judge(folder, read['judge'])}; the tiny paper's judge is a ResNet-50)."
            f" Kept in [{profile}/{file}]({profile}/{file}).",
            tables.reconstructions(shares, link),
            *map(figure, ("figure1", "full_turn_2", "six_and_nine")),
            _missing("reconstructions", profile, committed(folder, profile, TABLES["reconstructions"])),
        ]
    file = f"search_by_code{suffix}.json"
    _, shares = _measured(folder / file)
    if shares:
        parts += [
            "### Search by code",
            "The share of test digits whose five nearest upright training digits, by code, say which digit it is."
            f" Kept in [{profile}/{file}]({profile}/{file}).",
            tables.searches(shares, link),
        ]
    if models:
        parts += [
            "### How far the code moves while a digit turns",
            "The angle between the codes of a digit turned and upright, a mean over 200 test digits. At quarter turns"
            " an S-GVAE's code stays where it is, up to rounding; between them it moves.",
            tables.drift([*models, *(table2 if profile == "paper" else [])], link),
            figure("latent_drift"),
        ]
    file = f"{profile}/explorer.html"
    explorer = f"[{file}]({file}) is the rotation explorer as one page: open it in a browser."
    pictures = [figure(name) for name in ("explorer", "explorer_drawing", "latent_spaces")]
    parts += [*pictures, explorer if (folder / "explorer.html").is_file() else ""]
    return [part for part in parts if part]


def _measured(path: Path) -> tuple[Mapping, tables.Shares]:
    """What `tables.save` kept of a table, and its shares by result, those whose run is committed."""
    if not path.is_file():
        return {}, []
    record = json.loads(path.read_text(encoding="utf-8"))
    by_key = {result.spec.key: result for result in _stored(path.parent)}
    return record, [(by_key[key], shares) for key, shares in record["shares"].items() if key in by_key]


def _judge(folder: Path, key: str) -> str:
    """A link to the run of the classifier that reads reconstructions, of either profile."""
    found = (path for path in folder.parent.glob(f"*/runs/{key}.json"))
    return next((f"[{key}]({path.relative_to(folder.parent).as_posix()})" for path in found), key)


def _missing(table: str, profile: str, results: list[Result]) -> str:
    """How much of a table is there, and the command that computes the rest."""
    done = {dataclasses.replace(result.spec, seed=0).key for result in results if result.complete}
    begun = {dataclasses.replace(result.spec, seed=0).key for result in results} - done
    asked = {spec.key for spec in TABLES[table](profile, results[0].spec.source, 0)} if results else set()
    count = (
        f"{len(done & asked)} of {len(asked)} networks are trained to their last epoch, {len(begun & asked)} in part."
    )
    again = "computes the rest" if asked - done else "computes them"
    return f"{count} `uv run gvae run {table} --profile {profile}` {again}; `--seeds 0-4` adds seeds."


def _card(result: Result, outputs: Path) -> str:
    """A model card: what a committed checkpoint was made from, and what it is good for."""
    spec, path = result.spec, result.checkpoint
    epochs = "1 epoch" if result.epochs_reached == 1 else f"{result.epochs_reached} epochs"
    good, bad = _uses(result)
    lines = [
        f"### [{path.name}]({path.relative_to(outputs).as_posix()})",
        f"- **{network(spec)}**, {sizes(spec)}; {result.parameters:,} parameters, {path.stat().st_size / 1e6:.1f} MB",
        f"- Data: {spec.training_digits:,} {spec.protocol} digits of {spec.source}; seed {spec.seed}",
        f"- Schedule: {epochs} of {spec.epochs}, batches of {spec.batch_size}, learning rate {schedule(spec)}",
        f"- Training: {result.seconds:,.0f} s ({result.device}); numbers in [{result.path.name}]"
        f"({result.path.relative_to(outputs).as_posix()})",
        f"- Good for: {good}",
        f"- Not good for: {bad}",
    ]
    return f"{lines[0]}\n\n" + "\n".join(lines[1:])


def _uses(result: Result) -> tuple[str, str]:
    """What a model is good for and what not, with the numbers that say so."""
    numbers = result.metrics
    if result.spec.model in CLASSIFIERS:
        upright, turned = (numbers[f"test_{kind}_accuracy"] for kind in ("upright", "rotated"))
        return (
            f"reading upright digits ({upright:.1%} of the test digits), so it judges reconstructions",
            f"turned digits ({turned:.1%}), anything that is no handwritten digit",
        )
    between = max(moved for angle, moved in zip(numbers["angles"], numbers["latent_drift"]) if angle % 90)
    apart = f"where different digits are {numbers['typical_angle']:.0f}° apart"
    moves = f"by up to {between:.0f}° between quarter turns, {apart}"
    if result.spec.model == "sgvae":
        return (
            f"codes that hold still at quarter turns and move {moves}; upright reconstructions of turned digits",
            "sharp copies, the angle of a digit (the code does not hold it), anything that is no handwritten digit",
        )
    return (
        "upright digits, as the baseline without equivariance",
        f"turned digits (the code moves {moves}), anything that is no handwritten digit",
    )
