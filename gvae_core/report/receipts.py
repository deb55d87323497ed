"""Receipts of executed notebooks: what a page was made from, so that an unchanged one is not made again."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from nbformat import NotebookNode

from ..files import COMMITTED, cache_folder, files_below, stamp

PACKAGE = Path(__file__).parents[1]
PATHS = ("folder", "model")  # parameters of notebooks that name files
FOLDERS = ("runs", "figures", "tables")  # of the outputs, that notebooks write into


def cells(notebook: NotebookNode) -> list[tuple]:
    """What a notebook says and does: type, text and tags of its cells."""
    return [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]


def digest(notebook: NotebookNode, parameters: Mapping[str, object], outputs: Path) -> str:
    """Of all that decides what a notebook shows: its cells and parameters, the package, the machine's settings.

    And the results of the papers' size, which notebooks of every profile show: `gvae run` may add some.
    """
    settings = {name: os.environ.get(name) for name in ("GVAE_DATA", "GVAE_CACHE", "GVAE_STEERABLE")}
    settings["digits"] = (cache_folder() / "mnist").is_dir()  # the source "auto" takes them once they are there
    versions = [platform.python_version(), *(version(name) for name in ("torch", "escnn", "matplotlib"))]
    read = [_stamps(Path(parameters[name])) for name in PATHS if parameters.get(name)]
    given = [cells(notebook), dict(parameters), settings, versions, read]
    suffixes = (".py", ".cpp", ".h", ".js", ".html", ".css", ".j2")
    files = [path for path in sorted(PACKAGE.rglob("*")) if path.suffix in suffixes]
    files += [p for folder in (outputs / "runs", COMMITTED) for p in sorted(folder.glob("*.json")) if _is_full_size(p)]
    parts = [json.dumps(given, sort_keys=True, default=str).encode(), *(path.read_bytes() for path in files)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _stamps(path: Path) -> list[tuple]:
    """Of a file, or of all files below a folder, by their names."""
    names = sorted(files_below(path)) if path.is_dir() else [""]
    return [(name, *stamp(path / name)) for name in names]


def _is_full_size(path: Path) -> bool:
    """Whether a run's JSON says that it was trained on all digits of its source."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["spec"].get("train_images") is None
    except (ValueError, KeyError, TypeError, AttributeError):  # no run's
        return False


def text(digest: str, outputs: Path) -> str:
    """The receipt of a notebook that has just run without an error: digest and the files then there."""
    there = (path for folder in FOLDERS for path in sorted((outputs / folder).rglob("[!.]*.*")) if path.is_file())
    kept = [
        str(path.relative_to(outputs)) for path in there if path.suffix != ".lock" and ".state" not in path.suffixes
    ]
    return json.dumps({"digest": digest, "files": kept}, indent=1)


def is_current(receipt: Path, digest: str, outputs: Path) -> bool:
    """Whether the receipt is for the same digest, and all of its files are still there."""
    try:
        record = json.loads(receipt.read_text(encoding="utf-8"))
        return record["digest"] == digest and all((outputs / name).is_file() for name in record["files"])
    except (OSError, ValueError, KeyError, TypeError):  # none, or not readable: execute the notebook
        return False
