"""The batch of `gvae report`: execute the notebooks headless, write pages, say what failed.

A notebook counts as failed not only when a cell raises. papermill leaves exit status 0 when the
error is shown by a widget (`interact`, an `Output` widget, a button's callback) or printed by a
thread, so the client below reads every message of the kernel while the notebook runs.
"""

from __future__ import annotations

import ast
import difflib
import html
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from ..files import data_directory, write_text
from . import receipts
from .pages import write_page

try:
    import resource  # not on Windows
except ImportError:
    resource = None

OK, FAILED, STOPPED, NOT_RUN = "ok", "FAILED", "stopped", "not run"


@dataclass
class Job:
    """One notebook and the parameters it is executed with; `problems` if it cannot even be read."""

    path: Path
    title: str
    parameters: dict[str, object] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """What became of one notebook: result, cells reached, seconds, one line a problem."""

    name: str
    title: str
    result: str = NOT_RUN
    cells: str = "-"
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    page: Path | None = None


def plan(notebooks: Path, profile: str, only: Sequence[str], parameters: Mapping[str, str]) -> list[Job]:
    """Select notebooks and give each the parameters that it knows, in the types of its defaults.

    Parameters
    ----------
    notebooks : folder of the *.ipynb
    profile : passed to every notebook as the parameter `profile`
    only : names (without suffix) to execute; all if empty
    parameters : further parameters as text

    Raises
    ------
    ValueError
        No notebooks, an unknown name, a parameter that no selected notebook knows, a value that
        does not fit the type of the notebook's default.
    """
    paths = {path.stem: path for path in sorted(notebooks.glob("*.ipynb"))}
    if not paths:
        raise ValueError(f"expected notebooks (*.ipynb) in {notebooks}, found none")
    for name in only:
        if name not in paths:
            raise ValueError(f"unknown notebook {name!r}{_hint(name, paths)}")
    given = {"profile": profile, **parameters}
    jobs, known = [], set()
    for path in (path for name, path in paths.items() if not only or name in only):
        job = Job(path, path.stem)
        jobs.append(job)
        try:
            job.title = _title(nbformat.read(path, as_version=4), path.stem)
            defaults = papermill.inspect_notebook(str(path))
        except Exception as error:  # a broken notebook fails alone, the others still run
            job.problems = [f"{path.stem}: cannot be read: {_line(error)}"]
            continue
        known |= defaults.keys()
        for name in given.keys() & defaults.keys():
            job.parameters[name] = _convert(name, given[name], defaults[name]["default"], path.stem)
    for name in parameters:
        if name not in known:
            others = sorted(known - {"profile"})  # which has an option of its own
            raise ValueError(f"unknown parameter {name!r}{_hint(name, others)}")
    return jobs


def report(jobs: Sequence[Job], outputs: Path, profile: str, stream: TextIO | None = None, fresh: bool = False) -> int:
    """Execute the notebooks and write `outputs`/executed/`profile`/{*.ipynb, *.html, index.html}.

    Parameters
    ----------
    jobs : the notebooks, from `plan`
    outputs : folder of everything the run produces; the kernels see it as `GVAE_OUTPUTS`
    profile : names the folder
    stream : where progress and summary go; standard output if None
    fresh : execute also what has not changed since it was executed without an error

    Returns
    -------
    0 if every notebook ran without an error, 1 if one failed, 130 after Ctrl-C.
    """
    stream, outputs = stream or sys.stdout, outputs.resolve()
    folder = outputs / "executed" / profile
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{len(jobs)} notebooks, profile {profile}, into {_short(folder)}", file=stream)

    outcomes = [Outcome(job.path.stem, job.title) for job in jobs]
    start = time.monotonic()
    for number, (job, outcome) in enumerate(zip(jobs, outcomes, strict=True), 1):
        with _Progress(f"[{number}/{len(jobs)}] {outcome.name}", stream) as progress:
            _run(job, outcome, folder, outputs, progress, fresh)
        for problem in outcome.problems:
            print(f"      {problem}", file=stream)
        if outcome.result == STOPPED:
            break
    index = _write_index(folder, outcomes, jobs[0].path.parent, profile, outputs)
    _summarise(outcomes, index, time.monotonic() - start, stream)
    results = {outcome.result for outcome in outcomes}
    return 130 if STOPPED in results else 1 if FAILED in results else 0


