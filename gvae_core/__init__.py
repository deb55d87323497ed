"""Rotation-agnostic image representations: SO(2)-steerable encoders in hyperspherical autoencoders."""

import importlib
import warnings

# escnn warns at import that py3nj is missing; only its 3-D groups would use it.
warnings.filterwarnings("ignore", message="`py3nj` package not found", module="escnn")

# Public names by module, imported when first used (PEP 562): `gvae --help` need not load torch.
_PUBLIC = {
    "embedding": ("RotationAgnosticEmbedding",),
    "images": ("ImageSet", "load_images"),
    "mnist": ("load_mnist",),
    "models": (
        "CNNClassifier",
        "GCNNClassifier",
        "ImageFormat",
        "SphericalVAE",
        "load_model",
        "save_model",
        "sgvae",
        "svae",
    ),
    "rotation": ("rotate",),
    "runs.run": ("run",),
    "runs.spec": ("RunSpec",),
    "vmf": ("HypersphericalUniform", "VonMisesFisher"),
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
