"""The von Mises-Fisher and the uniform law on the unit sphere S^{d-1} in R^d.

    q(z | mu, kappa) = exp(kappa mu^T z - L(kappa)) / |S^{d-1}|,     z, mu in S^{d-1}, kappa >= 0,

with L of `gvae_core.bessel` (Mardia and Jupp, Directional Statistics, 2000, section 9.3; Davidson
et al., Hyperspherical variational auto-encoders, 2018). kappa = 0 is the uniform law, exactly.

Sampling is a fixed differentiable map of normal noise, without rejection. The angle theta between z and mu is the
transport theta = F^{-1}(Phi(eps)) of one normal number, from a table per dimension; the direction around mu is that of
the tangent part of a normal vector. So gradients are unbiased (d theta / d kappa is the implicit one, -(dF/dkappa) / p;
Figurnov et al., Implicit reparameterization gradients, 2018), and there is no loop, no host synchronisation and no
singular mean direction. The arithmetic of the angle is float64, which the device must offer.
"""

from __future__ import annotations

import math
import operator

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scipy.special import ndtr, roots_legendre
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl

from gvae_core.bessel import (
    bessel_ratio,
    bessel_ratio_slope,
    cached_constant,
    inverse_bessel_ratio,
    kl_to_uniform,
    log_mgf,
    log_mgf_deficit,
    ratio_complement,
    with_derivative,
)