def _hint(name: str, known: Sequence[str] | Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return (f" (did you mean {close[0]!r}?)" if close else "") + f"; known: {', '.join(known)}"


def _literal(text: str) -> object:
    """The Python literal in `text`; the text itself where it is none."""
    try:
        return ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError, TypeError, MemoryError):
        return text


def _convert(name: str, text: str, default: str, notebook: str) -> object:
    """The value in the type of the notebook's default; ValueError where it does not fit."""
    try:
        like = ast.literal_eval(default)
    except (ValueError, SyntaxError):
        return _literal(text)  # an expression: its type is not known before the notebook runs
    value = text if isinstance(like, str) else _literal(text)
    if not _fits(value, like):
        raise ValueError(
            f"parameter {name}: expected {type(like).__name__}, like the default {default} in {notebook}, got {text!r}"
        )
    if isinstance(like, float):
        return float(value)
    if isinstance(value, tuple):
        return list(value)  # papermill would write a tuple as text
    return value


def _fits(value: object, like: object) -> bool:
    if like is None:
        return True
    if isinstance(like, bool) or isinstance(value, bool):
        return isinstance(like, bool) and isinstance(value, bool)
    if isinstance(like, list | tuple):
        same = isinstance(value, list | tuple)
        return same and all(any(_fits(v, element) for element in like) for v in value if like)
    return isinstance(value, int | float if isinstance(like, float) else type(like))


def _title(notebook: NotebookNode, otherwise: str) -> str:
    lines = (c.source.lstrip().split("\n")[0] for c in notebook.cells if c.cell_type == "markdown")
    return next((line[2:].strip() for line in lines if line.startswith("# ")), otherwise)


