"""Where results go; imports nothing heavy, so that the command line is instant."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # of the source checkout
PROFILES = ("smoke", "quick", "paper")  # figures, tables and executed notebooks have a folder each


def outputs_directory() -> Path:
    """The folder of runs, figures, tables and executed notebooks.

    ``GVAE_OUTPUTS``, else ``outputs`` in the source checkout, else ``outputs`` in the working folder.
    """
    if os.environ.get("GVAE_OUTPUTS"):
        return Path(os.environ["GVAE_OUTPUTS"]).expanduser().resolve()
    return (ROOT if (ROOT / "pyproject.toml").is_file() else Path.cwd()) / "outputs"
