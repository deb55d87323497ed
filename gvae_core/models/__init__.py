"""The networks of the papers: two classifiers and the variational autoencoders.

Every network takes images in [0, 1], MNIST's [N, 1, 28, 28] or those of an `ImageFormat`; padding and standardisation
happen inside.
Sizes default to the papers'; every size is an argument. Sources: S. Ahmedeo, *Group Equivariant CNN and
disentangling beta-VAE* (2022), the report; A. Shokry, A. Norelli, *Learning rotation-agnostic representations via
group equivariant VAEs* (ICLR 2023 Tiny Papers), the tiny paper; steerable layers from escnn (G. Cesa, L. Lang,
M. Weiler, *A program to build E(N)-equivariant steerable CNNs*, ICLR 2022).
"""

from .autoencoders import GaussianVAE, PoseVAE, SphericalVAE, sgvae, svae
from .classifiers import CNNClassifier, GCNNClassifier
from .encoders import (
    LAYOUTS,
    ConvolutionalEncoder,
    EncoderLayout,
    SteerableEncoder,
    encoder_layout,
    parameter_count,
    reading,
)
from .inputs import ImageFormat
from .modes import evaluating
from .saving import load_model, save_model
from .spatial import SpatialVAE

__all__ = [
    "LAYOUTS",
    "CNNClassifier",
    "ConvolutionalEncoder",
    "EncoderLayout",
    "GCNNClassifier",
    "GaussianVAE",
    "ImageFormat",
    "PoseVAE",
    "SpatialVAE",
    "SphericalVAE",
    "SteerableEncoder",
    "encoder_layout",
    "evaluating",
    "load_model",
    "parameter_count",
    "reading",
    "save_model",
    "sgvae",
    "svae",
]
