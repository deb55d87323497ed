"""Many runs: what is there, what fails, who shares them, and that kills change nothing but the time it takes."""

import dataclasses
import errno
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from examples import TINY_CNN, TINY_GCNN, TINY_SGVAE, TINY_SVAE
from filelock import FileLock
from forked import finish, start
from safetensors import safe_open

from gvae_core import checkpoints, files, run
from gvae_core.__main__ import build_parser, main
from gvae_core.checkpoints import load_tensors
from gvae_core.devices import resolve_device
from gvae_core.report import profiles
from gvae_core.runs import many, results
from gvae_core.runs import run as run_module
from gvae_core.runs.many import run_many
from gvae_core.runs.results import Status, find, lock_path, state_path, status

THREE = dataclasses.replace(TINY_SVAE, epochs=3)
DIVERGING = dataclasses.replace(TINY_SVAE, learning_rate=1e30, beta=0.0)


def contents(folder):
    """Names and contents of a runs folder, without the times."""
    files = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json":
            files[path.name] = json.loads(path.read_text()) | {"seconds": None}
        elif path.suffix == ".safetensors":
            tensors, metadata = load_tensors(path)
            files[path.name] = metadata, {name: tensor.tolist() for name, tensor in tensors.items()}
        else:
            files[path.name] = path.read_bytes()
    return files


# --- what is there ----------------------------------------------------------------------------------


def test_a_status_says_how_far_it_is(outputs):
    assert status(THREE) == Status(THREE, "missing")
    assert not outputs.exists()  # looking writes nothing
    interim = run(THREE, progress=False, stop_after=2)
    assert status(THREE) == Status(THREE, "interrupted", 2, interim.seconds, interim.path)

    interim.path.unlink()  # as if the process had been killed instead of stopped
    interrupted = status(THREE)
    assert (interrupted.state, interrupted.epochs, interrupted.path) == ("interrupted", 2, state_path(THREE))
    assert 0 < interrupted.seconds <= interim.seconds
    with FileLock(lock_path(THREE)):
        assert status(THREE) == dataclasses.replace(interrupted, state="running")
    assert status(THREE) == interrupted

    done = run(THREE, progress=False)
    assert status(THREE) == Status(THREE, "done", 3, done.seconds, done.path)
    done.path.write_text("{")
    assert status(THREE).state == "unreadable"


def test_a_failing_cell_is_reported_and_the_others_run(outputs):
    stream = io.StringIO()
    failures = run_many([DIVERGING, TINY_CNN], stream=stream)
    assert failures.keys() == {DIVERGING.key} and failures[DIVERGING.key].startswith("NonFiniteLoss: S-VAE")
    first, second = stream.getvalue().splitlines()
    assert first.startswith(f"[1/2] S-VAE, d = 4, β = 0 {DIVERGING.key}: FAILED: NonFiniteLoss")
    assert second.startswith(f"[2/2] CNN, plain cross-entropy {TINY_CNN.key}: done, 2 of 2 epochs")
    assert find(TINY_CNN) and find(DIVERGING) is None


def test_a_log_gets_a_line_a_run_and_a_terminal_its_training_too(outputs, capsys):
    stream = io.StringIO()
    run_many([THREE], stream=stream, stop_after=2)
    assert stream.getvalue().count("\n") == 1 and "interrupted, 2 of 3 epochs" in stream.getvalue()
    assert capsys.readouterr() == ("", "")

    stream.isatty = lambda: True
    run_many([THREE], stream=stream)
    assert f"{THREE.title} 100%" in capsys.readouterr().out and "done, 3 of 3 epochs" in stream.getvalue()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(device="cuda:99"), "device among auto, cpu, cuda, cuda:N; got 'cuda:99'"),
        (dict(device="gpu"), "got 'gpu'"),
        (dict(workers=0), "at least one worker .* got 0 and None"),
        (dict(workers=2, scheduler="tcp://127.0.0.1:1"), "got 2 and tcp"),
        (dict(stop_after=0), "stop_after to be a whole number of at least 1, got 0"),
    ],
)
def test_bad_requests_compute_nothing(outputs, options, message):
    with pytest.raises(ValueError, match=message):
        run_many([TINY_CNN], **options)
    assert not list(outputs.rglob("*"))


