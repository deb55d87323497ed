"""Decoders: latent codes [N, d] -> standardised canvases."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .arguments import check_dropout, check_series, check_whole


class Decoder(nn.Sequential):
    """Latent codes [N, d] -> standardised canvas [N, 1, 32, 32]; mirrors the encoder, 5 -> 12 -> 15 -> 32."""

    def __init__(self, latent_dim: int, channels: Sequence[int], *, dropout: float = 0.2, inner_dropout: float = 0.1):
        check_whole(latent_dim=latent_dim)
        check_series(3, decoder_channels=channels)
        check_dropout(dropout)
        check_dropout(inner_dropout)
        first, second, third = channels
        super().__init__(
            nn.Linear(latent_dim, first * 5 * 5),
            nn.Unflatten(1, (first, 5, 5)),
            nn.ReLU(),
            nn.BatchNorm2d(first),
            nn.Dropout(inner_dropout),
            nn.ConvTranspose2d(first, second, 4, stride=2),
            nn.BatchNorm2d(second),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.ConvTranspose2d(second, third, 4, stride=1),
            nn.BatchNorm2d(third),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.ConvTranspose2d(third, 1, 4, stride=2),
        )
