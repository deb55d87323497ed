"""Content and pose: an autoencoder that says what an image shows, and how it is turned, apart from each other."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..rotation import rotate, turn
from ..vmf import HypersphericalUniform, VonMisesFisher
from .autoencoders import SphericalVAE
from .decoders import Decoder
from .encoders import SteerableEncoder
from .inputs import CANVAS_SIZE, IMAGE_SIZE, MNIST_MEAN, MNIST_STD


class Posteriors(NamedTuple):
    """What one look at images gives: q(z | x) on S^(d-1) and q(angle | x) on the circle, both of batch shape [N]."""

    content: VonMisesFisher
    pose: VonMisesFisher


class PoseVAE(SphericalVAE):
    r"""A spherical autoencoder with a pose, for images that were never upright.

    The content's posterior is read from invariants, as in the S-GVAE. The pose is the direction of one vector that
    turns with the image, :math:`v(R_\phi x) = R_\phi v(x)`, by construction: the sum of pooled vectors of frequency 1,
    each multiplied by a complex number that depends on invariants only (the content's, and how the vectors lie to each
    other). Its posterior is von Mises, a `VonMisesFisher` with d = 2. The decoder draws a canonical view, which is
    turned by the pose and compared with the image as it came.
    As in R. Winter et al., *Unsupervised learning of group invariant and equivariant representations* (NeurIPS 2022).

    An image that looks the same after a half turn has no single pose; its concentration has to say so. Angles
    are degrees, counter-clockwise, against an orientation that nobody chose: training finds one.

    Parameters
    ----------
    encoder : with ``vectors`` of frequency 1
    """

    def __init__(
        self,
        encoder: SteerableEncoder,
        features: int,
        decoder: Decoder,
        latent_dim: int,
        head: nn.Module,
        hidden: int = 64,
    ):
        super().__init__(encoder, features, decoder, latent_dim, head)
        invariants = encoder.invariants
        self.mixture = nn.Sequential(
            nn.Linear(invariants + 2 * encoder.vectors, hidden),
            nn.ELU(),
            nn.BatchNorm1d(hidden),
            nn.Linear(hidden, 2 * encoder.vectors),
        )
        self.log_concentration = nn.Sequential(nn.Linear(invariants + 1, hidden), nn.ELU(), nn.Linear(hidden, 1))
        nn.init.constant_(self.log_concentration[-1].bias, 3.0)  # an arc of some 20 degrees to start with

    def posteriors(self, images: Tensor) -> Posteriors:
        """Content and pose of images [N, 1, 28, 28] in [0, 1]; ``pose.loc`` is (cos, sin) of the angle."""
        invariants, vectors = self.encoder.invariants_and_vectors(images)
        content = self._posterior(self.head(invariants))
        reference = vectors.sum(1, keepdim=True)
        seen_from_it = vectors * reference.conj() / (reference.abs() + 1e-4)  # an image's turn cancels
        relative = torch.view_as_real(seen_from_it).flatten(1)
        factors = self.mixture(torch.cat([invariants, relative], 1)).unflatten(1, (-1, 2))
        vector = torch.view_as_real((torch.view_as_complex(factors.contiguous()) * vectors).sum(1))
        length = vector.norm(dim=1, keepdim=True).clamp(min=1e-6)
        evidence = torch.cat([invariants, length.log()], 1)
        concentration = self.log_concentration(evidence).squeeze(-1).clamp(-4, 9).exp()
        return Posteriors(content, VonMisesFisher(F.normalize(vector, dim=-1), concentration, validate_args=False))

    def encode(self, images: Tensor) -> VonMisesFisher:
        """The content's posterior, which does not see how an image is turned."""
        return self.posteriors(images).content

    @property
    def pose_prior(self) -> HypersphericalUniform:
        """Uniform on the circle."""
        return HypersphericalUniform(2, validate_args=False)

    def disc(self) -> Tensor:
        """[32, 32], 1 where the canvas stays in the picture at every angle: there the loss counts."""
        centres = torch.arange(CANVAS_SIZE, device=self.location.weight.device) - (CANVAS_SIZE - 1) / 2
        inside = centres[:, None] ** 2 + centres[None] ** 2 <= ((CANVAS_SIZE - 1) / 2) ** 2
        return inside.to(self.location.weight.dtype)

    def poses(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """How images [N, 1, 28, 28] are turned: degrees [N] in [-180, 180], and half the arc that holds 90 % of q, [N]."""
        pose = self.posteriors(images).pose
        return degrees(pose.loc), pose.cap_angle(0.9)

    def canonical(self, images: Tensor) -> Tensor:
        """Every image [N, 1, 28, 28] turned back by its pose, to the orientation common to all."""
        return rotate(images, -self.poses(images)[0].detach())

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images [N, 1, 28, 28] drawn anew and turned as they came, from the modes of both posteriors."""
        content, pose = self.posteriors(images)
        return self._image(turn(self.decode_canvas(content.mode), degrees(pose.mode)))

    def forward(self, images: Tensor) -> tuple[Tensor, VonMisesFisher, Tensor]:
        """Images -> (reconstruction [N, 1, 28, 28], turned as they came, the content's posterior, its sample [N, d])."""
        content, pose = self.posteriors(images)
        z = content.rsample()
        return self._image(turn(self.decode_canvas(z), degrees(pose.rsample()))), content, z

    def _image(self, canvas: Tensor) -> Tensor:
        border = (CANVAS_SIZE - IMAGE_SIZE) // 2
        return F.pad(canvas, [-border] * 4) * MNIST_STD + MNIST_MEAN


def degrees(directions: Tensor) -> Tensor:
    """Angles [...] in [-180, 180] of directions [..., 2], (cos, sin)."""
    return torch.rad2deg(torch.atan2(directions[..., 1], directions[..., 0]))
