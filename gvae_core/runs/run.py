"""Runs: what is trained (`RunSpec`), the profiles' lists of runs, and `run` with its cache on disk.

One run is one `RunSpec` is one JSON file and one safetensors checkpoint, named by the spec's content.
A run that exists is loaded, not repeated; an interrupted one resumes from its last epoch. A run may also
be stopped and measured before its last epoch: its result says so, and the run goes on from there.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from filelock import FileLock
from torch import nn

from .. import metrics, models, training
from ..checkpoints import load_tensors, save_tensors
from ..files import COMMITTED, outputs_directory, write_text
from ..images import Digits, load_splits
from ..rotation import random_angles, rotate
from ..steerable import path_in_use
from .spec import CLASSIFIERS, RunSpec

ANGLES = tuple(range(-180, 181, 15))  # accuracy and drift are measured at these, in degrees
DRIFT_IMAGES = 200  # the latent drift is a mean over so many test digits
ANGLE_SEED = 20220901  # of the rotated test images' angles, the same for every run


@dataclass(frozen=True)
class Result:
    """A run that was measured: at its end, or after the epochs it was stopped at (``complete`` is False).

    ``history`` holds one dict per epoch (see `training.fit`), ``metrics`` the numbers after the last of
    them, ``seconds`` what the epochs in it took, all sessions together, and these last numbers,
    ``steerable`` the path of the steerable layers (see `steerable.accelerate`; empty without any),
    ``path`` the JSON file all of it was read from.
    """

    spec: RunSpec
    history: list[dict]
    metrics: dict
    seconds: float
    device: str
    steerable: str
    versions: dict[str, str]
    parameters: int
    path: Path

    @property
    def epochs_reached(self) -> int:
        return len(self.history)

    @property
    def complete(self) -> bool:
        """Whether all epochs of the spec are done; a table of an incomplete result names the epochs."""
        return self.epochs_reached == self.spec.epochs

    @property
    def checkpoint(self) -> Path:
        return self.path.with_suffix(".safetensors")

    def load_model(self) -> nn.Module:
        """The trained model in eval mode, on the CPU."""
        return load_model(self.checkpoint)


def load_model(checkpoint: Path) -> nn.Module:
    """Rebuild a trained model from a checkpoint alone: the spec is in its metadata."""
    tensors, metadata = load_tensors(checkpoint)
    if "spec" not in metadata:
        raise ValueError(f"{checkpoint}: expected a run's checkpoint with its spec, found {sorted(metadata)}")
    model = RunSpec.from_dict(metadata["spec"]).build()
    model.load_state_dict(tensors)
    return model.eval()


def runs_folder() -> Path:
    """Where this machine's runs are written."""
    return outputs_directory() / "runs"


def lock_path(spec: RunSpec) -> Path:
    """Whoever works on a run holds this lock."""
    return runs_folder() / f"{spec.key}.lock"


def state_path(spec: RunSpec) -> Path:
    """Where an unfinished run keeps what it needs to go on (see `training.fit`)."""
    return runs_folder() / f"{spec.key}.state.safetensors"


def find(spec: RunSpec, *, incomplete: bool = False) -> Result | None:
    """The finished run of ``spec``, from this machine's runs or the committed ones, or None.

    With ``incomplete`` also one that was stopped before its last epoch, the one that got farthest;
    ``Result.complete`` tells which it is.
    """
    paths = (folder / f"{spec.key}.json" for folder in (runs_folder(), COMMITTED))
    results = [read_result(path) for path in paths if path.is_file()]
    results = [result for result in results if result.complete or incomplete]
    return max(results, key=lambda result: result.epochs_reached, default=None)


def run(spec: RunSpec, *, device: str = "cpu", progress: bool = True, stop_after: int | None = None) -> Result:
    """Train, measure and store what ``spec`` says, or load it where that was done before.

    A second process that asks for the same run waits for the first and loads its result.

    With ``stop_after=k``, less than ``spec.epochs``, the training stops after epoch k of the spec's schedule
    and the model is measured as it then is: an interim result, ``complete`` is False. A run that is already
    at epoch k or beyond is measured or loaded as it is. What is needed to go on stays on disk, and a later
    call with a larger k, or none, gives the numbers of a run without the stop. Where only the interim result
    came along (committed, on a fresh machine), a later call starts again from the first epoch.

    Raises
    ------
    training.NonFiniteLoss : the loss diverged
    ValueError, OSError : the data is missing or bad, the device is not there, ``stop_after`` is less than 1
    """
    last, device = goal(spec, stop_after), resolve_device(device)
    runs_folder().mkdir(parents=True, exist_ok=True)
    with FileLock(lock_path(spec)):
        _remove_remains(spec)
        result = find(spec, incomplete=True)
        if result and result.epochs_reached >= last:
            return result
        with _repeatable():
            return _run(spec, last, device, progress)


def _repeatable():
    """cuDNN without its faster algorithms whose sums come in a changing order, and without TF32.

    TF32 comes with ``torch.set_float32_matmul_precision("high")``, as it does for matrix products.
    """
    precise = torch.get_float32_matmul_precision() == "highest"
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=not precise)


def goal(spec: RunSpec, stop_after: int | None) -> int:
    """The epoch that ``run(spec, stop_after=stop_after)`` ends at; ValueError if that makes no sense."""
    if stop_after is None:
        return spec.epochs
    if isinstance(stop_after, bool) or not isinstance(stop_after, int) or stop_after < 1:
        raise ValueError(f"expected stop_after to be a whole number of at least 1, got {stop_after!r}")
    return min(spec.epochs, stop_after)


