"""A model as it was when the explorer looked at it, what it makes of images, and how far apart its codes lie."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..metrics import latent_codes, typical_angle
from ..models import PoseVAE
from ..models.autoencoders import degrees, hands

SAMPLE = 4096  # numbers of a large buffer that its checksum reads
YARDSTICK_IMAGES = 100


@dataclass(frozen=True)
class Answer:
    """A model's codes [N, d], concentrations [N] and reconstructions [N, C, H, H] of N images.

    With a pose the reconstructions are turned as the images came; then ``poses`` [N] (degrees) and ``arcs`` [N], half
    the arc that holds 90 % of the pose's posterior, are there; and ``hands`` [N], 1 or -1, where it has them.
    """

    codes: Tensor
    concentrations: Tensor
    reconstructions: Tensor
    poses: Tensor | None = None
    arcs: Tensor | None = None
    hands: Tensor | None = None

    def split(self, count: int) -> list[Answer]:
        parts = [part.split(count) for part in vars(self).values() if part is not None]
        return [Answer(*part) for part in zip(*parts)]


class Snapshot:
    """A model as it was: a copy in eval mode, which nobody trains, moves or switches while a thread computes with it.

    The model itself is only read, so its mode stays as it is.
    """

    def __init__(self, model: nn.Module):
        self._source, self._checksum = model, checksum(model)
        # what is no leaf of autograd's graph cannot be copied; escnn's expanded filters may be none
        kept = {id(buffer): buffer.detach().clone() for buffer in model.buffers() if not buffer.is_leaf}
        with torch.no_grad():
            self.model = copy.deepcopy(model, kept).eval().to(memory_format=torch.channels_last)  # a tenth faster
        self.device = next(self.model.parameters()).device

    def is_of(self, model: nn.Module) -> bool:
        """Whether it shows this model with its weights of now."""
        return model is self._source and checksum(model) == self._checksum

    @property
    def has_pose(self) -> bool:
        return isinstance(self.model, PoseVAE)

    @property
    def fades(self) -> bool:
        """Whether the model sees a disc of each image, which fades into the background."""
        return self.model.images.fade

    def seen(self, images: Tensor) -> Tensor:
        """What the model sees of images [N, C, H, H]."""
        return self.model.images.turned(images, 0.0) if self.fades else images

    @torch.no_grad()
    def answer(self, images: Tensor) -> Answer:
        """Encode and decode images [N, C, H, H]; the results on the CPU.

        ValueError where the model takes images of another size or other channels.
        """
        images = images.to(self.device)
        if self.has_pose:
            posterior, pose, *hand = self.model.posteriors(images)
            decoded = self.model.drawn(posterior.mode, pose, *hand)
            found = degrees(pose.mode), pose.cap_angle(0.9), *map(hands, hand)
        else:
            posterior, found = self.model.encode(images), ()
            decoded = self.model.decode(posterior.mode)
        if decoded.shape != images.shape:
            raise ValueError(f"expected reconstructions {list(images.shape)}, got {list(decoded.shape)}")
        return Answer(*(part.cpu() for part in (posterior.mode, posterior.concentration, decoded.clamp(0, 1), *found)))


def checksum(model: nn.Module) -> int:
    """CRC-32 of all parameters and buffers: training, loading and writes through ``.data`` change it.

    Of a buffer with more than `SAMPLE` numbers only so many, evenly spread: those are tables, and filters that
    escnn expands from the weights, together up to forty times as large as these (135 MB).
    """
    value = 0
    for tensor, buffer in _tensors(model):
        in_memory = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)  # so that flattening copies nothing
        flat = tensor.detach().permute(in_memory).reshape(-1)
        if buffer and len(flat) > SAMPLE:
            flat = flat[:: len(flat) // SAMPLE]
        value = zlib.crc32(flat.cpu().contiguous().view(torch.uint8).numpy(), value)
    return value


def _tensors(module: nn.Module) -> Iterator[tuple[Tensor, bool]]:
    """Parameters and buffers, and which of the two; ``modules()`` would hash escnn's bases, for milliseconds."""
    for kept, buffers in ((module._parameters, False), (module._buffers, True)):
        yield from ((tensor, buffers) for tensor in kept.values() if tensor is not None)
    for child in module._modules.values():
        if child is not None:
            yield from _tensors(child)


def yardstick(model: nn.Module, images: Tensor, labels: Tensor | None) -> float:
    """Typical angle (degrees) between codes of different classes, or of different images where no two classes are.

    Not a number for a single image. Meant for the images of `yardstick_sample`.
    """
    if labels is None or len(labels.unique()) < 2:
        labels = torch.arange(len(images))
    return typical_angle(latent_codes(model, images), labels) if len(images) > 1 else float("nan")


def yardstick_sample(count: int, labels: Tensor | None, most: int = YARDSTICK_IMAGES) -> Tensor:
    """Indices of at most ``most`` of ``count`` images: random, seeded, of each class as many.

    ``labels`` are [count] or None.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    if labels is not None:
        rank = torch.empty(count, dtype=torch.long)  # an image is the how-manieth of its class
        for label in labels.unique():
            chosen = order[labels[order] == label]
            rank[chosen] = torch.arange(len(chosen))
        order = order[rank[order].argsort(stable=True)]
    return order[:most].sort().values
