"""The networks of the papers: two classifiers and the variational autoencoders.

Every network takes images [N, 1, 28, 28] in [0, 1]; padding and standardisation happen inside.
Sizes default to the papers'; every size is an argument. Sources: S. Ahmedeo, *Group Equivariant CNN and disentangling beta-VAE* (2022); A. Shokry, A. Norelli, *Learning rotation-agnostic
representations via group equivariant VAEs* (ICLR 2023 Tiny Papers); steerable layers from escnn
(G. Cesa, L. Lang, M. Weiler, *A program to build E(N)-equivariant steerable CNNs*, ICLR 2022).
"""

from .autoencoders import GaussianVAE, SphericalVAE, sgvae, svae
from .classifiers import CNNClassifier, GCNNClassifier
from .encoders import GRIDS, SteerableEncoder, parameter_count

__all__ = [
    "GRIDS",
    "CNNClassifier",
    "GCNNClassifier",
    "GaussianVAE",
    "SphericalVAE",
    "SteerableEncoder",
    "parameter_count",
    "sgvae",
    "svae",
]
