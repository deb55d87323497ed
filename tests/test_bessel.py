"""Bessel functions of the von Mises-Fisher law against mpmath, scipy and closed forms."""

from __future__ import annotations

from functools import cache

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ive

from gvae_core.bessel import (
    bessel_ratio,
    bessel_ratio_slope,
    inverse_bessel_ratio,
    kl_to_uniform,
    log_iv,
    log_mgf,
    log_mgf_deficit,
    ratio_complement,
)
from gvae_core.vmf import log_sphere_area

DIMS = (2, 3, 4, 6, 10, 20, 33, 50, 100, 500, 1000, 10_000)
# Decades, points between, and (per dimension) the place where the KL changes its formula.
KAPPAS = tuple(10.0 ** (i / 2) for i in range(-12, 17))
# float64: the targets. float32: a rounding of the result, and of a derivative kept in float32.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 3e-7}
SLOPE_TOLERANCE = {torch.float64: 3e-13, torch.float32: 3e-7}


def kappas(dim: int, dtype: torch.dtype) -> torch.Tensor:
    # For d = 10^4 mpmath needs a minute a point where neither of its series is short.
    decades = [k for k in KAPPAS if dim < 10_000 or not 2e4 < k < 9e7]
    return torch.tensor([*decades, dim / 2 * 0.999, dim / 2, dim / 2 * 1.001], dtype=dtype)


@cache
def exact(dim: int, kappa: float) -> dict[str, mpmath.mpf]:
    """L, A and relatives from their definitions, with digits to spare for cancellation."""
    with mpmath.workdps(60):
        order, k = mpmath.mpf(dim) / 2 - 1, mpmath.mpf(kappa)
        bessel = mpmath.besseli(order, k, maxterms=10**6)
        a = mpmath.besseli(order + 1, k, maxterms=10**6) / bessel
        mgf = mpmath.log(mpmath.gamma(order + 1) * (2 / k) ** order * bessel)
        area = mpmath.log(2 * mpmath.pi ** (order + 1) / mpmath.gamma(order + 1))
        slope = 1 - a * a - (dim - 1) * a / k
        return {
            "ratio": a,
            "complement": 1 - a,
            "slope": slope,
            "mgf": mgf,
            "deficit": k - mgf,
            "log_c": -mgf - area,
            "kl": k * a - mgf,
            "kl_slope": k * slope,
            "log_iv": mpmath.log(bessel),
            "log_iv_slope": a + order / k,
        }


def worst(values: torch.Tensor, dim: int, ks: torch.Tensor, name: str) -> float:
    """The largest relative error over `ks`."""
    pairs = zip(values.tolist(), (exact(dim, k)[name] for k in ks.tolist()), strict=True)
    return max(float(abs((mpmath.mpf(value) - x) / x)) for value, x in pairs)


def gradient(function, k: torch.Tensor) -> torch.Tensor:
    k = k.clone().requires_grad_()
    return torch.autograd.grad(function(k).sum(), k)[0]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("dim", DIMS)
def test_relative_accuracy(dim: int, dtype: torch.dtype) -> None:
    k = kappas(dim, dtype)
    deficit = log_mgf_deficit(dim, k)
    values = {
        "ratio": bessel_ratio(dim, k),
        "complement": ratio_complement(dim, k),
        "mgf": log_mgf(dim, k),
        "deficit": deficit,
        "kl": kl_to_uniform(dim, k),
    }
    slopes = {
        "slope": gradient(lambda k: bessel_ratio(dim, k), k),
        "ratio": gradient(lambda k: log_mgf(dim, k), k),
        "kl_slope": gradient(lambda k: kl_to_uniform(dim, k), k),
        "complement": gradient(lambda k: log_mgf_deficit(dim, k), k),
    }
    assert {n: e for n, v in values.items() if (e := worst(v, dim, k, n)) > TOLERANCE[dtype]} == {}
    assert {n: e for n, v in slopes.items() if (e := worst(v, dim, k, n)) > SLOPE_TOLERANCE[dtype]} == {}
    assert torch.equal(bessel_ratio_slope(dim, k), slopes["slope"])


@pytest.mark.parametrize("dim", DIMS)
def test_log_iv_in_float32(dim: int) -> None:
    """Terms of either sign cancel: the sum, not they, may be rounded. Also where it crosses zero."""
    k = torch.cat([kappas(dim, torch.float32), dim * torch.linspace(0.3, 0.45, 16)])
    points = [(dim / 2 - 1, k), (249, torch.tensor([173.076])), (99, torch.tensor([67.489]))]
    for order, x in points:
        values = x.double().new_tensor([float(exact(2 * order + 2, k)["log_iv"]) for k in x.tolist()])
        assert ((log_iv(order, x) - values).abs() / values.abs().clamp(min=1)).max() <= 3e-7


