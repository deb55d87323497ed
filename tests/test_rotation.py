"""Rotation against scipy, numpy's quarter turns, and itself."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gvae_core.rotation import random_angles, rotate, turn, wrapped

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}
DTYPES = list(TOLERANCE)
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
]


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def blob(size: int) -> torch.Tensor:
    """A smooth, lopsided image in float64 that is zero well before the edge."""
    y, x = torch.meshgrid(*(torch.linspace(-3, 3, size, dtype=torch.float64),) * 2, indexing="ij")
    return torch.exp(-2 * ((x - 0.6) ** 2 + 2 * y**2))[None, None]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 2, 7, 28])
def test_agrees_with_scipy(size, dtype, device):
    angles = [-179.5, -90.01, -33.3, 0.001, 12.0, 45.0, 89.99, 135.0, 700.5]
    images = noise(len(angles), 2, size, size, dtype=dtype)
    expected = np.stack(
        [
            # grid-constant: also interpolates between the outermost pixels and the zeros around
            scipy.ndimage.rotate(image.double().numpy(), angle, (2, 1), reshape=False, order=1, mode="grid-constant")
            for image, angle in zip(images, angles, strict=True)
        ]
    )
    rotated = rotate(images.to(device), torch.tensor(angles, dtype=torch.float64))
    assert rotated.dtype == dtype and rotated.device.type == device
    np.testing.assert_allclose(rotated.cpu().numpy(), expected, rtol=0, atol=TOLERANCE[dtype])


def test_counter_clockwise_on_screen():
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 2, 4] = 1  # at the right
    assert rotate(image, 90)[0, 0, 0, 2] == 1  # at the top
    assert rotate(image, 45)[0, 0].argmax() == 1 * 5 + 3  # upper right


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [6, 7])
def test_quarter_turns_are_exact_alone_and_among_other_angles(size, dtype, device):
    angles = [90.0, 12.5, 360.0, -180.0, 450.0, 0.0, -90.0, -0.0, 77.0, 270.0, 36_000_090.0]
    images = noise(len(angles), 3, size, size, dtype=dtype).to(device)
    mixed = rotate(images, torch.tensor(angles, dtype=torch.float64))
    for image, angle, among in zip(images, angles, mixed, strict=True):
        alone = rotate(image[None], angle)[0]
        assert torch.equal(alone, among)
        if angle % 90 == 0:
            expected = np.rot90(image.cpu().numpy(), int(angle // 90), axes=(1, 2))
            assert np.array_equal(alone.cpu().numpy(), expected)


@settings(deadline=None)  # the first call of a torch operation may take seconds
@given(angle=st.floats(-1e6, 1e6), quarter_turns=st.integers(-8, 8))
def test_quarter_turns_commute_with_every_rotation(angle, quarter_turns):
    images = noise(1, 1, 6, 6, dtype=torch.float64)
    turned_after = torch.rot90(rotate(images, angle), quarter_turns, (2, 3))
    turned_before = rotate(torch.rot90(images, quarter_turns, (2, 3)), angle)
    torch.testing.assert_close(turned_after, turned_before, rtol=0, atol=1e-12)
    at_once = rotate(images, math.fmod(angle, 360) + 90 * quarter_turns)
    torch.testing.assert_close(turned_after, at_once, rtol=0, atol=1e-11)


@settings(deadline=None)
@given(first=st.floats(-360, 360), second=st.floats(-360, 360))
def test_two_rotations_compose_on_a_smooth_image(first, second):
    image = blob(101)
    twice = rotate(rotate(image, first), second)
    # bilinear interpolation errs by up to h²/8 · |second derivatives|: 0.0016 each time here
    torch.testing.assert_close(twice, rotate(image, first + second), rtol=0, atol=0.01)


@settings(deadline=None)
@given(angle=st.floats(-1e9, 1e9))
def test_never_leaves_the_range_of_the_pixels(angle):
    rotated = rotate(torch.ones(1, 1, 5, 5), angle)
    assert rotated.min() >= 0 and rotated.max() <= 1 + 1e-6
    assert rotated[0, 0, 2, 2] == pytest.approx(1)


def test_number_and_tensor_angles_agree():
    images = noise(3, 1, 8, 8, dtype=torch.float64)
    expected = rotate(images, torch.full((3,), 0.1, dtype=torch.float64))
    for degrees in (0.1, np.float64(0.1), torch.tensor(0.1, dtype=torch.float64)):
        assert torch.equal(rotate(images, degrees), expected)
    whole = torch.tensor([90, 0, 7])
    assert torch.equal(rotate(images, whole), rotate(images, whole.float()))


def test_the_result_is_new_memory_and_the_input_untouched():
    images = noise(2, 1, 4, 4).transpose(2, 3)
    before = images.clone()
    rotated = rotate(images, 0)
    rotated += 1
    assert torch.equal(images, before)
    assert rotate(images[:0], 30).shape == (0, 1, 4, 4)


def test_gradient_in_the_image():
    images = noise(4, 2, 5, 5, dtype=torch.float64).requires_grad_()
    angles = torch.tensor([30.0, 90.0, -180.0, 211.0])
    assert torch.autograd.gradcheck(lambda x: rotate(x, angles), images)


# --- turn: the same, differentiable in the angle --------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_turn_is_the_bilinear_rotate(dtype, device):
    angles = torch.tensor([-179.5, 0.001, 12.0, 89.99, 700.5, 0.0, 90.0, -180.0, 450.0], dtype=torch.float64)
    images = noise(len(angles), 2, 28, 28, dtype=dtype).to(device)
    turned, rotated = turn(images, angles.to(device)), rotate(images, angles)
    assert turned.dtype == dtype and turned.device == images.device
    assert torch.equal(turned[:5], rotated[:5])
    torch.testing.assert_close(turned[5:], rotated[5:], rtol=0, atol=TOLERANCE[dtype])
    for degrees in (12.0, 12, torch.tensor(12, device=device), torch.tensor(12.0, device=device)):
        assert torch.equal(turn(images, degrees), rotate(images, 12.0))
    assert turn(images[:0], 30.0).shape == (0, 2, 28, 28)


def test_turn_of_an_oblong_is_that_of_the_square_around_it():
    images, angles = noise(3, 1, 5, 9, dtype=torch.float64), torch.tensor([20.0, 90.0, -135.0])
    square = turn(torch.nn.functional.pad(images, (0, 0, 2, 2)), angles)
    torch.testing.assert_close(turn(images, angles), square[:, :, 2:-2], rtol=0, atol=1e-13)


def test_gradients_of_turn():
    images = noise(4, 2, 5, 6, dtype=torch.float64).requires_grad_()
    angles = torch.tensor([30.0, 91.0, -181.5, 571.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(turn, (images, angles))
    assert torch.autograd.gradcheck(turn, (images, angles[1].detach().requires_grad_()))


def test_turn_finds_an_angle_by_gradient_descent():
    image, degrees = blob(41), torch.tensor(0.0, requires_grad=True)
    target, optimiser = rotate(image, 40), torch.optim.Adam([degrees], lr=4)
    for _ in range(100):
        optimiser.zero_grad()
        (turn(image, degrees) - target).square().sum().backward()
        optimiser.step()
    assert degrees.item() == pytest.approx(40, abs=0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("function", [rotate, turn])
def test_half_precision_is_interpolated_in_float32(function, dtype):
    images, angles = noise(3, 1, 28, 28).to(dtype), torch.tensor([33.0, 90.0, 200.0])
    turned = function(images, angles)
    assert turned.dtype == dtype
    assert torch.equal(turned, function(images.float(), angles).to(dtype))


def test_an_angle_that_is_not_finite_turns_its_image_to_nan():
    turned = turn(torch.ones(4, 1, 5, 5), torch.tensor([math.nan, 10, math.inf, -math.inf]))
    assert turned[[0, 2, 3]].isnan().all() and turned[1].isfinite().all()


@pytest.mark.parametrize(
    ("images", "degrees", "message"),
    [
        (torch.zeros(2, 28, 27), 1.0, r"shape \[N, C, H, W\], got shape \[2, 28, 27\]"),
        (torch.zeros(2, 1, 28, 0), 1.0, r"shape \[N, C, H, W\], got shape \[2, 1, 28, 0\]"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), 1.0, "floating-point dtype, got torch.uint8"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(3), r"shape \[2\], got \[3\]"),
        (torch.zeros(2, 1, 4, 4), "90", "number or.*str"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.bool), "real.*bool"),
    ],
)
def test_bad_input_of_turn(images, degrees, message):
    with pytest.raises(ValueError, match=message):
        turn(images, degrees)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(28, 28), r"\[N, C, H, H\].*\[28, 28\]"),
        (torch.zeros(1, 1, 28, 27), r"square.*\[1, 1, 28, 27\]"),
        (torch.zeros(1, 1, 0, 0), r"\[1, 1, 0, 0\]"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), "floating-point dtype, got torch.uint8"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.bool), "floating-point dtype, got torch.bool"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.complex64), "floating-point dtype, got torch.complex64"),
        (np.zeros((1, 1, 4, 4)), "tensor.*ndarray"),
    ],
)
def test_bad_images(images, message):
    with pytest.raises(ValueError, match=message):
        rotate(images, 10)


@pytest.mark.parametrize(
    ("degrees", "message"),
    [
        (torch.zeros(3), r"shape \[2\].*\[3\]"),
        (torch.zeros(1), r"shape \[2\].*\[1\]"),
        (torch.zeros(2, 1), r"shape \[2\].*\[2, 1\]"),
        ("90", "number or.*str"),
        (None, "number or.*NoneType"),
        (1j, "number or.*complex"),
        (torch.zeros(2, dtype=torch.complex64), "real.*complex64"),
        (torch.zeros(2, dtype=torch.bool), "real.*bool"),
        (True, "real.*bool"),
        (torch.zeros(2, requires_grad=True), "without gradient"),
    ],
)
def test_bad_degrees(degrees, message):
    with pytest.raises(ValueError, match=message):
        rotate(torch.zeros(2, 1, 4, 4), degrees)


@settings(deadline=None)
@given(
    bad=st.sampled_from([math.nan, math.inf, -math.inf]),
    good=st.lists(st.floats(-360, 360), max_size=5),
)
def test_angles_that_are_not_finite(bad, good):
    images = torch.zeros(len(good) + 1, 1, 4, 4)
    for degrees in (bad, torch.tensor([*good, bad])):
        with pytest.raises(ValueError, match=f"finite degrees, got {bad}"):
            rotate(images, degrees)


def test_random_angles_are_seeded_and_uniform():
    angles = random_angles(20_000, seed=3)
    assert angles.shape == (20_000,) and angles.dtype == torch.float32
    assert torch.equal(angles, random_angles(20_000, seed=3))
    assert not torch.equal(angles, random_angles(20_000, seed=4))
    assert angles.min() >= -180 and angles.max() < 180
    uniform = scipy.stats.uniform(-180, 360)
    assert scipy.stats.kstest(angles.numpy(), uniform.cdf).pvalue > 1e-3


def test_random_angles_leave_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    random_angles(5, seed=1)
    assert torch.equal(torch.rand(1), expected)


def test_random_angles_of_a_negative_count():
    assert random_angles(0, seed=0).shape == (0,)
    with pytest.raises(ValueError, match="at least 0, got -1"):
        random_angles(-1, seed=0)


@pytest.mark.parametrize("degrees", [0, 90, -90.0, 450, -720, 30, -33.3, 1e-3, Fraction(1, 3)])
def test_a_number_turns_as_a_tensor_of_it_does(degrees):
    images = torch.rand(3, 2, 7, 7)
    turned = rotate(images, degrees)
    assert torch.equal(turned, rotate(images, torch.full((3,), float(degrees), dtype=torch.float64)))
    assert turned.is_contiguous() and turned.data_ptr() != images.data_ptr()


def test_wrapped_angles_are_below_180():
    angles = torch.tensor([180.0, -180.0, 540.0, -180.01, -1e-9, 190.0])
    assert wrapped(angles).tolist() == pytest.approx([-180, -180, -180, 179.99, 0, -170], abs=1e-4)
    below = torch.tensor(-180.0).nextafter(torch.tensor(-200.0))  # above which torch.remainder rounds to 360
    assert -180 <= wrapped(below) < 180
