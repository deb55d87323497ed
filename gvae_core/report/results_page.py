"""outputs/README.md: every committed table and figure, which run's JSON each number came from, what is missing.

Made from the committed JSONs alone, those of ``runs`` and the tables' own, so a fresh clone can make it again. What
it says stands in ``results_page.md.j2``.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from ..runs.results import Result, cells, read_result
from ..runs.spec import AUTOENCODERS
from . import tables, words
from .profiles import TABLES, Table, best_models

SUFFIXES = {"paper": "_full_size", "quick": ""}  # of the figures and tables of each profile that is published
TEMPLATE = Path(__file__).with_suffix(".md.j2")


def page(outputs: Path) -> str:
    """The text of outputs/README.md for the committed files in ``outputs``/PROFILE."""
    template = Environment(trim_blocks=True, undefined=StrictUndefined).from_string(TEMPLATE.read_text("utf-8"))
    text = template.render(
        profiles=[_profile(outputs / profile) for profile in SUFFIXES],
        models=[result for result in _stored(outputs / "paper") if result.checkpoint.is_file()],
        tables=tables,
        words=words,
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def committed(folder: Path, profile: str, table: Table) -> list[Result]:
    """The committed results of a table's runs, in its order, all seeds of each."""
    stored = sorted(_stored(folder), key=lambda result: result.spec.seed)
    found = {cell[0].spec.any_seed.key: cell for cell in cells(stored)}
    specs = [spec for source in ("mnist", "mnist5k") for spec in table(profile, source, 0)]
    return [result for spec in specs for result in found.get(spec.key, [])]


def shown_models(folder: Path, profile: str) -> list[Result]:
    """The autoencoders whose codes and reconstructions are shown, trained upright: first those to their last epoch."""
    table = TABLES["reconstructions"] if profile == "paper" else lambda *which: list(best_models(*which).values())
    results = committed(folder, profile, table)
    return [r for r in results if r.spec.model in AUTOENCODERS and r.spec.protocol == "upright"]


def measured(folder: Path, table: str) -> tuple[str, dict, list]:
    """Name and content of what `tables.save` kept, and its shares by result, those whose run is committed."""
    path = folder / f"{table}{SUFFIXES[folder.name]}.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"shares": {}}
    by_key = {result.spec.key: result for result in _stored(folder)}
    return f"{folder.name}/{path.name}", record, [(by_key[k], v) for k, v in record["shares"].items() if k in by_key]


def turned_digits(folder: Path) -> tuple[str, dict, list[Result]]:
    """The same of the table ``turned_digits``, what codes of turned digits are worth, with the results as they have it."""
    file, record, shares = measured(folder, "turned_digits")
    record.setdefault("pixels", None)
    return file, record, [dataclasses.replace(result, metrics={"codes": numbers}) for result, numbers in shares]


def _stored(folder: Path) -> list[Result]:
    return [read_result(path) for path in sorted((folder / "runs").glob("*.json"))]


def compared_epoch(profile: str, cells: list[Result]) -> int | None:
    """The epoch after which the cells of Table 2 are shown: at full size the last that all have reached, else their last."""
    return tables.common_epoch(cells) if profile == "paper" and cells else None


def _hours_left(results: list[Result]) -> str:
    """What the missing epochs of runs that have begun take, each at its own pace, by the device that computed it."""
    hours = Counter()
    for run in results:
        missing = run.spec.epochs - run.epochs_reached
        hours[run.device.split(",")[0]] += missing * run.seconds / run.epochs_reached / 3600
    return " and ".join(f"{value:,.1f} more hours on {device}" for device, value in sorted(hours.items()) if value)


def _profile(folder: Path) -> dict:
    """What the template shows of one profile."""
    profile, suffix = folder.name, SUFFIXES[folder.name]
    results = {name: committed(folder, profile, table) for name, table in TABLES.items()}

    def link(result: Result) -> str:
        return f"[{result.spec.key}]({profile}/runs/{result.path.name})"

    def figure(name: str) -> str:
        file = f"{name}{suffix}.png"
        return (
            f"![{words.FIGURES[name]}]({profile}/{file})\n\n*{words.FIGURES[name]}*"
            if (folder / file).is_file()
            else ""
        )

    def judge(key: str) -> str:  # of either profile
        found = (path for path in folder.parent.glob(f"*/runs/{key}.json"))
        return next((f"[{key}]({path.relative_to(folder.parent).as_posix()})" for path in found), key)

    def missing(table: str) -> str:
        """How much of a table is there, and the command that computes the rest."""
        done = {result.spec.any_seed.key for result in results[table] if result.complete}
        begun = {result.spec.any_seed.key for result in results[table]} - done
        sources = {result.spec.source for result in results[table][:1]}
        asked = {spec.key for source in sources for spec in TABLES[table](profile, source, 0)}
        again = "computes the rest" if asked - done else "computes them"
        first, further = (
            _hours_left([r for r in results[table] if (r.spec.key in asked) == own]) for own in (True, False)
        )
        parts = [first, f"the further seeds that are begun take {further}" if further else ""]
        hours = "; ".join(filter(None, parts))
        wait = f" To end what is begun, one run after another as fast as so far: {hours}." if begun and hours else ""
        return (
            f"{len(done & asked)} of {len(asked)} networks are trained to their last epoch, {len(begun & asked)} in"
            f" part. `uv run gvae run {table} --profile {profile}` {again}; `--seeds 0-4` adds seeds.{wait}"
        )

    return dict(
        name=profile,
        epoch=compared_epoch(profile, results["table2"]),
        results=results,
        models=shown_models(folder, profile),
        reconstructions=measured(folder, "reconstructions"),
        search_by_code=measured(folder, "search_by_code"),
        turned_digits=turned_digits(folder),
        explorer=f"{profile}/explorer.html" if (folder / "explorer.html").is_file() else "",
        link=link,
        figure=figure,
        judge=judge,
        missing=missing,
    )
