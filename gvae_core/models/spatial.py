"""Spatial-VAE, a baseline: an MLP says what an image is and how it is turned, another draws it from turned coordinates."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from .arguments import check_whole
from .inputs import MNIST_FORMAT

SIZE = MNIST_FORMAT.size
HALF_ARC = NormalDist().inv_cdf(0.95)  # standard deviations on either side of a normal law's mean that hold 90 % of it


class SpatialVAE(nn.Module):
    r"""A normal content code and a normal angle, both from an MLP, and a decoder that is a function of coordinates.

    The value of a pixel at p is :math:`f(R_{-\theta}\, p, z)`, T. Bepler et al., *Explicitly disentangling image
    content from translation and rotation with spatial-VAE* (NeurIPS 2019), without the translation. Nothing ties the
    angle to the image but what training makes of it. Two hidden layers in the encoder, two in the decoder, tanh, as in
    the paper, where they are 500 wide. The prior of the angle is normal with mean 0 and standard deviation π (theirs π/4),
    as images here are turned by any angle; the loss is the squared error, as of all models here (theirs the cross-entropy).

    Angles are degrees, counter-clockwise, outside and radians inside.
    """

    def __init__(self, latent_dim: int = 32, *, hidden: int = 128):
        super().__init__()
        check_whole(latent_dim=latent_dim, hidden=hidden)
        self.latent_dim = latent_dim
        layers = [nn.Linear(SIZE**2, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()]
        self.encoder = nn.Sequential(*layers, nn.Linear(hidden, 2 * (latent_dim + 1)))
        self.from_place = nn.Linear(2, hidden)
        self.from_code = nn.Linear(latent_dim, hidden, bias=False)
        self.pixel = nn.Sequential(nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        centres = torch.arange(SIZE) - (SIZE - 1) / 2
        y, x = torch.meshgrid(-centres, centres, indexing="ij")
        self.register_buffer("places", torch.stack([x, y], -1).flatten(0, 1) / centres[-1], persistent=False)

    @property
    def prior(self) -> Independent:
        """The standard normal law of the content."""
        return Independent(Normal(self.places.new_zeros(self.latent_dim), 1.0), 1)

    def posteriors(self, images: Tensor) -> tuple[Independent, Normal]:
        """Content and angle (radians) of images [N, 1, 28, 28] in [0, 1]: normal laws of batch shape [N]."""
        found = self.encoder(MNIST_FORMAT.standardised(MNIST_FORMAT.checked(images, self.from_place.weight)).flatten(1))
        means, log_scales = found.chunk(2, dim=1)
        content, angle = (
            Normal(means[:, part], log_scales[:, part].exp(), validate_args=False) for part in (slice(1, None), 0)
        )
        return Independent(content, 1, validate_args=False), angle

    def divergences(self, content: Independent, angle: Normal) -> tuple[Tensor, Tensor]:
        """KL of both posteriors to their priors, [N] each, in nats."""
        wide = Normal(torch.zeros_like(angle.loc), math.pi, validate_args=False)
        return kl_divergence(content, self.prior), kl_divergence(angle, wide)

    def draw(self, z: Tensor, radians: Tensor, places: Tensor) -> Tensor:
        """Standardised values [N, P] of codes [N, d], turned by angles [N], at ``places`` [P, 2], x to the right, y up."""
        cos, sin = radians.cos()[:, None], radians.sin()[:, None]
        x, y = places.unbind(-1)
        turned_back = torch.stack([cos * x + sin * y, cos * y - sin * x], -1)
        return self.pixel(self.from_place(turned_back) + self.from_code(z)[:, None]).squeeze(-1)

    def in_view(self) -> Tensor:
        """Indices of the pixels that stay in the picture at every angle, the disc of `PoseVAE.disc`."""
        reach = (MNIST_FORMAT.canvas_size - 1) / (SIZE - 1)
        return (self.places.norm(dim=-1) <= reach).nonzero()[:, 0]

    def encode(self, images: Tensor) -> Independent:
        """The content's posterior."""
        return self.posteriors(images)[0]

    def poses(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """How images [N, 1, 28, 28] are turned: degrees [N] in [-180, 180], and half the arc that holds 90 % of q, [N]."""
        angle = self.posteriors(images)[1]
        radians = torch.remainder(angle.mean + math.pi, 2 * math.pi) - math.pi
        half = HALF_ARC * angle.stddev
        return torch.rad2deg(radians), torch.rad2deg(half).clamp(max=180)

    def decode(self, z: Tensor, radians: Tensor | None = None) -> Tensor:
        """Codes [N, d] -> images [N, 1, 28, 28], by default at the angle 0; about [0, 1], not clamped."""
        values = self.draw(z, z.new_zeros(len(z)) if radians is None else radians, self.places)
        return MNIST_FORMAT.restored(values.view(-1, 1, SIZE, SIZE))

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images [N, 1, 28, 28] drawn anew and turned as they came, from the modes of both posteriors."""
        content, angle = self.posteriors(images)
        return self.decode(content.mode, angle.mode)
