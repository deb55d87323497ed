"""Planted failures: the batch must name each and still run the notebooks after it."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from gvae_core.__main__ import main
from gvae_core.report import batch as report_batch
from gvae_core.report import receipts
from gvae_core.report.batch import plan

PARAMETERS = 'profile = "quick"\nseed = 0  # of everything\nbeta = 0.1\nsource = "auto"\ndims = [3, 6]'

# Name -> the code of its cells after the title and the parameters, so that the first one is cell 3.
NOTEBOOKS = {
    "1_cell": ["\nx = 1 / 0", "raise SystemExit('never reached')"],
    "2_interactive": [
        "import ipywidgets\ndef draw(x):\n    return x.missing",
        "slider = ipywidgets.IntSlider()\nipywidgets.interactive_output(draw, {'x': slider})",
    ],
    "3_output": ["import ipywidgets\nwith ipywidgets.Output():\n    raise ValueError('never displayed')"],
    "4_button": [
        "import ipywidgets\nb = ipywidgets.Button()\nb.on_click(lambda _: [][1])",
        "b.click()",
    ],
    "5_thread": [
        "import threading\ndef late():\n    raise OSError('from a thread')",
        "thread = threading.Thread(target=late)\nthread.start()\nthread.join()",
    ],
    "6_dies": ["import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"],
    "8_good": [
        "import os\nprint('outputs in', os.environ['GVAE_OUTPUTS'])",
        "print(profile, seed, beta, dims)\nprint('data in', os.environ['GVAE_DATA'])",
        "import sys\nprint('interpreter', sys.prefix)",
        "for i in range(3):\n    print(f'\\rstep {i}', end='', flush=True)",
        "import matplotlib.pyplot as plt\nplt.plot([0, 1])\nplt.show()",
        "import ipywidgets\nipywidgets.interact(lambda x: print('inside', x), x=(0, 4))\nNone",
        "ipywidgets.VBox([ipywidgets.Image(value=b'pixels of a widget')])",
        "import ipykernel, pathlib\nconnection = pathlib.Path(ipykernel.get_connection_file())\n"
        "print(connection.parent, *sorted(path.name for path in connection.parent.iterdir() if path.is_socket()))",
    ],
}


def write_notebooks(folder: Path, notebooks: dict[str, list[str]]) -> Path:
    folder.mkdir()
    for name, cells in notebooks.items():
        notebook = new_notebook(
            cells=[
                new_markdown_cell(f"# The {name} notebook"),
                new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
                *map(new_code_cell, cells),
            ]
        )
        notebook.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": ""}
        nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "gvae_core", "report", *map(str, arguments)]


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """One run over all planted notebooks, in a home whose own `python3` kernel is broken."""
    folder = tmp_path_factory.mktemp("batch")
    notebooks = write_notebooks(folder / "notebooks", NOTEBOOKS)
    (notebooks / "7_broken.ipynb").write_text("{")
    kernel = folder / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    spec = {"argv": ["false", "{connection_file}"], "display_name": "other", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    arguments = ("--profile", "smoke", "--notebooks", notebooks, "--outputs", folder / "outputs")
    result = subprocess.run(
        command(*arguments, "-p", "seed=3", "-p", "dims=[2,4]"),
        env={**os.environ, "JUPYTER_PATH": str(folder / "jupyter"), "MPLBACKEND": "Agg",
             "GVAE_DATA": "~/digits"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    print(result.stdout, result.stderr)
    return result, folder / "outputs" / "executed" / "smoke"


@pytest.mark.slow
@pytest.mark.parametrize(
    "problem",
    [
        "1_cell, cell 3 (`x = 1 / 0`): ZeroDivisionError: division by zero",
        "2_interactive, cell 4 (`slider = ipywidgets.IntSlider()`), inside a widget: "
        "AttributeError: 'int' object has no attribute 'missing'",
        "3_output, cell 3 (`import ipywidgets`), inside a widget: ValueError: never displayed",
        "4_button, cell 4 (`b.click()`): IndexError: list index out of range",
        "5_thread, cell 4 (`thread = threading.Thread(target=late)`), printed to stderr: OSError: from a thread",
        "6_dies, cell 3 (`import os, signal`): DeadKernelError: Kernel died (a crash, or out of "
        "memory; its last words are in {folder}/6_dies.log)",
        "7_broken: cannot be read: NotJSONError: Notebook does not appear to be JSON: '{'",
    ],
)
def test_planted_failure_is_named_once(batch, problem):
    result, folder = batch
    assert result.returncode == 1
    assert f"FAILED {problem.replace('{folder}', str(folder))}\n" in result.stdout
    name = problem[: re.search(r"[,:]", problem).start()]
    assert [line.split()[1] for line in result.stdout.splitlines() if line.startswith(f"{name} ")] == ["FAILED"]
    assert sum(line.startswith(f"FAILED {name}") for line in result.stdout.splitlines()) == 1


@pytest.mark.slow
def test_good_notebook_after_failures_has_run(batch):
    result, folder = batch
    assert re.search(r"^8_good +ok +10/10 .*8_good\.html$", result.stdout, re.MULTILINE)
    executed = nbformat.read(folder / "8_good.ipynb", as_version=4)
    text = "".join(o.get("text", "") for c in executed.cells for o in c.get("outputs", []))
    assert f"outputs in {folder.parents[1]}\nsmoke 3 0.1 [2, 4]\n" in text
    assert f"data in {Path('~/digits').expanduser()}\ninterpreter {sys.prefix}\n" in text


@pytest.mark.slow
def test_a_kernel_has_no_port_that_another_could_be_given_too(batch):
    _, folder = batch
    sockets, *names = nbformat.read(folder / "8_good.ipynb", as_version=4).cells[-1].outputs[0].text.split()
    assert names == [f"kernel-ipc-{number}" for number in range(1, 6)]  # shell, iopub, stdin, control, heartbeat
    assert not Path(sockets).exists()


@pytest.mark.slow
def test_log_has_two_lines_a_notebook(batch):
    result, _ = batch
    assert "\r" not in result.stdout
    assert sum(line.startswith("[7/8] 8_good") or line.startswith("[8/8] 8_good")
               for line in result.stdout.splitlines()) == 2  # fmt: skip
    assert result.stderr == ""


@pytest.mark.slow
def test_page_stands_alone(batch):
    _, folder = batch
    page = (folder / "8_good.html").read_text()
    assert "step 2" in page and "step 1" not in page  # text bars show their final state
    assert "inside 2" in page  # what the widget's first draw printed
    assert 'src="data:image/png;base64,iVBOR' in page  # a figure
    assert base64.b64encode(b"pixels of a widget").decode() in page
    assert "widget-view" not in page and "widget-state" not in page
    assert not re.findall(r'<(?:script|link|img)[^>]* (?:src|href)="(https?:[^"]+)"', page)


@pytest.mark.slow
def test_failed_notebook_has_a_page_too(batch):
    _, folder = batch
    assert "ZeroDivisionError" in (folder / "1_cell.html").read_text()
    assert "no attribute" in (folder / "2_interactive.html").read_text()
    assert not (folder / "7_broken.html").exists()


@pytest.mark.slow
def test_index_lists_results_and_figures(batch):
    _, folder = batch
    index = (folder / "index.html").read_text()
    assert '<a href="8_good.html">The 8_good notebook</a></td><td>ok</td>' in index
    assert index.count("<td>FAILED</td>") == 7 and "7 of 8 notebooks failed" in index
    assert "1_cell, cell 3" in index
    assert '<a href="8_good.html#figure-1"><img src="pictures/8_good-1.png"' in index
    assert (folder / "pictures" / "8_good-1.png").read_bytes()[1:4] == b"PNG"
    assert "<figcaption><p>The 8_good notebook</p>" in (folder / "8_good.html").read_text()
    assert {path.suffix for path in folder.iterdir()} == {".ipynb", ".html", ".log", ".json", ""}
    assert [path.name for path in folder.glob("*.log")] == ["6_dies.log"]
    assert not list(folder.rglob(".*"))  # nothing temporary left


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["-p", "bta=2"],
            "unknown parameter 'bta' (did you mean 'beta'?); known: beta, dims, seed",
        ),
        (["-p", "seed=abc"], "parameter seed: expected int, like the default 0 in good, got 'abc'"),
        (["-p", "seed=True"], "parameter seed: expected int"),
        (["-p", "seed=1.5"], "parameter seed: expected int"),
        (
            ["-p", "beta=one"],
            "parameter beta: expected float, like the default 0.1 in good, got 'one'",
        ),
        (["-p", "dims=3"], "parameter dims: expected list, like the default [3, 6] in good, got '3'"),
        (["-p", "seed"], "expected NAME=VALUE, got 'seed'"),
        (["-p", "profile=paper"], "expected --profile paper, got -p profile=paper"),
        (["--only", "godo"], "unknown notebook 'godo' (did you mean 'good'?); known: good"),
        (["--profile", "tiny"], "invalid choice: 'tiny'"),
        (["--notebooks", "nowhere"], f"expected notebooks (*.ipynb) in {Path('nowhere').resolve()}, found none"),
    ],
)
def test_wrong_argument_stops_before_anything_runs(tmp_path, arguments, message, capsys):
    notebooks = write_notebooks(tmp_path / "notebooks", {"good": []})
    before = ["report", "--notebooks", str(notebooks), "--outputs", str(tmp_path / "outputs")]
    with pytest.raises(SystemExit) as stopped:
        main(before + arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()


def test_each_notebook_gets_the_parameters_it_knows(tmp_path):
    notebooks = write_notebooks(tmp_path / "notebooks", {"a": [], "b": []})
    b = nbformat.read(notebooks / "b.ipynb", as_version=4)
    b.cells[1].source = 'profile = "quick"\nbeta = "a word"\nflag = False\nsize = 2 * 8\nnone = None'
    nbformat.write(b, notebooks / "b.ipynb")
    given = {
        "beta": "1",
        "seed": "7",
        "source": "5",
        "flag": "true",
        "size": "9",
        "none": "x",
        "dims": "[]",
    }
    first, second = plan(notebooks, "smoke", [], given)
    assert first.parameters == {
        "profile": "smoke",
        "beta": 1.0,
        "seed": 7,
        "source": "5",
        "dims": [],
    }
    assert isinstance(first.parameters["beta"], float)
    assert second.parameters == {
        "profile": "smoke", "beta": "1", "flag": True, "size": 9, "none": "x"
    }  # fmt: skip
    assert [job.name for job in plan(notebooks, "smoke", ["b"], {})] == ["b"]


def test_a_notebook_is_named_by_how_it_begins(tmp_path):
    notebooks = write_notebooks(tmp_path / "notebooks", {"01_a": [], "02_b": [], "02_b_more": [], "12_c": []})
    assert [job.name for job in plan(notebooks, "smoke", ["12", "01_"], {})] == ["01_a", "12_c"]
    assert [job.name for job in plan(notebooks, "smoke", ["02_b"], {})] == ["02_b"]  # a whole name is that notebook
    with pytest.raises(ValueError, match="expected one notebook that begins with '0', got 01_a, 02_b, 02_b_more"):
        plan(notebooks, "smoke", ["0"], {})


@pytest.mark.slow
def test_the_source_of_a_pair_is_executed(tmp_path):
    notebooks = write_notebooks(tmp_path / "notebooks", {"pair": ["print('from the .ipynb')"]})
    pair = jupytext.read(notebooks / "pair.ipynb")
    pair.cells[-1].source = "print('from the .py')"
    jupytext.write(pair, notebooks / "pair.py", fmt="py:percent")
    run = [*command("--profile", "smoke", "--notebooks", notebooks, "--outputs", tmp_path), "-p", "seed=5"]

    def executed() -> str:
        done = subprocess.run(run, capture_output=True, text=True, check=True)
        return done.stdout + (tmp_path / "executed" / "smoke" / "pair.html").read_text()

    first = executed()
    assert "from the .py" in first and "from the .ipynb" not in first
    assert "pair.ipynb differs from pair.py, which is executed; `jupytext --to ipynb --update" in first
    assert "unchanged since it was executed" in executed()
    source = (notebooks / "pair.py").read_text()
    (notebooks / "pair.py").write_text(source.replace("from the .py", "after an edit of the .py"))
    edited = executed()
    assert "unchanged" not in edited and "after an edit of the .py" in edited


@pytest.mark.slow
@pytest.mark.parametrize(("sign", "workers"), [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGINT, 2)])
def test_interrupt_says_what_was_done(tmp_path, sign, workers):
    wait = """
