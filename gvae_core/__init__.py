"""Rotation-agnostic image representations: SO(2)-steerable encoders in hyperspherical autoencoders."""

import warnings

# escnn warns at import that py3nj is missing; only its 3-D groups would use it.
warnings.filterwarnings("ignore", message="`py3nj` package not found", module="escnn")

from .data import load_mnist  # noqa: E402
from .experiments import RunSpec, run  # noqa: E402
from .models import CNNClassifier, GCNNClassifier, SphericalVAE, sgvae, svae  # noqa: E402
from .rotation import rotate  # noqa: E402
from .vmf import HypersphericalUniform, VonMisesFisher  # noqa: E402

__all__ = [
    "CNNClassifier",
    "GCNNClassifier",
    "HypersphericalUniform",
    "RunSpec",
    "SphericalVAE",
    "VonMisesFisher",
    "load_mnist",
    "rotate",
    "run",
    "sgvae",
    "svae",
]
