"""Fitting: one loop for classifiers and autoencoders, resumable after every epoch, never silently NaN.

Adam with an exponential schedule, as in both papers. All randomness of an epoch (order of the images,
dropout, posterior samples, rotations) follows from (seed, epoch), so a run that was interrupted and
resumed gives the numbers of one that was not.
"""

from __future__ import annotations

import contextlib
import functools
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Bernoulli, kl_divergence
from tqdm import tqdm

from .captured import CapturedStep
from .checkpoints import load_metadata, load_tensors, save_tensors
from .memory import blocks_kept
from .models import evaluating
from .models.autoencoders import PoseVAE, degrees, hands
from .models.inputs import MNIST_FORMAT
from .models.spatial import SpatialVAE
from .rotation import mirrored, rotate, turn
from .synchronisation import common_handedness, common_orientation
from .vmf import HypersphericalUniform, VonMisesFisher

PAPER_BATCH = 100  # the papers' loss is a sum over a batch of this many images
SPATIAL_PIXELS = 64  # of an image that a spatial-VAE draws in a step of its training
PAPER_CANVAS = 32 * 32  # values of an image that their squared error is a sum over
ORIENTATION_WEIGHT = 100.0  # squared error that a pose at a right angle to the common orientation counts for

Losses = dict[str, Tensor]
Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Schedule:
    """Optimiser settings: the learning rate in epoch e (from 0) is ``learning_rate * decay**e``.

    An epoch sees every image once, or the next ``epoch_images`` of one series of such passes. At ``seconds`` of training
    the schedule ends: the learning rate falls, step by step, at least as fast as it takes to be at its end by then.
    """

    epochs: int
    learning_rate: float
    decay: float = 1.0
    weight_decay: float = 0.0
    batch_size: int = PAPER_BATCH
    epoch_images: int | None = None
    seconds: float | None = None

    def rate(self, epoch: float) -> float:
        return self.learning_rate * self.decay**epoch


class NonFiniteLoss(ArithmeticError):
    """The loss became NaN or infinite; the message names epoch and step."""


# --- losses: each returns scalars averaged over the batch, the one under "loss" is minimised ---------


def classifier_losses(model: nn.Module, images: Tensor, labels: Tensor, *, paper_loss: bool = True) -> Losses:
    """Losses of a classifier; images [N, C, H, W], labels [N].

    ``paper_loss`` is the report's cross-entropy of *softmax outputs*, a second softmax inside the loss,
    whose minimum is -log(e / (e + 9)) = 1.4612. The plain cross-entropy stands beside it.
    """
    logits = model(images)
    losses = {
        "paper_loss": F.cross_entropy(logits.softmax(-1), labels),
        "cross_entropy": F.cross_entropy(logits, labels),
        "accuracy": (logits.argmax(-1) == labels).float().mean(),
    }
    return {"loss": losses["paper_loss" if paper_loss else "cross_entropy"], **losses}


def vae_losses(model: nn.Module, images: Tensor, targets: Tensor, *, beta: float) -> Losses:
    """Losses of an autoencoder that shows ``images`` [N, C, H, H] to the encoder and wants as many ``targets`` back.

    Per image: the squared error on the standardised canvas, as of 32 x 32 values whatever its size and channels, so
    that beta means the same for all, and the KL in nats. The papers' loss is

        sum over 100 images of squared_error  +  beta * batch mean of kl,

    so per image beta counts for beta / 100. ``loss`` is in the papers' unit whatever the batch size.
    """
    posterior = model.encode(images)
    canvas = model.decode_canvas(posterior.rsample())
    squared_error = _per_canvas((canvas - model.canvas(targets)).square())
    kl = kl_divergence(posterior, model.prior).mean()
    return {"loss": PAPER_BATCH * squared_error + beta * kl, "squared_error": squared_error, "kl": kl}


