"""The von Mises-Fisher and the uniform law on the unit sphere S^{d-1} in R^d.

    q(z | mu, kappa) = exp(kappa mu^T z - L(kappa)) / |S^{d-1}|,     z, mu in S^{d-1}, kappa >= 0,

with L of `gvae_core.bessel` (Mardia and Jupp, Directional Statistics, 2000, section 9.3; Davidson
et al., Hyperspherical variational auto-encoders, 2018). kappa = 0 is the uniform law, exactly.

Sampling is a fixed differentiable map of normal noise, without rejection. The angle theta between
z and mu is the transport theta = F^{-1}(Phi(eps)) of one normal number, from a table per dimension;
the direction around mu is that of the tangent part of a normal vector. So gradients are unbiased
(d theta / d kappa is the implicit one, -(dF/dkappa) / p; Figurnov et al., Implicit
reparameterization gradients, 2018), and there is no loop, no host synchronisation and no singular
mean direction. The arithmetic of the angle is float64, which the device must offer.
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
    cached_constant,
    kl_to_uniform,
    log_mgf_deficit,
    ratio_complement,
    with_derivative,
)


class _UnitSphere(constraints.Constraint):
    """Vectors of unit Euclidean length, to 1e-5."""

    event_dim = 1
    tolerance = 1e-5

    def check(self, value: Tensor) -> Tensor:
        return (torch.linalg.vector_norm(value, dim=-1) - 1).abs() <= self.tolerance


unit_sphere = _UnitSphere()


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


def _promote(loc: Tensor, concentration: Tensor | float) -> tuple[Tensor, Tensor]:
    """Both in one dtype, float32 at least; a half-precision unit vector gets its length back."""
    dtype = torch.promote_types(loc.dtype, torch.float32)
    if isinstance(concentration, Tensor):
        dtype = torch.promote_types(dtype, concentration.dtype)
    else:
        concentration = torch.tensor(concentration, dtype=dtype, device=loc.device)
    eps = torch.finfo(loc.dtype).eps
    if eps > torch.finfo(torch.float32).eps:
        loc = loc.to(dtype)
        norm = torch.linalg.vector_norm(loc, dim=-1, keepdim=True)
        loc = torch.where((norm - 1).abs() <= 4 * eps, loc / norm, loc)
    return loc.to(dtype), concentration.to(dtype)


class VonMisesFisher(Distribution):
    """The von Mises-Fisher law on S^{d-1}: density exp(kappa mu^T z - L(kappa)) / |S^{d-1}|.

    `loc`: mean directions mu, [..., d], d >= 2, unit vectors; `concentration`: kappa, [...] or a
    number, 0 <= kappa < inf. Of their two batch shapes, one must broadcast to the other. Results
    have the parameters' dtype, float32 at least: half precision is promoted. Anything else is a
    ValueError; `validate_args=False` skips the checks that read values, and so wait for the device.

    >>> law = VonMisesFisher(torch.tensor([0.0, 0.0, 1.0]), 10.0)
    >>> law.rsample((5,)).shape, law.mean
    (torch.Size([5, 3]), tensor([0.0000, 0.0000, 0.9000]))
    """

    arg_constraints = {
        "loc": unit_sphere,
        "concentration": constraints.half_open_interval(0.0, math.inf),
    }
    support = unit_sphere
    has_rsample = True

    def __init__(
        self, loc: Tensor, concentration: Tensor | float, validate_args: bool | None = None
    ) -> None:
        if not loc.is_floating_point() or loc.ndim < 1 or loc.shape[-1] < 2:
            raise ValueError(
                "expected loc to be a floating-point tensor of shape [..., d] with d >= 2, "
                f"got {loc.dtype} of shape {list(loc.shape)}"
            )
        dim = operator.index(loc.shape[-1])  # a number also where torch.compile has a symbol
        loc, concentration = _promote(loc, concentration)
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
        new = self._get_checked_instance(VonMisesFisher, _instance)
        new.loc = self.loc.expand(*batch_shape, *self.event_shape)
        new.concentration = self.concentration.expand(batch_shape)
        Distribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
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

    def rsample(self, sample_shape=torch.Size()) -> Tensor:
        """Samples [*sample_shape, ..., d], differentiable in both parameters."""
        shape = torch.Size(sample_shape) + self.batch_shape
        loc, kappa = self.loc, self.concentration
        eps = torch.randn(shape, dtype=loc.dtype, device=loc.device)
        theta = _angle(self.event_shape[0], kappa, eps).unsqueeze(-1)
        # z = cos(theta) mu + sin(theta) t, from y = 1 - cos(theta), which keeps its digits near 0.
        y = 2 * torch.sin(theta / 2) ** 2
        return loc + (torch.sin(theta) * _tangent(loc, shape) - y * loc)

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(value), [...]; 1 - mu^T z is taken as |z - mu|^2 / 2, which does not cancel."""
        if self._validate_args:
            self._validate_sample(value)
        deficit = log_mgf_deficit(self.event_shape[0], self.concentration)
        distance = ((value - self.loc) ** 2).sum(-1) / 2
        return deficit - self.concentration * distance - log_sphere_area(self.event_shape[0])

    def log_prob_cosine(self, w: Tensor) -> Tensor:
        """log p(w) of w = mu^T z on [-1, 1], the marginal density along mu, [...]:

        p(w) = exp(kappa w - L(kappa)) (1 - w^2)^{(d-3)/2} / B(1/2, (d-1)/2).
        """
        dim = self.event_shape[0]
        log_beta = math.lgamma(0.5) + math.lgamma((dim - 1) / 2) - math.lgamma(dim / 2)
        tilt = log_mgf_deficit(dim, self.concentration) - self.concentration * (1 - w)
        return tilt + torch.special.xlog1py((dim - 3) / 2, -w * w) - log_beta

    def entropy(self) -> Tensor:
        """log |S^{d-1}| - KL(q || uniform), in nats, [...]."""
        dim = self.event_shape[0]
        return log_sphere_area(dim) - kl_to_uniform(dim, self.concentration)