def _line(error: BaseException | str) -> str:
    """An exception on one line."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:297] + "..."


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


# --- executing one notebook -------------------------------------------------------------


def _run(job: Job, outcome: Outcome, folder: Path, outputs: Path, progress: _Progress, fresh: bool) -> None:
    executed, page, receipt = (folder / f"{job.path.stem}{end}" for end in (".ipynb", ".html", ".receipt.json"))
    digest = receipts.digest(job.path, job.parameters, outputs)
    if not fresh and executed.exists() and page.exists() and receipts.holds(receipt, digest, outputs):
        outcome.result, outcome.cells, outcome.page = OK, "cached", page
        progress.finish("ok, unchanged since it was executed (--fresh executes it again)")
        return
    receipt.unlink(missing_ok=True)
    executed.unlink(missing_ok=True)
    page.unlink(missing_ok=True)  # no page is better than one of another run
    watch = _Watch(job.path.stem, progress)
    start = time.monotonic()
    try:
        if not job.problems:
            _execute(job, executed, outputs, watch)
        outcome.problems = job.problems + watch.all_problems()
        if executed.exists():
            _write_page(job, executed, page, outcome)
        outcome.result = FAILED if outcome.problems else OK
        if outcome.result == OK:
            write_text(receipt, receipts.text(digest, outputs))
    except KeyboardInterrupt:
        outcome.result = STOPPED
        # asyncio would print the interrupted cell's exception, which nobody awaits any more
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        outcome.problems = [*watch.all_problems(), f"{watch.where()}: interrupted"]
    outcome.seconds = time.monotonic() - start
    outcome.cells = f"{watch.reached}/{watch.total}" if watch.total else "-"
    progress.finish(f"{outcome.result}, {outcome.cells} cells, {outcome.seconds:.1f} s")


def _execute(job: Job, executed: Path, outputs: Path, watch: _Watch) -> None:
    environment = {
        **os.environ,
        "GVAE_OUTPUTS": str(outputs),
        # a backend set for plain scripts (Agg) would leave the figures out of the notebook
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    if data := data_directory():  # the kernel runs in another folder, the notebook's
        environment["GVAE_DATA"] = str(data)
    # What the kernel process itself prints (log, stack of a crash) stays out of the terminal.
    log = executed.with_suffix(".log")
    try:
        with open(log, "wb") as stderr:
            papermill.execute_notebook(
                str(job.path),
                str(executed),
                job.parameters,
                engine_name="gvae",
                kernel_name="python3",
                progress_bar=False,
                watch=watch,
                start={"env": environment, "cwd": str(job.path.parent), "stderr": stderr},
            )
    except PapermillExecutionError as error:
        if not watch.problems:
            watch.problems.append(f"{watch.where()}: {_line(f'{error.ename}: {error.evalue}')}")
    except DeadKernelError as error:
        why = f"a crash, or out of memory; its last words are in {_short(log)}"
        watch.problems.append(f"{watch.where()}: {_line(error)} ({why})")
        return
    except Exception as error:  # a kernel that does not start, a full disk: the others still run
        watch.problems.append(f"{watch.where()}: {_line(error)} (the kernel's log: {_short(log)})")
        return
    log.unlink()


class _Watch:
    """Where a running notebook is, and every error it shows."""

    def __init__(self, name: str, progress: _Progress) -> None:
        self.name, self.progress = name, progress
        self.reached, self.total, self.source = 0, 0, ""
        self.problems: list[str] = []
        self.stderr: dict[str, str] = {}  # by place: a traceback may come in several messages

    def cell(self, notebook: NotebookNode, index: int) -> None:
        """Note the cell that starts; numbers count the cells of the notebook in the repository."""
        own = ["injected-parameters" not in c.metadata.get("tags", []) for c in notebook.cells]
        self.reached, self.total = sum(own[: index + 1]), sum(own)
        self.source = notebook.cells[index].source
        self.progress.update(f"cell {self.reached}/{self.total}")

    def where(self) -> str:
        if not self.reached:
            return f"{self.name}, before the first cell"
        first = next((line.strip() for line in self.source.splitlines() if line.strip()), "")
        return f"{self.name}, cell {self.reached} (`{first[:80]}`)"

    def message(self, msg: Mapping, in_widget: bool) -> None:
        content = msg["content"]
        if msg["msg_type"] == "error":
            inside = ", inside a widget" if in_widget else ""
            what = _line(f"{content['ename']}: {content['evalue']}")
            self.problems.append(f"{self.where()}{inside}: {what}")
        elif msg["msg_type"] == "stream" and content["name"] == "stderr":
            self.stderr[self.where()] = self.stderr.get(self.where(), "") + content["text"]

    def all_problems(self) -> list[str]:
        printed = []
        for where, text in self.stderr.items():
            _, found, rest = text.partition("Traceback (most recent call last):\n")
            if found:
                last = next((line for line in rest.splitlines() if line[:1].strip()), "Traceback")
                printed.append(f"{where}, printed to stderr: {_line(last)}")
        return self.problems + printed


class _Client(PapermillNotebookClient):
    """papermill's client, run in this interpreter, that shows every message to a `_Watch`."""

    def __init__(self, nb_man: object, watch: _Watch, **traits: object) -> None:
        super().__init__(nb_man, **traits)
        self.watch = watch
        self.on_cell_start = lambda cell, cell_index: watch.cell(self.nb, cell_index)

    def create_kernel_manager(self) -> object:
        manager = super().create_kernel_manager()
        # A "python3" kernelspec in the user's home may start another interpreter. Without folders
        # to look into, the kernelspec is ipykernel's own, which starts sys.executable.
        manager.kernel_spec_manager.kernel_dirs = []
        return manager

    def process_message(self, msg: dict, cell: NotebookNode, cell_index: int) -> object:
        self.watch.message(msg, bool(self.output_hook_stack[msg["parent_header"].get("msg_id")]))
        return super().process_message(msg, cell, cell_index)


class _Engine(Engine):
    @classmethod
    def execute_managed_notebook(
        cls, nb_man: object, kernel_name: str, *, watch: _Watch, start: dict, **_: object
    ) -> object:
        log = logging.getLogger(__name__)
        log.setLevel(logging.CRITICAL)  # what nbclient logs on a dead kernel is in the summary
        client = _Client(nb_man, watch, kernel_name=kernel_name, log=log, startup_timeout=120)
        return client.execute(**start)


papermill_engines.register("gvae", _Engine)


