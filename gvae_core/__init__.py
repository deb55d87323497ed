"""Rotation-agnostic image representations: SO(2)-steerable encoders in hyperspherical autoencoders."""

from .data import load_mnist
from .experiments import RunSpec, run
from .models import CNNClassifier, GCNNClassifier, SphericalVAE, sgvae, svae
from .rotation import rotate
from .vmf import HypersphericalUniform, VonMisesFisher

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
