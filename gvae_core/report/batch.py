"""The batch of `gvae report`: execute the notebooks headless, write pages, say what failed.

A notebook counts as failed not only when a cell raises. papermill leaves exit status 0 when the
error is shown by a widget (`interact`, an `Output` widget, a button's callback) or printed by a
thread, so the client below reads every message of the kernel while the notebook runs.
"""

from __future__ import annotations

import ast
import difflib
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory

import jupytext
import nbformat
import papermill
import zmq
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from ..files import data_directory, user_path, write_text
from . import receipts
from .pages import write_page
from .site import Row, write_index

OK, FAILED, STOPPED, NOT_RUN = "ok", "FAILED", "stopped", "not run"
CACHED = "cached"  # in place of the number of cells


@dataclass
class Job:
    """One notebook: what is executed, with which parameters, which cell runs, and every error that it shows.

    ``notebook`` is None if it cannot be read; ``note`` is a remark that is no failure; ``problems`` has one line each.
    """

    path: Path
    title: str
    notebook: NotebookNode | None = None
    parameters: dict[str, object] = field(default_factory=dict)
    note: str = ""
    result: str = NOT_RUN
    cells: str = "-"
    where: str = ""
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    stderr: dict[str, str] = field(default_factory=dict)  # by place: a traceback may come in several messages
    page: Path | None = None
    watch: Connection | None = None  # is sent the index of the cell that starts

    @property
    def name(self) -> str:
        return self.path.stem

    def cell(self, notebook: NotebookNode, index: int) -> None:
        """Note the cell that starts; numbers count the cells of the notebook in the repository."""
        if self.watch:
            self.watch.send(index)
        own = ["injected-parameters" not in c.metadata.get("tags", []) for c in notebook.cells]
        number, source = sum(own[: index + 1]), notebook.cells[index].source
        self.cells = f"{number}/{sum(own)}"
        first = next((line.strip() for line in source.splitlines() if line.strip()), "")
        self.where = f"{self.name}, cell {number} (`{first[:80]}`)"

    def message(self, msg: Mapping, in_widget: bool) -> None:
        """Note what a message of the kernel says of an error."""
        content = msg["content"]
        if msg["msg_type"] == "error":
            inside = ", inside a widget" if in_widget else ""
            self.problems.append(f"{self.where}{inside}: {_line(content['ename'] + ': ' + content['evalue'])}")
        elif msg["msg_type"] == "stream" and content["name"] == "stderr":
            self.stderr[self.where] = self.stderr.get(self.where, "") + content["text"]

    def tracebacks(self) -> Iterator[str]:
        """Those that were printed to stderr, by a thread say."""
        for where, text in self.stderr.items():
            _, found, rest = text.partition("Traceback (most recent call last):\n")
            if found:
                last = next((line for line in rest.splitlines() if line[:1].strip()), "Traceback")
                yield f"{where}, printed to stderr: {_line(last)}"


def plan(notebooks: Path, profile: str, only: Sequence[str], parameters: Mapping[str, str]) -> list[Job]:
    """Select notebooks and give each the parameters that it knows, in the types of its defaults.

    Parameters
    ----------
    notebooks : folder of the *.ipynb; where a .py of the same name stands beside one, the .py is executed
    profile : passed to every notebook as the parameter `profile`
    only : names (without suffix), or how one name begins, to execute; all if empty
    parameters : further parameters as text

    Raises
    ------
    ValueError : no notebooks, an unknown name, a parameter that no selected notebook knows, a value that does not fit
        the type of the notebook's default
    """
    paths = {path.stem: path for path in sorted(notebooks.glob("*.ipynb"))}
    if not paths:
        what = f"expected notebooks (*.ipynb) in {notebooks}, found none"
        raise ValueError(f"{what}: they come with the source checkout, not with the installed package")
    selected = {_notebook(name, paths) for name in only} or set(paths)
    given = {"profile": profile, **parameters}
    jobs, known = [Job(paths[name], name) for name in sorted(selected)], set()
    for job in jobs:
        try:
            job.notebook, job.note = _read(job.path)
            defaults = papermill.inspect_notebook(job.notebook)
        except Exception as error:  # a broken notebook fails alone, the others still run
            job.problems = [f"{job.name}: cannot be read: {_line(error)}"]
            continue
        headings = (line for c in job.notebook.cells if c.cell_type == "markdown" for line in c.source.splitlines())
        job.title = next((line[2:].strip() for line in headings if line.startswith("# ")), job.name)
        known |= defaults.keys()
        for name in given.keys() & defaults.keys():
            job.parameters[name] = _value(name, given[name], defaults[name]["default"], job.name)
            if name in receipts.PATHS and given[name]:  # the kernel runs in another folder
                job.parameters[name] = str(user_path(given[name]))
    for name in parameters:
        if name not in known:
            others = sorted(known - {"profile"})  # which has an option of its own
            raise ValueError(f"unknown parameter {name!r}{_hint(name, others)}")
    return jobs


