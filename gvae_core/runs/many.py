"""Many runs: computing what is missing, in this process, on several, or on a dask cluster.

The runs of a table are independent. Each keeps its own state on disk (see `runs.run`), so the call may be killed
at any moment and given again, also at the same time by other processes and machines that share the outputs
folder: who finds a run's lock taken goes on to the next free one and comes back at the end. The operating system
opens the lock of a process that died.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection
from typing import TextIO

import torch
from filelock import Timeout
from tqdm import tqdm

from ..files import data_directory, outputs_directory, writing_into
from .results import kept, runs_folder, status, stored
from .run import last_epoch, resolve_device, run
from .spec import RunSpec

_POLL = 1.0  # seconds between two looks at the files
_LOG_INTERVAL = 60.0  # seconds between two lines about epochs where there is no terminal

# Runs as they are computed: each with its error, empty if all is well.
Computed = Iterator[tuple[RunSpec, str]]


def run_many(
    specs: Sequence[RunSpec],
    *,
    device: str = "cpu",
    stop_after: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    stream: TextIO | None = None,
) -> dict[str, str]:
    """Compute what is missing of ``specs`` and show how far it is: a bar in a terminal, plain lines elsewhere.

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
    if workers is not None and (scheduler or workers < 1):
        raise ValueError(f"expected at least one worker or the address of a scheduler, got {workers} and {scheduler}")
    if not scheduler:  # the cluster's workers may have another device than this machine
        device = resolve_device(device)
    failures = {}
    with _shown(specs, stop_after, stream or sys.stdout) as show:
        missing = []
        for spec in specs:
            if _is_there(spec, stop_after):
                show(spec, "")
            else:
                missing.append(spec)
        if missing:
            with writing_into(runs_folder()), tempfile.TemporaryFile(dir=runs_folder()) as file:
                file.write(bytes(4096))  # one error here, instead of one for each
        if missing and scheduler:
            computed = _on_cluster(missing, device, stop_after, scheduler)
        elif missing and workers:
            computed = _on_processes(missing, device, stop_after, workers)
        else:
            computed = _here(missing, device, stop_after)
        for spec, error in computed:
            show(spec, error)
            if error:
                failures[spec.key] = error
    return failures


def _is_there(spec: RunSpec, stop_after: int | None) -> bool:
    last = last_epoch(spec, stop_after)
    with suppress(ValueError):  # unreadable: computing it will say so
        return stored(spec, last) is not None
    return False


def _here(specs: Sequence[RunSpec], device: str, stop_after: int | None) -> Computed:
    """One after another; those that other processes compute come last, when these are done with them."""
    while specs:
        taken = []
        for spec in specs:
            try:
                yield spec, _error(spec, device, stop_after, wait=False)
            except Timeout:
                taken.append(spec)
        if len(taken) == len(specs):
            time.sleep(_POLL)
        specs = taken


def _error(spec: RunSpec, device: str, stop_after: int | None, wait: bool) -> str:
    """Compute a run; its error, if there was one, as text."""
    try:
        run(spec, device=device, progress=False, stop_after=stop_after, wait=wait)
    except Timeout:
        raise
    except Exception as error:  # whatever it is, the others still run
        return f"{type(error).__name__}: {error}"
    return ""


# --- several processes ------------------------------------------------------------------------------


def _on_processes(specs: Sequence[RunSpec], device: str, stop_after: int | None, workers: int) -> Computed:
    """Every process goes through all of them and shares them by their locks, as separate commands would."""
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // workers)
    left = {spec.key: spec for spec in specs}
    processes = {}
    try:
        for _ in range(workers):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(sender, specs, device, stop_after, threads), daemon=True)
            process.start()
            sender.close()  # ours; the pipe ends with the process
            processes[receiver] = process
        open_pipes = list(processes)
        while open_pipes:
            for receiver in connection.wait(open_pipes):
                try:
                    spec, error = receiver.recv()
                except EOFError:  # the process is done, or died
                    open_pipes.remove(receiver)
                    continue
                if left.pop(spec.key, None):  # the first to say so
                    yield spec, error
    finally:
        for process in processes.values():
            process.terminate()
            process.join()
    for spec in left.values():
        yield spec, "the processes died before it was done"