class HypersphericalUniform(Distribution):
    """The uniform law on the unit sphere S^{d-1} in R^d; `dim` is d >= 2, a sample's length."""

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
        if not dim >= 2:
            raise ValueError(f"expected a dimension d >= 2, got {dim}")
        self._like = torch.empty(0, dtype=dtype, device=device)
        super().__init__(torch.Size(batch_shape), torch.Size((dim,)), validate_args=validate_args)

    def expand(self, batch_shape, _instance=None) -> HypersphericalUniform:
        new = self._get_checked_instance(HypersphericalUniform, _instance)
        new._like = self._like
        Distribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape=torch.Size()) -> Tensor:
        """Samples [*sample_shape, ..., d]: normalised normal vectors."""
        noise = torch.randn(
            self._extended_shape(sample_shape), dtype=self._like.dtype, device=self._like.device
        )
        return noise / torch.linalg.vector_norm(noise, dim=-1, keepdim=True)

    def log_prob(self, value: Tensor) -> Tensor:
        """-log |S^{d-1}|, [...]."""
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return value.new_full(shape, -log_sphere_area(self.event_shape[0]))

    def entropy(self) -> Tensor:
        """log |S^{d-1}| in nats, [...]."""
        return self._like.new_full(self.batch_shape, log_sphere_area(self.event_shape[0]))


def _same_sphere(p: Distribution, q: Distribution) -> int:
    if p.event_shape != q.event_shape:
        raise ValueError(
            "expected two laws on the same sphere, "
            f"got event shapes {list(p.event_shape)} and {list(q.event_shape)}"
        )
    return p.event_shape[0]


@register_kl(VonMisesFisher, HypersphericalUniform)
def _kl_vmf_uniform(p: VonMisesFisher, q: HypersphericalUniform) -> Tensor:
    kl = kl_to_uniform(_same_sphere(p, q), p.concentration)
    return kl.expand(torch.broadcast_shapes(p.batch_shape, q.batch_shape))


@register_kl(VonMisesFisher, VonMisesFisher)
def _kl_vmf_vmf(p: VonMisesFisher, q: VonMisesFisher) -> Tensor:
    """L_q - L_p - A_p (kappa_q - kappa_p) + kappa_q A_p |mu_p - mu_q|^2 / 2."""
    dim = _same_sphere(p, q)
    kp, kq = p.concentration.double(), q.concentration.double()
    turn = ((p.loc - q.loc) ** 2).sum(-1) / 2
    bregman = (kq - kp) * ratio_complement(dim, kp) + log_mgf_deficit(dim, kp)
    kl = bregman - log_mgf_deficit(dim, kq) + kq * bessel_ratio(dim, kp) * turn
    return kl.to(turn.dtype)
