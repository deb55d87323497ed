"""Collect what a profile has computed into outputs/PROFILE of the checkout, and write the page over it.

Committed are the JSONs of the profile's runs and tables, the figures that `words.FIGURES` names, the
checkpoints that a fresh machine needs, and the numbers that the report's index opens with.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt

from ..files import ROOT, outputs_directory, write_atomically, write_text
from ..runs.results import find, read_result
from . import figures, findings, results_page, words
from .profiles import TABLES, born_rotated, reconstructions, sphere_and_plane

CHECKPOINT_BYTES = 8_000_000  # a larger one is not committed


def publish(profile: str, source: str, seeds: Sequence[int] = (0,)) -> list[Path]:
    """Copy the profile's results into ``outputs/PROFILE`` of the source checkout and write ``outputs/README.md``.

    In a fresh clone there is nothing to copy: the page and the figures that hold numbers are made again from
    the committed JSONs. Committed runs of this source that the profile no longer has are removed. An interim result
    is copied too, and says so. Checkpoints for the paper profile only (the others are quickly trained), and of those
    runs that a fresh machine shows: the first seed's judge, the models it reads, those with a sphere and a plane that can
    be drawn, and the one with a pose.

    Returns
    -------
    The files written.

    Raises
    ------
    ValueError : nothing is there to be published, the profile has no results, or a checkpoint is too large
    """
    if profile not in results_page.SUFFIXES:
        known = ", ".join(results_page.SUFFIXES)
        raise ValueError(f"expected a profile among {known}, whose numbers are results; got {profile}")
    specs = [spec for seed in seeds for table in TABLES.values() for spec in table(profile, source, seed)]
    found = (find(spec, incomplete=True) for spec in {spec.key: spec for spec in specs}.values())
    results = [result for result in found if result]
    made, folder = outputs_directory(), ROOT / "outputs" / profile
    if not results and not any((folder / "runs").glob("*.json")):
        raise ValueError(f"expected results of profile {profile}, source {source}; found none in {made}")
    shown = []
    if profile == "paper":
        first = (profile, source, seeds[0])
        shown = [*reconstructions(*first), *sphere_and_plane(*first).values(), born_rotated(*first)["pose"]]
    paths = [result.path for result in results]
    paths += [result.checkpoint for result in results if result.spec in shown and result.checkpoint.is_file()]
    files = {folder / "runs" / path.name: path for path in paths}
    files |= {folder / path.name: path for path in (made / "tables" / profile).glob("*.json")}
    suffix = results_page.SUFFIXES[profile]
    for path in sorted((made / "figures" / profile).glob("*.*")):  # quick draws some at full size, with the suffix
        if (name := path.stem.removesuffix(suffix)) in words.FIGURES:
            files[folder / (f"{name}{suffix}.png" if path.suffix == ".png" else path.name)] = path
    for path in files.values():
        if path.stat().st_size > CHECKPOINT_BYTES:
            size = path.stat().st_size
            raise ValueError(f"expected files of at most {CHECKPOINT_BYTES:,} bytes, {path} has {size:,}")
    written = [target for target, path in files.items() if path != target]
    for target in written:
        write_atomically(target, partial(shutil.copyfile, files[target]))
    known = {spec.any_seed.key for spec in specs}
    for old in map(read_result, (folder / "runs").glob("*.json")):
        if old.spec.source == source and old.spec.any_seed.key not in known:
            old.path.unlink()
            old.checkpoint.unlink(missing_ok=True)
    written += _draw(folder, profile)
    if profile == "paper":
        numbers = findings.numbers(folder / "runs", profile, folder / f"reconstructions{suffix}.json")
        written.append(folder / "findings.json")
        write_text(written[-1], json.dumps(numbers, indent=1) + "\n")
    written.append(ROOT / "outputs" / "README.md")
    write_text(written[-1], results_page.page(ROOT / "outputs"))
    return written


def _draw(folder: Path, profile: str) -> list[Path]:
    """The figures that show nothing but numbers of the committed JSONs."""
    table2 = results_page.committed(folder, profile, TABLES["table2"])
    epoch = results_page.compared_epoch(profile, table2)
    pair = {result.spec.model: result for result in reversed(results_page.shown_models(folder, profile))}
    drawn = []
    for name, draw, results in (
        ("accuracy_by_angle", figures.accuracy_by_angle, results_page.committed(folder, profile, TABLES["table1"])),
        ("table2", partial(figures.heat_maps, epoch=epoch), table2),
        ("latent_drift", figures.drift_by_angle, list(reversed(pair.values()))),
    ):
        if results:
            stamp = dict(profile=profile, source=results[0].spec.source, folder=folder)
            drawn.append(figures.save(draw(results), f"{name}{results_page.SUFFIXES[profile]}", **stamp))
            plt.close("all")
    return drawn
