"""How a trained model is measured on test digits: the protocol of turned ones, and the numbers of a result."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

from .. import metrics, models, training
from ..mnist import Digits, Splits, load_mnist
from ..rotation import mirrored, random_angles, rotate
from ..synchronisation import common_orientation

if TYPE_CHECKING:
    from .spec import RunSpec

ANGLES = tuple(range(-180, 181, 15))  # accuracy and drift are measured at these, in degrees
DRIFT_IMAGES = 200  # the latent drift is a mean over so many test digits
ANGLE_SEED = 20220901  # of the rotated test images' angles, the same for every run
BORN_SEED = 20261125  # of the angles at which training images are born under the protocol born_rotated
POSE_FRAMES = 3  # turned copies of a digit that a model with a pose reads when it is measured, see `models.reading`
LABEL_COUNTS = (100, 600, 1_000)  # of known digits whose labels the neighbours have, beside all of them
ROTATED_MNIST = (12_000, 50_000)  # training and test digits of its protocol (H. Larochelle et al., ICML 2007)


def measure_classifier(model: nn.Module, splits: Splits, spec: RunSpec) -> dict:
    """On the test digits: upright, each turned by its own random angle, those mirrored, and all by common angles."""
    test, turned = splits.test, turned_at_random(splits.test.images)
    losses = functools.partial(training.classifier_losses, model)
    pairs = {"upright": test.images, "rotated": turned, "mirrored": turned.flip(-1)}
    pairs = {name: (images, test.labels) for name, images in pairs.items()}
    by_angle = metrics.accuracy_by_angle(model, test.images, test.labels, ANGLES)
    return _mean_losses(model, losses, pairs, spec) | {"angles": list(ANGLES), "accuracy_by_angle": by_angle}


def measure_autoencoder(model: nn.Module, splits: Splits, spec: RunSpec) -> dict:
    """On the test digits: losses of upright ones, and of turned ones against the *upright* targets.

    Of a model that says how images are turned, instead: losses of turned ones, and how well the angles are found.
    Under the protocol born_rotated also what the codes are worth, and the squared error of what is drawn as the digits
    came, a mean over the 28 x 28 pixels. ``frames`` are those that a `PoseVAE` reads.
    """
    if spec.sizes.get("pose"):
        with models.reading(model, POSE_FRAMES):
            return _autoencoder_numbers(model, splits, spec) | {"frames": POSE_FRAMES}
    return _autoencoder_numbers(model, splits, spec)


def _autoencoder_numbers(model: nn.Module, splits: Splits, spec: RunSpec) -> dict:
    test, turned, born = splits.test, turned_at_random(splits.test.images), {}
    if spec.protocol == "born_rotated":
        code = functools.partial(metrics.latent_codes, model)
        born["codes"] = code_numbers(code, test, splits.train) | code_movements(code, test)
        born["squared_error_per_pixel"] = metrics.squared_error(metrics.redrawn(model, turned), turned).mean().item()
    if spec.sizes.get("pose") or spec.model == "spatial":
        losses = training.spatial_losses if spec.model == "spatial" else training.pose_losses
        losses = functools.partial(losses, model, beta=spec.beta)
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
    """How well a `PoseVAE` or a `SpatialVAE` says how images [N, 1, 28, 28] are turned that were ``turned`` by ``angles`` [N], degrees.

    ``angle_errors``: between an image and its upright copy, so of the pixel grid; ``resultant_by_class``: whether a
    class has one orientation; ``resultant_by_class_synchronised``: the same for the angles that `common_orientation`
    gives these images without the model; ``coverage``: of the 90 % arcs, which should hold just those angles.

    With the group O(2) angles are those of the images mirrored to be right-handed. ``hand_kept`` is the share whose hand is
    that of the upright copy, and only there the ``angle_errors`` are; ``hand_by_class`` is the share of a class that has
    its commoner hand.
    """
    found, half_widths = metrics.poses(model, turned)
    upright, _ = metrics.poses(model, images)
    of_hands, kept = {}, torch.ones_like(angles, dtype=torch.bool)
    if getattr(model, "handed", False):
        hands = metrics.handedness(model, turned)
        kept = hands == metrics.handedness(model, images)
        of_hands["hand_kept"] = kept.double().mean().item()
        by_class = (hands[labels == label].mean().item() for label in range(10))
        of_hands["hand_by_class"] = [(1 + abs(mean)) / 2 for mean in by_class]
        turned, found, upright, angles = mirrored(turned, hands), hands * found, hands * upright, hands * angles
    common = common_orientation(turned, sweeps=2)
    return of_hands | {
        "angle_errors": metrics.angle_errors((found - upright)[kept], angles[kept]),
        "resultant_by_class": metrics.resultant_by_class(found - angles, labels),
        "resultant_by_class_synchronised": metrics.resultant_by_class(common - angles, labels),
        "coverage": metrics.coverage(found, half_widths, common),
        "median_half_width": half_widths.median().item(),
    }


def code_numbers(
    code: Callable[[torch.Tensor], torch.Tensor],
    test: Digits,
    known: Digits,
) -> dict[str, float]:
    """What the codes of turned test digits are worth without an upright: clusters, and neighbours among known digits.

    ``code`` maps images [N, 1, 28, 28] to codes [N, d]. The ``known`` digits are turned as well, each by its own angle;
    their labels are used for the neighbours only. Where they are as many as rotated MNIST has for training, also on as
    many test digits as it has, `rotated_mnist_test`.
    """
    codes, neighbours = code(turned_at_random(test.images)), code(born_rotated(known.images))
    numbers = metrics.cluster_scores(codes, test.labels)
    for count in sorted({count for count in LABEL_COUNTS if count < len(known.labels)} | {len(known.labels)}):
        found = metrics.neighbour_accuracy(codes, test.labels, neighbours[:count], known.labels[:count])
        numbers[f"neighbours_{count}"] = found
    if len(known.labels) == ROTATED_MNIST[0]:
        many = rotated_mnist_test(known)
        found = metrics.neighbour_accuracy(code(many.images), many.labels, neighbours, known.labels)
        numbers["neighbours_{}_of_{}".format(*ROTATED_MNIST)] = found
    return numbers


def code_movements(code: Callable[[torch.Tensor], torch.Tensor], test: Digits) -> dict[str, float]:
    """How far codes move when test digits are turned, beside the angles between different digits; as seen from the origin.

    ``code`` as in `code_numbers`; degrees.
    """
    codes = code(turned_at_random(test.images))
    moved = metrics.angle_between(codes, code(test.images)).mean().item()
    some = slice(0, 1_000)  # all pairs
    typical = {same: metrics.typical_angle(codes[some], test.labels[some], same=same) for same in (False, True)}
    return {"moved": moved, "typical_other_class": typical[False], "typical_same_class": typical[True]}


def rotated_mnist_test(known: Digits) -> Digits:
    """As many turned digits as rotated MNIST has for testing, none of them among the ``known`` training digits.

    The 10,000 official test digits, those for validation among them, and the first others of the official training digits.
    """
    mnist = load_mnist("mnist")
    others = torch.ones(len(mnist.train_labels), dtype=torch.bool)
    others[known.indices] = False
    chosen = others.nonzero()[: ROTATED_MNIST[1] - len(mnist.test_labels), 0]
    images, labels = (
        torch.cat([getattr(mnist, f"test_{part}"), getattr(mnist, f"train_{part}")[chosen]])
        for part in ("images", "labels")
    )
    return Digits(
        turned_at_random(images), labels, torch.cat([torch.arange(len(mnist.test_labels)), chosen]), "test, train"
    )


def kinds_of_input(test: Digits) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What the tiny paper's Table 1 has read: images [N, 1, 28, 28] and labels [N] by kind.

    Upright digits, the same each turned by its own random angle, the turned 6s, the turned 9s.
    """
    turned, labels = turned_at_random(test.images), test.labels
    inputs = {"upright": (test.images, labels), "rotated": (turned, labels)}
    return inputs | {f"rotated {d}s": (turned[labels == d], labels[labels == d]) for d in (6, 9)}


def turned_at_random(images: torch.Tensor) -> torch.Tensor:
    return rotate(images, random_angles(len(images), ANGLE_SEED))


def born_rotated(images: torch.Tensor) -> torch.Tensor:
    return rotate(images, random_angles(len(images), BORN_SEED))
