"""Variational autoencoders with a spherical latent, a normal one, or a spherical one and a pose; `sgvae` and `svae`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal

from ..rotation import in_disc, mirrored, turn
from ..vmf import HypersphericalUniform, VonMisesFisher
from .arguments import check_dropout, check_series, check_whole, recorded
from .dropout import Dropout
from .encoders import ConvolutionalEncoder, EncoderLayout, SteerableEncoder
from .inputs import BORDER, MNIST_FORMAT, ImageFormat, doublings, image_format

MIN_CONCENTRATION = 1e-3  # softplus underflows to 0 in float32; the posterior must stay kappa > 0
POSE_VECTORS = 16  # of frequency 1, that a pose is read from
POSE_HIDDEN = 64  # width of the two small networks that read it


class _LastConvTranspose2d(nn.ConvTranspose2d):
    """A decoder's last layer; to one channel, on a CPU, as a matrix product whose columns are laid on the picture.

    Forwards that takes 0.4 of the time of oneDNN's convolution, backwards the same.
    """

    def forward(self, values: Tensor) -> Tensor:
        if self.out_channels > 1 or not values.is_cpu:
            return super().forward(values)
        (k, _), (stride, _) = self.kernel_size, self.stride
        sides = [(side - 1) * stride + k for side in values.shape[2:]]
        columns = self.weight.flatten(1).T @ values.flatten(2)
        return F.fold(columns, sides, k, stride=stride) + self.bias[:, None, None]


class Decoder(nn.Sequential):
    """Latent codes [N, d] -> standardised canvas [N, 1, 32, 32]; mirrors the encoder, 5 -> 12 -> 15 -> 32.

    For images of another format [N, C, H + 4, H + 4]: from 64 pixels one layer more a doubling, begun on the smallest
    map that becomes large enough and cut to the canvas.
    """

    def __init__(
        self,
        latent_dim: int,
        channels: Sequence[int],
        *,
        dropout: float = 0.2,
        inner_dropout: float = 0.1,
        images: ImageFormat | Mapping = MNIST_FORMAT,
    ):
        check_whole(latent_dim=latent_dim)
        check_series(3, decoder_channels=channels)
        check_dropout(dropout)
        check_dropout(inner_dropout)
        images = image_format(images)
        first, second, third = channels
        more = doublings(images.size)
        start = next(n for n in itertools.count(5) if _drawn_size(n, more) >= images.canvas_size)
        extra = _drawn_size(start, more) - images.canvas_size
        larger = []
        for _ in range(more):
            larger += [
                nn.ConvTranspose2d(third, third, 4, stride=2),
                nn.BatchNorm2d(third),
                nn.ReLU(),
                Dropout(dropout),
            ]
        super().__init__(
            nn.Linear(latent_dim, first * start**2),
            nn.Unflatten(1, (first, start, start)),
            nn.ReLU(),
            nn.BatchNorm2d(first),
            Dropout(inner_dropout),
            nn.ConvTranspose2d(first, second, 4, stride=2),
            nn.BatchNorm2d(second),
            nn.ReLU(),
            Dropout(dropout),
            nn.ConvTranspose2d(second, third, 4, stride=1),
            nn.BatchNorm2d(third),
            nn.ReLU(),
            Dropout(dropout),
            *larger,
            _LastConvTranspose2d(third, images.channels, 4, stride=2),
            *([nn.ZeroPad2d([-(extra // 2), extra // 2 - extra] * 2)] if extra else []),
        )
        self.images = images


def _drawn_size(start: int, more: int) -> int:
    """Pixels that a decoder with so many layers ``more`` draws from a map of ``start`` pixels."""
    size = (2 * start + 2) + 3
    for _ in range(more + 1):
        size = 2 * size + 2
    return size


class _ImageVAE(nn.Module):
    """What the autoencoders share; they differ in posterior and prior."""

    def __init__(self, encoder: nn.Module, features: int, decoder: Decoder, latent_dim: int, head: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.decoder = decoder
        self.latent_dim = latent_dim
        self.images = decoder.images
        self.location = nn.Linear(features, latent_dim)

    def _posterior(self, features: Tensor) -> Distribution:
        raise NotImplementedError

    def encode(self, images: Tensor) -> Distribution:
        """Posterior q(z | images), batch shape [N], event shape [d]; images [N, C, H, H] in [0, 1]."""
        return self._posterior(self.head(self.encoder(images)))

    def canvas(self, images: Tensor) -> Tensor:
        """The reconstruction target: standardised images with 2 pixels around, 32 x 32 in the papers."""
        return self.images.on_grid(self.images.checked(images, self.location.weight), self.images.canvas_size)

    def decode_canvas(self, z: Tensor) -> Tensor:
        """Codes [N, d] -> standardised canvas [N, C, H + 4, H + 4]."""
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"expected codes [N, {self.latent_dim}], got {list(z.shape)}")
        return self.decoder(z.to(self.location.weight.dtype))

    def decode(self, z: Tensor) -> Tensor:
        """Codes [N, d] -> images [N, C, H, H]; about [0, 1], not clamped."""
        return self.images.restored(self._standardised(z))

    def _standardised(self, z: Tensor) -> Tensor:
        return F.pad(self.decode_canvas(z), [-BORDER] * 4)

    def forward(self, images: Tensor) -> tuple[Tensor, Distribution, Tensor]:
        """Images -> (reconstruction [N, C, H, H], posterior, sampled codes z [N, d])."""
        posterior = self.encode(images)
        z = posterior.rsample()
        return self.decode(z), posterior, z


class SphericalVAE(_ImageVAE):
    """Hyperspherical VAE: von Mises-Fisher posterior, uniform prior on the sphere S^(d-1).

    L(x) = E_q[log p(x | z)] - beta KL(vMF(mu(x), kappa(x)) || U(S^(d-1))), T. R. Davidson et al.,
    *Hyperspherical variational auto-encoders* (UAI 2018). Use `sgvae` or `svae` for the papers' nets. The ``encoder``
    maps images [N, C, H, H] to [N, F], the ``head`` these to [N, features].
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
        super().__init__(encoder, features, decoder, latent_dim, head)
        self.log_scale = nn.Linear(features, latent_dim)

    @property
    def prior(self) -> Independent:
        """The standard normal law, in the model's dtype and on its device."""
        zeros = self.location.bias.new_zeros(self.latent_dim)
        return Independent(Normal(zeros, torch.ones_like(zeros), validate_args=False), 1, validate_args=False)

    def _posterior(self, features: Tensor) -> Independent:
        scale = self.log_scale(features).exp()
        return Independent(Normal(self.location(features), scale, validate_args=False), 1, validate_args=False)


