"""Many runs: what is there of each, and computing the rest, in this process or on dask workers.

The cells of a grid are independent runs. Each keeps its own state on disk (see `experiments.run`), so a grid
may be killed at any moment and computed by the same call again, also by several machines that share the
outputs folder: a lock per cell lets one process at a time work on it, and the operating system opens the
lock of a process that died.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from ..files import outputs_directory
from ..training import read_progress
from .run import find, goal, lock_path, resolve_device, run, runs_folder, state_path
from .spec import RunSpec

DONE, RUNNING, INTERRUPTED, MISSING, UNREADABLE = "done", "running", "interrupted", "missing", "unreadable"
_POLL = 1.0  # seconds between two looks at the epochs
_LOG_INTERVAL = 60.0  # seconds between two lines about epochs where there is no terminal


@dataclass(frozen=True)
class Cell:
    """What is on disk of one run.

    ``state`` is done, running (a process holds its lock), interrupted, missing or unreadable; ``epochs`` are
    done and kept, ``seconds`` is what they took where that is known. ``path`` is the result's JSON, else the
    state that the run goes on from, else None.
    """

    spec: RunSpec
    state: str
    epochs: int = 0
    seconds: float | None = None
    path: Path | None = None


def look(spec: RunSpec) -> Cell:
    """What is on disk of ``spec``; changes nothing and waits for nobody."""
    running = _is_locked(lock_path(spec))
    try:
        kept = _kept(spec)
    except ValueError:
        return Cell(spec, UNREADABLE)
    if kept[0] == spec.epochs and kept[2] != state_path(spec):
        state = DONE
    else:
        state = RUNNING if running else INTERRUPTED if kept[0] else MISSING
    return Cell(spec, state, *kept)


def _kept(spec: RunSpec) -> tuple[int, float | None, Path | None]:
    """Epochs, seconds and path of what is there, the farthest; a result rather than a state."""
    kept = [(0, None, None)]
    with suppress(FileNotFoundError):  # not begun, or finished in this moment
        progress = read_progress(state_path(spec))
        kept.append((progress.epochs, progress.seconds or None, state_path(spec)))
    with suppress(FileNotFoundError):  # an interim result that is being replaced
        if result := find(spec, incomplete=True):
            kept.append((result.epochs_reached, result.seconds, result.path))
    return max(reversed(kept), key=lambda found: found[0])


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def describe(cell: Cell) -> str:
    """State, epochs and seconds of a cell in words."""
    words = f"{cell.state}, {cell.epochs} of {cell.spec.epochs} epochs"
    return words if cell.seconds is None else f"{words}, {cell.seconds:.0f} s"


def run_grid(
    specs: Sequence[RunSpec],
    *,
    device: str = "cpu",
    stop_after: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    stream: TextIO | None = None,
) -> dict[str, str]:
    """Compute what is missing of ``specs`` and show how far it is: a bar in a terminal, plain lines elsewhere.

    A failing cell does not stop the others. A dask worker that dies loses its running cell only, which
    another worker takes up from its last epoch.

    Parameters
    ----------
    device, stop_after : see `experiments.run`
    workers : compute on so many processes of this machine, which share torch's threads
    scheduler : compute on the dask cluster at this address, whose workers have one thread each and see the
        outputs folder under the same path
    stream : standard output if None

    Returns
    -------
    The error of each failed cell by the key of its spec; empty if all is well.

    Raises
    ------
    ValueError : the device is not there, dask is not installed, both or senseless workers and scheduler
    OSError : no scheduler answers
    """
    if workers is not None and (scheduler or workers < 1):
        raise ValueError(f"expected at least one worker or the address of a scheduler, got {workers} and {scheduler}")
    if not scheduler:  # the cluster's workers may have another device than this machine
        device = resolve_device(device)
    failures = {}
    with _Display(specs, stop_after, stream or sys.stdout) as display:
        runs_folder().mkdir(parents=True, exist_ok=True)  # a worker that does not see it is on the wrong machine
        for spec, error in _computed(specs, device, stop_after, workers, scheduler):
            display.finished(spec, error)
            if error:
                failures[spec.key] = error
    return failures


def _computed(specs, device, stop_after, workers, scheduler) -> Iterator[tuple[RunSpec, str]]:
    """Each cell when it is computed, with its error; first those that need no computing."""
    missing = []
    for spec in specs:
        if _is_there(spec, stop_after):
            yield spec, _attempt(spec, device, stop_after)
        else:
            missing.append(spec)
    if missing and (workers or scheduler):
        yield from _on_workers(missing, device, stop_after, workers, scheduler)
    else:
        for spec in missing:
            yield spec, _attempt(spec, device, stop_after)


def _is_there(spec: RunSpec, stop_after: int | None) -> bool:
    with suppress(ValueError):
        result = find(spec, incomplete=True)
        return result is not None and result.epochs_reached >= goal(spec, stop_after)
    return False  # unreadable: computing it will say so


def _attempt(spec: RunSpec, device: str, stop_after: int | None) -> str:
    """Run a cell; the error, if there was one, as text."""
    try:
        run(spec, device=device, progress=False, stop_after=stop_after)
    except Exception as error:  # whatever it is, the other cells still run
        return f"{type(error).__name__}: {error}"
    return ""


# --- dask -------------------------------------------------------------------------------------------


def _on_workers(specs, device, stop_after, workers, scheduler) -> Iterator[tuple[RunSpec, str]]:
    """Cells as tasks; the scheduler gives those of a dead worker to another one, a few times each."""
    settings = {"GVAE_OUTPUTS": str(outputs_directory())}
    if os.environ.get("GVAE_DATA"):
        settings["GVAE_DATA"] = os.path.abspath(os.environ["GVAE_DATA"])
    with _client(workers, scheduler) as client:
        from distributed import as_completed

        futures = {}
        for spec in specs:
            name = f"{spec.key}-{uuid.uuid4().hex}"  # whoever asks again gets it computed again
            futures[client.submit(_on_worker, spec, device, stop_after, settings, key=name)] = spec
        for future in as_completed(futures):
            error = future.exception()
            yield futures[future], f"{type(error).__name__}: {error}" if error else future.result()


def _on_worker(spec: RunSpec, device: str, stop_after: int | None, settings: Mapping[str, str]) -> str:
    from distributed import get_worker

    threads = get_worker().state.nthreads
    if threads != 1:  # torch's random generator is one for the whole process
        return f"expected dask workers with one thread (--nthreads 1), got one with {threads}"
    os.environ.update(settings)
    if not runs_folder().is_dir():
        return f"expected to see the folder {runs_folder()} on every worker's machine, it is not on this one"
    return _attempt(spec, device, stop_after)


@contextmanager
def _client(workers: int | None, scheduler: str | None) -> Iterator:
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ValueError("workers and schedulers need dask: pip install 'gvae-core[cluster]'") from error
    if scheduler:
        with Client(scheduler, timeout=30) as client:
            yield client
        return
    threads = str(max(1, torch.get_num_threads() // workers))
    options = dict(
        n_workers=workers,
        threads_per_worker=1,
        env={name: threads for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")},
        memory_limit=None,  # the cells keep nothing in dask that it could move to disk
        dashboard_address=None,
        silence_logs="CRITICAL",  # a worker that dies is no news here
    )
    try:
        with LocalCluster(**options) as cluster, Client(cluster) as client:
            yield client
    except KeyboardInterrupt:
        # asyncio would print the exceptions of workers that nobody awaits any more
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise


# --- what is shown ------------------------------------------------------------------------------------


class _Display:
    """One line over the epochs of all cells, read off their files, wherever they are computed."""

    def __init__(self, specs: Sequence[RunSpec], stop_after: int | None, stream: TextIO):
        self.specs, self.stop_after, self.stream = specs, stop_after, stream
        self.count = 0
        self.unfinished = {spec.key: spec for spec in specs}
        self.epochs = {spec.key: self._epochs(spec) for spec in specs}
        self.last_line = time.monotonic()
        self.stop = threading.Event()
        self.lock = threading.Lock()  # the thread below, and `finished`

    def __enter__(self):
        self.bar = tqdm(
            total=sum(goal(spec, self.stop_after) for spec in self.specs),
            initial=sum(self.epochs.values()),
            desc=f"0/{len(self.specs)} cells",
            unit="epoch",
            file=self.stream,
            disable=not self.stream.isatty(),
            dynamic_ncols=True,
        )
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        self.bar.close()

    def finished(self, spec: RunSpec, error: str) -> None:
        with self.lock:
            self.count += 1
            self.unfinished.pop(spec.key, None)
            self._advance(spec)
            self.bar.set_description(f"{self.count}/{len(self.specs)} cells", refresh=False)
            self._line(
                f"[{self.count}/{len(self.specs)}] {spec.title} {spec.key}: {f'FAILED: {error}' if error else describe(look(spec))}"
            )

    def _follow(self) -> None:
        while not self.stop.wait(_POLL):
            with self.lock:
                for spec in self.unfinished.values():
                    self._advance(spec)

    def _advance(self, spec: RunSpec) -> None:
        new = self._epochs(spec) - self.epochs[spec.key]
        if new <= 0:
            return
        self.epochs[spec.key] += new
        self.bar.set_postfix_str(self._where(spec), refresh=False)
        self.bar.update(new)
        if self.bar.disable and time.monotonic() - self.last_line > _LOG_INTERVAL:
            self._line(f"      {self._where(spec)}")

    def _where(self, spec: RunSpec) -> str:
        return f"{spec.title}: epoch {self.epochs[spec.key]} of {goal(spec, self.stop_after)}"

    def _epochs(self, spec: RunSpec) -> int:
        try:
            return min(_kept(spec)[0], goal(spec, self.stop_after))
        except ValueError:  # unreadable: the cell will say so
            return 0

    def _line(self, text: str) -> None:
        self.last_line = time.monotonic()
        self.bar.write(text, file=self.stream)
        self.stream.flush()
