"""Colour images of 48 pixels without labels, and a model with a pose for them; also read by the notebook of a test."""

import torch
from torch import Tensor
from torch.nn import functional

from gvae_core import rotate
from gvae_core.mnist import load_splits
from gvae_core.models import PoseVAE
from gvae_core.report.profiles import born_rotated
from gvae_core.rotation import random_angles
from gvae_core.runs.results import find

SIDE, INK = 48, torch.tensor([0.2, 0.8, 0.6])[:, None, None]


def pose_model() -> PoseVAE:
    """The committed one of full size."""
    return find(born_rotated("paper", "mnist")["pose"]).load_model().eval()


class OnWhite(PoseVAE):
    """Takes coloured digits on white for white ones on black, and back."""

    def posteriors(self, images: Tensor):
        ink = ((1 - images) / INK.to(images)).mean(1, keepdim=True).clamp(0, 1)
        return super().posteriors(functional.interpolate(ink, size=28, mode="bilinear", antialias=True).clamp(0, 1))

    def drawn(self, z, pose):
        ink = functional.interpolate(super().drawn(z, pose).clamp(0, 1), size=SIDE, mode="bilinear")
        return 1 - ink * INK.to(ink)


def own_model() -> PoseVAE:
    model = pose_model()
    model.__class__ = OnWhite
    return model


def own_images(count: int = 300) -> Tensor:
    """Digits at random angles [count, 3, 48, 48], coloured on white."""
    digits = load_splits("mnist5k").test.images[:count]
    turned = rotate(digits, random_angles(count, 3))
    return 1 - functional.interpolate(turned, size=SIDE, mode="bilinear").clamp(0, 1) * INK
