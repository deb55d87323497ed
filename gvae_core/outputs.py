"""Where results and cached files go; imports nothing heavy, so that the command line is instant."""

from __future__ import annotations

import os
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
