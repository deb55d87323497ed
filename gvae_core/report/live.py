"""Explorers that stay alive in the report's pages: a page of their own, shown where the notebook shows the widget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import outputs_directory

if TYPE_CHECKING:  # a page is made without it
    from ..explorer import RotationExplorer

_MARK = "gvae-page-"  # this and the page's name are a class of the widget, which an executed notebook keeps


def save(explorer: RotationExplorer, name: str = "explorer", *, profile: str) -> Path:
    """Write OUTPUTS/figures/PROFILE/NAME.html, which needs no kernel, and have the report show it for the widget."""
    path = explorer.save_html(outputs_directory() / "figures" / profile / f"{name}.html")
    explorer.add_class(f"{_MARK}{name}")
    return path


def page(classes: Sequence[str], folder: Path) -> Path | None:
    """The page of a widget of these classes in ``folder``; None where none was saved."""
    paths = (folder / f"{name.removeprefix(_MARK)}.html" for name in classes if name.startswith(_MARK))
    return next(filter(Path.is_file, paths), None)