def test_auto_is_a_device_of_this_machine():
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("spec", [TINY_CNN, TINY_GCNN, TINY_SVAE, TINY_SGVAE], ids=lambda spec: spec.model)
def test_a_gpu_repeats_its_numbers_and_is_close_to_the_cpu(outputs, tmp_path, monkeypatch, spec):
    first = run(spec, device="cuda", progress=False)
    for place, device in (("again", "cuda"), ("cpu", "cpu")):
        monkeypatch.setenv("GVAE_OUTPUTS", str(tmp_path / place))
        other = run(spec, device=device, progress=False)
        if device == "cuda":
            assert other.history == first.history and other.metrics == first.metrics
    # dropout and samples are drawn on the device, so only the level can be compared
    assert first.history[-1]["train_loss"] == pytest.approx(other.history[-1]["train_loss"], rel=0.3)


@pytest.mark.parametrize("threads, error", [(1, ""), (2, "workers with one thread (--nthreads 1), got one with 2")])
def test_a_cluster_of_others_computes_what_it_is_sent(outputs, threads, error):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=threads, processes=False, dashboard_address=None, protocol="tcp"
    ) as cluster:
        failures = run_many([TINY_CNN], scheduler=cluster.scheduler_address, stream=io.StringIO())
    assert error in failures.get(TINY_CNN.key, "") and bool(failures) == bool(error)
    assert bool(find(TINY_CNN)) != bool(error)


# --- several at once --------------------------------------------------------------------------------

SIX = [dataclasses.replace(spec, epochs=20, seed=seed) for spec in (TINY_CNN, TINY_SVAE) for seed in range(3)]


def compute_shared(log):
    """Compute the six, and say which this process has computed and what it printed."""
    computed, compute = [], run_module._run
    run_module._run = lambda spec, *rest: (computed.append(spec.key), compute(spec, *rest))[1]
    stream = io.StringIO()
    assert not run_many(SIX, stream=stream)
    log.write_text(json.dumps([computed, stream.getvalue()]))


@pytest.mark.slow
def test_two_processes_share_the_runs_and_compute_none_twice(outputs, tmp_path):
    logs = [tmp_path / "first.json", tmp_path / "second.json"]
    for process in [start(compute_shared, log) for log in logs]:
        finish(process)
    (first, said), (second, also) = (json.loads(log.read_text()) for log in logs)
    assert first and second and sorted(first + second) == sorted(spec.key for spec in SIX)
    for text in (said, also):  # each shows all of them
        assert all(f"{spec.key}: done, 20 of 20 epochs" in text for spec in SIX)


def test_a_taken_run_is_left_for_the_end(outputs, monkeypatch):
    monkeypatch.setattr(many, "_POLL", 0.05)
    stream = io.StringIO()
    with ThreadPoolExecutor() as pool:
        with FileLock(lock_path(TINY_CNN)):
            computing = pool.submit(run_many, [TINY_CNN, TINY_SVAE], stream=stream)
            while not find(TINY_SVAE):
                assert not computing.done()
                time.sleep(0.05)
            assert find(TINY_CNN) is None and not computing.done()
        assert computing.result() == {}
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["S-VAE,", "CNN,"]


@pytest.mark.slow
def test_worker_processes_compute_all_and_name_what_fails(outputs):
    stream = io.StringIO()
    failures = run_many([TINY_CNN, DIVERGING, TINY_SVAE], workers=2, stream=stream)
    assert failures.keys() == {DIVERGING.key} and failures[DIVERGING.key].startswith("NonFiniteLoss: S-VAE")
    assert find(TINY_CNN) and find(TINY_SVAE)
    assert sum(line.startswith("[") for line in stream.getvalue().splitlines()) == 3


@pytest.mark.slow
def test_workers_that_die_leave_their_runs_to_the_others(outputs, monkeypatch):
    monkeypatch.setattr(many, "_help", os.abort)
    assert run_many([TINY_CNN, TINY_SVAE], workers=2, stream=io.StringIO()) == {}
    assert find(TINY_CNN) and find(TINY_SVAE)


def test_a_folder_that_cannot_be_written_is_one_error(outputs, tiny, capsys):
    outputs.write_text("a file")
    with pytest.raises(SystemExit) as stop:
        main(["run", "table1"])
    assert stop.value.code == 2
    assert f"expected to write into {outputs / 'runs'}, found: Not a directory" in capsys.readouterr().err


def test_nothing_is_written_where_nothing_is_missing(outputs, monkeypatch):
    run(TINY_CNN, progress=False)
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: pytest.fail("written"))
    assert run_many([TINY_CNN], stream=io.StringIO()) == {}