def pose_losses(
    model: PoseVAE, images: Tensor, common: Tensor | None = None, handedness: Tensor | None = None, *, beta: float
) -> Losses:
    """Losses of a `PoseVAE` on images [N, C, H, H] as they came; the target is the image itself, turned as it is.

    As in `vae_losses`, but the squared error counts inside the disc that stays in the picture at every angle, the KL
    of the pose to the uniform law on the circle is added to that of the content, and the canonical view is turned by
    the pose's mode: an angle drawn from its law would blur what the decoder learns.

    ``common`` [N], in degrees, says how each image is turned against an orientation that all share, as
    `synchronisation.common_orientation` finds it without labels. Without it alike images may end in two orientations,
    half a turn apart. Where given, the pose's mode is pulled towards it, ``disagreement`` = 1 - cos(difference), and
    one further away than 45 degrees is replaced by it in the reconstruction; the concentration is fitted to the
    difference by likelihood, ``pose_nll``.

    With the group O(2) comes the KL of the hand to one half, and ``handedness`` [N], 1 or -1 as
    `synchronisation.common_handedness` finds it, then with ``common`` of the images mirrored by it. The hand learns it by
    likelihood, ``hand_nll``, and all else from images mirrored to be right-handed: that is the same, as the network is
    exact for reflections, and a drawing of the wrong hand would blur what the decoder learns.
    """
    if handedness is not None:
        images = mirrored(images, handedness)
    content, pose, *hand = model.posteriors(images, right_handed=handedness is not None)
    direction, losses = pose.loc, {}
    if common is not None:
        radians = torch.deg2rad(common)
        towards = torch.stack([radians.cos(), radians.sin()], -1).to(direction)
        cosine = (direction * towards).sum(-1)
        losses["disagreement"] = (1 - cosine).mean()
        law = VonMisesFisher(direction.detach(), pose.concentration, validate_args=False)
        losses["pose_nll"] = -law.log_prob(towards).mean()
        direction = torch.where((cosine > math.cos(math.radians(45)))[:, None], direction, towards)
    canvas = model.decode_canvas(content.rsample())
    if hand and handedness is None:
        canvas = mirrored(canvas, hands(*hand))
    squared_error = _per_canvas((turn(canvas, degrees(direction)) - model.canvas(images)).square() * model.disc())
    kl, kl_pose = kl_divergence(content, model.prior).mean(), kl_divergence(pose, HypersphericalUniform(2)).mean()
    for law in hand:
        kl_pose = kl_pose + kl_divergence(law, Bernoulli(law.probs.new_tensor(0.5))).mean()
    loss = PAPER_BATCH * squared_error + beta * (kl + kl_pose)
    if common is not None:
        loss = loss + PAPER_BATCH * (ORIENTATION_WEIGHT * losses["disagreement"] + losses["pose_nll"])
    if handedness is not None:
        losses["hand_nll"] = F.softplus(-hand[0].logits).mean()
        loss = loss + PAPER_BATCH * losses["hand_nll"]
    return {"loss": loss, "squared_error": squared_error, "kl": kl, "kl_pose": kl_pose, **losses}


def spatial_losses(model: SpatialVAE, images: Tensor, *, beta: float, pixels: int | None = None) -> Losses:
    """Losses of a `SpatialVAE` on images [N, 1, 28, 28] as they came, in the units of `pose_losses` and inside the same disc.

    The decoder runs once for every pixel, which is what training costs: of the disc's only so many random ``pixels`` are
    drawn, others every time, and stand for all (None: all).
    """
    content, angle = model.posteriors(images)
    inside = model.in_view()
    chosen = inside[torch.randperm(len(inside), device=inside.device)[:pixels]]
    drawn = model.draw(content.rsample(), angle.rsample(), model.places[chosen])
    squared_error = len(inside) * (drawn - MNIST_FORMAT.standardised(images).flatten(1)[:, chosen]).square().mean()
    kl, kl_pose = (divergence.mean() for divergence in model.divergences(content, angle))
    loss = PAPER_BATCH * squared_error + beta * (kl + kl_pose)
    return {"loss": loss, "squared_error": squared_error, "kl": kl, "kl_pose": kl_pose}


def _per_canvas(errors: Tensor) -> Tensor:
    """Mean over images of the sum of errors [N, C, H, W], as of the papers' canvas."""
    return errors.sum((1, 2, 3)).mean() * (PAPER_CANVAS / errors.shape[1:].numel())


# --- the loop ---------------------------------------------------------------------------------------


def fit_classifier(
    model: nn.Module, train: Tensors, validation: Tensors, schedule: Schedule, *, paper_loss: bool = True, **loop
) -> list[dict]:
    """Fit a classifier on (images [N, C, H, W], labels [N]); see `fit` for the rest."""
    losses = functools.partial(classifier_losses, model, paper_loss=paper_loss)
    return fit(model, losses, train, validation, schedule, **loop)


def fit_vae(
    model: nn.Module, train: Tensor, validation: Tensor, schedule: Schedule, *, beta: float, **loop
) -> list[dict]:
    """Fit an autoencoder on images [N, C, H, W]; see `fit` for the rest.

    With ``rotated``, as in the tiny paper's appendix, a turned image is encoded *and* is the target as it is turned.
    """

    def losses(images: Tensor) -> Losses:
        return vae_losses(model, images, images, beta=beta)

    return fit(model, losses, (train,), (validation,), schedule, **loop)


