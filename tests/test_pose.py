"""Content and pose: what a `PoseVAE` says of turned images, and the orientation that images without labels share."""

import pytest
import torch
from examples import FORMATS, own_images

from gvae_core import metrics
from gvae_core.models import ImageFormat, PoseVAE, sgvae
from gvae_core.rotation import mirrored, random_angles, rotate
from gvae_core.runs.measures import pose_numbers
from gvae_core.synchronisation import common_handedness, common_orientation, handedness_among
from gvae_core.training import Schedule, fit_pose, pose_losses

SMALL = dict(latent_dim=4, fields=(2, 2, 4), frequency=2, layout="isotropic", invariants=8, decoder_channels=(8, 8, 8))


def wrapped(degrees):
    return torch.remainder(degrees + 180, 360) - 180


@pytest.fixture
def model() -> PoseVAE:
    return sgvae(pose=True, **SMALL).eval()


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_the_pose_turns_with_the_image(digits, frames):
    model = sgvae(pose=True, frames=frames, **SMALL).eval()
    images = digits.images[:8]
    upright, _ = model.poses(images)
    for angle in (90, 180, -90):
        turned, _ = model.poses(rotate(images, angle))
        assert wrapped(turned - upright - angle).abs().max() < 0.1
    turned, _ = model.poses(rotate(images, 30))  # between quarter turns the pixel grid errs, here without training
    assert wrapped(turned - upright - 30).abs().median() < 15


def test_content_ignores_quarter_turns(digits, model):
    images = digits.images[:8]
    codes = [metrics.latent_codes(model, rotate(images, angle)) for angle in (0, 90)]
    assert metrics.angle_between(*codes).max() < 0.1


def test_reconstructions_turn_and_canonical_views_stand_still(digits, model):
    images = digits.images[:8]
    turned = rotate(images, 90)
    assert torch.allclose(model.reconstruct(turned), rotate(model.reconstruct(images), 90), atol=1e-3)
    assert torch.allclose(model.canonical(turned), model.canonical(images), atol=1e-3)
    assert torch.allclose(metrics.decoded(model, metrics.latent_codes(model, turned)),
                          metrics.decoded(model, metrics.latent_codes(model, images)), atol=1e-3)  # fmt: skip


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: f"{form.channels}x{form.size}")
def test_codes_poses_and_views_of_ones_own_images_are_exact_at_quarter_turns(form):
    model, images = sgvae(pose=True, images=form, **SMALL).double().eval(), own_images(form).double()
    with torch.no_grad():
        upright, turned = model.posteriors(images), model.posteriors(rotate(images, 90))
        assert torch.allclose(turned[0].loc, upright[0].loc, atol=1e-5)
        assert torch.allclose(turned[1].loc, upright[1].loc.flip(1) * torch.tensor([-1, 1]), atol=1e-5)
        # in views the angle's 1e-5 counts once for every pixel of the radius
        canonical, again = model.canonical(images), model.reconstruct(rotate(images, 90))
        assert torch.allclose(model.canonical(rotate(images, 90)), canonical, atol=1e-4)
        assert torch.allclose(again, rotate(model.reconstruct(images) - 0.9, 90) + 0.9, atol=1e-4)
    assert canonical[..., :2, :2].min() > 0.89 and again[..., :2, :2].min() > 0.89  # white corners, no wedges


@pytest.mark.slow
@pytest.mark.parametrize("frames, fade", [(1, False), (2, True)])
def test_mirror_images_have_the_same_content_the_other_hand_and_minus_the_angle(digits, frames, fade):
    images = digits.images[:12].double()
    form = ImageFormat.measured(images.float()) if fade else ImageFormat()
    model = sgvae(pose=True, group="O(2)", frames=frames, images=form, **SMALL).double()
    with torch.no_grad():
        model(images)  # statistics that are not the initial ones
        model.eval()
        angles, half_widths = model.poses(images)
        hands, logits = model.handedness(images), model.posteriors(images)[2].logits
        assert set(hands.tolist()) == {1, -1} and torch.equal(hands > 0, logits >= 0)
        for moved, sign, turned in (
            (lambda x: x.flip(2), -1, -angles),
            (lambda x: rotate(x, 90), 1, angles + 90),
            (lambda x: rotate(x.flip(2), 90), -1, 90 - angles),
        ):
            seen = moved(images)
            assert torch.allclose(model.encode(seen).loc, model.encode(images).loc, atol=1e-5)
            assert torch.equal(model.handedness(seen), sign * hands)
            assert torch.allclose(model.posteriors(seen)[2].logits, sign * logits, atol=1e-6)
            assert wrapped(model.poses(seen)[0] - turned).abs().max() < 0.01
            assert torch.allclose(model.poses(seen)[1], half_widths, rtol=1e-3)
            assert torch.allclose(model.canonical(seen), model.canonical(images), atol=1e-3)
            assert torch.allclose(model.reconstruct(seen), moved(model.reconstruct(images)), atol=1e-3)
            assert (model.reconstruct(seen) - model.reconstruct(images)).abs().max() > 0.01