# --- the commands -----------------------------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch):
    """Grids of tiny cells under the command's names."""
    names = {"table1": [TINY_CNN, THREE], "table2": [THREE], "retrain": [DIVERGING]}

    def cells(specs):
        return lambda profile, source, seed: [dataclasses.replace(spec, seed=seed) for spec in specs]

    monkeypatch.setattr(profiles, "TABLES", {name: cells(specs) for name, specs in names.items()})
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the tests' own handlers stay


@pytest.mark.slow
def test_run_and_list(outputs, tiny, capsys):
    assert main(["run", "table1", "table2", "--seeds", "0,2", "--device", "cpu", "--stop-after", "2"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"4 runs, profile quick, into {outputs / 'runs'}" and len(shown) == 5
    assert main(["list", "--seeds", "0-2"]) == 0
    head, *rows, summary = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "key", "state", "epochs", "seconds", "file"] and len(rows) == 9
    assert summary == "2 done, 2 interrupted, 5 missing"
    (row,) = (row for row in rows if THREE.key in row)
    assert "interrupted  2/3" in row and row.endswith(f"{THREE.key}.json")
    assert main(["run", "table1"]) == 0
    assert main(["list", "table1"]) == 0
    assert capsys.readouterr().out.endswith("2 done\n")


def test_a_failed_cell_is_named_at_the_end(outputs, tiny, capsys):
    assert main(["run", "retrain", "table2"]) == 1
    *_, last_cell, failure = capsys.readouterr().out.splitlines()
    assert last_cell.startswith("[2/2]") and "done" in last_cell
    assert failure.startswith(f"FAILED {DIVERGING.key}: NonFiniteLoss")


def test_ctrl_c_says_what_is_kept(outputs, tiny, capsys, monkeypatch):
    def interrupted(spec, *_, **__):
        if spec.model == "svae":
            run(spec, progress=False, stop_after=1)
            raise KeyboardInterrupt
        return ""

    monkeypatch.setattr(many, "_error", interrupted)
    assert main(["run", "table1"]) == 130
    _, _, stopped, cnn, svae = capsys.readouterr().out.splitlines()
    assert "same command goes on" in stopped and cnn.endswith("missing, 0 of 2 epochs")
    assert f"{THREE.key}: interrupted, 1 of 3 epochs" in svae


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["tabel1"],
            "table among table1, table2, two_frames, retrain, reconstructions, sphere_and_gaussian, born_rotated, groups; got 'tabel1'",
        ),
        (["table1", "--seeds", "4-0"], "seeds such as 0-4 or 0,2,5, got '4-0'"),
        (["table1", "--seeds", "1,"], "got '1,'"),
        (["table1", "--seeds", "-1"], "expected"),
        (["table1", "--stop-after", "0"], "at least 1, got '0'"),
        (["table1", "--device", "cuda:99"], "got 'cuda:99'"),
        (["table1", "--workers", "two"], "at least 1, got 'two'"),
        (["table1", "--workers", "2", "--scheduler", "tcp://127.0.0.1:1"], "not allowed with"),
        (["table1", "--scheduler", "nowhere"], "nowhere"),
    ],
)
def test_wrong_arguments_are_errors_in_words(outputs, capsys, monkeypatch, arguments, message):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as stop:
        main(["run", *arguments, "--profile", "smoke", "--source", "mnist5k"])
    assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.slow
def test_list_names_damaged_files_and_the_way_out(outputs, tiny, capsys):
    result = run(TINY_CNN, progress=False)
    result.checkpoint.write_bytes(result.checkpoint.read_bytes()[:-1])
    assert main(["list", "table1"]) == 0
    _, row, _, problem, summary = capsys.readouterr().out.splitlines()
    assert "unreadable" in row and row.endswith(str(result.path)) and summary == "1 unreadable, 1 missing"
    assert problem.startswith(f"{result.checkpoint}: expected") and problem.endswith("`gvae run` computes it again")
    with pytest.warns(UserWarning, match=f"{result.checkpoint}"):
        assert main(["run", "table1"]) == 0
    assert main(["list", "table1"]) == 0
    assert capsys.readouterr().out.endswith("2 done\n")


def test_a_file_that_may_not_be_read_is_one_error(outputs, tiny, capsys, monkeypatch):
    result = run(TINY_CNN, progress=False)

    read_text = Path.read_text

    def refuse(path, *arguments, **more):
        if path == result.path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return read_text(path, *arguments, **more)

    monkeypatch.setattr(Path, "read_text", refuse)
    for command in ("list", "run"):
        with pytest.raises(SystemExit) as stop:
            main([command, "table1"])
        assert stop.value.code == 2 and f"Permission denied: '{result.path}'" in capsys.readouterr().err