def fit_pose(
    model: PoseVAE, train: Tensor, validation: Tensor, schedule: Schedule, *, beta: float, **loop
) -> list[dict]:
    """Fit a `PoseVAE` on images [N, C, H, W] that were never upright; see `fit` for the rest, but for ``rotated``.

    First `common_orientation` finds, from the images alone, how they are turned against each other, with the group O(2)
    after `common_handedness`; then the model learns with it, see `pose_losses`.
    """
    views, handedness = model.images.turnable(train), ()
    if model.handed:
        handedness = (common_handedness(views),)
        views = mirrored(views, *handedness)
    common = common_orientation(views, sweeps=2)
    losses = functools.partial(pose_losses, model, beta=beta)
    return fit(model, losses, (train, common, *handedness), (validation,), schedule, rotated=False, **loop)


def fit_spatial(
    model: SpatialVAE, train: Tensor, validation: Tensor, schedule: Schedule, *, beta: float, **loop
) -> list[dict]:
    """Fit a `SpatialVAE` on images [N, 1, 28, 28] that were never upright; see `fit` for the rest, but for ``rotated``."""
    losses = functools.partial(spatial_losses, model, beta=beta, pixels=SPATIAL_PIXELS)
    return fit(model, losses, (train,), (validation,), schedule, rotated=False, **loop)


def fit(
    model: nn.Module,
    losses: Callable[..., Losses],
    train: Tensors,
    validation: Tensors,
    schedule: Schedule,
    *,
    rotated: bool = False,
    seed: int = 0,
    state_file: Path | None = None,
    stop_after: int | None = None,
    progress: bool = True,
    title: str = "fit",
) -> list[dict]:
    """Minimise ``losses(*batch)["loss"]`` over the parameters of ``model``; leaves it in eval mode.

    Parameters
    ----------
    train, validation : tensors of equal length, cut into batches along dimension 0
    rotated : the first of them are images, each turned by a fresh random angle before ``losses`` sees it
    seed : of everything random in the loop (the model's initial values are the caller's)
    state_file : where model, optimiser and history are kept after every epoch; an existing file is
        resumed from, so an interrupt loses at most the running epoch. The caller deletes it.
    stop_after : leave the schedule after this epoch (none: at its end)
    progress : a text bar that reads the same in a terminal, in JupyterLab and in a saved notebook

    Returns one dict per epoch: epoch, learning_rate, and the means of all losses as ``train_*`` (in train mode, while
    the weights move) and ``validation_*`` (in eval mode, after the epoch). A `NonFiniteLoss` names epoch and step; the
    state of the last whole epoch stays on disk.
    """
    start, device = time.perf_counter(), next(model.parameters()).device
    train, validation = ([t.to(device) for t in tensors] for tensors in (train, validation))
    model.train()
    gpu = device.type == "cuda"
    optimiser = _adam(model, schedule, device)
    history = []
    if state_file and state_file.exists():
        start -= read_progress(state_file).seconds
        history = _load_state(state_file, model, optimiser)
    last = max(len(history), min(schedule.epochs, stop_after or schedule.epochs))
    count = len(train[0])
    steps = math.ceil((schedule.epoch_images or count) / schedule.batch_size)
    bar_format = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
    look = dict(file=sys.stdout, mininterval=1.0, ncols=100, bar_format=bar_format)  # a notebook paints stderr red
    bar = tqdm(total=last * steps, initial=len(history) * steps, desc=title, disable=not progress, **look)

    def diverged(what: str, epoch: int, where: str) -> NonFiniteLoss:
        place = f"epoch {epoch + 1} of {schedule.epochs}, {where}"
        return NonFiniteLoss(f"{title}: {what} in {place} (learning rate {schedule.rate(epoch):g})")

    def turned(images: Tensor, *others: Tensor) -> Tensors:
        # angles are drawn on the CPU, where `rotate` wants to read them: a GPU would have to be waited for
        return (rotate(images, 360 * torch.rand(len(images)) - 180) if rotated else images), *others

    def turned_losses(*batch: Tensor) -> Losses:
        return losses(*turned(*batch))

    def take_step(*batch: Tensor) -> Losses:
        found = losses(*batch)
        optimiser.zero_grad(set_to_none=True)
        found["loss"].backward()
        optimiser.step()
        return {name: value.detach() for name, value in found.items()}

    if gpu:
        take_step = CapturedStep(take_step)
    here = torch.cuda.device(device) if gpu else contextlib.nullcontext()
    with bar, here, blocks_kept(), torch.random.fork_rng(devices=[device] if gpu else []):
        for epoch in range(len(history), last):
            if schedule.seconds and history and time.perf_counter() - start >= schedule.seconds:
                break
            torch.manual_seed((seed * 1_000_003 + epoch) % 2**63)
            rate = _set_rate(optimiser, schedule.rate(epoch))
            model.train()
            means = _Means()
            order = torch.randperm(count) if not schedule.epoch_images else _next_images(count, schedule, seed, epoch)
            order = order.to(device)
            for step, batch in enumerate(order.split(schedule.batch_size)):
                if schedule.seconds:
                    elapsed = (time.perf_counter() - start) / schedule.seconds
                    if elapsed >= 1 and step:
                        break
                    epochs = max(epoch + step / steps, min(elapsed, 1) * schedule.epochs)
                    rate = _set_rate(optimiser, schedule.rate(epochs))
                found = take_step(*turned(*(tensor[batch] for tensor in train)))
                if not torch.isfinite(found["loss"]):
                    raise diverged(f"loss is {found['loss'].item()}", epoch, f"step {step + 1} of {steps}")
                means.add(found, len(batch))
                bar.update()
            record = {"epoch": epoch + 1, "learning_rate": rate, **means.named("train")}
            record |= evaluate(model, turned_losses, validation, schedule.batch_size).named("validation")
            if not math.isfinite(record["validation_loss"]):  # the last step may be the one that broke the weights
                raise diverged(f"validation loss is {record['validation_loss']}", epoch, "after its last step")
            history.append(record)
            bar.set_postfix(train=f"{record['train_loss']:.4g}", validation=f"{record['validation_loss']:.4g}")
            if state_file:
                _save_state(state_file, model, optimiser, history, time.perf_counter() - start)
    model.eval()
    return history