class _UnitSphere(constraints.Constraint):
    """Vectors of unit Euclidean length, to 1e-5 or, in half precision, four roundings."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        wide = value.to(torch.promote_types(value.dtype, torch.float32))
        tolerance = max(1e-5, 4 * torch.finfo(value.dtype).eps)
        return (torch.linalg.vector_norm(wide, dim=-1) - 1).abs() <= tolerance


unit_sphere = _UnitSphere()


def _are_vectors(x: Tensor) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point() and x.ndim > 0 and x.shape[-1] >= 2


def _got(x: Tensor) -> str:
    return f"got {x.dtype} of shape {list(x.shape)}" if isinstance(x, Tensor) else f"got {type(x).__name__}"


def _unit(vectors: Tensor) -> Tensor:
    """Unit vectors in float32 at least; those of half precision get their length back."""
    if torch.finfo(vectors.dtype).bits >= 32:
        return vectors
    wide = vectors.float()
    length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    return torch.where(unit_sphere.check(vectors).unsqueeze(-1), wide / length, wide)


def _half_square(a: Tensor, b: Tensor) -> Tensor:
    """1 - a^T b of unit vectors as |a - b|^2 / 2, which does not cancel; float64."""
    return ((_unit(a).double() - _unit(b).double()) ** 2).sum(-1) / 2


def log_sphere_area(dim: int) -> float:
    """log |S^{d-1}| = log(2 pi^{d/2} / Gamma(d/2)), the surface area of the unit sphere in R^d."""
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)


# --- the angle: theta = F^{-1}(Phi(eps)) ----------------------------------------------------------

# Knots: u = kappa / (kappa + d/2) in [0, 1], and eps in [-9, 9], beyond what a float64 normal
# generator can return (it stops at sqrt(2 * 53 log 2) = 8.6).
KAPPA_CELLS, EPS_CELLS, EPS_MAX = 128, 144, 9.0


def _scaled_angles(dim: int, kappa: np.ndarray, eps: np.ndarray) -> np.ndarray:
    """r = theta sqrt(kappa + d/2) at F(theta; kappa) = Phi(eps), [len(kappa), len(eps)].

    r has a density proportional to sin(theta)^{d-2} exp(-2 kappa sin(theta/2)^2). Gauss-Legendre
    panels give F from the left and 1 - F from the right, so both tails keep their digits; Newton's
    method on F^{1/(d-1)}, which is linear in r where the density vanishes, inverts them.
    """
    panels, reach, power = 256, 20.0, 1 / (dim - 1)
    nodes, weights = roots_legendre(8)
    kappa = kappa[:, None]
    scale = np.sqrt(kappa + dim / 2)
    # The mode: (d - 2) cos(theta) = kappa sin(theta)^2.
    root = np.maximum(dim - 2 + np.hypot(dim - 2, 2 * kappa), np.finfo(float).tiny)
    mode = scale * np.arctan2(np.sqrt(2 * (dim - 2) / root), 2 * kappa / root)

    def log_density(r: np.ndarray) -> np.ndarray:
        theta = r / scale
        sine = (dim - 2) * np.log(scale * np.sin(theta)) if dim > 2 else 0.0
        return sine - 2 * kappa * np.sin(theta / 2) ** 2

    peak = log_density(mode)

    def integral(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        half = (b - a)[..., None] / 2
        r = a[..., None] + half * (1 + nodes)
        density = np.exp(log_density(r.reshape(len(r), -1)) - peak).reshape(r.shape)
        return half[..., 0] * (density @ weights)

    low, high = np.maximum(0, mode - reach), np.minimum(np.pi * scale, mode + reach)
    edges = low + (high - low) * np.linspace(0, 1, panels + 1)
    mass = integral(edges[:, :-1], edges[:, 1:])
    total = mass.sum(1, keepdims=True)
    quantiles = []
    for side, noise in ((1, eps[eps <= 0]), (-1, eps[eps > 0])):
        edge = edges[:, ::side]
        cdf = np.cumsum(np.pad(mass[:, ::side], ((0, 0), (1, 0))), axis=1) / total
        target = ndtr(-np.abs(noise))
        r = np.stack([np.interp(target**power, f**power, e) for f, e in zip(cdf, edge)])
        panel = np.stack([np.searchsorted(f[1:-1], target, side="right") for f in cdf])
        base = np.take_along_axis(cdf, panel, axis=1)
        start, stop = (np.take_along_axis(edge, panel + k, axis=1) for k in (0, 1))
        for _ in range(8):
            f = base + side * integral(start, r) / total
            density = np.exp(log_density(r) - peak) / total
            r = r - side * (f - f ** (1 - power) * target**power) / (power * density)
            r = np.clip(r, np.minimum(start, stop), np.maximum(start, stop))
        quantiles.append(r)
    return np.concatenate(quantiles, axis=1)


@cached_constant
def _transport_table(dim: int, device: torch.device) -> Tensor:
    """Bicubic spline of r(u, eps): coefficients [cells, 4 (eps) * 4 (u)].

    Powers run from the third to the zeroth. Built once per dimension in about 0.1 s by numpy alone:
    it leaves torch's random state alone and takes no lock, so threads and forked workers may meet
    here (at worst both build the same table).
    """
    ghosts = 8  # knots at kappa < 0 (the reflected law), so that no spline ends at kappa = 0
    u = np.arange(-ghosts, KAPPA_CELLS + 1) / KAPPA_CELLS
    eps = np.linspace(-EPS_MAX, EPS_MAX, EPS_CELLS + 1)
    kappa = dim / 2 * u / np.maximum(1 - u, 1e-16)  # u = 1 is the limit, where r is chi(d - 1)
    spline = CubicSpline(u, _scaled_angles(dim, kappa, eps), axis=0).c[:, ghosts:]
    spline = CubicSpline(eps, spline, axis=2).c  # [4, EPS_CELLS, 4, KAPPA_CELLS]
    return torch.from_numpy(spline.transpose(3, 1, 0, 2).reshape(-1, 16)).to(device)


def _angle(dim: int, kappa: Tensor, eps: Tensor) -> Tensor:
    """theta(eps, kappa) with its exact derivative in kappa; shapes broadcast."""
    table = _transport_table(dim, kappa.device)
    k = kappa.detach().double()
    scale = k + dim / 2
    u = k / scale * KAPPA_CELLS
    t = (eps.double() + EPS_MAX) * (EPS_CELLS / (2 * EPS_MAX))
    i = u.long().clamp(0, KAPPA_CELLS - 1)  # u = 1 belongs to the last cell
    j = t.long().clamp(0, EPS_CELLS - 1)
    u, t = (u - i) / KAPPA_CELLS, (t - j) * (2 * EPS_MAX / EPS_CELLS)
    cell = torch.nn.functional.embedding(i * EPS_CELLS + j, table)
    c3, c2, c1, c0 = cell.unflatten(-1, (4, 4)).unbind(-1)
    u = u.unsqueeze(-1)

    def in_eps(c: Tensor) -> Tensor:
        c3, c2, c1, c0 = c.unbind(-1)
        return ((c3 * t + c2) * t + c1) * t + c0

    r = in_eps(((c3 * u + c2) * u + c1) * u + c0)
    dr = in_eps((3 * c3 * u + 2 * c2) * u + c1) * (dim / 2) / scale**2
    theta = r / scale.sqrt()
    slope = dr / scale.sqrt() - theta / (2 * scale)
    return with_derivative(kappa.expand(theta.shape), theta, slope)


# --- the direction around mu ----------------------------------------------------------------------


def _tangent(loc: Tensor, shape: torch.Size) -> Tensor:
    """Uniform unit vectors orthogonal to `loc`, [*shape, d]; they turn with `loc`."""
    still = loc.detach()
    if loc.shape[-1] == 2:  # two of them; projecting noise would lose all digits now and then
        noise = torch.randn(*shape, 1, dtype=loc.dtype, device=loc.device)
        normal = torch.stack((-still[..., 1], still[..., 0]), dim=-1)
        tangent = torch.where(noise < 0, -normal, normal)
    else:
        noise = torch.randn(*shape, loc.shape[-1], dtype=loc.dtype, device=loc.device)
        noise = noise - (noise * still).sum(-1, keepdim=True) * still
        tangent = noise / torch.linalg.vector_norm(noise, dim=-1, keepdim=True)
    # The rotation from `still` to `loc`, to second order. Its value projects once more; the sample
    # turns rigidly with mu, free of the 1/|noise| that differentiating the projection would add.
    along = (tangent * loc).sum(-1, keepdim=True) / 2
    return tangent - along * (loc + still)


# --- the laws -------------------------------------------------------------------------------------


class VonMisesFisher(Distribution):
    """The von Mises-Fisher law on S^{d-1}: density exp(kappa mu^T z - L(kappa)) / |S^{d-1}|.

    `loc`: mean directions mu, [..., d], d >= 2, unit vectors; `concentration`: kappa, [...] or a
    number, 0 <= kappa < inf (right up to 1e38, float32's largest). Of their two batch shapes, one must broadcast to the other. Parameters
    and results have the wider of their dtypes; nothing is computed below float32. Anything else is a
    ValueError; `validate_args=False` skips the checks that read values, and so wait for the device.

    >>> law = VonMisesFisher(torch.tensor([0.0, 0.0, 1.0]), 10.0)
    >>> law.rsample((5,)).shape, law.mean
    (torch.Size([5, 3]), tensor([0.0000, 0.0000, 0.9000]))
    """

    arg_constraints = {"loc": unit_sphere, "concentration": constraints.half_open_interval(0.0, math.inf)}
    support = unit_sphere
    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor | float, validate_args: bool | None = None) -> None:
        if not _are_vectors(loc):
            raise ValueError(f"expected loc to be a floating-point tensor of shape [..., d] with d >= 2, {_got(loc)}")
        dim = operator.index(loc.shape[-1])  # a number also where torch.compile has a symbol
        if not isinstance(concentration, Tensor):
            concentration = torch.tensor(concentration, dtype=loc.dtype, device=loc.device)
        dtype = torch.promote_types(loc.dtype, concentration.dtype)
        loc = loc if loc.dtype == dtype else _unit(loc).to(dtype)
        concentration = concentration.to(dtype)
        shapes = loc.shape[:-1], concentration.shape
        try:
            batch_shape = torch.broadcast_shapes(*shapes)
        except RuntimeError:
            batch_shape = None
        if batch_shape not in shapes:  # [n] with [n, 1] would make n * n laws without a word
            raise ValueError(
                f"expected a concentration of shape {list(shapes[0])}, or one that broadcasts "
                f"with loc of shape {list(loc.shape)}, got {list(shapes[1])}"
            )
        self.loc = loc.expand(*batch_shape, dim)
        self.concentration = concentration.expand(batch_shape)
        super().__init__(batch_shape, torch.Size((dim,)), validate_args=validate_args)

    def expand(self, batch_shape, _instance=None) -> VonMisesFisher:
        loc = self.loc.expand(*batch_shape, *self.event_shape)
        new = VonMisesFisher(loc, self.concentration.expand(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean_resultant_length(self) -> Tensor:
        """A_d(kappa) = |E z|, [...]."""
        return bessel_ratio(self.event_shape[0], self.concentration)

    @property
    def mean(self) -> Tensor:
        """E z = A_d(kappa) mu, [..., d]."""
        return self.mean_resultant_length.unsqueeze(-1) * self.loc

    @property
    def mode(self) -> Tensor:
        """mu, [..., d] (every point of the sphere when kappa = 0)."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Var z_i = (A / kappa)(1 - mu_i^2) + A' mu_i^2 of each component, [..., d].

        They sum to 1 - A^2. Differentiable in mu alone.
        """
        dim, kappa = self.event_shape[0], self.concentration.double().clamp(min=1e-30)  # A / kappa -> 1 / d
        across, along = bessel_ratio(dim, kappa) / kappa, bessel_ratio_slope(dim, kappa)
        square = _unit(self.loc).double() ** 2
        return torch.lerp(across.unsqueeze(-1), along.unsqueeze(-1), square).to(self.loc.dtype)

    def cap_angle(self, probability: float) -> Tensor:
        """Half width in degrees of the cap around mu that holds `probability`, in (0, 1): [...].

        For d = 2 the arc mu - a .. mu + a, as von Mises intervals. The sampler's own quantile,
        within 2e-6 in probability; differentiable in kappa.
        """
        if not 0 < probability < 1:
            raise ValueError(f"expected a probability between 0 and 1, got {probability}")
        eps = torch.special.ndtri(torch.tensor(probability, dtype=torch.float64, device=self.loc.device))
        theta = _angle(self.event_shape[0], self.concentration.double(), eps.clamp(-EPS_MAX, EPS_MAX))
        return torch.rad2deg(theta).to(self.loc.dtype)

    def rsample(self, sample_shape=torch.Size()) -> Tensor:
        """Samples [*sample_shape, ..., d], differentiable in both parameters."""
        shape = torch.Size(sample_shape) + self.batch_shape
        loc = _unit(self.loc)
        kappa = self.concentration.to(loc.dtype)
        eps = torch.randn(shape, dtype=loc.dtype, device=loc.device)
        theta = _angle(self.event_shape[0], kappa, eps).unsqueeze(-1)
        # z = cos(theta) mu + sin(theta) t, from y = 1 - cos(theta), which keeps its digits near 0.
        y = 2 * torch.sin(theta / 2) ** 2
        return (loc + (torch.sin(theta) * _tangent(loc, shape) - y * loc)).to(self.loc.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(value), [...]."""
        if self._validate_args:
            self._validate_sample(value)
        dim, kappa = self.event_shape[0], self.concentration.double()
        # In float64, as all that adds large terms of either sign: float32 rounds the result only.
        log_p = log_mgf_deficit(dim, kappa) - kappa * _half_square(value, self.loc) - log_sphere_area(dim)
        return log_p.to(torch.promote_types(value.dtype, self.loc.dtype))

    def log_prob_cosine(self, w: Tensor) -> Tensor:
        """log p(w) of w = mu^T z on [-1, 1], the marginal density along mu, [...]:

        p(w) = exp(kappa w - L(kappa)) (1 - w^2)^{(d-3)/2} / B(1/2, (d-1)/2).
        """
        dim, kappa, wide = self.event_shape[0], self.concentration.double(), w.double()
        log_beta = math.lgamma(0.5) + math.lgamma((dim - 1) / 2) - math.lgamma(dim / 2)
        tilt = log_mgf_deficit(dim, kappa) - kappa * (1 - wide)
        log_p = tilt + torch.special.xlog1py((dim - 3) / 2, -wide * wide) - log_beta
        return log_p.to(torch.promote_types(w.dtype, self.loc.dtype))

    def entropy(self) -> Tensor:
        """log |S^{d-1}| - KL(q || uniform), in nats, [...]."""
        dim = self.event_shape[0]
        entropy = log_sphere_area(dim) - kl_to_uniform(dim, self.concentration.double())
        return entropy.to(self.loc.dtype)

    @classmethod
    def fit(cls, samples: Tensor) -> VonMisesFisher:
        """The law of maximum likelihood, of batch shape [...], of samples [N, ..., d], N >= 2.

        mu is the direction of their mean and A_d(kappa) its length R (Mardia and Jupp, section
        10.3). A mean of 0 gives the uniform law, kappa = 0, with mu = e1 for want of a direction.
        Float32 at least, no gradient. A ValueError where the samples are not unit vectors, fewer
        than two, or all the same: the likelihood then grows with kappa for ever.

        >>> VonMisesFisher.fit(torch.tensor([[0.6, 0.8], [0.6, -0.8]])).mean
        tensor([0.6000, 0.0000])
        """
        if not _are_vectors(samples) or samples.ndim < 2 or len(samples) < 2:
            expected = "a floating-point tensor of shape [N, ..., d] with N >= 2 and d >= 2"
            raise ValueError(f"expected samples to be {expected}, {_got(samples)}")
        bad = samples[~unit_sphere.check(samples)]
        if len(bad):
            raise ValueError(f"expected samples of length 1, got one of length {bad[0].norm().item():g}")
        samples = _unit(samples.detach())
        z = samples.double()
        offset = z - z[0]
        mean = z[0] + offset.mean(0)
        length = torch.linalg.vector_norm(mean, dim=-1, keepdim=True)
        spread = ((offset - offset.mean(0)) ** 2).sum(-1).mean(0)  # 1 - R^2 without cancellation
        if (spread == 0).any():
            raise ValueError("expected samples that differ: with all at one point no concentration is the best")
        e1 = torch.eye(1, mean.shape[-1], dtype=mean.dtype, device=mean.device)[0]
        loc = torch.where(length > 0, mean / length, e1)
        kappa = inverse_bessel_ratio(mean.shape[-1], spread / (1 + length.squeeze(-1)))
        return cls(loc.to(samples.dtype), kappa.to(samples.dtype))


class HypersphericalUniform(Distribution):
    """The uniform law on the unit sphere S^{d-1} in R^d; `dim` is d >= 2, a sample's length.

    Samples and moments have the dtype and device given here or to `to`, torch's defaults otherwise.
    """

    arg_constraints: dict = {}
    support = unit_sphere
    has_rsample = True

    def __init__(
        self,
        dim: int,
        batch_shape: torch.Size | tuple[int, ...] = (),
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if not dim >= 2 or dim % 1:
            raise ValueError(f"expected a dimension d >= 2, got {dim}")
        self._like = torch.empty(0, dtype=dtype, device=device)
        super().__init__(torch.Size(batch_shape), torch.Size((int(dim),)), validate_args=validate_args)

    def _remade(self, batch_shape: torch.Size, like: Tensor) -> HypersphericalUniform:
        return HypersphericalUniform(self.event_shape[0], batch_shape, like.dtype, like.device, self._validate_args)

    def expand(self, batch_shape, _instance=None) -> HypersphericalUniform:
        return self._remade(batch_shape, self._like)

    def to(self, *args, **kwargs) -> HypersphericalUniform:
        """The same law in another dtype or on another device; arguments as `torch.Tensor.to` takes them."""
        return self._remade(self.batch_shape, self._like.to(*args, **kwargs))

    @property
    def mean(self) -> Tensor:
        """0, [..., d]."""
        return self._like.new_zeros(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """1/d of each component, [..., d]."""
        return self.mean + 1 / self.event_shape[0]

    def rsample(self, sample_shape=torch.Size()) -> Tensor:
        """Samples [*sample_shape, ..., d]: normalised normal vectors."""
        dtype = torch.promote_types(self._like.dtype, torch.float32)
        noise = torch.randn(self._extended_shape(sample_shape), dtype=dtype, device=self._like.device)
        return (noise / torch.linalg.vector_norm(noise, dim=-1, keepdim=True)).to(self._like.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """-log |S^{d-1}|, [...]."""
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return value.new_full(shape, -log_sphere_area(self.event_shape[0]))

    def entropy(self) -> Tensor:
        """log |S^{d-1}| in nats, [...]."""
        return self._like.new_full(self.batch_shape, log_sphere_area(self.event_shape[0]))


def _same_sphere(p: Distribution, q: Distribution) -> tuple[int, torch.Size]:
    """d and the batch shape of a divergence."""
    if p.event_shape != q.event_shape:
        shapes = f"{list(p.event_shape)} and {list(q.event_shape)}"
        raise ValueError(f"expected two laws on the same sphere, got event shapes {shapes}")
    return p.event_shape[0], torch.broadcast_shapes(p.batch_shape, q.batch_shape)


@register_kl(VonMisesFisher, HypersphericalUniform)
def _kl_vmf_uniform(p: VonMisesFisher, q: HypersphericalUniform) -> Tensor:
    dim, shape = _same_sphere(p, q)
    return kl_to_uniform(dim, p.concentration).expand(shape)


@register_kl(HypersphericalUniform, VonMisesFisher)
def _kl_uniform_vmf(p: HypersphericalUniform, q: VonMisesFisher) -> Tensor:
    dim, shape = _same_sphere(p, q)
    return log_mgf(dim, q.concentration).expand(shape)


@register_kl(HypersphericalUniform, HypersphericalUniform)
def _kl_uniform_uniform(p: HypersphericalUniform, q: HypersphericalUniform) -> Tensor:
    return p._like.new_zeros(_same_sphere(p, q)[1])


@register_kl(VonMisesFisher, VonMisesFisher)
def _kl_vmf_vmf(p: VonMisesFisher, q: VonMisesFisher) -> Tensor:
    """L_q - L_p - A_p (kappa_q - kappa_p) + kappa_q A_p (1 - mu_p^T mu_q)."""
    dim, _ = _same_sphere(p, q)
    kp, kq = p.concentration.double(), q.concentration.double()
    bregman = (kq - kp) * ratio_complement(dim, kp) + log_mgf_deficit(dim, kp) - log_mgf_deficit(dim, kq)
    kl = bregman + kq * bessel_ratio(dim, kp) * _half_square(p.loc, q.loc)
    return kl.to(torch.promote_types(p.loc.dtype, q.loc.dtype))
