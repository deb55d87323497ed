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
from functools import lru_cache

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
from gvae_core.bench.vmf import wood_cosines
from gvae_core.bessel import bessel_ratio, ratio_complement
from gvae_core.vmf import HypersphericalUniform, VonMisesFisher, log_sphere_area

DIMS = (2, 3, 4, 6, 10, 20, 50, 100, 500, 1000)
KAPPAS = (1e-6, 1e-3, 0.1, 1.0, 10.0, 1e2, 1e3, 1e4, 1e5, 1e6)
DTYPES = (torch.float32, torch.float64)


def direction(dim: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return normalize(torch.linspace(-1, 2, dim, dtype=dtype), dim=0)


def tensor(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@lru_cache(maxsize=None)
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
def test_kolmogorov_smirnov(dim: int) -> None:
    torch.manual_seed(dim)
    p_values = {}
    for kappa in KAPPAS:
        theta, _, cdf = angle_law(dim, kappa)
        y = one_minus_cosines(dim, kappa, 200_000, through_samples=dim <= 50)
        angles = 2 * np.arcsin(np.sqrt(y / 2).clip(0, 1))
        p_values[kappa] = stats.kstest(angles, lambda x: np.interp(x, theta, cdf)).pvalue
    assert min(p_values.values()) > 1e-6, p_values


@pytest.mark.slow
@pytest.mark.parametrize("dim", DIMS)
def test_mean_resultant(dim: int) -> None:
    torch.manual_seed(dim)
    sigmas = {}
    for kappa in KAPPAS:
        y = one_minus_cosines(dim, kappa, 1_000_000, through_samples=dim <= 6)
        theta, density, _ = angle_law(dim, kappa)
        spread = 2 * np.sin(theta / 2) ** 2
        mean = simpson(spread * density, x=theta)
        assert ratio_complement(dim, tensor(kappa)).item() == pytest.approx(mean, rel=1e-7)
        deviation = math.sqrt(simpson((spread - mean) ** 2 * density, x=theta) / len(y))
        sigmas[kappa] = abs(y.mean() - mean) / deviation
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


def test_half_precision_is_promoted() -> None:
    loc, k = normalize(torch.randn(50, 8), dim=-1), torch.rand(50) * 9
    with torch.autocast("cpu", dtype=torch.bfloat16):
        full = kl_divergence(VonMisesFisher(loc.double(), k.double()), HypersphericalUniform(8))
        law = VonMisesFisher(loc.bfloat16(), k.bfloat16())
        z = law.rsample()
    assert full.dtype == torch.float64 and z.dtype == law.entropy().dtype == torch.float32
    assert ((z.norm(dim=-1) - 1).abs() <= 1e-6).all()
    with pytest.raises(ValueError, match="UnitSphere"):
        VonMisesFisher(2 * loc.bfloat16(), k)


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
        with pytest.raises(ValueError, match=r"same sphere, got event shapes \[3\] and \[4\]"):
            kl_divergence(law, other)
    with pytest.raises(ValueError, match="expected a dimension d >= 2, got 1"):
        HypersphericalUniform(1)