def test_handedness_needs_the_group_of_reflections(digits, model):
    with pytest.raises(ValueError, match=r"expected a model with the group O\(2\)"):
        model.handedness(digits.images[:2])


def test_a_loss_with_known_hands_is_that_of_images_mirrored_by_them(digits):
    model, angles = sgvae(pose=True, group="O(2)", **SMALL), random_angles(16, 0)
    hands = torch.ones(16)
    hands[::2] = -1
    found = []
    for images, of in ((digits.images[:16], hands), (mirrored(digits.images[:16], hands), torch.ones(16))):
        torch.manual_seed(0)
        found.append(pose_losses(model, images, angles, of, beta=0.1))
    assert all(torch.allclose(found[0][name], found[1][name], rtol=1e-4) for name in found[0])
    found[0]["loss"].backward()
    assert {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None} == set()
    assert "hand_nll" in found[0]


def chiral_figures(count: int, seed: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """Figures 7 and S, half of them mirrored, each at an angle of its own, and what mirrored them."""
    pictures = torch.zeros(2, 1, 28, 28)
    pictures[0, 0, 7:21, 15:18] = pictures[0, 0, 7:10, 8:18] = 1
    # the S is the same after a half turn, so it has no vector
    pictures[1, 0, 7:21, 12:15] = pictures[1, 0, 7:10, 12:20] = pictures[1, 0, 18:21, 7:15] = 1
    hands = torch.tensor([1.0, 1, -1, -1]).repeat(count // 4)
    return rotate(mirrored(pictures.repeat(count // 2, 1, 1, 1), hands), random_angles(count, seed)), hands


def agreement(found, hands):
    """Of each figure by itself: whether it is a 7 of one hand or the other is arbitrary."""
    return [(found * hands)[figure::2].mean().abs().item() for figure in (0, 1)]


@pytest.mark.slow
def test_handedness_is_learned():
    (images, _), (more, hands) = chiral_figures(64), chiral_figures(40, seed=8)

    def trained(seed):
        torch.manual_seed(seed)
        model = sgvae(pose=True, group="O(2)", **SMALL)
        fit_pose(model, images[:48], images[48:], Schedule(6, 0.02, batch_size=16), beta=0.1, progress=False)
        return model

    # A network so small misses one of the two figures in about one training of four, whatever its rounding.
    models = map(trained, range(4))
    model = next((m for m in models if min(agreement(metrics.handedness(m, more), hands)) > 0.8), None)
    assert model is not None
    numbers = pose_numbers(model, more, torch.arange(40) % 10, more, torch.zeros(40))
    assert numbers["hand_kept"] == 1 and len(numbers["hand_by_class"]) == 10
    assert all(0.5 <= share <= 1 for share in numbers["hand_by_class"])


def test_synchronisation_finds_one_handedness_a_class(digits):
    hands = torch.where(torch.rand(len(digits.images)) < 0.5, -1.0, 1.0)
    images = rotate(mirrored(digits.images, hands), random_angles(len(hands), seed=3))
    found = common_handedness(images)
    by_class = [(found * hands)[digits.labels == label].mean().abs() for label in range(10)]
    assert min(by_class[c] for c in (5, 6, 9)) > 0.8, by_class
    assert torch.equal(found, common_handedness(images))
    among = handedness_among(images[300:], mirrored(images, found)[:300])
    chosen = (digits.labels[300:, None] == torch.tensor([5, 6, 9])).any(1)
    assert (among == found[300:])[chosen].double().mean() > 0.9


def test_synchronisation_of_mirrored_copies_is_exact():
    images, hands = chiral_figures(48)
    assert agreement(common_handedness(images), hands) == [1, 1]
    with pytest.raises(ValueError, match="at least 12 images for 10 neighbours, got 5"):
        common_handedness(images[:5])


@pytest.mark.slow
def test_training_on_a_white_background_lowers_the_error():
    """48 steps on 64 images teach the angles to ten seeds of twelve: up to three may try."""
    images = own_images(ImageFormat(48, channels=3), 80)
    for seed in range(3):
        torch.manual_seed(seed)
        model = sgvae(pose=True, images=ImageFormat.measured(images), **SMALL)
        schedule = Schedule(12, 0.01, batch_size=16)
        history = fit_pose(model, images[:64], images[64:], schedule, beta=0.1, seed=seed, progress=False)
        assert history[-1]["train_loss"] < 0.7 * history[0]["train_loss"], history
        if history[-1]["train_disagreement"] < 0.9 * history[0]["train_disagreement"]:
            return
    raise AssertionError(history)


def test_gradients_reach_every_parameter(digits):
    model = sgvae(pose=True, **SMALL)
    losses = pose_losses(model, digits.images[:16], random_angles(16, 0), beta=0.1)
    losses["loss"].backward()
    assert {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None} == set()
    assert set(losses) == {"loss", "squared_error", "kl", "kl_pose", "disagreement", "pose_nll"}


def test_pose_and_gaussian_exclude_each_other():
    with pytest.raises(ValueError, match="pose or gaussian, got both"):
        sgvae(pose=True, gaussian=True)


def test_synchronisation_finds_one_orientation_a_class(digits):
    angles = random_angles(len(digits.images), seed=3)
    found = common_orientation(rotate(digits.images, angles))
    by_class = metrics.resultant_by_class(found - angles, digits.labels)
    assert min(by_class[c] for c in (3, 4, 6, 7, 9)) > 0.75, by_class
    again = common_orientation(rotate(digits.images, angles))
    assert torch.equal(found, again)


def test_synchronisation_of_copies_is_exact_at_quarter_turns(digits):
    angles = torch.tensor([0.0, 90, 180, 270]).repeat(5)
    images = rotate(digits.images[:1].expand(20, -1, -1, -1), angles)
    assert wrapped(common_orientation(images) - angles - common_orientation(images)[0]).abs().max() < 1


def test_synchronisation_refuses_too_few_images():
    with pytest.raises(ValueError, match="at least 12 images for 10 neighbours, got 5"):
        common_orientation(torch.rand(5, 1, 28, 28))


@pytest.mark.slow
def test_training_on_digits_that_were_never_upright_lowers_the_error(digits):
    images = rotate(digits.images[:400], random_angles(400, seed=4))
    torch.manual_seed(0)
    model = sgvae(pose=True, **SMALL)
    history = fit_pose(model, images[:300], images[300:], Schedule(6, 0.01, batch_size=50), beta=0.1, progress=False)
    assert history[-1]["validation_squared_error"] < history[0]["validation_squared_error"]
    assert history[-1]["train_disagreement"] < history[0]["train_disagreement"]


def test_angle_errors_are_up_to_one_offset():
    true = random_angles(1000, seed=5)
    errors = metrics.angle_errors(wrapped(true + 77 + torch.where(torch.arange(1000) < 100, 180.0, 2.0)), true)
    assert errors["half_turn"] == pytest.approx(0.1) and errors["within_10"] == pytest.approx(0.9)
    assert errors["resultant"] == pytest.approx(0.8, abs=0.01)
    assert metrics.resultant(true) < 0.1


def test_cluster_scores_of_separate_clusters_are_perfect():
    labels = torch.arange(10).repeat(20)
    codes = torch.eye(10)[labels] + 0.01 * torch.randn(200, 10)
    scores = metrics.cluster_scores(codes, labels)
    assert scores["kmeans_hungarian"] == scores["kmeans_purity"] == 1 and scores["kmeans_nmi"] == pytest.approx(1)


def test_coverage_counts_arcs_that_hold_the_angle():
    true = random_angles(500, seed=6)
    found = wrapped(true + 77 + 20 * (torch.arange(500) % 2) - 10)  # 10 degrees off either way
    assert metrics.coverage(found, torch.full((500,), 11.0), true) == 1
    assert metrics.coverage(found, torch.full((500,), 9.0), true) == 0


def test_images_without_an_angle_get_some_angle():
    """Discs with a little noise, and black images: the solver by itself finds none of many equal eigenvectors."""
    generator = torch.Generator().manual_seed(0)
    radius = 5 + 6 * torch.rand(300, 1, 1, 1, generator=generator)
    discs = (radius - torch.cartesian_prod(*2 * [torch.arange(32) - 15.5]).norm(dim=1).view(32, 32)).clamp(0, 1)
    noise = 0.003 * torch.randn(discs.shape, generator=generator)
    for images in discs + noise, torch.zeros(30, 1, 32, 32):
        assert common_orientation(images).isfinite().all()