def _next_images(count: int, schedule: Schedule, seed: int, epoch: int) -> Tensor:
    """Which of ``count`` images an epoch of ``epoch_images`` sees: at any time all were seen equally often, give or take once.

    They are cut from one series of permutations, each with a seed of its own: a resumed run needs none of those before.
    """
    first, last = (schedule.epoch_images * (epoch + more) for more in (0, 1))
    passes = range(first // count, math.ceil(last / count))
    generators = (torch.Generator().manual_seed((seed * 1_000_003 + 500_000 + each) % 2**63) for each in passes)
    series = torch.cat([torch.randperm(count, generator=generator) for generator in generators])
    return series[first - passes.start * count :][: schedule.epoch_images]


def _adam(model: nn.Module, schedule: Schedule, device: torch.device) -> torch.optim.Adam:
    """Adam; on a GPU one that a captured step can take, with the learning rate in a tensor that the step reads there."""
    gpu = device.type == "cuda"
    rate = torch.tensor(schedule.learning_rate, device=device) if gpu else schedule.learning_rate
    options = dict(weight_decay=schedule.weight_decay, fused=device.type in ("cpu", "cuda"), capturable=gpu)
    return torch.optim.Adam(model.parameters(), lr=rate, **options)


def _set_rate(optimiser: torch.optim.Optimizer, rate: float) -> float:
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    return rate


@torch.no_grad()
def evaluate(model: nn.Module, losses: Callable[..., Losses], tensors: Tensors, batch_size: int) -> _Means:
    """Mean losses over ``tensors`` in eval mode, in batches; afterwards every module is in the mode it was in."""
    device = next(model.parameters()).device
    means = _Means()
    with evaluating(model):
        for batch in zip(*(tensor.split(batch_size) for tensor in tensors), strict=True):
            means.add(losses(*(part.to(device) for part in batch)), len(batch[0]))
    return means


class _Means:
    """Means over batches weighted by their sizes, kept on the device until asked for."""

    def __init__(self):
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, losses: Losses, count: int) -> None:
        self.count += count
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach().double() * count

    def named(self, prefix: str) -> dict[str, float]:
        return {f"{prefix}_{name}": (total / self.count).item() for name, total in self.sums.items()}


class Progress(NamedTuple):
    """How far the training of a state file is: epochs done and the seconds they took, all sessions together."""

    epochs: int
    seconds: float


def read_progress(state_file: Path) -> Progress:
    """The progress in a state file, without reading its tensors.

    FileNotFoundError where there is none, ValueError where it is not a whole one, or a renamed one of another training.
    """
    metadata = load_metadata(state_file)
    name = metadata.get("name", state_file.name)  # older files have neither their name nor the seconds
    if "history" not in metadata or name != state_file.name:
        found = f"that of {name}" if "history" in metadata else f"{sorted(metadata)}"
        raise ValueError(f"{state_file}: expected the state of this training, found {found}")
    return Progress(len(metadata["history"]), metadata.get("seconds", 0.0))


def _save_state(path: Path, model: nn.Module, optimiser: torch.optim.Adam, history: list[dict], seconds: float) -> None:
    # escnn loads a state dict saved in eval mode only into eval mode; train mode works both ways.
    model.train()
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    save_tensors(path, tensors, {"name": path.name, "history": history, "seconds": seconds})


def _load_state(path: Path, model: nn.Module, optimiser: torch.optim.Adam) -> list[dict]:
    tensors, metadata = load_tensors(path)
    model.load_state_dict({name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")})
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("adam."):
            _, index, moment = name.split(".")
            moments.setdefault(int(index), {})[moment] = tensor
    optimiser.load_state_dict(optimiser.state_dict() | {"state": moments})
    return metadata["history"]
