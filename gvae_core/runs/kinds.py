"""What a model's name in a `RunSpec` stands for: its builder, how it is fitted, how it is measured."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from .. import models, training
from ..mnist import Splits
from ..rotation import random_angles, rotate
from .measures import BORN_SEED, born_rotated, measure_autoencoder, measure_classifier

if TYPE_CHECKING:
    from .spec import RunSpec


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
    images, labels = _training_images(splits, spec), (splits.train.labels, splits.validation.labels)
    loop |= dict(seed=spec.stream("training"), rotated=spec.protocol == "rotated")
    return training.fit_classifier(model, *zip(images, labels), schedule, paper_loss=spec.paper_loss, **loop)


def _fit_autoencoder(
    model: nn.Module, splits: Splits, schedule: training.Schedule, spec: RunSpec, **loop: object
) -> list[dict]:
    train, validation = _training_images(splits, spec)
    loop |= dict(seed=spec.stream("training"))
    if spec.sizes.get("pose") or spec.model == "spatial":
        fit = training.fit_spatial if spec.model == "spatial" else training.fit_pose
        return fit(model, train, validation, schedule, beta=spec.beta, **loop)
    loop |= dict(rotated=spec.protocol == "rotated")
    return training.fit_vae(model, train, validation, schedule, beta=spec.beta, **loop)


def _training_images(splits: Splits, spec: RunSpec) -> tuple[torch.Tensor, torch.Tensor]:
    """Those for training and for validation, under the protocol born_rotated each turned by its own angle."""
    train, validation = splits.train.images, splits.validation.images
    if spec.protocol != "born_rotated":
        return train, validation
    return born_rotated(train), rotate(validation, random_angles(len(validation), BORN_SEED + 1))


_classifier = functools.partial(Kind, fit=_fit_classifier, measure=measure_classifier)
_autoencoder = functools.partial(Kind, fit=_fit_autoencoder, measure=measure_autoencoder)
CLASSIFIERS = {"cnn": _classifier(models.CNNClassifier), "gcnn": _classifier(models.GCNNClassifier)}
AUTOENCODERS = {
    "spatial": _autoencoder(models.SpatialVAE),
    "sgvae": _autoencoder(models.sgvae),
    "svae": _autoencoder(models.svae),
    "gaussian": _autoencoder(functools.partial(models.sgvae, gaussian=True)),
}
KINDS = CLASSIFIERS | AUTOENCODERS
