"""The von Mises-Fisher law: samples, gradients and densities against quadrature, scipy and Wood.

Random tests are seeded, so they pass always or fail always. At a fresh seed the whole grid of
Kolmogorov-Smirnov tests would fail by chance once in 10^4 times (100 cells at p < 1e-6), that of
mean resultants at 4 sigma once in 160 (100 cells at 6.3e-5).
"""

from __future__ import annotations

import copy
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import cumulative_simpson, simpson
from scipy.special import ndtr, roots_jacobi
from torch.distributions import Distribution, kl_divergence
from torch.nn.functional import normalize, softplus

from gvae_core import vmf
from gvae_core.bessel import bessel_ratio, ratio_complement
from gvae_core.vmf import HypersphericalUniform, VonMisesFisher, log_sphere_area

DIMS = (2, 3, 4, 6, 10, 20, 50, 100, 500, 1000)
KAPPAS = (1e-6, 1e-3, 0.1, 1.0, 10.0, 1e2, 1e3, 1e4, 1e5, 1e6)
DTYPES = (torch.float32, torch.float64)


def direction(dim: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return normalize(torch.linspace(-1, 2, dim, dtype=dtype), dim=0)


def tensor(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@cache
def angle_law(dim: int, kappa: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """theta, density and CDF of the angle between z and mu, on a grid zoomed onto the mass."""
    low, high = 0.0, math.pi
    for _ in range(6):
        theta = np.linspace(low, high, 8001)
        with np.errstate(divide="ignore"):
            sine = (dim - 2) * np.log(np.sin(theta)) if dim > 2 else 0.0
        log_density = sine - 2 * kappa * np.sin(theta / 2) ** 2
        log_density -= log_density.max()
        kept = np.flatnonzero(log_density > -60)
        low, high = theta[max(kept[0] - 1, 0)], theta[min(kept[-1] + 1, 8000)]
    density = np.exp(log_density)
    cdf = cumulative_simpson(density, x=theta, initial=0)
    return theta, density / cdf[-1], cdf / cdf[-1]


def one_minus_cosines(dim: int, kappa: float, n: int, through_samples: bool) -> np.ndarray:
    """1 - mu^T z of n float64 samples; `test_rsample_is_the_angle_map` ties the two ways."""
    chunk = max(1000, 500_000 // dim) if through_samples else 100_000
    law, parts = VonMisesFisher(direction(dim), kappa), []
    for start in range(0, n, chunk):
        m = min(chunk, n - start)
        if through_samples:
            parts.append(((law.sample((m,)) - law.loc) ** 2).sum(-1) / 2)
        else:
            theta = vmf._angle(dim, tensor(kappa), torch.randn(m, dtype=torch.float64))
            parts.append(2 * torch.sin(theta / 2) ** 2)
    return torch.cat(parts).numpy()


def wood_cosines(dim: int, kappa: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """n samples of w = mu^T z by rejection from a beta envelope (Ulrich, 1984; Wood, 1994).

    b = (d-1) / (2 kappa + sqrt(4 kappa^2 + (d-1)^2)) is Wood's b without its cancellation.
    """
    m = dim - 1
    b = m / (2 * kappa + np.hypot(2 * kappa, m))
    x0 = (1 - b) / (1 + b)
    c = kappa * x0 + m * np.log1p(-x0 * x0)
    accepted: list[np.ndarray] = []
    missing = n
    while missing > 0:
        beta = rng.beta(m / 2, m / 2, missing)
        w = (1 - (1 + b) * beta) / (1 - (1 - b) * beta)
        keep = kappa * w + m * np.log1p(-x0 * w) - c >= np.log(rng.uniform(size=missing))
        accepted.append(w[keep])
        missing -= int(keep.sum())
    return np.concatenate(accepted)


# --- the law of the samples -----------------------------------------------------------------------


@pytest.mark.parametrize("dim", DIMS)
def test_angle_map_is_the_transport(dim: int) -> None:
    """sup |F(theta(eps, kappa)) - Phi(eps)|: the exact Kolmogorov distance of the sampler's law."""
    eps = torch.linspace(-6, 6, 1501, dtype=torch.float64)
    for kappa in (0.0, *KAPPAS, 0.03 * dim, 0.3 * dim, 0.7 * dim, 2.3 * dim, 9.0 * dim, 1e8):
        theta, _, cdf = angle_law(dim, kappa)
        law = np.interp(vmf._angle(dim, tensor(kappa), eps).numpy(), theta, cdf)
        assert np.abs(law - ndtr(eps.numpy())).max() < 2e-6, kappa


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", DIMS)
def test_rsample_is_the_angle_map(dim: int, dtype: torch.dtype) -> None:
    law = VonMisesFisher(direction(dim, dtype), torch.tensor(KAPPAS, dtype=dtype)).expand((50, 10))
    torch.manual_seed(1)
    z = law.rsample()
    torch.manual_seed(1)
    theta = vmf._angle(dim, law.concentration, torch.randn(law.batch_shape, dtype=dtype))
    eps = torch.finfo(dtype).eps
    chord = (z - law.loc).norm(dim=-1)
    torch.testing.assert_close(chord, 2 * torch.sin(theta / 2).abs(), rtol=20 * eps, atol=4 * eps)


@pytest.mark.slow
@pytest.mark.parametrize("dim", DIMS)
def test_samples_follow_the_law(dim: int) -> None:
    """Kolmogorov-Smirnov of 200,000 draws, and the mean resultant length of a million within 4 sigma."""
    torch.manual_seed(dim)
    p_values, sigmas = {}, {}
    for kappa in KAPPAS:
        y = one_minus_cosines(dim, kappa, 1_000_000, through_samples=dim <= 6)
        theta, density, cdf = angle_law(dim, kappa)
        angles = 2 * np.arcsin(np.sqrt(y[:200_000] / 2).clip(0, 1))
        p_values[kappa] = stats.kstest(angles, lambda x: np.interp(x, theta, cdf)).pvalue
        spread = 2 * np.sin(theta / 2) ** 2
        mean = simpson(spread * density, x=theta)
        assert ratio_complement(dim, tensor(kappa)).item() == pytest.approx(mean, rel=1e-7)
        deviation = math.sqrt(simpson((spread - mean) ** 2 * density, x=theta) / len(y))
        sigmas[kappa] = abs(y.mean() - mean) / deviation
    assert min(p_values.values()) > 1e-6, p_values
    assert max(sigmas.values()) < 4, sigmas


@pytest.mark.parametrize(("dim", "kappa"), [(2, 0.5), (3, 8.0), (10, 3.0), (50, 20.0), (100, 12.0)])
def test_same_law_as_rejection_sampling(dim: int, kappa: float) -> None:
    torch.manual_seed(0)
    y = one_minus_cosines(dim, kappa, 50_000, through_samples=False)
    wood = wood_cosines(dim, kappa, 50_000, np.random.default_rng(0))
    assert stats.ks_2samp(1 - y, wood).pvalue > 1e-4


@pytest.mark.parametrize("dim", [2, 3, 6])
def test_moments_of_the_direction(dim: int) -> None:
    """E z = A mu and E z z^T = (A/kappa) I + (1 - d A/kappa) mu mu^T, each entry within 5 sigma."""
    torch.manual_seed(3)
    n, kappa = 400_000, 2.5
    law = VonMisesFisher(direction(dim), kappa)
    z = law.sample((n,))
    a = law.mean_resultant_length
    outer = a / kappa * torch.eye(dim) + (1 - dim * a / kappa) * torch.outer(law.loc, law.loc)
    assert ((z.mean(0) - law.mean).abs() < 5 * z.std(0) / n**0.5).all()
    products = z.unsqueeze(-1) * z.unsqueeze(-2)
    assert ((products.mean(0) - outer).abs() < 5 * products.std(0) / n**0.5).all()


def test_zero_concentration_is_uniform() -> None:
    eps = torch.linspace(-5, 5, 101, dtype=torch.float64)
    exact = 2 * torch.arcsin(torch.tensor(ndtr(eps.numpy())).sqrt())  # d = 3: (1 - w)/2 is uniform
    torch.testing.assert_close(vmf._angle(3, tensor(0.0), eps), exact, rtol=0, atol=1e-6)
    for dim in DIMS:
        law, uniform = VonMisesFisher(direction(dim), 0.0), HypersphericalUniform(dim)
        z = uniform.sample((5,)).double()
        z = normalize(z, dim=-1)
        assert (law.log_prob(z) == uniform.log_prob(z)).all()
        assert kl_divergence(law, uniform) == 0 and (law.mean == 0).all()
        assert law.entropy().item() == pytest.approx(uniform.entropy().item())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [2, 3, 10, 100])
def test_on_the_sphere_everywhere(dim: int, dtype: torch.dtype) -> None:
    """| |z| - 1 | <= 1e-6 and mu^T z = cos(theta), at and near +-e1 as elsewhere."""
    e1 = torch.eye(dim, dtype=dtype)[0]
    off = normalize(torch.arange(dim, dtype=dtype), dim=0)
    steps = (0, 1e-8, 1e-6, 1e-4, 1e-2)
    near = [sign * normalize(e1 + h * off, dim=0) for sign in (1, -1) for h in steps]
    kappas = torch.tensor([0.0, 1, 30, 1e4, 1e8], dtype=dtype).view(-1, 1, 1)
    locs = torch.stack([*near, direction(dim, dtype)])
    law = VonMisesFisher(locs, kappas.expand(-1, 1000, len(locs)))
    torch.manual_seed(0)
    z = law.rsample()
    torch.manual_seed(0)
    theta = vmf._angle(dim, law.concentration, torch.randn(law.batch_shape, dtype=dtype))
    assert ((z.double().norm(dim=-1) - 1).abs() <= 1e-6).all()
    assert ((z * law.loc).sum(-1) - torch.cos(theta)).abs().max() <= 1e-6


# --- gradients ------------------------------------------------------------------------------------


def network(along: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
    """A small tanh network whose units look along mu and one tangent direction."""
    weights = (2.0, 1.0, 0.3), (-1.0, 2.0, -0.5), (1.5, -2.0, 0.8)
    units = (torch.tanh(a * along + b * across + c) for a, b, c in weights)
    return sum(v * unit for v, unit in zip((1.0, 0.5, 0.8), units, strict=True))


FUNCTIONS = {
    "linear": lambda along, across: 0.7 * along + 0.3 * across,
    "quadratic": lambda along, across: along**2 + along * across + 0.2 * across**2,
    "network": network,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dim", [2, 3, 6, 10, 50])
def test_gradient_in_kappa_is_unbiased(dim: int, name: str) -> None:
    """The pathwise d/dkappa, averaged over the noise by quadrature: Cov(f, w) = dE[f]/dkappa.

    f sees mu^T z = cos(theta) and one tangent coordinate sin(theta) t, t ~ (1 - t^2)^{(d-4)/2}.
    """
    if dim == 2:
        t, weights = np.array([-1.0, 1.0]), np.ones(2)
    else:
        t, weights = roots_jacobi(40, (dim - 4) / 2, (dim - 4) / 2)
    t, weights = torch.tensor(t), torch.tensor(weights / weights.sum())
    eps = torch.linspace(-8, 8, 8001, dtype=torch.float64)
    normal = torch.exp(-(eps**2) / 2) * (eps[1] - eps[0]) / math.sqrt(2 * math.pi)

    def average(theta: torch.Tensor) -> torch.Tensor:  # over t
        along, across = torch.cos(theta)[:, None], torch.sin(theta)[:, None] * t
        return FUNCTIONS[name](along, across) @ weights

    for kappa in (0.01, 0.5, 2.0, 11.0, 60.0, 1e3, 1e5):
        k = tensor(kappa).requires_grad_()
        (pathwise,) = torch.autograd.grad(normal @ average(vmf._angle(dim, k, eps)), k)
        theta, density, _ = (torch.tensor(x) for x in angle_law(dim, kappa))
        centred = 2 * torch.sin(theta / 2) ** 2
        centred = centred - simpson(centred * density, x=theta)
        f = average(theta)
        exact = -simpson((f - f[0]) * centred * density, x=theta)
        assert pathwise.item() == pytest.approx(exact, rel=1e-4), kappa


@pytest.mark.parametrize("dim", [2, 3, 6, 50])
def test_gradients_through_rsample(dim: int) -> None:
    """E[a^T z] = A a^T mu: d/dkappa = A' a^T mu and, turning mu, d/dmu = A a, within 5 sigma."""
    torch.manual_seed(5)
    n, kappa, a = 100_000, 4.0, direction(dim).flip(0)
    raw = direction(dim).expand(n, dim).clone().requires_grad_()
    k = torch.full((n,), kappa, dtype=torch.float64, requires_grad=True)
    (VonMisesFisher(normalize(raw, dim=-1), k).rsample() @ a).sum().backward()
    one = tensor(kappa).requires_grad_()
    ratio = bessel_ratio(dim, one)
    (slope,) = torch.autograd.grad(ratio, one)
    mu = direction(dim)
    turning = ratio.detach() * (a - mu * (a @ mu))
    for sample, exact in ((k.grad, slope * (a @ mu)), (raw.grad, turning)):
        error = (sample.mean(0) - exact).abs()
        assert (error <= 5 * sample.std(0) / n**0.5 + 1e-12).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [2, 3, 10, 1000])
def test_finite_gradients_at_the_extremes(dim: int, dtype: torch.dtype) -> None:
    raw = torch.eye(dim, dtype=dtype)[:1].repeat(5, 1).requires_grad_()
    k = torch.tensor([0.0, 1e-30, 1.0, 1e8, 1e30], dtype=dtype, requires_grad=True)
    law = VonMisesFisher(normalize(raw, dim=-1), k)
    z = law.rsample((100,))
    other = VonMisesFisher(law.loc.flip(-1), k.flip(0))
    for value in (
        z,
        law.log_prob(z.detach()),
        law.entropy(),
        law.mean,
        kl_divergence(law, HypersphericalUniform(dim)),
        kl_divergence(law, other),
    ):
        assert value.isfinite().all()
        grads = torch.autograd.grad(value.sum(), (raw, k), retain_graph=True, allow_unused=True)
        assert all(g is None or g.isfinite().all() for g in grads)


# --- densities, entropies, divergences ------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 3, 6, 20])
@pytest.mark.parametrize("kappa", [0.1, 3.0, 50.0])
def test_density_and_entropy_against_scipy(dim: int, kappa: float) -> None:
    mu = direction(dim)
    law, reference = VonMisesFisher(mu, kappa), stats.vonmises_fisher(mu.numpy(), kappa)
    z = torch.tensor(reference.rvs(20, random_state=np.random.default_rng(0))).reshape(20, dim)
    np.testing.assert_allclose(law.log_prob(z), reference.logpdf(z.numpy()), rtol=1e-11, atol=1e-11)
    assert law.entropy().item() == pytest.approx(float(reference.entropy()), rel=1e-10)


@pytest.mark.parametrize("dim", [2, 3, 4, 10, 50])
@pytest.mark.parametrize("kappa", [0.0, 2.0, 80.0])
def test_density_of_the_cosine(dim: int, kappa: float) -> None:
    """p(w) dw = density of theta, whose normalisation is computed here by quadrature."""
    theta, density, _ = angle_law(dim, kappa)
    inside = slice(1, -1)
    w = torch.cos(torch.tensor(theta[inside]))
    log_p = VonMisesFisher(direction(dim), kappa).log_prob_cosine(w).numpy()
    ours = np.exp(log_p) * np.sin(theta[inside])
    np.testing.assert_allclose(ours, density[inside], rtol=1e-6, atol=1e-9 * density.max())


def reference(dim: int, kappa: float) -> tuple[mpmath.mpf, mpmath.mpf, mpmath.mpf]:
    """L, A and the log of the sphere's area, with digits to spare."""
    order, k = mpmath.mpf(dim) / 2 - 1, mpmath.mpf(kappa)
    bessel = mpmath.besseli(order, k)
    log_mgf = mpmath.log(mpmath.gamma(order + 1) * (2 / k) ** order * bessel)
    area = mpmath.log(2 * mpmath.pi ** (order + 1) / mpmath.gamma(order + 1))
    return log_mgf, mpmath.besseli(order + 1, k) / bessel, area


@pytest.mark.parametrize("dim", [2, 3, 6, 10, 100, 500])
def test_float32_rounds_the_result_alone(dim: int) -> None:
    """Within 3e-7 of max(1, |value|) of the exact value at the float32 arguments."""
    torch.manual_seed(dim)
    kappas = [0.01, 0.7, 0.3 * dim, 0.7 * dim, 3.0 * dim, 1e3, 1e4, 1e6]
    law = VonMisesFisher(normalize(torch.randn(8, dim), dim=-1), torch.tensor(kappas))
    other = VonMisesFisher(normalize(law.loc + torch.randn(8, dim) / dim, dim=-1), law.concentration.flip(0))
    z = torch.stack([law.sample(), normalize(torch.randn(8, dim), dim=-1)])
    w = torch.stack([1 - 0.9 * dim / (dim + 2 * law.concentration), 2 * torch.rand(8) - 1])
    exact: dict[str, list] = {"log_prob": [], "cosine": [], "entropy": [], "vmf": [], "from": [], "to": []}
    with mpmath.workdps(60):
        for i, (k, kq) in enumerate(zip(law.concentration.tolist(), other.concentration.tolist(), strict=True)):
            mgf, a, area = reference(dim, k)
            mgf_q = reference(dim, kq)[0]

            def half_square(x: torch.Tensor, y: torch.Tensor) -> mpmath.mpf:  # 1 - x^T y of rounded unit vectors
                return mpmath.fsum((mpmath.mpf(u) - v) ** 2 for u, v in zip(x.tolist(), y.tolist(), strict=True)) / 2

            beta = mpmath.log(mpmath.beta(0.5, mpmath.mpf(dim - 1) / 2))
            power = mpmath.mpf(dim - 3) / 2
            exact["log_prob"] += [k * (1 - half_square(x[i], law.loc[i])) - mgf - area for x in z]
            exact["cosine"] += [
                k * c - mgf + power * mpmath.log(1 - mpmath.mpf(c) ** 2) - beta for c in w[:, i].tolist()
            ]
            exact["entropy"].append(area - k * a + mgf)
            turn = half_square(law.loc[i], other.loc[i])
            exact["vmf"].append(k * a - mgf + mgf_q - kq * a * (1 - turn))
            exact["to"].append(k * a - mgf)
            exact["from"].append(mgf)
    uniform = HypersphericalUniform(dim)
    ours = {
        "log_prob": law.log_prob(z).T,
        "cosine": law.log_prob_cosine(w).T,
        "entropy": law.entropy(),
        "vmf": kl_divergence(law, other),
        "to": kl_divergence(law, uniform),
        "from": kl_divergence(uniform, law),
    }
    for name, values in ours.items():
        assert values.dtype == torch.float32
        right = torch.tensor([float(x) for x in exact[name]], dtype=torch.float64)
        error = (values.flatten() - right).abs() / right.abs().clamp(min=1)
        assert error.max() <= 3e-7, (name, error)


def test_log_prob_in_float32_at_high_concentration() -> None:
    torch.manual_seed(0)
    law = VonMisesFisher(direction(6), 1e6)
    z = law.sample((1000,))
    single = VonMisesFisher(law.loc.float(), 1e6).log_prob(z.float())
    # |z - mu| = 2e-3 carries 1e-4 of rounding from z itself; kappa |z - mu|^2 / 2 is about 2.5.
    assert (single - law.log_prob(z)).abs().max() < 5e-3


@pytest.mark.parametrize("dim", [2, 3, 10])
def test_kl_between_two_laws(dim: int) -> None:
    """Against E_p[log p - log q] by quadrature over the angle; the tangent part averages out."""
    p = VonMisesFisher(direction(dim), tensor(7.0))
    m = p.loc
    for kappa, mu in ((0.0, m), (3.0, -m), (7.0, m), (40.0, m.flip(0)), (1e4, m)):
        q = VonMisesFisher(mu, tensor(kappa))
        theta, density, _ = (torch.tensor(x) for x in angle_law(dim, 7.0))
        mean = simpson(torch.cos(theta) * density, x=theta) * p.loc
        level = [law.log_prob(law.loc) - law.concentration for law in (p, q)]  # log C
        exact = level[0] - level[1] + (p.concentration * p.loc - kappa * mu) @ mean
        assert kl_divergence(p, q).item() == pytest.approx(exact.item(), rel=1e-8, abs=1e-12)
    uniform = kl_divergence(p, HypersphericalUniform(dim)).item()
    assert kl_divergence(p, VonMisesFisher(p.loc, 0.0)).item() == pytest.approx(uniform, rel=1e-13)


@pytest.mark.parametrize("dim", [2, 3, 10])
def test_kl_from_the_uniform_law(dim: int) -> None:
    """Against E_u[log u - log q] by quadrature over the uniform law's angle."""
    uniform, q = HypersphericalUniform(dim), VonMisesFisher(direction(dim), torch.tensor([0.0, 0.1, 7, 300]).double())
    theta, density, _ = (torch.tensor(x) for x in angle_law(dim, 0.0))
    z = torch.cos(theta)[:, None] * q.loc[0] + torch.sin(theta)[:, None] * vmf._tangent(q.loc[0], torch.Size([1]))
    ratio = uniform.log_prob(z)[:, None] - q.expand((len(z), 4)).log_prob(z[:, None])
    exact = simpson(ratio * density[:, None], x=theta, axis=0)
    np.testing.assert_allclose(kl_divergence(uniform, q), exact, rtol=1e-7, atol=1e-12)
    assert kl_divergence(uniform, q)[0] == 0
    nothing = kl_divergence(HypersphericalUniform(dim, (3, 1)), HypersphericalUniform(dim, (2,)))
    assert torch.equal(nothing, torch.zeros(3, 2))


@pytest.mark.parametrize("dim", [2, 3, 10, 100])
def test_variance(dim: int) -> None:
    """Its sum is 1 - A^2; along mu it is A', across A / kappa; samples agree."""
    torch.manual_seed(dim)
    k = torch.tensor([0.0, 1e-3, 2.5, 40, 1e6], dtype=torch.float64, requires_grad=True)
    a = bessel_ratio(dim, k)
    law = VonMisesFisher(direction(dim), k.detach())
    assert law.variance.sum(-1).tolist() == pytest.approx(((1 + a) * ratio_complement(dim, k)).tolist(), rel=1e-12)
    variance = VonMisesFisher(torch.eye(dim, dtype=torch.float64)[0], k.detach()).variance
    assert torch.equal(variance[:, 0], torch.autograd.grad(a.sum(), k)[0])
    np.testing.assert_allclose(variance[1:, 1], (a / k)[1:].detach(), rtol=1e-14)
    np.testing.assert_allclose(variance[0], 1 / dim, rtol=1e-14)
    z = law.sample((20_000,))
    squares = (z - law.mean) ** 2
    assert ((squares.mean(0) - law.variance).abs() < 5 * squares.std(0) / len(z) ** 0.5).all()
    uniform = HypersphericalUniform(dim, (3,))
    assert torch.equal(uniform.mean, torch.zeros(3, dim)) and torch.equal(
        uniform.variance, torch.full((3, dim), 1 / dim)
    )


@pytest.mark.parametrize("dim", [2, 3, 10, 50])
@pytest.mark.parametrize("probability", [0.01, 0.5, 0.9, 0.999])
def test_cap_angle(dim: int, probability: float) -> None:
    """Against the CDF by quadrature, scipy's von Mises on the circle, and the share of the samples inside."""
    torch.manual_seed(0)
    kappas = torch.tensor([0.0, 0.3, 4.0, 100, 1e5], dtype=torch.float64)
    law = VonMisesFisher(direction(dim), kappas)
    angles = law.cap_angle(probability)
    assert angles.shape == (5,) and angles[0] <= 180 and (angles.diff() < 0).all()
    for kappa, degrees in zip(kappas.tolist(), angles.tolist(), strict=True):
        theta, _, cdf = angle_law(dim, kappa)
        assert np.interp(math.radians(degrees), theta, cdf) == pytest.approx(probability, abs=2e-6)
        if dim == 2 and 0 < kappa <= 100:
            assert degrees == pytest.approx(np.degrees(stats.vonmises.interval(probability, kappa)[1]), rel=1e-3)
    inside = (law.sample((20_000,)) - law.loc).norm(dim=-1) <= 2 * torch.sin(torch.deg2rad(angles) / 2)
    deviation = math.sqrt(probability * (1 - probability) / len(inside))
    assert ((inside.double().mean(0) - probability).abs() < 5 * deviation).all()
    single = VonMisesFisher(law.loc.float(), kappas.float()).cap_angle(probability)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), angles, rtol=1e-6, atol=0)
    slope = lambda k: VonMisesFisher(law.loc[1:], k).cap_angle(probability)  # noqa: E731
    assert torch.autograd.gradcheck(slope, kappas[1:].requires_grad_(), rtol=1e-5)


@pytest.mark.parametrize("probability", [0, 1, -0.5, 90, math.nan])
def test_cap_angle_of_no_probability(probability: float) -> None:
    with pytest.raises(ValueError, match=f"between 0 and 1, got {probability}"):
        VonMisesFisher(direction(2), 1.0).cap_angle(probability)


# --- maximum likelihood ---------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 3, 10])
def test_fit_against_scipy(dim: int) -> None:
    torch.manual_seed(dim)
    kappas = torch.tensor([0.5, 3, 40, 1e4], dtype=torch.float64)
    samples = VonMisesFisher(direction(dim), kappas).sample((500,))
    law = VonMisesFisher.fit(samples)
    assert law.batch_shape == (4,) and law.concentration.dtype == torch.float64
    for i in range(4):
        mu, kappa = stats.vonmises_fisher.fit(samples[:, i].numpy())
        np.testing.assert_allclose(law.loc[i], mu, atol=1e-12)
        assert law.concentration[i].item() == pytest.approx(kappa, rel=1e-6)
        alone = VonMisesFisher.fit(samples[:, i])
        assert alone.concentration.item() == pytest.approx(law.concentration[i].item(), rel=1e-12)
    torch.testing.assert_close(law.mean, samples.mean(0), rtol=0, atol=1e-14)  # the score equation
    single = VonMisesFisher.fit(samples.float())
    assert single.loc.dtype == torch.float32
    torch.testing.assert_close(single.concentration.double(), law.concentration, rtol=1e-4, atol=0)
    half = VonMisesFisher.fit(samples.bfloat16())
    assert half.concentration.dtype == torch.float32
    torch.testing.assert_close(half.concentration[:3].double(), law.concentration[:3], rtol=0.02, atol=0)


def test_fit_at_its_limits() -> None:
    z = direction(4)
    law = VonMisesFisher.fit(torch.stack([z, -z]))
    assert law.concentration == 0 and torch.equal(law.loc, torch.eye(4, dtype=torch.float64)[0])
    torch.manual_seed(0)
    for kappa in (1e8, 1e12):  # 1 - |mean| has no digits left here, the spread has
        law = VonMisesFisher.fit(VonMisesFisher(z, kappa).sample((10_000,)))
        assert law.concentration.item() == pytest.approx(kappa, rel=0.05)
    with pytest.raises(ValueError, match="expected samples that differ"):
        VonMisesFisher.fit(torch.stack([z.expand(1000, 4), VonMisesFisher(z, 1.0).sample((1000,))], dim=1))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (torch.eye(3)[:1], r"N >= 2 and d >= 2, got torch.float32 of shape \[1, 3\]"),
        (torch.eye(3)[0], r"got torch.float32 of shape \[3\]"),
        (torch.ones(5, 1), r"got torch.float32 of shape \[5, 1\]"),
        (torch.eye(3, dtype=torch.int64), "got torch.int64"),
        (np.eye(3), "got ndarray"),
        (2 * torch.eye(3), "length 1, got one of length 2"),
        (torch.full((4, 3), math.nan), "length 1, got one of length nan"),
    ],
)
def test_fit_of_bad_samples(samples: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VonMisesFisher.fit(samples)


def test_sphere_areas() -> None:
    areas = [math.exp(log_sphere_area(d)) for d in range(2, 30)]
    assert areas[:3] == pytest.approx([2 * math.pi, 4 * math.pi, 2 * math.pi**2])
    assert 2 + int(np.argmax(areas)) == 7


# --- a torch distribution -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_shapes_and_dtypes(dtype: torch.dtype) -> None:
    loc = normalize(torch.randn(4, 1, 5, dtype=dtype), dim=-1)
    law = VonMisesFisher(loc, torch.rand(4, 3, dtype=dtype))
    assert (law.batch_shape, law.event_shape, law.has_rsample) == ((4, 3), (5,), True)
    z = law.rsample((2, 7))
    assert z.shape == (2, 7, 4, 3, 5) and z.dtype == dtype and law.support.check(z).all()
    for value in (law.log_prob(z)[0, 0], law.entropy(), law.mean_resultant_length):
        assert value.shape == (4, 3) and value.dtype == dtype
    assert law.mean.shape == law.mode.shape == (4, 3, 5) and law.mean.dtype == dtype
    assert law.log_prob_cosine(z[..., 0]).shape == (2, 7, 4, 3)
    wide = law.expand((6, 4, 3))
    assert wide.rsample().shape == (6, 4, 3, 5) and wide.log_prob(z[0, 0]).shape == (6, 4, 3)
    uniform = HypersphericalUniform(5, (3,), dtype=dtype)
    assert uniform.expand((4, 3)).rsample((2,)).shape == (2, 4, 3, 5)
    assert uniform.entropy().shape == (3,) and uniform.entropy().dtype == dtype
    assert kl_divergence(law, uniform).shape == (4, 3) == kl_divergence(law, law).shape
    assert VonMisesFisher(torch.eye(3)[0], 2).rsample().shape == (3,)
    assert VonMisesFisher(torch.eye(3)[:0], torch.ones(0)).rsample().shape == (0, 3)


def test_random_state() -> None:
    law = VonMisesFisher(direction(11), 3.0)
    torch.manual_seed(7)
    first = law.sample((5,))
    torch.manual_seed(7)
    assert torch.equal(first, law.rsample((5,)))
    state = torch.get_rng_state()
    vmf._transport_table(123, torch.device("cpu"))
    assert torch.equal(state, torch.get_rng_state())


def test_threads_meet_at_one_table() -> None:
    law = VonMisesFisher(direction(77), 5.0)
    with ThreadPoolExecutor(8) as pool:
        samples = list(pool.map(lambda _: law.sample((10,)), range(16)))
    assert all(((z.norm(dim=-1) - 1).abs() < 1e-12).all() for z in samples)


def test_pickle_and_deepcopy() -> None:
    for law in (VonMisesFisher(direction(4), 2.0), HypersphericalUniform(4, (2,))):
        for twin in (pickle.loads(pickle.dumps(law)), copy.deepcopy(law)):
            torch.manual_seed(0)
            z = law.sample((3,))
            torch.manual_seed(0)
            assert torch.equal(z, twin.sample((3,))) and repr(law) == repr(twin)


def test_a_table_built_in_inference_mode_serves_training() -> None:
    with torch.inference_mode():
        VonMisesFisher(direction(31), 5.0).sample()
    k = tensor(5.0).requires_grad_()
    VonMisesFisher(direction(31), k).rsample().sum().backward()
    assert k.grad.isfinite()


def training_step(raw: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    law = VonMisesFisher(normalize(raw, dim=-1), softplus(k))
    z = law.rsample()
    kl = kl_divergence(law, HypersphericalUniform(raw.shape[-1]))
    return (z**2).sum() + (kl + law.entropy()).mean() + law.log_prob(z).mean()


@pytest.mark.slow
def test_compiles_as_one_graph_for_several_dimensions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Distribution, "_validate_args", True)  # torch.compile clears it for good
    torch._dynamo.reset()
    compiled = torch.compile(training_step, fullgraph=True, backend="aot_eager")
    for dim in (6, 40):
        grads = []
        for step in (training_step, compiled):
            torch.manual_seed(dim)
            raw, k = torch.randn(9, dim, requires_grad=True), torch.randn(9, requires_grad=True)
            grads.append(torch.autograd.grad(step(raw, k), (raw, k)))
        torch.testing.assert_close(grads[0], grads[1])


def test_vmap_and_grad_transforms() -> None:
    locs, ks = normalize(torch.randn(7, 4), dim=-1), torch.rand(7) * 9

    def loss(k: torch.Tensor, mu: torch.Tensor) -> torch.Tensor:
        law = VonMisesFisher(mu, k, validate_args=False)
        return kl_divergence(law, HypersphericalUniform(4)) + 0 * law.rsample().sum()

    slopes = torch.func.vmap(torch.func.grad(loss), randomness="different")(ks, locs)
    k = ks.clone().requires_grad_()
    kl = kl_divergence(VonMisesFisher(locs, k), HypersphericalUniform(4))
    torch.testing.assert_close(slopes, torch.autograd.grad(kl.sum(), k)[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_back_and_is_not_computed_in(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    eps = torch.finfo(dtype).eps
    loc, k = normalize(torch.randn(50, 8), dim=-1).to(dtype), (1 + 99 * torch.rand(50)).to(dtype)
    law, wide = VonMisesFisher(loc, k), VonMisesFisher(normalize(loc.float(), dim=-1), k.float())
    prior = HypersphericalUniform(8, dtype=dtype)
    for name in ("mean", "variance", "mean_resultant_length"):
        torch.testing.assert_close(getattr(law, name), getattr(wide, name).to(dtype), rtol=2 * eps, atol=0)
    pairs = [(f(law), f(wide)) for f in (lambda p: p.cap_angle(0.9), lambda p: p.entropy())]
    pairs += [(kl_divergence(a, b), kl_divergence(c, b)) for a, b, c in ((law, prior, wide), (law, law, wide))]
    pairs += [(kl_divergence(prior, law), kl_divergence(prior, wide))]
    z = law.rsample((1000,))
    pairs += [(law.log_prob(z), wide.log_prob(normalize(z.float(), dim=-1)))]
    for ours, right in pairs:  # one rounding
        torch.testing.assert_close(ours, right.to(dtype), rtol=eps, atol=1e-6)
    for samples in (z, prior.sample((1000,))):
        assert samples.dtype == dtype and law.support.check(samples).all()
        assert ((samples.float().norm(dim=-1) - 1).abs() <= eps).all()
    error = (z.double().mean(0) - wide.mean.double()).norm(dim=-1)  # its square is 1 - A^2 over 1000 on average
    assert (error < 5 * (1 - wide.mean_resultant_length**2).sqrt() / 1000**0.5 + eps).all()
    mixed = VonMisesFisher(loc, k.float()).rsample()
    assert mixed.dtype == torch.float32 and ((mixed.norm(dim=-1) - 1).abs() <= 1e-6).all()
    with pytest.raises(ValueError, match="UnitSphere"):
        VonMisesFisher(2 * loc, k)
    with pytest.raises(ValueError, match="UnitSphere"):
        VonMisesFisher(2 * loc, k.float())


def test_autocast_leaves_the_law_alone() -> None:
    loc, k = normalize(torch.randn(50, 8), dim=-1), torch.rand(50) * 9
    for dtype in DTYPES:
        law = VonMisesFisher(loc.to(dtype), k.to(dtype))
        right = kl_divergence(law, HypersphericalUniform(8))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z, kl = law.rsample(), kl_divergence(law, HypersphericalUniform(8))
        assert z.dtype == dtype and torch.equal(kl, right) and ((z.norm(dim=-1) - 1).abs() <= 1e-6).all()


def test_the_uniform_law_moves() -> None:
    law = HypersphericalUniform(3, (2,))
    for moved in (law.to(torch.float64), law.to(torch.ones(1).double()), HypersphericalUniform(3, (2,), torch.float64)):
        for value in (moved.sample(), moved.mean, moved.variance, moved.entropy(), kl_divergence(moved, moved)):
            assert value.dtype == torch.float64 and value.shape[0] == 2
    for moved in (law.to("meta"), law.to(device="meta"), HypersphericalUniform(3, (2,), device="meta")):
        assert moved.sample().device.type == "meta" and moved.expand((4, 2)).sample().device.type == "meta"
    assert law.sample().dtype == torch.float32  # `to` makes another law


# --- bad input ------------------------------------------------------------------------------------


@given(st.floats(max_value=0, exclude_max=True) | st.sampled_from([math.nan, math.inf, -math.inf]))
def test_bad_concentration(kappa: float) -> None:
    with pytest.raises(ValueError, match="parameter concentration"):
        VonMisesFisher(direction(3), tensor(kappa))


@given(st.floats(0, 0.99998) | st.floats(1.00002, 1e6) | st.sampled_from([math.nan, math.inf]))
def test_bad_length(length: float) -> None:
    with pytest.raises(ValueError, match="parameter loc"):
        VonMisesFisher(torch.eye(3, dtype=torch.float64)[1] * length, 1.0)
    with pytest.raises(ValueError, match="value argument"):
        VonMisesFisher(direction(3), 1.0).log_prob(torch.eye(3, dtype=torch.float64)[1] * length)


@pytest.mark.parametrize(
    ("loc", "kappa", "message"),
    [
        (torch.ones(5, 1), torch.ones(5), r"d >= 2, got torch.float32 of shape \[5, 1\]"),
        (torch.tensor(1.0), 1.0, r"d >= 2, got torch.float32 of shape \[\]"),
        (torch.tensor([1, 0]), 1.0, "got torch.int64"),
        (np.eye(3), 1.0, "got ndarray"),
        (torch.eye(3), torch.ones(3, 1), r"concentration of shape \[3\].*got \[3, 1\]"),
        (torch.eye(3), torch.ones(2), r"concentration of shape \[3\].*got \[2\]"),
    ],
)
def test_bad_shapes(loc: torch.Tensor, kappa: torch.Tensor | float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VonMisesFisher(loc, kappa)


def test_different_spheres() -> None:
    law = VonMisesFisher(direction(3), 1.0)
    for other in (HypersphericalUniform(4), VonMisesFisher(direction(4), 1.0)):
        for one in (law, HypersphericalUniform(3)):
            with pytest.raises(ValueError, match=r"same sphere, got event shapes \[3\] and \[4\]"):
                kl_divergence(one, other)
    with pytest.raises(ValueError, match="expected a dimension d >= 2, got 2.5"):
        HypersphericalUniform(2.5)
    assert HypersphericalUniform(3.0).event_shape == (3,)
    with pytest.raises(ValueError, match="expected a dimension d >= 2, got 1"):
        HypersphericalUniform(1)
