"""What is trained and measured on digits that were never upright: every model, the pixels, and 50,000 test digits."""

import dataclasses

import pytest
import torch
from examples import TINY, TINY_CNN

from gvae_core import RunSpec, metrics, run
from gvae_core.mnist import MNIST, load_splits
from gvae_core.runs import measures
from gvae_core.runs.kinds import KINDS

TINY_SPATIAL = RunSpec(
    "spatial", **TINY, protocol="born_rotated", latent_dim=3, beta=1.0, sizes={"hidden": 8}, model_version=2
)


def test_a_spatial_vae_is_measured_as_a_model_with_a_pose(outputs):
    result = run(TINY_SPATIAL, progress=False)
    assert result.spec.title == "spatial-VAE, d = 3, β = 1, born rotated digits"
    assert {"angle_errors", "resultant_by_class", "coverage", "codes", "squared_error_per_pixel"} <= set(result.metrics)
    assert {"neighbours_96", "moved", "kmeans_purity"} <= set(result.metrics["codes"])
    model, test = result.load_model(), load_splits("mnist5k", 96, 64).test
    turned = measures.kinds_of_input(test)["rotated"][0]
    by_hand = (model.reconstruct(turned).clamp(0, 1) - turned).square().mean().item()
    assert result.metrics["squared_error_per_pixel"] == pytest.approx(by_hand, rel=1e-5)


def test_a_classifier_is_born_rotated_too(outputs, monkeypatch):
    seen = []
    fit = measures.training.fit_classifier
    monkeypatch.setattr(
        measures.training, "fit_classifier", lambda *args, **more: seen.append(args) or fit(*args, **more)
    )
    run(dataclasses.replace(TINY_CNN, protocol="born_rotated"), progress=False)
    upright = load_splits("mnist5k", 96, 64)
    (_, (images, labels), *_), = seen  # fmt: skip
    assert torch.equal(images, measures.born_rotated(upright.train.images)) and torch.equal(
        labels, upright.train.labels
    )
    assert not torch.equal(images, upright.train.images)


@pytest.mark.slow
def test_pixels_are_codes_of_themselves(digits):
    numbers = measures.code_numbers(lambda images: images.flatten(1), digits, load_splits("mnist5k").train.first(200))
    assert 0.1 < numbers["kmeans_hungarian"] < 0.6 and 0.1 < numbers["neighbours_100"] < numbers["neighbours_200"] < 0.8


def test_the_many_test_digits_are_none_of_the_known(monkeypatch):
    images = torch.arange(70.0).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)  # each says which it is
    mnist = MNIST(images[:60], torch.arange(60), images[60:], torch.arange(60, 70), "mnist")
    known = measures.Digits(images[10:22], torch.arange(10, 22), torch.arange(10, 22), "train")
    monkeypatch.setattr(measures, "load_mnist", lambda source: mnist)
    monkeypatch.setattr(measures, "ROTATED_MNIST", (12, 50))
    monkeypatch.setattr(measures, "turned_at_random", lambda images: images)
    many = measures.rotated_mnist_test(known)
    assert many.images[:, 0, 0, 0].tolist() == many.labels.tolist() == [*range(60, 70), *range(10), *range(22, 52)]
    monkeypatch.setattr(metrics, "cluster_scores", lambda codes, labels: {})
    numbers = measures.code_numbers(
        lambda x: x.flatten(1), measures.Digits(*[t[:5] for t in (images, mnist.train_labels)], None, ""), known
    )
    assert "neighbours_12_of_50" in numbers


def test_a_model_with_a_pose_is_measured_in_more_frames_than_it_was_trained_with(monkeypatch):
    sizes = dict(fields=(2, 2, 2), frequency=1, invariants=2, decoder_channels=(2, 2, 2), layout="isotropic", pose=True)
    common = dict(protocol="born_rotated", latent_dim=3, beta=1.0)
    spec = RunSpec("sgvae", **TINY, **common, sizes=sizes)
    monkeypatch.setattr(measures, "_autoencoder_numbers", lambda model, *_: {"angles": model.encoder.frame_angles})
    model = spec.build()
    assert KINDS["sgvae"].measure(model, None, spec) == {"angles": [-30, 0, 30], "frames": 3}
    assert model.encoder.frame_angles == [0]
