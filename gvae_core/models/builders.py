"""The papers' autoencoders, put together: `sgvae` and `svae`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from .arguments import check_dropout, check_whole, recorded
from .autoencoders import GaussianVAE, SphericalVAE
from .decoders import Decoder
from .encoders import ConvolutionalEncoder, SteerableEncoder
from .layouts import EncoderLayout
from .pose import PoseVAE

VECTORS = 16  # of frequency 1, that a pose is read from


@recorded
def sgvae(
    latent_dim: int = 6,
    *,
    fields: Sequence[int] = (64, 64, 128),
    frequency: int = 6,
    layout: str | EncoderLayout | Mapping = "paper",
    frames: int = 1,
    invariants: int = 64,
    decoder_channels: Sequence[int] = (128, 64, 32),
    dropout: float = 0.2,
    inner_dropout: float = 0.1,
    gaussian: bool = False,
    pose: bool = False,
) -> SphericalVAE | GaussianVAE | PoseVAE:
    """The S-GVAE: steerable encoder, spherical latent (with ``gaussian=True`` a normal one).

    ``fields``, ``frequency``, ``layout``, ``frames`` and ``invariants`` are those of `SteerableEncoder`; ``dropout`` is
    that of head and decoder, ``inner_dropout`` of the encoder's fields and the decoder's first layer. The defaults are
    the papers', about 0.9 M parameters. ``pose=True`` adds how an image is
    turned, for images that were never upright; see `PoseVAE`.
    """
    if pose and gaussian:
        raise ValueError("expected pose or gaussian, got both")
    encoder = SteerableEncoder(
        fields,
        frequency,
        layout=layout,
        invariants=invariants,
        dropout=inner_dropout,
        frames=frames,
        vectors=VECTORS if pose else 0,
    )
    head = nn.Sequential(
        nn.Linear(invariants, invariants),
        nn.ELU(),
        nn.BatchNorm1d(invariants),
        nn.Dropout(dropout),
    )
    decoder = Decoder(latent_dim, decoder_channels, dropout=dropout, inner_dropout=inner_dropout)
    kind = GaussianVAE if gaussian else PoseVAE if pose else SphericalVAE
    return kind(encoder, invariants, decoder, latent_dim, head)


@recorded
def svae(
    latent_dim: int = 10,
    *,
    channels: Sequence[int] = (128, 128, 64),
    hidden: int = 64,
    decoder_channels: Sequence[int] = (128, 128, 64),
    dropout: float = 0.2,
    inner_dropout: float = 0.1,
) -> SphericalVAE:
    """The S-VAE, the tiny paper's baseline: the same latent and decoder behind a plain CNN.

    ``inner_dropout`` is that of the head and of the decoder's first layer, ``dropout`` that of all other layers.
    """
    check_whole(hidden=hidden)
    check_dropout(inner_dropout)
    encoder = ConvolutionalEncoder(channels, dropout=dropout)
    head = nn.Sequential(
        nn.Linear(encoder.out_features, hidden), nn.ReLU(), nn.BatchNorm1d(hidden), nn.Dropout(inner_dropout)
    )
    decoder = Decoder(latent_dim, decoder_channels, dropout=dropout, inner_dropout=inner_dropout)
    return SphericalVAE(encoder, hidden, decoder, latent_dim, head)