class _Progress:
    """One line a notebook: rewritten every second in a terminal, start and end only in a log."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name, self.stream, self.state = name, stream, "starting"
        self.start, self.done, self.live = time.monotonic(), threading.Event(), stream.isatty()
        self.clock = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> _Progress:
        if self.live:
            self.clock.start()
        else:
            print(f"{self.name} ...", file=self.stream, flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()

    def update(self, state: str) -> None:
        self.state = state

    def _tick(self) -> None:
        while not self.done.wait(0.5):
            minutes, seconds = divmod(int(time.monotonic() - self.start), 60)
            line = f"{self.name}  {self.state}  {minutes}:{seconds:02d}"
            print(f"\r\x1b[K{line}", end="", file=self.stream, flush=True)

    def finish(self, text: str) -> None:
        self.done.set()
        if self.live:
            self.clock.join()
        clear = "\r\x1b[K" if self.live else ""
        print(f"{clear}{self.name}: {text}", file=self.stream, flush=True)


# --- pages ------------------------------------------------------------------------------


def _write_page(job: Job, executed: Path, page: Path, outcome: Outcome) -> None:
    """The executed notebook's page; a failure is the notebook's problem."""
    try:
        write_page(executed, page, title=job.title, folder=job.path.parent)
    except Exception as error:
        outcome.problems.append(f"{job.path.stem}: no page: {_line(error)}")
    else:
        outcome.page = page


def _write_index(folder: Path, outcomes: Sequence[Outcome], notebooks: Path, profile: str, outputs: Path) -> Path:
    """The table of all notebooks, earlier runs included, the explorer's page, and the figures of this profile."""
    ran = {outcome.name: outcome for outcome in outcomes}
    rows = []
    for name in sorted(path.stem for path in notebooks.glob("*.ipynb")):
        outcome = ran.get(name, Outcome(name, name))
        page = folder / f"{name}.html"
        link = (
            f'<a href="{page.name}">{html.escape(outcome.title)}</a>' if page.exists() else (html.escape(outcome.title))
        )
        result = outcome.result
        if result == NOT_RUN and page.exists():
            result = f"earlier, {time.strftime('%Y-%m-%d %H:%M', time.localtime(page.stat().st_mtime))}"
        seconds = f"{outcome.seconds:.1f}" if outcome.seconds else ""
        details = "".join(f"<br><code>{html.escape(problem)}</code>" for problem in outcome.problems)
        rows.append(
            f'<tr class="{outcome.result.lower()}"><td>{link}{details}</td><td>{result}</td>'
            f"<td>{seconds}</td><td>{html.escape(profile)}</td></tr>"
        )
    pictures = sorted((outputs / "figures" / profile).glob("*.png"))
    gallery = "\n".join(
        f'<a href="{source}"><figure><img src="{source}" alt="{html.escape(picture.stem)}">'
        f"<figcaption>{html.escape(picture.stem)}</figcaption></figure></a>"
        for picture in pictures
        for source in [html.escape(Path(os.path.relpath(picture, folder)).as_posix())]
    )
    explorer = outputs / "figures" / profile / "explorer.html"
    pages = ""
    if explorer.is_file():
        source = html.escape(Path(os.path.relpath(explorer, folder)).as_posix())
        pages = f'<p><a href="{source}">The rotation explorer</a>: turn digits in the browser, without a kernel.</p>'
    path = folder / "index.html"
    text = _INDEX.format(profile=html.escape(profile), rows="\n".join(rows), pages=pages, gallery=gallery)
    write_text(path, text)
    return path


_INDEX = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Report, profile {profile}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .4rem; border-bottom: 1px solid #ccc; vertical-align: top }}
tr.failed td {{ background: #fde8e8 }}
code {{ font-size: .85em; white-space: pre-wrap }}
.gallery {{ display: flex; flex-wrap: wrap; gap: 1rem; margin-top: 2rem }}
figure {{ margin: 0 }} figure img {{ max-width: 18rem; max-height: 14rem; border: 1px solid #ccc }}
</style></head><body>
<h1>Report, profile {profile}</h1>
<table><thead><tr><th>notebook</th><th>result</th><th>seconds</th><th>profile</th></tr></thead>
<tbody>
{rows}
</tbody></table>
{pages}
<div class="gallery">
{gallery}
</div>
</body></html>
"""


def _summarise(outcomes: Sequence[Outcome], index: Path, seconds: float, stream: TextIO) -> None:
    width = max(len(outcome.name) for outcome in outcomes)
    print(f"\n{'notebook':{width}}  result    cells  seconds  where", file=stream)
    for o in outcomes:
        where = _short(o.page) if o.page else "-"
        row = f"{o.name:{width}}  {o.result:8}{o.cells:>7}{o.seconds:9.1f}  {where}"
        print(row, file=stream)
    memory = ""
    if resource:
        unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB here
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
        memory = f", largest kernel {peak / 2**30:.2f} GiB"
    print(f"{seconds:.1f} s in all{memory}; {_short(index)}", file=stream)
    for o in outcomes:
        for problem in o.problems:
            print(f"{o.result} {problem}", file=stream)