@pytest.mark.parametrize("dim", DIMS)
def test_inverse_of_the_ratio(dim: int) -> None:
    k = torch.cat([torch.logspace(-6, 9, 301), torch.linspace(0.1, 5 * dim, 301)]).double()
    inverse = inverse_bessel_ratio(dim, ratio_complement(dim, k))
    torch.testing.assert_close(inverse, k, rtol=1e-14, atol=4e-16 * dim)
    assert inverse_bessel_ratio(dim, torch.ones(1)) == 0


@pytest.mark.parametrize("dim", DIMS)
def test_log_normaliser_and_log_iv(dim: int) -> None:
    k = kappas(dim, torch.float64)
    log_c = log_mgf_deficit(dim, k) - k - log_sphere_area(dim)
    assert worst(log_c, dim, k, "log_c") <= 1e-13
    # log I crosses zero near kappa = d/3, where a relative error means nothing: against its terms.
    terms = 1 + k + (dim / 2) * (1 + torch.log(k + dim).abs() + torch.log(k).abs())
    exact_values = k.new_tensor([float(exact(dim, x)["log_iv"]) for x in k.tolist()])
    assert ((log_iv(dim / 2 - 1, k) - exact_values).abs() / terms).max() <= 1e-15
    assert worst(gradient(lambda x: log_iv(dim / 2 - 1, x), k), dim, k, "log_iv_slope") <= 1e-13


def test_half_integer_orders_are_elementary() -> None:
    x = torch.linspace(0.01, 30, 200, dtype=torch.float64)
    log_sinh = x + torch.log(-torch.expm1(-2 * x)) - np.log(2)
    torch.testing.assert_close(log_iv(0.5, x), log_sinh + 0.5 * torch.log(2 / (torch.pi * x)))
    torch.testing.assert_close(bessel_ratio(3, x), 1 / torch.tanh(x) - 1 / x)


@pytest.mark.parametrize("order", [0, 0.3, 1, 2.5, 7.25, 15.99, 16, 40])
def test_log_iv_against_scipy_at_any_order(order: float) -> None:
    x = torch.logspace(-1, 5, 61, dtype=torch.float64)
    scipy_value = np.log(ive(order, x.numpy())) + x.numpy()
    np.testing.assert_allclose(log_iv(order, x).numpy(), scipy_value, rtol=2e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("dim", DIMS)
def test_limits(dim: int, dtype: torch.dtype) -> None:
    zero = torch.zeros(1, dtype=dtype)
    assert bessel_ratio(dim, zero) == 0 == kl_to_uniform(dim, zero) == log_mgf_deficit(dim, zero) == log_mgf(dim, zero)
    assert gradient(lambda k: bessel_ratio(dim, k), zero).item() == pytest.approx(1 / dim, rel=3e-7)
    assert gradient(lambda k: kl_to_uniform(dim, k), zero) == 0
    assert log_iv(0, zero) == 0 and log_iv(1.5, zero) == -torch.inf
    largest = torch.tensor([1e8, 1e20, 1e38], dtype=dtype)
    for function in (bessel_ratio, ratio_complement, log_mgf, log_mgf_deficit, kl_to_uniform):
        assert function(dim, largest).isfinite().all()
        assert gradient(lambda k, f=function: f(dim, k), largest).isfinite().all()


@pytest.mark.parametrize("dim", [2, 3, 10, 50])
def test_derivatives(dim: int) -> None:
    k = torch.tensor([1e-3, 0.5, 1, 5.1, 80.0], dtype=torch.float64, requires_grad=True)
    for function in (bessel_ratio, ratio_complement, log_mgf, log_mgf_deficit, kl_to_uniform):
        assert torch.autograd.gradcheck(lambda k, f=function: f(dim, k), k)
    assert torch.autograd.gradcheck(lambda x: log_iv(dim / 2 - 1, x), k)
    away = k[1:].detach().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: log_iv(dim / 2 - 1, x), away)
    (slope,) = torch.autograd.grad(kl_to_uniform(dim, k).sum(), k, create_graph=True)
    for second in (slope, bessel_ratio_slope(dim, k)):
        with pytest.raises(RuntimeError, match="no further derivative"):
            torch.autograd.grad(second.sum(), k)


def test_shape_and_dtype_follow_the_input() -> None:
    for dtype in (torch.float32, torch.float64):
        k = torch.rand(2, 0, 3, dtype=dtype)
        assert bessel_ratio(5, k).shape == k.shape and log_iv(1, k).dtype == dtype
    k = torch.rand(6, 4).double().mT  # any strides
    assert torch.equal(kl_to_uniform(4, k), kl_to_uniform(4, k.contiguous()))


@given(st.floats(max_value=2, exclude_max=True) | st.just(float("nan")))
def test_dimension_below_two(dim: float) -> None:
    for function in (bessel_ratio, ratio_complement, log_mgf, log_mgf_deficit, kl_to_uniform):
        with pytest.raises(ValueError, match="expected a dimension d >= 2, got"):
            function(dim, torch.ones(1))


@given(st.floats(max_value=0, exclude_max=True) | st.just(float("nan")))
def test_negative_order(order: float) -> None:
    with pytest.raises(ValueError, match="expected an order >= 0, got"):
        log_iv(order, torch.ones(1))