def _work(
    results: connection.Connection, specs: Sequence[RunSpec], device: str, stop_after: int | None, threads: int
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    torch.set_num_threads(threads)
    with suppress(BrokenPipeError):  # the parent was killed
        for computed in _here(specs, device, stop_after):
            results.send(computed)


# --- a cluster --------------------------------------------------------------------------------------


def _on_cluster(specs: Sequence[RunSpec], device: str, stop_after: int | None, scheduler: str) -> Computed:
    """On dask's workers; the scheduler gives those of a dead worker to another one, a few times each."""
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise ValueError("a scheduler needs dask: pip install 'gvae-core[cluster]'") from error
    settings = {"GVAE_OUTPUTS": str(outputs_directory())}
    settings |= {"GVAE_DATA": str(data_directory())} if data_directory() else {}
    with Client(scheduler, timeout=30) as client:
        names = [f"{spec.key}-{uuid.uuid4().hex}" for spec in specs]  # whoever asks again gets it computed again
        tasks = [
            client.submit(_on_worker, spec, device, stop_after, settings, key=name) for spec, name in zip(specs, names)
        ]
        for task in as_completed(tasks):
            error = task.exception()
            yield specs[tasks.index(task)], f"{type(error).__name__}: {error}" if error else task.result()


def _on_worker(spec: RunSpec, device: str, stop_after: int | None, settings: Mapping[str, str]) -> str:
    from distributed import get_worker

    threads = get_worker().state.nthreads
    if threads != 1:  # torch's random generator is one for the whole process
        return f"expected dask workers with one thread (--nthreads 1), got one with {threads}"
    os.environ.update(settings)
    if not runs_folder().is_dir():
        return f"expected to see the folder {runs_folder()} on every worker's machine, it is not on this one"
    return _error(spec, device, stop_after, wait=True)


# --- what is shown ------------------------------------------------------------------------------------


@contextmanager
def _shown(specs: Sequence[RunSpec], stop_after: int | None, stream: TextIO) -> Iterator[Callable]:
    """A bar over the epochs of all runs, read off their files wherever they are computed; in a log, lines.

    Yields a function to be called with each run that is computed, and its error.
    """
    lasts = {spec.key: last_epoch(spec, stop_after) for spec in specs}

    def epochs(spec: RunSpec) -> int:
        with suppress(ValueError):  # unreadable: computing it will say so
            return min(kept(spec)[0], lasts[spec.key])
        return 0

    left, done = list(specs), {spec.key: epochs(spec) for spec in specs}
    lock, end, live = threading.Lock(), threading.Event(), stream.isatty()
    bar = tqdm(
        total=sum(lasts.values()), initial=sum(done.values()), desc=f"0/{len(specs)} runs", unit="epoch",
        file=stream, disable=not live, dynamic_ncols=True,
    )  # fmt: skip

    def update(spec: RunSpec) -> None:
        new = epochs(spec) - done[spec.key]
        if new > 0:
            done[spec.key] += new
            where = f"{spec.title}: epoch {done[spec.key]} of {lasts[spec.key]}"
            bar.set_postfix_str(where, refresh=False)
            bar.update(new)
            if not live and spec in left:
                print(f"      {where}", file=stream, flush=True)

    def show(spec: RunSpec, error: str) -> None:
        with lock:
            left.remove(spec)
            update(spec)
            count = f"{len(specs) - len(left)}/{len(specs)}"
            bar.set_description(f"{count} runs", refresh=False)
            text = f"FAILED: {error}" if error else status(spec)
            bar.write(f"[{count}] {spec.title} {spec.key}: {text}", file=stream)
            stream.flush()

    def follow() -> None:
        while not end.wait(_POLL if live else _LOG_INTERVAL):
            with lock:
                for spec in left:
                    update(spec)

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield show
    finally:
        end.set()
        follower.join()
        bar.close()
