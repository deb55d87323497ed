"""Collect what a profile has computed into outputs/PROFILE of the checkout, the folder that is committed.

JSONs of the profile's runs, its tables, the figures and pages that the README shows, and the checkpoints
that a fresh machine needs.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from ..files import ROOT, outputs_directory, write_atomically
from ..runs.results import find, read_result
from .profiles import TABLES, reconstructions, sphere_and_plane

CHECKPOINT_BYTES = 8_000_000  # a larger one is not committed


def publish(profile: str, source: str, seeds: Sequence[int] = (0,)) -> list[Path]:
    """Copy results at hand into ``outputs/PROFILE`` of the source checkout; returns the files written.

    Committed runs of this source that the profile no longer has are removed.
    An interim result is copied too, and says so. Checkpoints for the paper profile only (the others are quickly
    trained), and of those runs that a fresh machine shows: the first seed's judge and the models it reads.

    Raises
    ------
    ValueError : nothing is there to be published, or a checkpoint is too large
    """
    specs = [spec for seed in seeds for table in TABLES.values() for spec in table(profile, source, seed)]
    specs += sphere_and_plane(profile, source, seeds[0]).values()
    results = {spec.key: find(spec, incomplete=True) for spec in specs}
    results = [result for result in results.values() if result]
    if not results:
        raise ValueError(f"expected results of profile {profile}, source {source}; found none in {outputs_directory()}")
    folder = ROOT / "outputs" / profile
    files = {folder / "runs" / result.path.name: result.path for result in results}
    if profile == "paper":
        needed = reconstructions(profile, source, seeds[0])
        checkpoints = [result.checkpoint for result in results if result.spec in needed and result.checkpoint.is_file()]
        files |= {folder / "runs" / path.name: path for path in checkpoints}
    shown = re.findall(rf"outputs/{profile}/(\w+\.(?:png|html))", (ROOT / "README.md").read_text(encoding="utf-8"))
    for kind in ("tables", "figures"):
        for path in sorted((outputs_directory() / kind / profile).glob("*.*")):
            if kind == "tables" or path.name in shown:
                files[folder / path.name] = path
    for target, path in files.items():
        if path.stat().st_size > CHECKPOINT_BYTES:
            raise ValueError(
                f"expected files of at most {CHECKPOINT_BYTES:,} bytes, {path} has {path.stat().st_size:,}"
            )
    written = [target for target, path in files.items() if path != target]
    for target in written:
        write_atomically(target, lambda temporary: shutil.copyfile(files[target], temporary))
    known = [dataclasses.replace(spec, seed=0) for spec in specs]
    for old in map(read_result, (folder / "runs").glob("*.json")):
        if old.spec.source == source and dataclasses.replace(old.spec, seed=0) not in known:
            old.path.unlink()
            old.checkpoint.unlink(missing_ok=True)
    return written
