"""Many runs: computing what is missing, in this process, on several, or on a dask cluster.

The runs of a table are independent. Each keeps its own state on disk (see `runs.run`), so the call may be killed
at any moment and given again, also at the same time by other processes and machines that share the outputs
folder: who finds a run's lock taken goes on to the next free one and comes back at the end. The operating system
opens the lock of a process that died.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO

import torch
from filelock import Timeout

from ..devices import resolve_device
from ..files import data_directory, outputs_directory, writing_into
from .results import runs_folder, status, stored
from .run import last_epoch, run
from .spec import RunSpec

_POLL = 1.0  # seconds until it is tried again to compute what others do

# Runs as they are computed: each with its error, empty if all is well.
Computed = Iterator[tuple[RunSpec, str]]


def run_many(
    specs: Sequence[RunSpec],
    *,
    device: str = "cpu",
    stop_after: int | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    stream: TextIO | None = None,
) -> dict[str, str]:
    """Compute what is missing of ``specs`` and print a line when one is there; a terminal shows the training, too.

    A run that fails does not stop the others. Several processes may be given the same specs at the same time:
    none is computed twice, and each returns when all are done. A process that dies loses the epoch of its
    running one only, which another takes up.

    Parameters
    ----------
    device, stop_after : see `runs.run`
    workers : compute on so many processes of this machine, which share torch's threads; they import the script
        that calls this, so there it stands under ``if __name__ == "__main__"``
    scheduler : compute on the dask cluster at this address, whose workers have one thread each and see the
        outputs folder under the same path
    stream : standard output if None

    Returns
    -------
    The error of each failed run by the key of its spec; empty if all is well.

    Raises
    ------
    ValueError : the device is not there, dask is not installed, both or senseless workers and scheduler
    OSError : no scheduler answers, or the outputs folder cannot be written though something is missing
    """
    if workers < 1 or (scheduler and workers > 1):
        raise ValueError(f"expected at least one worker or the address of a scheduler, got {workers} and {scheduler}")
    if not scheduler:  # the cluster's workers may have another device than this machine
        device = resolve_device(device)
    stream = stream or sys.stdout
    missing = [spec for spec in specs if not _is_there(spec, stop_after)]
    if missing:
        with writing_into(runs_folder()), tempfile.TemporaryFile(dir=runs_folder()) as file:
            file.write(bytes(4096))  # one error here, instead of one for each
    if scheduler and missing:
        computed = _on_cluster(missing, device, stop_after, scheduler)
    else:
        computed = _here(missing, device, stop_after, helpers=min(workers, len(missing)) - 1, progress=stream.isatty())
    failures = {}
    there = ((spec, "") for spec in specs if spec not in missing)
    for number, (spec, error) in enumerate(itertools.chain(there, computed), 1):
        text = f"FAILED: {error}" if error else status(spec)
        print(f"[{number}/{len(specs)}] {spec.title} {spec.key}: {text}", file=stream, flush=True)
        if error:
            failures[spec.key] = error
    return failures


def _is_there(spec: RunSpec, stop_after: int | None) -> bool:
    last = last_epoch(spec, stop_after)
    with suppress(ValueError):  # unreadable: computing it will say so
        return stored(spec, last) is not None
    return False


def _here(specs: Sequence[RunSpec], device: str, stop_after: int | None, helpers: int, progress: bool) -> Computed:
    """One after another; those that other processes compute come last, when these are done with them."""
    with _helping(helpers, specs, device, stop_after):
        while specs:
            taken = []
            for spec in specs:
                try:
                    yield spec, _error(spec, device, stop_after, wait=False, progress=progress)
                except Timeout:
                    taken.append(spec)
            if len(taken) == len(specs):
                time.sleep(_POLL)
            specs = taken


def _error(spec: RunSpec, device: str, stop_after: int | None, wait: bool, progress: bool = False) -> str:
    """Compute a run; its error, if there was one, as text."""
    try:
        run(spec, device=device, progress=progress, stop_after=stop_after, wait=wait)
    except Timeout:
        raise
    except Exception as error:  # whatever it is, the others still run
        return f"{type(error).__name__}: {error}"
    return ""


@contextmanager
def _helping(helpers: int, specs: Sequence[RunSpec], device: str, stop_after: int | None) -> Iterator[None]:
    """So many processes beside this one go through all runs and share them by their locks, as separate commands do."""
    if helpers < 1:
        yield
        return
    threads = torch.get_num_threads()
    share = max(1, threads // (helpers + 1))
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_help, args=(specs, device, stop_after, share), daemon=True) for _ in range(helpers)
    ]
    try:
        torch.set_num_threads(share)
        for process in processes:
            process.start()
        yield
    finally:
        torch.set_num_threads(threads)
        for process in processes:
            process.terminate()
            process.join()


def _help(specs: Sequence[RunSpec], device: str, stop_after: int | None, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    torch.set_num_threads(threads)
    for _ in _here(specs, device, stop_after, helpers=0, progress=False):
        if not multiprocessing.parent_process().is_alive():  # it was killed
            return


def _on_cluster(specs: Sequence[RunSpec], device: str, stop_after: int | None, scheduler: str) -> Computed:
    """On dask's workers; the scheduler gives those of a dead worker to another one, a few times each."""
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise ValueError("a scheduler needs dask: pip install 'gvae-core[cluster]'") from error
    settings = {"GVAE_OUTPUTS": str(outputs_directory())}
    settings |= {"GVAE_DATA": str(data_directory())} if data_directory() else {}
    with Client(scheduler, timeout=30) as client:
        work = (device, stop_after, settings)
        tasks = {client.submit(_on_worker, spec, *work, pure=False): spec for spec in specs}  # not from dask's memory
        for task in as_completed(tasks):
            error = task.exception()
            yield tasks[task], f"{type(error).__name__}: {error}" if error else task.result()


def _on_worker(spec: RunSpec, device: str, stop_after: int | None, settings: Mapping[str, str]) -> str:
    from distributed import get_worker

    threads = get_worker().state.nthreads
    if threads != 1:  # torch's random generator is one for the whole process
        return f"expected dask workers with one thread (--nthreads 1), got one with {threads}"
    os.environ.update(settings)
    if not runs_folder().is_dir():
        return f"expected to see the folder {runs_folder()} on every worker's machine, it is not on this one"
    return _error(spec, device, stop_after, wait=True)