pid = os.environ["GVAE_OUTPUTS"] + f"/pid_{own}"
with open(pid + "~", "w") as file:
    file.write(str(os.getpid()))
os.rename(pid + "~", pid)
time.sleep(60)"""
    names = "bd"[:workers]  # two at a time start in the order a, d, b, c
    waiting = {own: [f"import os, time\nown = {own!r}", wait] for own in names}
    notebooks = write_notebooks(tmp_path / "notebooks", {"a": ["1"], "c": [], **waiting})
    process = subprocess.Popen(
        command("--notebooks", notebooks, "--outputs", tmp_path, "--workers", workers), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
        # under nohup, or behind a shell's &, the tests ignore SIGINT, and a child would inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    pids = [tmp_path / f"pid_{own}" for own in names]
    while not all(pid.exists() for pid in pids):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(sign)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert re.search(r"^a +ok ", output, re.MULTILINE)
    for own in names:
        assert re.search(rf"^{own} +stopped +4/4 ", output, re.MULTILINE)
        assert f"stopped {own}, cell 4 (`pid = os.environ[" in output
    assert re.search(r"^c +not run ", output, re.MULTILINE)
    assert "`): interrupted\n" in output
    assert errors == ""
    for pid in pids:
        with pytest.raises(ProcessLookupError):  # the kernel is gone, or goes
            for _ in range(100):
                os.kill(int(pid.read_text()), 0)
                time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_the_reply_of_a_cell_is_heard_that_arrives_while_an_output_widget_is_answered(tmp_path):
    class Slow(report_batch.Job):
        def message(self, msg, in_widget):
            super().message(msg, in_widget)
            time.sleep(in_widget)

    path = write_notebooks(tmp_path / "notebooks", {"output": NOTEBOOKS["3_output"]}) / "output.ipynb"
    job = Slow(path, "output", nbformat.read(path, as_version=4))
    report_batch._execute(job, tmp_path / "executed.ipynb", tmp_path, {"disable": True}, "1")
    (problem,) = job.problems
    assert problem.endswith("inside a widget: ValueError: never displayed")


@pytest.mark.slow
def test_two_notebooks_at_a_time(tmp_path):
    """Each waits for the other, and has its share of the cores; one whose process is killed fails alone."""
    meet = """