def report(jobs: Sequence[Job], outputs: Path, profile: str, *, fresh: bool = False, workers: int = 1) -> int:
    """Execute the notebooks and write `outputs`/executed/`profile`/{*.ipynb, *.html, index.html}.

    Parameters
    ----------
    jobs : the notebooks, from `plan`
    outputs : folder of everything the run produces; the kernels see it as `GVAE_OUTPUTS`
    profile : names the folder
    fresh : execute also what has not changed since it was executed without an error
    workers : notebooks that are executed at a time, each with its share of the cores; runs that two of them need are
        computed once

    Returns
    -------
    0 if every notebook ran without an error, 1 if one failed, 130 after Ctrl-C.
    """
    outputs = user_path(outputs)
    folder = outputs / "executed" / profile
    folder.mkdir(parents=True, exist_ok=True)
    workers = min(workers, len(jobs))
    print(f"{len(jobs)} notebooks, profile {profile}, into {_relative(folder)}", flush=True)
    start = time.monotonic()
    names = [f"[{number}/{len(jobs)}] {job.name}" for number, job in enumerate(jobs, 1)]
    if workers > 1:
        # Small networks on two threads are hardly faster than on one: two notebooks are.
        threads = str(max(1, (os.cpu_count() or 1) // workers))
        calls = [(job, name, folder, outputs, fresh, threads) for job, name in zip(jobs, names)]
        # neighbours ask for the same runs: not side by side, where one would wait for the other
        _side_by_side(calls[::3] + calls[1::3] + calls[2::3], workers)
    else:
        for job, name in zip(jobs, names):
            _run(job, name, folder, outputs, fresh)
            if job.result == STOPPED:
                break
    index = folder / "index.html"
    if not index.is_file() or any(job.cells != CACHED for job in jobs):
        _write_index(folder, jobs, profile, outputs)
    _summarise(jobs, index, time.monotonic() - start)
    results = {job.result for job in jobs}
    return 130 if STOPPED in results else 1 if FAILED in results else 0


def _notebook(name: str, known: Collection[str]) -> str:
    """The notebook of this name, or the only one whose name begins so."""
    begins = [name] if name in known else [other for other in known if other.startswith(name)]
    if len(begins) > 1:
        raise ValueError(f"expected one notebook that begins with {name!r}, got {', '.join(begins)}")
    if not begins:
        raise ValueError(f"unknown notebook {name!r}{_hint(name, known)}")
    return begins[0]


def _hint(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return (f" (did you mean {close[0]!r}?)" if close else "") + f"; known: {', '.join(known)}"


def _read(path: Path) -> tuple[NotebookNode, str]:
    """The notebook as its source says, and a note where the pair's .ipynb says something else."""
    source = path.with_suffix(".py")
    if not source.exists():
        return nbformat.read(path, as_version=4), ""
    notebook = jupytext.read(source)
    if receipts.cells(notebook) == receipts.cells(nbformat.read(path, as_version=4)):
        return notebook, ""
    command = f"jupytext --to ipynb --update {_relative(source)}"
    return notebook, f"{path.name} differs from {source.name}, which is executed; `{command}` makes them equal"


def _literal(text: str) -> object:
    """The Python literal in `text`; the text itself where it is none."""
    try:
        return ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError, TypeError, MemoryError):
        return text


def _value(name: str, text: str, default: str, notebook: str) -> object:
    """A parameter's value in the type of the notebook's default; ValueError where it does not fit."""
    like = _literal(default)
    if like is default:  # an expression: its type is not known before the notebook runs
        return _literal(text)
    value = text if isinstance(like, str) else _literal(text)
    if isinstance(like, float) and type(value) is int:
        value = float(value)
    if like is not None and type(value) is not type(like):
        kind = type(like).__name__
        raise ValueError(f"parameter {name}: expected {kind}, like the default {default} in {notebook}, got {text!r}")
    return value


def _line(error: BaseException | str) -> str:
    """An exception on one line."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:297] + "..."


def _relative(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


# --- executing one notebook -------------------------------------------------------------


def _side_by_side(calls: Sequence[tuple], workers: int) -> None:
    """`_run` with each call's arguments, of which the job is the first, so many at a time in processes of their own."""
    # a fork has all imports; elsewhere than on Linux it may crash
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    waiting, running, stopped = deque(calls), {}, False
    cells = {job.name: len(job.notebook.cells) if job.notebook else 0 for job, *_ in calls}
    done = dict.fromkeys(cells, 0)
    bar = tqdm(total=sum(cells.values()), unit="cell", file=sys.stdout, leave=False, disable=None)

    def take(pipe: Connection) -> None:
        (job, name, *_), process = running[pipe]
        try:
            message = pipe.recv()
            done[job.name] = cells[job.name] if isinstance(message, Job) else message
            bar.update(sum(done.values()) - bar.n)
            if not isinstance(message, Job):
                return
            vars(job).update(vars(message))
        except EOFError:  # killed, or out of memory
            process.join()
            job.result = STOPPED if stopped else FAILED
            job.problems += [] if stopped else [f"{job.name}: its process ended with status {process.exitcode}"]
            _say(f"{name}: {job.result}")
        running.pop(pipe)
        process.join()

    while running or (waiting and not stopped):
        try:
            while waiting and not stopped and len(running) < workers:
                call = waiting.popleft()
                pipe, send = context.Pipe(duplex=False)
                process = context.Process(target=_in_process, args=(send, *call))
                running[pipe] = call, process
                process.start()
                send.close()
            for pipe in wait(list(running)):
                take(pipe)
        except KeyboardInterrupt:
            if not stopped:
                for _, process in running.values():
                    os.kill(process.pid, signal.SIGINT)
            stopped = True
    bar.close()


def _in_process(send: Connection, job: Job, *rest: object) -> None:
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C in a terminal is for the parent, which passes it on once
    signal.signal(signal.SIGINT, signal.default_int_handler)
    job.watch = send
    _run(job, *rest)
    job.notebook = job.watch = None
    send.send(job)


def _say(*lines: str) -> None:
    """Print lines; in a terminal in place of a bar that stands there.

    In one write, whatever `PYTHONUNBUFFERED` says: of two processes one would come between a line and its end.
    """
    sys.stdout.write(("\r\x1b[K" if sys.stdout.isatty() else "") + "".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def _run(job: Job, name: str, folder: Path, outputs: Path, fresh: bool, threads: str = "") -> None:
    executed, page, receipt = (folder / f"{job.name}{end}" for end in (".ipynb", ".html", ".receipt.json"))
    digest = receipts.digest(job.notebook, job.parameters, outputs) if job.notebook else ""
    if not fresh and executed.exists() and page.exists() and receipts.is_current(receipt, digest, outputs):
        job.result, job.cells, job.page = OK, CACHED, page
        _say(f"{name}: ok, unchanged since it was executed (--fresh executes it again)")
        return
    for old in (receipt, executed, page):  # no page is better than one of another run
        old.unlink(missing_ok=True)
    if threads or not sys.stdout.isatty():
        _say(f"{name} ...")
    start = time.monotonic()
    try:
        if job.notebook:
            # the bars of several would write over each other
            progress = dict(desc=name, file=sys.stdout, leave=False, disable=True if threads else None)
            _execute(job, executed, outputs, progress, threads)
        if executed.exists():
            try:
                write_page(
                    executed, page, title=job.title, folder=job.path.parent, pages=outputs / "figures" / folder.name
                )
                job.page = page
            except Exception as error:  # the notebook's problem, and the others still run
                job.problems.append(f"{job.name}: no page: {_line(error)}")
        job.result = FAILED if job.problems else OK
        if job.result == OK:
            write_text(receipt, receipts.text(digest, outputs))
    except KeyboardInterrupt:
        job.result = STOPPED
        # asyncio would print the interrupted cell's exception, which nobody awaits any more
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        job.problems.append(f"{job.where}: interrupted")
    job.seconds = time.monotonic() - start
    more = (f"      {line}" for line in filter(None, [*job.problems, job.note]))
    _say(f"{name}: {job.result}, {job.cells} cells, {job.seconds:.1f} s", *more)


def _execute(job: Job, executed: Path, outputs: Path, progress: dict, threads: str) -> None:
    environment = {
        **({"OMP_NUM_THREADS": threads} if threads else {}),
        **os.environ,
        "GVAE_OUTPUTS": str(outputs),
        # a backend set for plain scripts (Agg) would leave the figures out of the notebook
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    if data := data_directory():  # the kernel runs in another folder, the notebook's
        environment["GVAE_DATA"] = str(data)
    job.where = f"{job.name}, before the first cell"
    log = executed.with_suffix(".log")  # what the kernel process itself prints stays out of the terminal
    try:
        with open(log, "wb") as stderr:
            papermill.execute_notebook(
                job.notebook,
                str(executed),
                job.parameters,
                engine_name="gvae",
                kernel_name="python3",
                progress_bar=progress,
                job=job,
                start={"env": environment, "cwd": str(job.path.parent), "stderr": stderr},
            )
    except PapermillExecutionError as error:
        if not job.problems:
            job.problems.append(f"{job.where}: {_line(f'{error.ename}: {error.evalue}')}")
    except Exception as error:  # a kernel that dies or does not start, a full disk: the others still run
        dead = isinstance(error, DeadKernelError)
        why = "a crash, or out of memory; its last words are in" if dead else "the kernel's log:"
        job.problems.append(f"{job.where}: {_line(error)} ({why} {_relative(log)})")
        return
    finally:
        job.problems += job.tracebacks()
    log.unlink(missing_ok=True)


class _Client(PapermillNotebookClient):
    """papermill's client, run in this interpreter, its sockets in `folder`, that shows every message to the `Job`."""

    def __init__(self, nb_man: object, job: Job, folder: str, **traits: object) -> None:
        super().__init__(nb_man, **traits)
        self.job, self.folder = job, folder
        self.on_cell_start = lambda cell, cell_index: job.cell(self.nb, cell_index)

    def create_kernel_manager(self) -> object:
        manager = super().create_kernel_manager()
        # A "python3" kernelspec in the user's home may start another interpreter. Without folders
        # to look into, the kernelspec is ipykernel's own, which starts sys.executable.
        manager.kernel_spec_manager.kernel_dirs = []
        # A free TCP port is picked before the kernel binds it: a kernel that starts meanwhile may take it, and one hangs.
        if os.name == "posix" and len(os.fsencode(self.folder)) < 90:  # a socket's path has at most 103 bytes
            manager.transport = "ipc"
            manager.connection_file = f"{self.folder}/kernel.json"  # the sockets are kernel-ipc-1 to -5 beside it
        return manager

    def process_message(self, msg: dict, cell: NotebookNode, cell_index: int) -> object:
        self.job.message(msg, bool(self.output_hook_stack[msg["parent_header"].get("msg_id")]))
        output = super().process_message(msg, cell, cell_index)
        # What nbclient sends for an Output widget may swallow the sign that the cell's reply is there: look again.
        self.kc.shell_channel.socket.get(zmq.EVENTS)
        return output


class _Engine(Engine):
    @classmethod
    def execute_managed_notebook(
        cls, nb_man: object, kernel_name: str, *, job: Job, start: dict, **_: object
    ) -> object:
        log = logging.getLogger(__name__)
        log.setLevel(logging.CRITICAL)  # what nbclient logs on a dead kernel is in the summary
        with TemporaryDirectory(prefix="gvae-") as folder:
            client = _Client(nb_man, job, folder, kernel_name=kernel_name, log=log, startup_timeout=120)
            return client.execute(**start)


papermill_engines.register("gvae", _Engine)


# --- pages and summary ------------------------------------------------------------------


def _write_index(folder: Path, jobs: Sequence[Job], profile: str, outputs: Path) -> None:
    """Write the page of all notebooks, earlier runs included."""
    rows = {path.stem: Row(path.stem, path.stem, NOT_RUN) for path in sorted(jobs[0].path.parent.glob("*.ipynb"))}
    for job in jobs:
        rows[job.name] = Row(
            job.name, job.title, job.result, job.page.name if job.page else "", job.seconds, job.problems
        )
    for row in rows.values():
        page = folder / f"{row.name}.html"
        if row.result == NOT_RUN and page.exists():
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(page.stat().st_mtime))
            row.page, row.result = page.name, f"earlier, {when}"
    write_index(folder, list(rows.values()), profile, outputs)


def _summarise(jobs: Sequence[Job], index: Path, seconds: float) -> None:
    width = max(len(job.name) for job in jobs)
    print(f"\n{'notebook':{width}}  result    cells  seconds  where")
    for job in jobs:
        where = _relative(job.page) if job.page else "-"
        print(f"{job.name:{width}}  {job.result:8}{job.cells:>7}{job.seconds:9.1f}  {where}")
    print(f"{seconds:.1f} s in all; {_relative(index)}")
    for job in jobs:
        print(*(f"{job.result} {problem}\n" for problem in job.problems), sep="", end="")