def test_list_and_run_of_a_committed_result(outputs, tiny, capsys, monkeypatch):
    run(TINY_CNN, progress=False)
    monkeypatch.setattr(results, "COMMITTED", outputs / "committed")
    os.rename(outputs / "runs", outputs / "committed")
    (
        outputs / "committed" / f"{TINY_CNN.key}.safetensors"
    ).unlink()  # of most committed runs only the numbers are there
    assert main(["list", "table1"]) == 0
    assert f"{outputs / 'committed' / TINY_CNN.key}.json" in capsys.readouterr().out
    assert not (outputs / "runs").exists()
    assert run_many([TINY_CNN], stream=io.StringIO()) == {} and not (outputs / "runs").exists()


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out == f"gvae {version('gvae-core')}\n"


@pytest.mark.parametrize("command", ["report", "publish"])
def test_an_installed_package_says_what_needs_the_checkout(tmp_path, monkeypatch, capsys, command):
    """The files of a wheel, and nothing beside them."""
    site = tmp_path / "site-packages"
    shutil.copytree(Path(files.__file__).parent, site / "gvae_core", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GVAE_")}
    installed = subprocess.run(
        [sys.executable, "-m", "gvae_core", command], cwd=site, env=environment, capture_output=True, text=True
    )
    assert installed.returncode == 2 and "Traceback" not in installed.stderr
    assert f"found an installed package at {site}" in installed.stderr and "gvae run" in installed.stderr


def test_a_home_folder_in_the_reports_arguments(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    args = build_parser().parse_args(["report", "--outputs=~/x", "--notebooks", "~/y"])
    assert (args.outputs, args.notebooks) == (tmp_path / "x", tmp_path / "y")


def test_a_report_into_a_folder_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    (tmp_path / "x").write_text("a file")
    with pytest.raises(SystemExit) as stop:
        main(["report", "--outputs", str(tmp_path / "x")])
    assert stop.value.code == 2 and str(tmp_path / "x") in capsys.readouterr().err


def test_a_state_that_goes_while_it_is_read_is_no_error(outputs, monkeypatch):
    run(TINY_CNN, progress=False, stop_after=1)
    state = state_path(TINY_CNN)

    def finished_meanwhile(path, **options):
        if path != state:
            return safe_open(path, **options)
        state.unlink(missing_ok=True)
        raise RuntimeError("unable to open file: No such file or directory")

    monkeypatch.setattr(checkpoints, "safe_open", finished_meanwhile)
    cell = status(TINY_CNN)
    assert not state.exists() and cell.epochs == 1  # of the interim result


# --- kills ------------------------------------------------------------------------------------------

EPOCHS = 20
CELLS = [dataclasses.replace(spec, epochs=EPOCHS) for spec in (TINY_CNN, TINY_SVAE, TINY_SGVAE)]


def compute():
    assert not run_many(CELLS, stream=io.StringIO())


def epochs_done():
    return sum(status(spec).epochs for spec in CELLS)


@pytest.mark.slow
def test_kill_nine_at_five_random_moments_leaves_the_files_of_a_run_without(outputs, tmp_path, monkeypatch):
    """The moments: an epoch drawn among all epochs of the grid, and a random time after it."""
    draw = random.Random(6)
    moments = sorted(draw.sample(range(1, EPOCHS * len(CELLS) - 3), 5))
    for moment in moments:
        process = start(compute)
        while epochs_done() < moment and process.is_alive():
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.1))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL and epochs_done() >= moment
    assert any(find(spec) is None for spec in CELLS)
    finish(start(compute))

    monkeypatch.setenv("GVAE_OUTPUTS", str(tmp_path / "without"))
    finish(start(compute))
    assert all(find(spec) for spec in CELLS)
    assert contents(outputs / "runs") == contents(tmp_path / "without" / "runs")


@pytest.mark.slow
def test_a_killed_process_loses_its_running_cell_only_which_another_takes_up(outputs, tmp_path, monkeypatch):
    first, second = start(compute), start(compute)
    while epochs_done() < EPOCHS // 2:  # of three runs: both are in the middle of one
        time.sleep(0.02)
    first.kill()
    first.join()
    assert first.exitcode == -signal.SIGKILL
    finish(second)

    monkeypatch.setenv("GVAE_OUTPUTS", str(tmp_path / "without"))
    finish(start(compute))
    assert all(find(spec) for spec in CELLS)
    assert contents(outputs / "runs") == contents(tmp_path / "without" / "runs")
