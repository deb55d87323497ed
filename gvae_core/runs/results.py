"""Results of runs: where they lie, how they are found and read, and which of their files are damaged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from torch import nn

from ..checkpoints import load_metadata, load_tensors
from ..files import COMMITTED, outputs_directory
from ..models.saving import with_weights
from ..training import read_progress
from .spec import RunSpec


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
        """The trained model in eval mode, on the CPU; where it is lost or damaged, the error says how to get it."""
        try:
            return load_model(self.checkpoint)
        except (ValueError, FileNotFoundError) as error:
            way_out = _way_out(self.checkpoint)
            if self.path.parent == COMMITTED and not self.checkpoint.is_file():
                way_out = f"the numbers are committed without it; to train it, delete {self.path} and run its spec"
            raise type(error)(f"{error}; {way_out}") from error


def load_model(checkpoint: Path) -> nn.Module:
    """Rebuild a trained model from a checkpoint alone: the spec is in its metadata."""
    tensors, metadata = load_tensors(checkpoint)
    return with_weights(_checkpoint_spec(checkpoint, metadata).build(), tensors, checkpoint)


def _checkpoint_spec(checkpoint: Path, metadata: dict) -> RunSpec:
    if "spec" not in metadata:
        raise ValueError(f"{checkpoint}: expected a run's checkpoint with its spec, found {sorted(metadata)}")
    return RunSpec.from_dict(metadata["spec"])


# --- where ----------------------------------------------------------------------------------------


def runs_folder() -> Path:
    """Where this machine's runs are written."""
    return outputs_directory() / "runs"


def result_path(spec: RunSpec) -> Path:
    """The JSON of a run of this machine; its checkpoint lies beside it."""
    return runs_folder() / f"{spec.key}.json"


def lock_path(spec: RunSpec) -> Path:
    """Whoever computes a run holds this lock."""
    return runs_folder() / f"{spec.key}.lock"


def state_path(spec: RunSpec) -> Path:
    """Where an unfinished run keeps what it needs to go on (see `training.fit`)."""
    return runs_folder() / f"{spec.key}.state.safetensors"


# --- reading --------------------------------------------------------------------------------------


def find(spec: RunSpec, *, incomplete: bool = False) -> Result | None:
    """The finished run of ``spec``, from this machine's runs or the committed ones, or None.

    With ``incomplete`` also one that was stopped before its last epoch, the one that got farthest;
    ``Result.complete`` tells which it is. Reads only: it needs no lock, and a folder that nobody may write will do.

    Raises
    ------
    ValueError : a file of this run's name is not its result; the message names it
    """
    results = []
    for path in (result_path(spec), COMMITTED / f"{spec.key}.json"):
        # none is there, or an interim result that another process replaces in this moment
        with suppress(FileNotFoundError, NotADirectoryError):
            results.append(_read_own(path, spec))
            if results[-1].complete:
                return results[-1]
    return max(results, key=lambda result: result.epochs_reached, default=None) if incomplete else None


def read_result(path: Path) -> Result:
    """The run stored in a JSON file; ValueError, naming the file, if that is not one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise TypeError(f"{type(record).__name__} instead of an object")
        result = Result(spec=RunSpec.from_dict(record.pop("spec")), path=path, **record)
        if not isinstance(result.metrics, dict) or not 1 <= len(result.history) <= result.spec.epochs:
            raise ValueError(f"no metrics, or no history of 1 to {result.spec.epochs} epochs")
    except (ValueError, TypeError, KeyError) as error:
        what = f"{path}: expected a run's result, found something else ({error})"
        raise ValueError(f"{what}; {_way_out(path)}") from error
    return result


def _read_own(path: Path, spec: RunSpec) -> Result:
    """The result in a file of this run's name, which may be the renamed copy of another run's."""
    result = read_result(path)
    if result.spec != spec:
        raise ValueError(f"{path}: expected this run's result, found that of {result.spec.key}; {_way_out(path)}")
    return result


def _way_out(path: Path) -> str:
    return f"restore it: git checkout -- {path}" if path.parent == COMMITTED else "`gvae run` computes it again"


def damages(spec: RunSpec) -> dict[Path, str]:
    """What is wrong with this machine's files of a run, by file, and the way out; empty if all is well.

    A result without its whole checkpoint counts: its numbers can be read, its model cannot be loaded.
    """
    found, checkpoint = {}, result_path(spec).with_suffix(".safetensors")
    checks = {
        result_path(spec): lambda path: (_read_own(path, spec), _check_checkpoint(checkpoint, spec)),
        state_path(spec): read_progress,
        checkpoint: lambda path: _check_checkpoint(path, spec),
    }
    for path, check in checks.items():
        try:
            if path.is_file():
                check(path)
        except (ValueError, TypeError, FileNotFoundError) as error:
            if path.is_file():  # else another process has replaced an interim result, or finished, in this moment
                found[path] = str(error) if _way_out(path) in str(error) else f"{error}; {_way_out(path)}"
    return found


def stored(spec: RunSpec, last: int) -> Result | None:
    """The result of at least ``last`` epochs, where nothing is wrong with this machine's files of it; or None."""
    if result_path(spec) in damages(spec):
        return None
    result = find(spec, incomplete=True)
    return result if result and result.epochs_reached >= last else None