def resolve_device(device: str) -> str:
    """``auto`` -> cuda where torch sees a GPU, else cpu; ValueError for a device that is not there."""
    gpus = torch.cuda.device_count()
    if device == "auto":
        return "cuda" if gpus else "cpu"
    if device not in ("cpu", "cuda", *(f"cuda:{index}" for index in range(gpus))) or (device == "cuda" and not gpus):
        raise ValueError(f"expected a device among auto, cpu, cuda, cuda:N; got {device!r}, and torch sees {gpus} GPUs")
    return device


def _remove_remains(spec: RunSpec) -> None:
    """Delete what a process left that was killed in the middle of a write; only who holds the lock may."""
    for temporary in (f".{spec.key}-*", f".{spec.key}.state-*"):
        for path in runs_folder().glob(temporary):
            path.unlink()
    if find(spec) and (runs_folder() / f"{spec.key}.json").is_file():
        state_path(spec).unlink(missing_ok=True)


def _run(spec: RunSpec, last: int, device: str, progress: bool) -> Result:
    splits = load_splits(spec.source, spec.train_images, spec.test_images)
    model = spec.build().to(device)
    path, state_file = runs_folder() / f"{spec.key}.json", state_path(spec)
    schedule = training.Schedule(spec.epochs, spec.learning_rate, spec.decay, spec.weight_decay, spec.batch_size)
    loop = dict(
        rotated=spec.protocol == "rotated",
        seed=spec.seed,
        state_file=state_file,
        stop_after=last,
        progress=progress,
        title=spec.title,
    )
    if spec.model in CLASSIFIERS:
        train, validation = ((part.images, part.labels) for part in (splits.train, splits.validation))
        history = training.fit_classifier(model, train, validation, schedule, paper_loss=spec.paper_loss, **loop)
        start = time.perf_counter()
        final = _classifier_metrics(model, splits.test)
    else:
        history = training.fit_vae(
            model, splits.train.images, splits.validation.images, schedule, beta=spec.beta, **loop
        )
        start = time.perf_counter()
        final = _vae_metrics(model, splits.test, spec)
    seconds = training.read_progress(state_file).seconds + time.perf_counter() - start
    record = {
        "spec": spec.to_dict(),
        "metrics": final,
        "history": history,
        "parameters": models.parameter_count(model),
        "seconds": round(seconds, 2),
        "device": _device_name(device),
        "steerable": path_in_use(model),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "escnn", "numpy", "gvae-core")},
    }
    # An interim result goes first and the JSON comes last: a JSON says that its own checkpoint is there.
    path.unlink(missing_ok=True)
    # escnn's buffers differ between modes; a state dict of train mode loads everywhere
    save_tensors(
        path.with_suffix(".safetensors"),
        model.train().state_dict(),
        {"spec": spec.to_dict(), "epochs_reached": len(history)},
    )
    write_text(path, json.dumps(record, indent=1))
    if len(history) == spec.epochs:
        state_file.unlink()
    return read_result(path)


def read_result(path: Path) -> Result:
    """The run stored in a JSON file; ValueError, naming the file, if that is not one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return Result(spec=RunSpec.from_dict(record.pop("spec")), path=path, **record)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path}: expected a run's result, found something else ({error}); delete it to rerun"
        ) from error


def by_seed(results: Sequence[Result]) -> list[list[Result]]:
    """Groups of results that differ in the seed alone and got as far, in order of appearance."""
    groups: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        group = dataclasses.replace(result.spec, seed=0).key, result.epochs_reached
        groups.setdefault(group, []).append(result)
    return list(groups.values())


def _device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def kinds_of_input(test: Digits) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What the tiny paper's Table 1 has read: upright digits, each turned by its own random angle, turned 6s, turned 9s.

    Images [N, 1, 28, 28] and labels [N] by kind.
    """
    turned, labels = _turned(test.images), test.labels
    inputs = {"upright": (test.images, labels), "rotated": (turned, labels)}
    return inputs | {f"rotated {d}s": (turned[labels == d], labels[labels == d]) for d in (6, 9)}


def _turned(images: torch.Tensor) -> torch.Tensor:
    return rotate(images, random_angles(len(images), ANGLE_SEED))


# --- final numbers --------------------------------------------------------------------------------


def _classifier_metrics(model: nn.Module, test: Digits) -> dict:
    """On the test digits, upright and each turned by its own random angle, and by common angles."""
    turned = _turned(test.images)
    numbers = {}
    for name, images in (("upright", test.images), ("rotated", turned)):
        losses = training.evaluate(
            model, functools.partial(training.classifier_losses, model), (images, test.labels), metrics.BATCH
        )
        numbers |= losses.named(f"test_{name}")
    by_angle = metrics.accuracy_by_angle(model, test.images, test.labels, ANGLES)
    return numbers | {"angle_seed": ANGLE_SEED, "angles": list(ANGLES), "accuracy_by_angle": by_angle}


def _vae_metrics(model: nn.Module, test: Digits, spec: RunSpec) -> dict:
    """On the test digits: losses of upright ones, and of turned ones against the *upright* targets."""
    turned = _turned(test.images)
    losses = functools.partial(training.vae_losses, model, beta=spec.beta)
    numbers = {}
    for name, images in (("upright", test.images), ("rotated", turned)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed)
            numbers |= training.evaluate(model, losses, (images, test.images), metrics.BATCH).named(f"test_{name}")
    some, labels = test.images[:DRIFT_IMAGES], test.labels[:DRIFT_IMAGES]
    return numbers | {
        "angle_seed": ANGLE_SEED,
        "angles": list(ANGLES),
        "latent_drift": metrics.latent_drift(model, some, ANGLES),
        "typical_angle": metrics.typical_angle(metrics.latent_codes(model, some), labels),
    }
