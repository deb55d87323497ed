"""What a model's name in a `RunSpec` stands for: its builder, how it is fitted, how it is measured on test digits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from .. import metrics, models, training
from ..images import Digits, Splits
from ..rotation import random_angles, rotate

if TYPE_CHECKING:
    from .spec import RunSpec

ANGLES = tuple(range(-180, 181, 15))  # accuracy and drift are measured at these, in degrees
DRIFT_IMAGES = 200  # the latent drift is a mean over so many test digits
ANGLE_SEED = 20220901  # of the rotated test images' angles, the same for every run


@dataclass(frozen=True)
class Kind:
    """A kind of model.

    Parameters
    ----------
    build : the builder; its keyword arguments are what `RunSpec.sizes` may hold
    fit : (model, splits, schedule, spec, **arguments of `training.fit`) -> history
    measure : (model, test digits, spec) -> the numbers of a result
    """

    build: Callable[..., nn.Module]
    fit: Callable[..., list[dict]]
    measure: Callable[[nn.Module, Digits, RunSpec], dict]


def _fit_classifier(
    model: nn.Module, splits: Splits, schedule: training.Schedule, spec: RunSpec, **loop: object
) -> list[dict]:
    train, validation = ((part.images, part.labels) for part in (splits.train, splits.validation))
    loop |= dict(seed=spec.stream("training"), rotated=spec.protocol == "rotated")
    return training.fit_classifier(model, train, validation, schedule, paper_loss=spec.paper_loss, **loop)


def _fit_autoencoder(
    model: nn.Module, splits: Splits, schedule: training.Schedule, spec: RunSpec, **loop: object
) -> list[dict]:
    train, validation = splits.train.images, splits.validation.images
    loop |= dict(seed=spec.stream("training"), rotated=spec.protocol == "rotated")
    return training.fit_vae(model, train, validation, schedule, beta=spec.beta, **loop)


def _measure_classifier(model: nn.Module, test: Digits, spec: RunSpec) -> dict:
    """On the test digits, upright and each turned by its own random angle, and by common angles."""
    losses = functools.partial(training.classifier_losses, model)
    numbers = {}
    for name, images in (("upright", test.images), ("rotated", _turned(test.images))):
        numbers |= training.evaluate(model, losses, (images, test.labels), metrics.BATCH).named(f"test_{name}")
    by_angle = metrics.accuracy_by_angle(model, test.images, test.labels, ANGLES)
    return numbers | {"angle_seed": ANGLE_SEED, "angles": list(ANGLES), "accuracy_by_angle": by_angle}


def _measure_autoencoder(model: nn.Module, test: Digits, spec: RunSpec) -> dict:
    """On the test digits: losses of upright ones, and of turned ones against the *upright* targets."""
    losses = functools.partial(training.vae_losses, model, beta=spec.beta)
    numbers = {}
    for name, images in (("upright", test.images), ("rotated", _turned(test.images))):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.stream("test"))
            numbers |= training.evaluate(model, losses, (images, test.images), metrics.BATCH).named(f"test_{name}")
    some, labels = test.images[:DRIFT_IMAGES], test.labels[:DRIFT_IMAGES]
    return numbers | {
        "angle_seed": ANGLE_SEED,
        "angles": list(ANGLES),
        "latent_drift": metrics.latent_drift(model, some, ANGLES),
        "typical_angle": metrics.typical_angle(metrics.latent_codes(model, some), labels),
    }


def kinds_of_input(test: Digits) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What the tiny paper's Table 1 has read: images [N, 1, 28, 28] and labels [N] by kind.

    Upright digits, the same each turned by its own random angle, the turned 6s, the turned 9s.
    """
    turned, labels = _turned(test.images), test.labels
    inputs = {"upright": (test.images, labels), "rotated": (turned, labels)}
    return inputs | {f"rotated {d}s": (turned[labels == d], labels[labels == d]) for d in (6, 9)}


def _turned(images: torch.Tensor) -> torch.Tensor:
    return rotate(images, random_angles(len(images), ANGLE_SEED))


_classifier = functools.partial(Kind, fit=_fit_classifier, measure=_measure_classifier)
_autoencoder = functools.partial(Kind, fit=_fit_autoencoder, measure=_measure_autoencoder)
CLASSIFIERS = {"cnn": _classifier(models.CNNClassifier), "gcnn": _classifier(models.GCNNClassifier)}
AUTOENCODERS = {
    "sgvae": _autoencoder(models.sgvae),
    "svae": _autoencoder(models.svae),
    "gaussian": _autoencoder(functools.partial(models.sgvae, gaussian=True)),
}
KINDS = CLASSIFIERS | AUTOENCODERS