def _check_checkpoint(path: Path, spec: RunSpec) -> None:
    """That it is there, whole (safetensors compares the length) and of this run, without reading its tensors."""
    found = _checkpoint_spec(path, load_metadata(path))
    if found != spec:
        raise ValueError(f"{path}: expected the checkpoint of this run, found that of {found.key}")


def cells(results: Iterable[Result]) -> list[list[Result]]:
    """Groups of results that differ in seed and progress alone: the cells of a table, in order of appearance."""
    return _groups(results, lambda result: result.spec.any_seed.key)


def by_seed(results: Iterable[Result]) -> list[list[Result]]:
    """Groups of results that differ in the seed alone and got as far, in order of appearance."""
    return _groups(results, lambda result: (result.spec.any_seed.key, result.epochs_reached))


def _groups(results: Iterable[Result], common: Callable[[Result], object]) -> list[list[Result]]:
    groups: dict[object, list[Result]] = {}
    for result in results:
        groups.setdefault(common(result), []).append(result)
    return list(groups.values())


# --- what is there ---------------------------------------------------------------------------------

DONE, RUNNING, INTERRUPTED, MISSING, UNREADABLE = "done", "running", "interrupted", "missing", "unreadable"


@dataclass(frozen=True)
class Status:
    """What is on disk of one run.

    ``state`` is done, running (a process holds its lock), interrupted, missing or unreadable; ``epochs`` are
    done and kept, ``seconds`` is what they took where that is known. ``path`` is the result's JSON, else the
    state that the run goes on from, else None. ``problem`` says what is wrong with an unreadable ``path``.
    """

    spec: RunSpec
    state: str
    epochs: int = 0
    seconds: float | None = None
    path: Path | None = None
    problem: str = ""

    def __str__(self) -> str:
        words = f"{self.state}, {self.epochs} of {self.spec.epochs} epochs"
        return words if self.seconds is None else f"{words}, {self.seconds:.0f} s"


def status(spec: RunSpec) -> Status:
    """What is on disk of ``spec``; changes nothing and waits for nobody."""
    running, damaged = _is_locked(lock_path(spec)), damages(spec)
    kept = [(0, None, None)]  # epochs, seconds and path of what is whole
    with suppress(FileNotFoundError):  # not begun, or finished in this moment
        if state_path(spec) not in damaged:
            progress = read_progress(state_path(spec))
            kept.append((progress.epochs, progress.seconds or None, state_path(spec)))
    try:
        if result_path(spec) not in damaged and (result := find(spec, incomplete=True)):
            kept.append((result.epochs_reached, result.seconds, result.path))
    except ValueError as error:  # a committed result
        return Status(spec, UNREADABLE, path=COMMITTED / f"{spec.key}.json", problem=str(error))
    epochs, seconds, path = max(reversed(kept), key=lambda found: found[0])  # the farthest; a result before a state
    if epochs == spec.epochs and path != state_path(spec):
        state = DONE
    else:
        state = RUNNING if running else INTERRUPTED if epochs else MISSING
    if damaged and not (state == DONE and path not in damaged):
        path, problem = next(iter(damaged.items()))
        return Status(spec, UNREADABLE, path=path, problem=problem)
    return Status(spec, state, epochs, seconds, path)


def _is_locked(path: Path) -> bool:
    try:
        if path.exists():
            FileLock(path).acquire(timeout=0).lock.release()
    except Timeout:
        return True
    except OSError:  # not ours to write: whether somebody else computes there cannot be told
        pass
    return False
