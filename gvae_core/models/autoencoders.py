"""Variational autoencoders with a spherical or a normal latent, and the papers' two: `sgvae` and `svae`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from ..vmf import HypersphericalUniform, VonMisesFisher
from .arguments import check_whole, recorded
from .decoders import Decoder
from .encoders import ConvolutionalEncoder, SteerableEncoder
from .inputs import CANVAS_SIZE, IMAGE_SIZE, MNIST_MEAN, MNIST_STD, as_input, fit_to_grid, standardise
from .layouts import EncoderLayout

MIN_CONCENTRATION = 1e-3  # softplus underflows to 0 in float32; the posterior must stay kappa > 0


class _ImageVAE(nn.Module):
    """What the spherical and the Gaussian autoencoder share; they differ in posterior and prior."""

    def __init__(self, encoder: nn.Module, features: int, decoder: Decoder, latent_dim: int, head: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.decoder = decoder
        self.latent_dim = latent_dim
        self.location = nn.Linear(features, latent_dim)

    def _posterior(self, features: Tensor) -> Distribution:
        raise NotImplementedError

    def encode(self, images: Tensor) -> Distribution:
        """Posterior q(z | images), batch shape [N], event shape [d]; images [N, 1, 28, 28] in [0, 1]."""
        return self._posterior(self.head(self.encoder(images)))

    def canvas(self, images: Tensor) -> Tensor:
        """The reconstruction target: standardised 32 x 32 images, on which the papers take the loss."""
        return standardise(fit_to_grid(as_input(images, self.location.weight), CANVAS_SIZE))

    def decode_canvas(self, z: Tensor) -> Tensor:
        """Codes [N, d] -> standardised [N, 1, 32, 32]."""
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"expected codes [N, {self.latent_dim}], got {list(z.shape)}")
        return self.decoder(z.to(self.location.weight.dtype))

    def decode(self, z: Tensor) -> Tensor:
        """Codes [N, d] -> images [N, 1, 28, 28]; about [0, 1], not clamped."""
        border = (CANVAS_SIZE - IMAGE_SIZE) // 2
        return F.pad(self.decode_canvas(z), [-border] * 4) * MNIST_STD + MNIST_MEAN

    def forward(self, images: Tensor) -> tuple[Tensor, Distribution, Tensor]:
        """Images -> (reconstruction [N, 1, 28, 28], posterior, sampled codes z [N, d])."""
        posterior = self.encode(images)
        z = posterior.rsample()
        return self.decode(z), posterior, z


class SphericalVAE(_ImageVAE):
    """Hyperspherical VAE: von Mises-Fisher posterior, uniform prior on the sphere S^(d-1).

    L(x) = E_q[log p(x | z)] - beta KL(vMF(mu(x), kappa(x)) || U(S^(d-1))), T. R. Davidson et al.,
    *Hyperspherical variational auto-encoders* (UAI 2018). Use `sgvae` or `svae` for the papers' nets.

    Parameters
    ----------
    encoder : images [N, 1, 28, 28] -> [N, F]
    features : size of the head's output
    head : [N, F] -> [N, features]
    """

    def __init__(self, encoder: nn.Module, features: int, decoder: Decoder, latent_dim: int, head: nn.Module):
        check_whole(2, latent_dim=latent_dim)  # the smallest sphere is a circle
        super().__init__(encoder, features, decoder, latent_dim, head)
        self.concentration = nn.Linear(features, 1)
        # Start nearly deterministic, at a mean resultant length of about 0.9: from kappa near 0 the
        # decoder sees noise, learns the mean image, and leaves that plateau only slowly.
        nn.init.constant_(self.concentration.bias, 5.0 * (latent_dim - 1))

    @property
    def prior(self) -> HypersphericalUniform:
        """The uniform law on the sphere, in the model's dtype and on its device."""
        like = self.location.weight
        return HypersphericalUniform(self.latent_dim, dtype=like.dtype, device=like.device, validate_args=False)

    def _posterior(self, features: Tensor) -> VonMisesFisher:
        mean_direction = F.normalize(self.location(features), dim=-1)
        concentration = F.softplus(self.concentration(features)).squeeze(-1) + MIN_CONCENTRATION
        return VonMisesFisher(mean_direction, concentration, validate_args=False)


class GaussianVAE(_ImageVAE):
    """The usual VAE with a diagonal normal posterior and a standard normal prior, for comparison."""

    def __init__(self, encoder: nn.Module, features: int, decoder: Decoder, latent_dim: int, head: nn.Module):
        check_whole(latent_dim=latent_dim)
        super().__init__(encoder, features, decoder, latent_dim, head)
        self.log_scale = nn.Linear(features, latent_dim)

    @property
    def prior(self) -> Independent:
        """The standard normal law, in the model's dtype and on its device."""
        zeros = self.location.bias.new_zeros(self.latent_dim)
        return Independent(Normal(zeros, torch.ones_like(zeros)), 1)

    def _posterior(self, features: Tensor) -> Independent:
        scale = self.log_scale(features).exp()
        return Independent(Normal(self.location(features), scale, validate_args=False), 1, validate_args=False)


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
    gaussian: bool = False,
) -> SphericalVAE | GaussianVAE:
    """The S-GVAE: steerable encoder, spherical latent (with ``gaussian=True`` a normal one).

    ``fields``, ``frequency``, ``layout``, ``frames`` and ``invariants`` are those of `SteerableEncoder`; ``dropout`` is
    that of head and decoder. The defaults are the papers', about 0.9 M parameters.
    """
    encoder = SteerableEncoder(fields, frequency, layout=layout, invariants=invariants, dropout=0.1, frames=frames)
    head = nn.Sequential(
        nn.Linear(invariants, invariants),
        nn.ELU(),
        nn.BatchNorm1d(invariants),
        nn.Dropout(dropout),
    )
    decoder = Decoder(latent_dim, decoder_channels, dropout=dropout)
    kind = GaussianVAE if gaussian else SphericalVAE
    return kind(encoder, invariants, decoder, latent_dim, head)


@recorded
def svae(
    latent_dim: int = 10,
    *,
    channels: Sequence[int] = (128, 128, 64),
    hidden: int = 64,
    decoder_channels: Sequence[int] = (128, 128, 64),
    dropout: float = 0.2,
) -> SphericalVAE:
    """The S-VAE, the tiny paper's baseline: the same latent and decoder behind a plain CNN."""
    check_whole(hidden=hidden)
    encoder = ConvolutionalEncoder(channels, dropout=dropout)
    head = nn.Sequential(nn.Linear(encoder.out_features, hidden), nn.ReLU(), nn.BatchNorm1d(hidden), nn.Dropout(0.1))
    return SphericalVAE(encoder, hidden, Decoder(latent_dim, decoder_channels, dropout=dropout), latent_dim, head)