class PoseVAE(SphericalVAE):
    r"""A spherical autoencoder with a pose, for images that were never upright.

    The content's posterior is read from invariants, as in the S-GVAE. The pose is the direction of one vector that
    turns with the image, :math:`v(R_\phi x) = R_\phi v(x)`, by construction: the sum of pooled vectors of frequency 1,
    each multiplied by a complex number that depends on invariants only (the content's, and how the vectors lie to each
    other). Its posterior is von Mises, a `VonMisesFisher` with d = 2. The decoder draws a canonical view, which is
    turned by the pose and compared with the image as it came.
    As in R. Winter et al., *Unsupervised learning of group invariant and equivariant representations* (NeurIPS 2022).

    An image that looks the same after a half turn has no single pose; its concentration has to say so. Angles
    are degrees, counter-clockwise, against an orientation that nobody chose: training finds one. The ``encoder`` has
    ``vectors`` of frequency 1.

    With an encoder of the group O(2) content does not see mirror images either, and a pose is an angle and a hand: the
    canonical view is first mirrored at its horizontal axis where the hand is -1, then turned. The hand's posterior is a
    `Bernoulli` law whose logit changes its sign with a reflection, by construction: a network's answer for the image
    less that for its mirror image. A figure that is its own mirror image has no hand; its probability stays near 1/2.
    """

    def __init__(self, encoder: SteerableEncoder, features: int, decoder: Decoder, latent_dim: int, head: nn.Module):
        super().__init__(encoder, features, decoder, latent_dim, head)
        known, weights, hidden = encoder.invariants, 2 * encoder.vectors, POSE_HIDDEN
        self.handed = encoder.signs > 0

        def reader(outputs: int) -> nn.Sequential:
            first = nn.Linear(known + weights + encoder.signs, hidden)
            return nn.Sequential(first, nn.ELU(), nn.BatchNorm1d(hidden), nn.Linear(hidden, outputs))

        self.mixture = reader(weights)
        self.log_concentration = nn.Sequential(nn.Linear(known + 1, hidden), nn.ELU(), nn.Linear(hidden, 1))
        nn.init.constant_(self.log_concentration[-1].bias, 3.0)  # an arc of some 20 degrees to start with
        if self.handed:
            self.hand = reader(1)

    def posteriors(self, images: Tensor, *, right_handed: bool = False) -> tuple[Distribution, ...]:
        """Content and pose of images [N, C, H, H] in [0, 1]: q(z | x) on S^(d-1) and q(angle | x) on the circle.

        Both of batch shape [N]; the pose's ``loc`` is (cos, sin) of the angle. With the group O(2) a third is the
        probability that the hand is 1, a `Bernoulli` law, and the angle is that of its likelier side, or of the hand 1
        where images are known to be ``right_handed``.
        """
        invariants, vectors, signs = self.encoder.invariants_and_vectors(images)
        content = self._posterior(self.head(invariants))
        features, hand = _related(invariants, vectors, signs), ()
        if self.handed:
            of_mirrored = _related(invariants, vectors.conj(), -signs)
            answers = self.hand(torch.cat([features, of_mirrored])).squeeze(-1)
            hand = (Bernoulli(logits=answers[: len(images)] - answers[len(images) :], validate_args=False),)
            left = (hand[0].logits < 0)[:, None] & (not right_handed)
            # the angle is read from the image with hand 1, and an image mirrored at the horizontal axis has minus its angle
            features, vectors = torch.where(left, of_mirrored, features), torch.where(left, vectors.conj(), vectors)
        factors = self.mixture(features).unflatten(1, (-1, 2))
        vector = torch.view_as_real((torch.view_as_complex(factors.contiguous()) * vectors).sum(1))
        if self.handed:
            vector = torch.where(left, vector * vector.new_tensor([1, -1]), vector)
        length = vector.norm(dim=1, keepdim=True).clamp(min=1e-6)
        evidence = torch.cat([invariants, length.log()], 1)
        concentration = self.log_concentration(evidence).squeeze(-1).clamp(-4, 9).exp()
        return content, VonMisesFisher(F.normalize(vector, dim=-1), concentration, validate_args=False), *hand

    def encode(self, images: Tensor) -> VonMisesFisher:
        """The content's posterior, which does not see how an image is turned."""
        return self.posteriors(images)[0]

    def disc(self, size: int | None = None) -> Tensor:
        """[size, size], 1 where a picture stays in view at every angle: there the loss counts, and only there it draws.

        The size is the canvas's where none is given.
        """
        size = size or self.images.canvas_size
        like = self.location.weight
        return in_disc(size, (size - 1) / 2, like.device).to(like.dtype)

    def poses(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """How images [N, C, H, H] are turned: degrees [N] in [-180, 180], and half the arc that holds 90 % of q, [N]."""
        _, pose, *_ = self.posteriors(images)
        return degrees(pose.loc), pose.cap_angle(0.9)

    def handedness(self, images: Tensor) -> Tensor:
        """The hands of images [N, C, H, H], 1 or -1, [N]; a mirror image has the other. ValueError without the group O(2)."""
        if not self.handed:
            raise ValueError("expected a model with the group O(2), got one that takes mirror images for other figures")
        return hands(self.posteriors(images)[2])

    def canonical(self, images: Tensor) -> Tensor:
        """Every image [N, C, H, H] turned back by its pose, to the orientation common to all, and mirrored back."""
        _, pose, *hand = self.posteriors(images)
        back = self.images.turned(images, -degrees(pose.loc).detach())
        return mirrored(back, hands(*hand)) if hand else back

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images [N, C, H, H] drawn anew and turned as they came, from the modes of both posteriors."""
        content, *pose = self.posteriors(images)
        return self.drawn(content.mode, *pose)

    def drawn(self, z: Tensor, pose: VonMisesFisher, hand: Bernoulli | None = None) -> Tensor:
        """Codes [N, d] -> images [N, C, H, H], mirrored and turned by the mode of their pose."""
        views = (self._standardised(z) if self.images.fade else self.decode(z)) * self.disc(self.images.size)
        turned = turn(views if hand is None else mirrored(views, hands(hand)), degrees(pose.mode))
        return self.images.restored(turned) if self.images.fade else turned

    def forward(self, images: Tensor) -> tuple[Tensor, VonMisesFisher, Tensor]:
        """Images -> (reconstruction [N, C, H, H], turned as they came, the content's posterior, its sample [N, d])."""
        content, *pose = self.posteriors(images)
        z = content.rsample()
        return self.drawn(z, *pose), content, z


def _related(invariants: Tensor, vectors: Tensor, signs: Tensor) -> Tensor:
    """Invariants [N, I], how vectors [N, V] lie to each other, where an image's turn cancels, and signs: [N, I + 2 V + S]."""
    reference = vectors.sum(1, keepdim=True)
    seen_from_it = vectors * reference.conj() / (reference.abs() + 1e-4)
    return torch.cat([invariants, torch.view_as_real(seen_from_it).flatten(1), signs], 1)


def hands(law: Bernoulli) -> Tensor:
    """The likelier hand, 1 or -1, of each image."""
    return torch.where(law.logits < 0, -1.0, 1.0)


def degrees(directions: Tensor) -> Tensor:
    """Angles [...] in [-180, 180] of directions [..., 2], (cos, sin)."""
    return torch.rad2deg(torch.atan2(directions[..., 1], directions[..., 0]))


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
    group: str = "SO(2)",
    images: ImageFormat | Mapping = MNIST_FORMAT,
) -> SphericalVAE | GaussianVAE | PoseVAE:
    """The S-GVAE: steerable encoder, spherical latent (with ``gaussian=True`` a normal one).

    ``fields``, ``frequency``, ``layout``, ``frames``, ``invariants`` and ``group`` are those of `SteerableEncoder`: with
    ``group="O(2)"`` the code does not see mirror images either, so that a figure and its mirror image are drawn alike.
    ``dropout`` is that of head and decoder, ``inner_dropout`` that of the encoder's fields and the decoder's first
    layer. The defaults are the papers', about 0.9 M parameters. ``pose=True`` adds how an image is turned, and with O(2)
    whether it is mirrored, for images that were never upright; see `PoseVAE`. ``images`` is the format of other images than MNIST's, e.g. `ImageFormat.measured` of them.
    """
    if pose and gaussian:
        raise ValueError("expected pose or gaussian, got both")
    if pose and group not in ("SO(2)", "O(2)"):  # a pose is an angle, any angle
        raise ValueError(f"expected group 'SO(2)' or 'O(2)' with pose, got {group!r}")
    sizes = dict(layout=layout, invariants=invariants, frames=frames, vectors=POSE_VECTORS if pose else 0)
    sizes |= dict(group=group, images=images)
    encoder = SteerableEncoder(fields, frequency, dropout=inner_dropout, **sizes)
    head = nn.Sequential(nn.Linear(invariants, invariants), nn.ELU(), nn.BatchNorm1d(invariants), Dropout(dropout))
    decoder = Decoder(latent_dim, decoder_channels, dropout=dropout, inner_dropout=inner_dropout, images=images)
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
    images: ImageFormat | Mapping = MNIST_FORMAT,
) -> SphericalVAE:
    """The S-VAE, the tiny paper's baseline: the same latent and decoder behind a plain CNN.

    ``inner_dropout`` is that of the head and of the decoder's first layer, ``dropout`` that of all other layers.
    ``images`` is as in `sgvae`.
    """
    check_whole(hidden=hidden)
    check_dropout(inner_dropout)
    encoder = ConvolutionalEncoder(channels, dropout=dropout, images=images)
    relu = [nn.Linear(encoder.out_features, hidden), nn.ReLU(), nn.BatchNorm1d(hidden), Dropout(inner_dropout)]
    decoder = Decoder(latent_dim, decoder_channels, dropout=dropout, inner_dropout=inner_dropout, images=images)
    return SphericalVAE(encoder, hidden, decoder, latent_dim, nn.Sequential(*relu))
