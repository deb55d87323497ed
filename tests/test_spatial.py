"""Spatial-VAE, the baseline whose pose is learnt: what is drawn turns by the angle, and nothing else does."""

import math

import pytest
import torch

from gvae_core import metrics
from gvae_core.models import SpatialVAE
from gvae_core.rotation import rotate
from gvae_core.training import Schedule, fit_spatial, spatial_losses


@pytest.fixture
def model() -> SpatialVAE:
    return SpatialVAE(4, hidden=16).eval()


def test_what_is_drawn_turns_counter_clockwise_by_the_angle(model):
    z = torch.randn(3, 4)
    upright = model.decode(z)
    for quarters in (1, 2, 3):
        turned = model.decode(z, torch.full((3,), quarters * math.pi / 2))
        assert torch.allclose(turned, rotate(upright, 90 * quarters), atol=1e-5)
    assert not torch.allclose(upright, rotate(upright, 90), atol=1e-3)


def test_poses_are_the_means_and_arcs_of_the_angle(digits, model):
    with torch.no_grad():
        model.encoder[-1].bias[0] += 7  # more than a full turn
        model.encoder[-1].bias[5] += 1
    _, angle = model.posteriors(digits.images[:20])
    found, half = metrics.poses(model, digits.images[:20])
    assert found.abs().max() <= 180
    difference = torch.deg2rad(found) - angle.mean
    assert torch.allclose(difference.cos(), torch.ones(20), atol=1e-5)
    inside = angle.cdf(angle.mean + torch.deg2rad(half)) - angle.cdf(angle.mean - torch.deg2rad(half))
    assert torch.allclose(inside[half < 180], torch.tensor(0.9), atol=1e-4) and half.max() <= 180


def test_losses_count_the_disc_and_both_divergences(digits, model):
    images = digits.images[:8]
    losses = spatial_losses(model, images, beta=2.0)
    expected = 100 * losses["squared_error"] + 2 * (losses["kl"] + losses["kl_pose"])
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    content, angle = model.posteriors(images)
    by_hand = (angle.stddev**2 + angle.mean**2) / (2 * math.pi**2) - 0.5 + (math.pi / angle.stddev).log()
    assert torch.allclose(model.divergences(content, angle)[1], by_hand, atol=1e-5)
    assert 0 not in model.in_view() and 13 in model.in_view()  # the corner is out of view, the middle of an edge is not


def test_some_pixels_stand_for_all(digits, model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()  # draws the mean image's value everywhere: no noise but that of the pixels
        whole = spatial_losses(model, digits.images[:50], beta=1.0)["squared_error"]
        some = torch.stack([
            spatial_losses(model, digits.images[:50], beta=1.0, pixels=64)["squared_error"] for _ in range(200)
        ])  # fmt: skip
    assert some.std() > 0 and abs(some.mean() - whole) < 4 * some.std() / 200**0.5


def test_training_lowers_the_error(digits):
    torch.manual_seed(0)
    model = SpatialVAE(4, hidden=32)
    schedule = Schedule(4, 0.003, batch_size=50)
    history = fit_spatial(model, digits.images[:300], digits.images[300:400], schedule, beta=0.1, progress=False)
    assert history[-1]["validation_squared_error"] < 0.95 * history[0]["validation_squared_error"]
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_redrawn_images_are_turned_as_they_came(digits, model):
    images = digits.images[:5]
    assert torch.allclose(metrics.redrawn(model, images), model.reconstruct(images).detach().clamp(0, 1))
    assert not torch.allclose(metrics.redrawn(model, images), metrics.reconstruct(model, images))
