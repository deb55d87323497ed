"""What a model's name in a `RunSpec` stands for: its builder, how it is fitted, how it is measured on test digits."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from .. import metrics, models, training
from ..mnist import Digits, Splits
from ..rotation import random_angles, rotate
from ..synchronisation import common_orientation

if TYPE_CHECKING:
    from .spec import RunSpec

ANGLES = tuple(range(-180, 181, 15))  # accuracy and drift are measured at these, in degrees
DRIFT_IMAGES = 200  # the latent drift is a mean over so many test digits
ANGLE_SEED = 20220901  # of the rotated test images' angles, the same for every run
BORN_SEED = 20261125  # of the angles at which training images are born under the protocol born_rotated


@dataclass(frozen=True)
class Kind:
    """A kind of model.

    Parameters
    ----------
    build : the builder; its keyword arguments are what `RunSpec.sizes` may hold
    fit : (model, splits, schedule, spec, **arguments of `training.fit`) -> history
    measure : (model, splits, spec) -> the numbers of a result
    """

    build: Callable[..., nn.Module]
    fit: Callable[..., list[dict]]
    measure: Callable[[nn.Module, Splits, RunSpec], dict]


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
    loop |= dict(seed=spec.stream("training"))
    if spec.protocol == "born_rotated":
        train, validation = (
            rotate(images, random_angles(len(images), seed))
            for images, seed in ((train, BORN_SEED), (validation, BORN_SEED + 1))
        )
    if spec.sizes.get("pose"):
        return training.fit_pose(model, train, validation, schedule, beta=spec.beta, **loop)
    loop |= dict(rotated=spec.protocol == "rotated")
    return training.fit_vae(model, train, validation, schedule, beta=spec.beta, **loop)


def _measure_classifier(model: nn.Module, splits: Splits, spec: RunSpec) -> dict:
    """On the test digits, upright and each turned by its own random angle, and by common angles."""
    test = splits.test
    losses = functools.partial(training.classifier_losses, model)
    pairs = {"upright": (test.images, test.labels), "rotated": (_turned(test.images), test.labels)}
    by_angle = metrics.accuracy_by_angle(model, test.images, test.labels, ANGLES)
    return _mean_losses(model, losses, pairs, spec) | {"angles": list(ANGLES), "accuracy_by_angle": by_angle}


def _measure_autoencoder(model: nn.Module, splits: Splits, spec: RunSpec) -> dict:
    """On the test digits: losses of upright ones, and of turned ones against the *upright* targets.

    Of a model that says how images are turned, instead: losses of turned ones, and how well the angles are found.
    Under the protocol born_rotated also what the codes are worth.
    """
    test, turned = splits.test, _turned(splits.test.images)
    born = {"codes": code_numbers(model, test, splits.train)} if spec.protocol == "born_rotated" else {}
    if spec.sizes.get("pose"):
        losses = functools.partial(training.pose_losses, model, beta=spec.beta)
        angles = random_angles(len(test.images), ANGLE_SEED)
        found = pose_numbers(model, test.images, test.labels, turned, angles)
        return _mean_losses(model, losses, {"rotated": (turned,)}, spec) | found | born
    losses = functools.partial(training.vae_losses, model, beta=spec.beta)
    pairs = {"upright": (test.images, test.images), "rotated": (turned, test.images)}
    some, labels = test.images[:DRIFT_IMAGES], test.labels[:DRIFT_IMAGES]
    return _mean_losses(model, losses, pairs, spec) | {
        "angles": list(ANGLES),
        "latent_drift": metrics.latent_drift(model, some, ANGLES),
        "typical_angle": metrics.typical_angle(metrics.latent_codes(model, some), labels),
        **born,
    }


def _mean_losses(
    model: nn.Module, losses: Callable, batches: dict[str, tuple[torch.Tensor, ...]], spec: RunSpec
) -> dict:
    numbers = {}
    for name, tensors in batches.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.stream("test"))
            numbers |= training.evaluate(model, losses, tensors, metrics.BATCH).named(f"test_{name}")
    return numbers | {"angle_seed": ANGLE_SEED}


def pose_numbers(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, turned: torch.Tensor, angles: torch.Tensor
) -> dict:
    """How well a `PoseVAE` says how images [N, 1, 28, 28] are turned that were ``turned`` by ``angles`` [N], degrees.

    ``angle_errors``: between an image and its upright copy, so of the pixel grid; ``resultant_by_class``: whether a
    class has one orientation; ``resultant_by_class_synchronised``: the same for the angles that `common_orientation`
    gives these images without the model; ``coverage``: of the 90 % arcs, which should hold just those angles.
    """
    found, half_widths = metrics.poses(model, turned)
    upright, _ = metrics.poses(model, images)
    common = common_orientation(turned, common_orientation(turned))
    return {
        "angle_errors": metrics.angle_errors(found - upright, angles),
        "resultant_by_class": metrics.resultant_by_class(found - angles, labels),
        "resultant_by_class_synchronised": metrics.resultant_by_class(common - angles, labels),
        "coverage": metrics.coverage(found, half_widths, common),
        "median_half_width": half_widths.median().item(),
    }


def code_numbers(
    model: nn.Module, test: Digits, known: Digits, label_counts: Sequence[int] = (100, 600, 1_000)
) -> dict[str, float]:
    """What the codes of turned test digits are worth without an upright: clusters, and neighbours among known digits.

    The ``known`` digits are turned as well, each by its own angle; their labels are used for the neighbours only.
    """
    codes = metrics.latent_codes(model, _turned(test.images))
    neighbours = metrics.latent_codes(model, rotate(known.images, random_angles(len(known.images), BORN_SEED)))
    numbers = metrics.cluster_scores(codes, test.labels)
    for count in sorted({count for count in label_counts if count < len(known.labels)} | {len(known.labels)}):
        found = metrics.neighbour_accuracy(codes, test.labels, neighbours[:count], known.labels[:count])
        numbers[f"neighbours_{count}"] = found
    moved = metrics.angle_between(codes, metrics.latent_codes(model, test.images)).mean().item()
    some = slice(0, 1_000)  # all pairs
    typical = {same: metrics.typical_angle(codes[some], test.labels[some], same=same) for same in (False, True)}
    return numbers | {"moved": moved, "typical_other_class": typical[False], "typical_same_class": typical[True]}


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