import os, pathlib, time, torch
folder = pathlib.Path(os.environ["GVAE_OUTPUTS"])
(folder / own).touch()
while not (folder / other).exists():
    time.sleep(0.05)
print("threads", torch.get_num_threads())"""
    kill = (
        "import os, signal, psutil\npsutil.Process().parent().send_signal(signal.SIGKILL)\nimport time; time.sleep(30)"
    )
    pairs = {"a": ["own, other = 'a', 'b'", meet], "b": ["own, other = 'b', 'a'", meet], "c": [kill], "d": []}
    notebooks = write_notebooks(tmp_path / "notebooks", pairs)
    run = command("--notebooks", notebooks, "--outputs", tmp_path, "--workers", 2)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(run, capture_output=True, text=True, timeout=120, env=environment)
    states = dict(re.findall(r"^([abcd]) +(ok|FAILED) ", done.stdout, re.MULTILINE))
    assert states == {"a": "ok", "b": "ok", "c": "FAILED", "d": "ok"}
    assert "FAILED c: its process ended with status -9" in done.stdout and done.returncode == 1
    pages = [(tmp_path / "executed" / "quick" / f"{name}.html").read_text() for name in "ab"]
    assert all(f"threads {max(1, os.cpu_count() // 2)}\n" in page for page in pages)


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("gvae_core.__main__", {"torch", "escnn", "papermill", "nbconvert", "matplotlib"}),
        # a batch in which nothing has changed ends in the time that torch takes to load, and so does writing the index
        ("gvae_core.report.batch", {"torch", "escnn", "matplotlib"}),
        ("gvae_core.report.site", {"torch", "escnn", "matplotlib"}),
    ],
)
def test_imports_nothing_heavy(module, heavy):
    code = f"import sys, {module}; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(modules.stdout.split())


@pytest.mark.slow
def test_an_unchanged_notebook_is_executed_once(tmp_path, capsys):
    writes = (
        "import os, pathlib\nfolder = pathlib.Path(os.environ['GVAE_OUTPUTS'], 'runs')\n"
        "folder.mkdir(exist_ok=True)\n(folder / 'run.json').write_text(str(seed))"
    )
    notebooks = write_notebooks(tmp_path / "notebooks", {"good": [writes], "bad": ["1 / 0"]})
    outputs = tmp_path / "outputs"

    def executed(*arguments: str) -> list[bool]:
        """Whether each notebook, bad and good, was executed rather than found unchanged."""
        folders = ("--notebooks", notebooks, "--outputs", outputs)
        main(["report", "--workers", "1", *map(str, (*folders, *arguments))])
        said = capsys.readouterr().out.splitlines()
        lines = sorted(line for line in said if line.startswith("[") and "..." not in line)
        return ["unchanged" not in line for line in lines]

    assert executed() == [True, True]
    assert executed() == [True, False]  # a failure is never kept
    good = ("-p", "seed=1", "--only", "good")
    assert executed(*good) == [True]
    (outputs / "runs" / "run.json").unlink()
    assert executed(*good) == [True]
    index = outputs / "executed" / "quick" / "index.html"
    before = index.read_text()
    assert executed(*good) == [False] and index.read_text() == before
    index.unlink()
    assert executed(*good) == [False] and index.is_file()
    assert executed(*good, "--fresh") == [True]


def test_a_receipt_knows_cells_and_full_size_results(tmp_path):
    notebook = new_notebook(cells=[new_code_cell("1")])
    before = receipts.digest(notebook, {}, tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "part.json").write_text('{"spec": {"train_images": 200}}')
    assert receipts.digest(notebook, {}, tmp_path) == before
    (tmp_path / "runs" / "full.json").write_text('{"spec": {"train_images": null}}')  # `gvae run` has added a result
    assert (after := receipts.digest(notebook, {}, tmp_path)) != before
    notebook.cells[-1].source += "\n"
    assert receipts.digest(notebook, {}, tmp_path) != after


def test_a_receipt_knows_that_the_full_set_has_come(tmp_path, monkeypatch):
    monkeypatch.setenv("GVAE_CACHE", str(tmp_path))
    before = receipts.digest(new_notebook(), {}, tmp_path)
    assert receipts.digest(new_notebook(), {}, tmp_path) == before
    (tmp_path / "mnist").mkdir()  # which the source "auto" takes from now on
    assert receipts.digest(new_notebook(), {}, tmp_path) != before


def test_a_receipt_knows_the_files_that_a_parameter_names(tmp_path, monkeypatch):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"1")
    notebooks = write_notebooks(tmp_path / "notebooks", {"own": ["pass"]})
    own = nbformat.read(notebooks / "own.ipynb", as_version=4)
    own.cells[1].source += '\nfolder = ""'
    nbformat.write(own, notebooks / "own.ipynb")
    monkeypatch.chdir(tmp_path)
    (job,) = plan(notebooks, "quick", [], {"folder": "images"})
    assert job.parameters["folder"] == str(folder)  # the kernel runs in the notebook's folder
    before = receipts.digest(new_notebook(), job.parameters, tmp_path)
    (folder / "b.png").write_bytes(b"2")
    assert receipts.digest(new_notebook(), job.parameters, tmp_path) != before


def test_lines_of_two_processes_are_whole(tmp_path):
    """Also where Python does not buffer what it prints, as in many containers."""
    script = tmp_path / "say.py"
    script.write_text(
        "import os\nfrom gvae_core.report.batch import _say\n"
        "parent = os.fork()\nfor _ in range(2000):\n    _say('one', '  two')\nif parent:\n    os.wait()"
    )
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "one\n  two\n" * 4000
