"""Where results and cached files go, and files that are whole or not there; imports nothing heavy."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # of the source checkout
COMMITTED = ROOT / "outputs" / "paper" / "runs"  # results that come with the project, wherever new ones go
PROFILES = ("smoke", "quick", "paper")  # figures, tables and executed notebooks have a folder each


def outputs_directory() -> Path:
    """The folder of runs, figures, tables and executed notebooks.

    ``GVAE_OUTPUTS``, else ``outputs`` in the source checkout, else ``outputs`` in the working folder.
    """
    if os.environ.get("GVAE_OUTPUTS"):
        return Path(os.environ["GVAE_OUTPUTS"]).expanduser().resolve()
    return (ROOT if (ROOT / "pyproject.toml").is_file() else Path.cwd()) / "outputs"


def cache_folder() -> Path:
    """For downloads and compiled kernels: ``GVAE_CACHE``, else ``gvae`` in the user's cache folder."""
    import pooch

    return Path(os.environ.get("GVAE_CACHE") or pooch.os_cache("gvae")).expanduser()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write(temporary)`` beside ``path`` and rename: a killed process leaves nothing half written."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files private
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
