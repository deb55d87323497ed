"""`run`: train, measure and store what a `RunSpec` says, once.

One run is one `RunSpec` is one JSON file and one safetensors checkpoint, named by the spec's content.
A run that exists is loaded, not repeated; an interrupted one resumes from its last epoch. A run may also
be stopped and measured before its last epoch: its result says so, and the run goes on from there.
"""

from __future__ import annotations

import json
import platform
import time
import warnings
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path

import torch
from filelock import FileLock
from torch import nn

from .. import models, training
from ..checkpoints import save_tensors
from ..devices import arithmetic, repeatable, resolve_device
from ..files import write_text, writing_into
from ..mnist import load_splits
from ..models.arguments import check_whole
from ..steerable import path_in_use
from .kinds import KINDS
from .results import Result, damages, lock_path, read_result, result_path, runs_folder, state_path, stored
from .spec import RunSpec


def run(
    spec: RunSpec, *, device: str = "cpu", progress: bool = True, stop_after: int | None = None, wait: bool = True
) -> Result:
    """Train, measure and store what ``spec`` says, or load it where that was done before.

    A second process that asks for the same run waits for the first and loads its result, unless it is told
    not to ``wait``. Loading needs no lock and writes nothing. Files of this machine's run that are damaged
    (cut off, empty, of another run, the checkpoint lost) are set aside as ``*.damaged``, with a warning that
    names them, and the run is computed again.

    With ``stop_after=k``, less than ``spec.epochs``, the training stops after epoch k of the spec's schedule
    and the model is measured as it then is: an interim result, ``complete`` is False. A run that is already
    at epoch k or beyond is measured or loaded as it is. What is needed to go on stays on disk, and a later
    call with a larger k, or none, gives the numbers of a run without the stop. Where only the interim result
    came along (committed, on a fresh machine), a later call starts again from the first epoch.

    Raises
    ------
    training.NonFiniteLoss : the loss diverged
    ValueError, OSError : the data is missing or bad, the device is not there, ``stop_after`` is less than 1,
        a committed result is damaged, the outputs folder cannot be written
    filelock.Timeout : another process computes this run, and ``wait`` is False
    """
    last, device = last_epoch(spec, stop_after), resolve_device(device)
    result = stored(spec, last)
    if result and not _remains(spec):
        return result
    try:
        lock = _locked(spec, wait=wait and not result)
    except OSError:  # Timeout among them
        if result:  # in a folder that nobody may write, or another process goes on with it
            return result
        raise
    with lock:
        for path in _remains(spec):
            path.unlink()
        for path, problem in damages(spec).items():
            aside = path.with_name(f"{path.name}.damaged")
            path.replace(aside)
            warnings.warn(f"{problem}, which happens now; {path.name} is kept as {aside.name}", stacklevel=2)
        if result := stored(spec, last):
            return result
        with repeatable():
            return _run(spec, last, device, progress)


def measure_again(result: Result, *, device: str = "cpu") -> Result:
    """Measure a trained model anew, for what is measured since it was stored; its record keeps all else.

    The file that the result was read from is written. FileNotFoundError where its checkpoint is not there.
    """
    spec, device = result.spec, resolve_device(device)
    with _locked(spec, wait=True), repeatable():
        model = result.load_model().to(device)  # behind the lock: another process may have gone on with the training
        splits = load_splits(spec.source, spec.train_images, spec.test_images)
        record = json.loads(result.path.read_text()) | {"metrics": KINDS[spec.model].measure(model, splits, spec)}
        write_text(result.path, json.dumps(record, indent=1))
    return read_result(result.path)


def _remains(spec: RunSpec) -> list[Path]:
    """What a process left that was killed in the middle of a write; only who holds the lock may delete it."""
    paths = [path for name in (f".{spec.key}-*", f".{spec.key}.state-*") for path in runs_folder().glob(name)]
    finished = stored(spec, spec.epochs)
    if finished and finished.path == result_path(spec) and state_path(spec).is_file():
        paths.append(state_path(spec))
    return paths


def _locked(spec: RunSpec, wait: bool) -> AbstractContextManager:
    """The run's lock, held until the end of the ``with``; Timeout if another process has it and we do not ``wait``."""
    with writing_into(runs_folder()):
        return FileLock(lock_path(spec)).acquire(timeout=-1 if wait else 0)


def last_epoch(spec: RunSpec, stop_after: int | None) -> int:
    """The epoch that ``run(spec, stop_after=stop_after)`` ends at; ValueError if that makes no sense."""
    if stop_after is None:
        return spec.epochs
    check_whole(stop_after=stop_after)
    return min(spec.epochs, int(stop_after))


def _run(spec: RunSpec, last: int, device: str, progress: bool) -> Result:
    splits = load_splits(spec.source, spec.train_images, spec.test_images)
    model = spec.build().to(device)
    state_file = state_path(spec)
    schedule = training.Schedule(spec.epochs, spec.learning_rate, spec.decay, spec.weight_decay, spec.batch_size)
    kind = KINDS[spec.model]
    loop = dict(state_file=state_file, stop_after=last, progress=progress, title=spec.title)
    history = kind.fit(model, splits, schedule, spec, **loop)
    start = time.perf_counter()
    final = kind.measure(model, splits, spec)
    seconds = training.read_progress(state_file).seconds + time.perf_counter() - start
    return _store(spec, model, history, final, round(seconds, 2), device)


def _store(spec: RunSpec, model: nn.Module, history: list[dict], numbers: dict, seconds: float, device: str) -> Result:
    """Write checkpoint and JSON; the state of the training goes when it is at its end."""
    path, cpu = result_path(spec), f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    record = {
        "spec": spec.to_dict(),
        "metrics": numbers,
        "history": history,
        "parameters": models.parameter_count(model),
        "seconds": seconds,
        "device": f"{torch.cuda.get_device_name(device)}, {arithmetic()}" if device.startswith("cuda") else cpu,
        "steerable": path_in_use(model),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "escnn", "numpy", "gvae-core")},
    }
    # An interim result goes first and the JSON comes last: a JSON says that its own checkpoint is there.
    path.unlink(missing_ok=True)
    metadata = {"spec": spec.to_dict(), "epochs_reached": len(history)}
    # escnn's buffers differ between modes; a state dict of train mode loads everywhere
    save_tensors(path.with_suffix(".safetensors"), model.train().state_dict(), metadata)
    write_text(path, json.dumps(record, indent=1))
    if len(history) == spec.epochs:
        state_path(spec).unlink()
    return read_result(path)
