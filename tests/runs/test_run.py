"""Specs, and runs that are whole or not there, cached, resumed and safe to start twice."""

import dataclasses
import errno
import json
import os
import time

import numpy as np
import pytest
import torch
from examples import TINY_CNN, TINY_GCNN, TINY_SGVAE, TINY_SVAE
from filelock import FileLock, Timeout
from forked import finish, start
from hypothesis import given
from hypothesis import strategies as st

from gvae_core import RunSpec, metrics, models, run
from gvae_core.checkpoints import load_tensors, save_tensors
from gvae_core.files import PROFILES, write_text
from gvae_core.mnist import load_splits
from gvae_core.report import profiles
from gvae_core.runs import results
from gvae_core.runs.kinds import CLASSIFIERS
from gvae_core.runs.results import find, load_model, lock_path, state_path, status
from gvae_core.runs.run import measure_again
from gvae_core.training import read_progress

ALL = [TINY_CNN, TINY_GCNN, TINY_SVAE, TINY_SGVAE]
THREE = dataclasses.replace(TINY_SVAE, epochs=3)


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.model)
def test_spec_survives_json_with_the_same_key(spec):
    again = RunSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec and again.key == spec.key


def test_tuples_and_lists_are_the_same_content():
    sizes = {"fields": (2, 2, 2), "frequency": 2}
    assert dataclasses.replace(TINY_GCNN, sizes=sizes).key == TINY_GCNN.key


def test_whole_and_other_numbers_are_the_same_content():
    whole, other = (dataclasses.replace(TINY_SVAE, beta=beta, decay=1) for beta in (1, 1.0))
    assert whole == other and whole.key == other.key


@given(st.sampled_from([f.name for f in dataclasses.fields(RunSpec)]), st.text(min_size=1, max_size=3))
def test_a_mistyped_field_is_an_error_with_the_closest_name(name, tail):
    fields = {f.name for f in dataclasses.fields(RunSpec)}
    if name + tail not in fields:
        with pytest.raises(ValueError, match="expected a field of RunSpec among"):
            RunSpec.from_dict(TINY_CNN.to_dict() | {name + tail: 1})


@pytest.mark.parametrize(
    "spec, change, message",
    [
        (TINY_CNN, dict(model="gcn"), "did you mean 'gcnn'"),
        (TINY_CNN, dict(source="auto"), "source among mnist, mnist5k; got 'auto'"),
        (TINY_CNN, dict(protocol="sideways"), "'sideways'"),
        (TINY_SVAE, dict(model="spatial"), "protocol of spatial among born_rotated; got 'upright'"),
        (TINY_CNN, dict(epochs=0), "epochs to be a whole number of at least 1, got 0"),
        (TINY_CNN, dict(epochs=1.5), "got 1.5"),
        (TINY_CNN, dict(epochs=True), "got True"),
        (TINY_CNN, dict(learning_rate=float("nan")), "learning_rate .* got nan"),
        (
            TINY_CNN,
            dict(train_images=97),
            "last batch of more than one image, got batch_size 32 for 97 training images",
        ),
        (TINY_CNN, dict(latent_dim=3), "None for latent_dim with model 'cnn', got 3"),
        (TINY_CNN, dict(paper_loss=1), "True or False, got 1"),
        (TINY_SVAE, dict(beta=None), "a value for beta with model 'svae', got None"),
        (TINY_SVAE, dict(beta=-1.0), "got -1.0"),
        (TINY_SVAE, dict(sizes={"chanels": [1, 2, 3]}), "did you mean 'channels'"),
        (TINY_SGVAE, dict(sizes={"gaussian": True}), "'gaussian'"),
    ],
)
def test_bad_specs_say_what_was_expected(spec, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(spec, **change)


@given(st.integers(0, 10), st.floats(1e-5, 1.0), st.sampled_from(["upright", "rotated"]))
def test_different_content_has_different_keys(seed, rate, protocol):
    change = dict(seed=seed, learning_rate=rate, protocol=protocol)
    spec = dataclasses.replace(TINY_CNN, **change)
    same = all(getattr(TINY_CNN, name) == value for name, value in change.items())
    assert (spec.key == TINY_CNN.key) == same


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_are_lists_of_specs(profile):
    for specs in (
        profiles.table1(profile, "mnist5k"),
        profiles.table2(profile, "mnist5k"),
        profiles.best_models(profile, "mnist5k").values(),
        profiles.sphere_and_plane(profile, "mnist5k").values(),
    ):
        assert len({spec.key for spec in specs}) == len(specs) >= 2
        assert all(RunSpec.from_dict(spec.to_dict()) == spec for spec in specs)


@pytest.mark.slow
def test_paper_profile_has_the_papers_sizes():
    *specs, wide_first, aligned, isotropic = profiles.table1("paper", "mnist5k")
    assert [(spec.model, spec.paper_loss) for spec in specs[:2]] == [("cnn", True), ("gcnn", True)]
    for spec in specs:
        assert (spec.epochs, spec.batch_size, spec.learning_rate, spec.train_images) == (50, 100, 0.001, None)
        assert spec.sizes == {}
    assert dataclasses.replace(wide_first, sizes={}) == specs[1]  # the report's recipe but for the kernel
    assert models.parameter_count(wide_first.build()) < 39_000
    grid = profiles.table2("paper", "mnist5k")
    assert len(grid) == 30 and all(spec.epochs == 50 and spec.sizes == {} for spec in grid)
    # the variants stay within the papers' parameter counts
    assert all(models.parameter_count(spec.build()) <= 38_500 for spec in (aligned, isotropic))
    frames, isotropic, _ = (models.parameter_count(spec.build()) for spec in profiles.short_schedule("mnist5k"))
    assert 0.9 * 800_000 <= frames <= 1.1 * 800_000  # the tiny paper's "~800k"
    assert isotropic <= models.parameter_count(models.sgvae(latent_dim=10))


@pytest.mark.parametrize("profile", PROFILES)
def test_cells_of_a_grid_are_told_apart_by_title_and_epochs(profile):
    for cells in profiles.TABLES.values():
        specs = cells(profile, "mnist5k", 0)
        assert len({(spec.title, spec.epochs) for spec in specs}) == len(specs)


def test_no_paper_run_has_seen_mnist5k():
    for name in profiles.TABLES:
        for spec in profiles.TABLES[name]("paper", "mnist", 0):
            assert spec.source == "mnist"
    # whose training digits are disjoint from mnist5k: tests/test_mnist.py, on the full set


def test_an_unknown_profile_is_an_error():
    with pytest.raises(ValueError, match="smoke, quick, paper; got 'quik'"):
        profiles.table1("quik", "mnist5k")


@pytest.mark.slow
@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.model)
def test_a_run_is_stored_loaded_and_rebuilt(outputs, spec, monkeypatch, digits):
    result = run(spec, progress=False)
    assert {path.name for path in (outputs / "runs").iterdir() if path.suffix != ".lock"} == {
        f"{spec.key}.json", f"{spec.key}.safetensors",
    }  # fmt: skip
    assert len(result.history) == spec.epochs and result.seconds > 0 and result.versions["torch"]
    assert bool(result.steerable) == (spec.model in ("gcnn", "sgvae"))

    monkeypatch.setattr("gvae_core.runs.run._run", lambda *_: pytest.fail("trained again"))
    again = run(spec, progress=False)
    assert again == result
    model = result.load_model()
    assert not model.training
    if spec.model in CLASSIFIERS:
        test = load_splits("mnist5k", test_images=spec.test_images).test
        accuracy = metrics.accuracy(model, test.images, test.labels)
        assert accuracy == pytest.approx(result.metrics["test_upright_accuracy"], abs=1e-6)
        assert result.metrics["accuracy_by_angle"][12] == pytest.approx(accuracy)  # at 0 degrees
    else:
        assert result.metrics["latent_drift"][12] == pytest.approx(0, abs=1e-3)
        assert metrics.reconstruct(model, digits.images[:3]).shape == (3, 1, 28, 28)


@pytest.mark.slow
def test_numbers_repeat(outputs, tmp_path, monkeypatch):
    first = run(TINY_SGVAE, progress=False)
    monkeypatch.setenv("GVAE_OUTPUTS", str(tmp_path / "elsewhere"))
    second = run(TINY_SGVAE, progress=False)
    assert first.history == second.history and first.metrics == second.metrics


def test_committed_results_are_found(outputs, monkeypatch):
    result = run(TINY_CNN, progress=False)
    monkeypatch.setattr(results, "COMMITTED", outputs / "committed")
    os.rename(outputs / "runs", outputs / "committed")
    assert find(TINY_CNN).metrics == result.metrics


def _cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def _empty(path):
    path.write_bytes(b"")


def _null(path):
    path.write_text("null")


def _of_another(path):
    """What the file of the same kind of another run holds."""
    elsewhere = path.parent.parent / "elsewhere"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GVAE_OUTPUTS", str(elsewhere))
        run(OTHER, progress=False, stop_after=1)
    kind = path.name.partition(".")[2]
    path.write_bytes((elsewhere / "runs" / f"{OTHER.key}.{kind}").read_bytes())


OTHER = dataclasses.replace(TINY_CNN, seed=1)
DAMAGES = [
    (kind, damage, message)
    for kind, damage, message in (
        (".json", _cut, "expected a run's result, found something else"),
        (".json", _empty, "expected a run's result, found something else"),
        (".json", _null, "found something else .NoneType instead of an object"),
        (".json", _of_another, f"expected this run's result, found that of {OTHER.key}"),
        (".safetensors", _cut, "expected a safetensors file, found something else"),
        (".safetensors", _empty, "expected a safetensors file, found something else"),
        (".safetensors", os.unlink, "no checkpoint at"),
        (".safetensors", _of_another, f"expected the checkpoint of this run, found that of {OTHER.key}"),
        (".state.safetensors", _cut, "expected a safetensors file, found something else"),
        (".state.safetensors", _empty, "expected a safetensors file, found something else"),
        (".state.safetensors", _of_another, f"expected the state of this training, found that of {OTHER.key}"),
    )
]


@pytest.mark.slow
@pytest.mark.parametrize("kind, damage, message", DAMAGES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_damaged_files_are_named_and_the_run_is_computed_again(outputs, tmp_path, kind, damage, message):
    last = 1 if "state" in kind else None
    first = run(TINY_CNN, progress=False, stop_after=last)
    path = outputs / "runs" / f"{TINY_CNN.key}{kind}"
    damage(path)
    found = status(TINY_CNN)
    assert found.state == "unreadable" and found.path.is_file() and str(path) in found.problem
    assert found.problem.endswith("; `gvae run` computes it again")
    with pytest.warns(UserWarning, match=f"{path}.*{message}" if path.exists() and "no " not in message else message):
        again = run(TINY_CNN, progress=False)
    assert again.complete and again.metrics.keys() == first.metrics.keys() and status(TINY_CNN).state == "done"
    if last is None:
        assert again.metrics == first.metrics
    again.load_model()
    set_aside = len(list((outputs / "runs").glob("*.damaged")))  # nothing is lost
    assert set_aside == 1 + (kind == ".safetensors" and damage is not os.unlink)  # with the result it belongs to


@pytest.mark.slow
def test_a_checkpoint_of_another_run_without_a_result_is_set_aside(outputs):
    other = run(OTHER, progress=False)
    path = outputs / "runs" / f"{TINY_CNN.key}.safetensors"
    path.write_bytes(other.checkpoint.read_bytes())
    with pytest.warns(UserWarning, match=f"{path}: expected the checkpoint of this run, found that of {OTHER.key}"):
        run(TINY_CNN, progress=False)
    assert path.with_name(f"{path.name}.damaged").read_bytes() == other.checkpoint.read_bytes()


@pytest.mark.slow
def test_a_result_that_is_replaced_while_it_is_looked_for_is_not_there(outputs, monkeypatch):
    run(THREE, progress=False, stop_after=np.int64(1))
    known = results._read_own

    def late(path, spec):
        path.unlink()  # by another process, after the look at what is there
        return known(path, spec)

    monkeypatch.setattr(results, "_read_own", late)
    assert results.find(THREE, incomplete=True) is None


@pytest.mark.parametrize("damage", [_cut, _null, _of_another])
def test_a_damaged_committed_result_says_how_to_restore_it(outputs, monkeypatch, damage):
    run(TINY_CNN, progress=False)
    monkeypatch.setattr(results, "COMMITTED", outputs / "committed")
    os.rename(outputs / "runs", outputs / "committed")
    path = outputs / "committed" / f"{TINY_CNN.key}.json"
    damage(path)
    for reading in (find, run):
        with pytest.raises(ValueError, match=f"{path}: .*; restore it: git checkout -- {path}$"):
            reading(TINY_CNN)
    assert status(TINY_CNN).path == path and "git checkout" in status(TINY_CNN).problem


def test_a_committed_checkpoint_that_is_lost_says_how_to_get_it(outputs, monkeypatch):
    run(TINY_CNN, progress=False)
    monkeypatch.setattr(results, "COMMITTED", outputs / "committed")
    os.rename(outputs / "runs", outputs / "committed")
    committed = run(TINY_CNN, progress=False)  # the numbers are there, so nothing is trained
    _cut(committed.checkpoint)
    with pytest.raises(ValueError, match=f"restore it: git checkout -- {committed.checkpoint}"):
        committed.load_model()
    committed.checkpoint.unlink()
    with pytest.raises(FileNotFoundError, match=f"committed without it; to train it, delete {committed.path}"):
        committed.load_model()
    assert status(TINY_CNN).state == "done"


def test_a_broken_result_names_the_file(outputs):
    result = run(TINY_CNN, progress=False)
    result.path.write_text(result.path.read_text()[:100])
    with pytest.raises(ValueError, match=f"{result.path.name}.*`gvae run` computes it again"):
        find(TINY_CNN)


# --- folders that cannot be written (root may write everywhere, so the system's answer is put in its place) ---


@pytest.fixture
def read_only(monkeypatch):
    """From `read_only()` on, the system refuses every write as it does on a read-only disk."""

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def start():
        opened = os.open

        def read(path, flags, *rest, **more):
            return refuse() if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else opened(path, flags, *rest, **more)

        monkeypatch.setattr(os, "open", read)
        for name in ("mkdir", "unlink", "rename", "replace"):
            monkeypatch.setattr(os, name, refuse)

    return start


@pytest.mark.parametrize("remains", [False, True])
def test_a_finished_run_is_read_from_a_folder_that_nobody_may_write(outputs, read_only, remains):
    whole, interim = run(TINY_CNN, progress=False), run(THREE, progress=False, stop_after=1)
    if remains:
        (outputs / "runs" / f".{TINY_CNN.key}-abc.json").touch()
    read_only()
    assert run(TINY_CNN, progress=False) == whole == find(TINY_CNN)
    assert run(THREE, progress=False, stop_after=1) == interim
    assert status(TINY_CNN).state == "done" and status(THREE).state == "interrupted"
    with pytest.raises(OSError, match=f"expected to write into {outputs / 'runs'}, found: Read-only file system"):
        run(THREE, progress=False)


def test_a_finished_run_takes_no_lock(outputs, monkeypatch):
    whole = run(TINY_CNN, progress=False)
    before = {path.name: path.stat().st_mtime_ns for path in (outputs / "runs").iterdir()}
    monkeypatch.setattr("gvae_core.runs.run.FileLock", lambda path: pytest.fail("locked"))
    assert run(TINY_CNN, progress=False) == whole
    assert {path.name: path.stat().st_mtime_ns for path in (outputs / "runs").iterdir()} == before


def test_a_full_disk_names_the_folder(outputs, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match=f"expected to write into {outputs / 'runs'}, found: No space left"):
        run(TINY_CNN, progress=False)
    assert not [path.name for path in (outputs / "runs").iterdir() if path.suffix != ".lock"]


def test_who_does_not_wait_is_told_that_a_run_is_taken(outputs):
    interim = run(THREE, progress=False, stop_after=1)
    with FileLock(lock_path(THREE)):
        assert run(THREE, progress=False, stop_after=1, wait=True) == interim  # there is nothing to wait for
        with pytest.raises(Timeout):
            run(THREE, progress=False, wait=False)


def test_a_broken_checkpoint_names_the_file(outputs, tmp_path):
    result = run(TINY_CNN, progress=False)
    result.checkpoint.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=f"{result.checkpoint.name}: expected a safetensors file"):
        result.load_model()
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_model(tmp_path / "missing.safetensors")
    save_tensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {"not": "a spec"})
    with pytest.raises(ValueError, match="with its spec"):
        load_model(tmp_path / "other.safetensors")


def _names(outputs):
    return {path.name.removeprefix(THREE.key) for path in (outputs / "runs").iterdir()} - {".lock"}


def _same(one, other):
    """Everything but the time it took."""
    tensors, others = load_tensors(one.checkpoint)[0], load_tensors(other.checkpoint)[0]
    return (
        one.history == other.history
        and one.metrics == other.metrics
        and tensors.keys() == others.keys()
        and all(torch.equal(tensors[name], others[name]) for name in tensors)
    )


@pytest.mark.slow
@pytest.mark.parametrize("spec", [THREE, dataclasses.replace(TINY_GCNN, epochs=3)], ids=lambda spec: spec.model)
def test_a_stopped_run_says_so_and_goes_on_as_if_it_had_not_stopped(outputs, tmp_path, monkeypatch, spec):
    interim = run(spec, progress=False, stop_after=1)
    assert (interim.epochs_reached, interim.complete) == (1, False)
    assert find(spec) is None and find(spec, incomplete=True) == interim
    assert load_tensors(interim.checkpoint)[1]["epochs_reached"] == 1
    assert not interim.load_model().training
    seconds = read_progress(state_path(spec)).seconds
    further = run(spec, progress=False, stop_after=2)
    assert further.history[:1] == interim.history and further.epochs_reached == 2
    assert further.seconds > read_progress(state_path(spec)).seconds > seconds > 0

    whole = run(spec, progress=False)
    assert whole.complete and find(spec) == whole == find(spec, incomplete=True)
    assert whole.history[:2] == further.history and not state_path(spec).exists()
    monkeypatch.setenv("GVAE_OUTPUTS", str(tmp_path / "elsewhere"))
    assert _same(whole, run(spec, progress=False))


def test_an_interim_result_is_that_of_the_model_as_it_is(outputs):
    interim = run(dataclasses.replace(TINY_CNN, epochs=3), progress=False, stop_after=2)
    test = load_splits("mnist5k", test_images=TINY_CNN.test_images).test
    accuracy = metrics.accuracy(interim.load_model(), test.images, test.labels)
    assert accuracy == pytest.approx(interim.metrics["test_upright_accuracy"], abs=1e-6)


def test_a_run_that_got_as_far_is_not_trained_again(outputs, monkeypatch):
    interim = run(THREE, progress=False, stop_after=2)
    monkeypatch.setattr("gvae_core.runs.run._run", lambda *_: pytest.fail("trained again"))
    assert run(THREE, progress=False, stop_after=1) == run(THREE, progress=False, stop_after=2) == interim


def test_a_state_beyond_the_stop_is_measured_as_it_is(outputs):
    interim = run(THREE, progress=False, stop_after=2)
    interim.path.unlink()
    assert run(THREE, progress=False, stop_after=1).metrics == interim.metrics


def test_a_stop_at_or_beyond_the_last_epoch_is_a_whole_run(outputs):
    assert run(TINY_SVAE, progress=False, stop_after=7).complete
    assert not state_path(TINY_SVAE).exists()


def test_a_committed_interim_result_is_found_and_trained_again_from_the_start(outputs, tmp_path, monkeypatch):
    interim = run(THREE, progress=False, stop_after=1)
    monkeypatch.setattr(results, "COMMITTED", outputs / "committed")
    os.rename(outputs / "runs", outputs / "committed")
    assert find(THREE) is None and find(THREE, incomplete=True).metrics == interim.metrics
    whole = run(THREE, progress=False)
    assert whole.complete and whole.path.parent == outputs / "runs" and find(THREE, incomplete=True) == whole
    monkeypatch.setenv("GVAE_OUTPUTS", str(tmp_path / "elsewhere"))
    assert _same(whole, run(THREE, progress=False))


def test_a_state_without_its_seconds_is_resumed(outputs):
    run(THREE, progress=False, stop_after=1)
    state = state_path(THREE)
    tensors, metadata = load_tensors(state)
    save_tensors(state, tensors, {"history": metadata["history"]})  # as earlier versions wrote it
    assert run(THREE, progress=False).history[:1] == metadata["history"]


@pytest.mark.parametrize("stop_after", [0, -1, 1.0, True, "2"])
def test_a_senseless_stop_is_an_error(outputs, stop_after):
    with pytest.raises(ValueError, match="stop_after to be a whole number of at least 1, got "):
        run(THREE, stop_after=stop_after)
    assert not outputs.exists()


def test_remains_of_a_killed_write_are_removed_and_others_kept(outputs):
    interim = run(THREE, progress=False, stop_after=1)
    state, runs = state_path(THREE), outputs / "runs"
    kept = state.read_bytes()
    other = runs / f".{TINY_CNN.key}-abc.json"
    for path in (runs / f".{THREE.key}-abc.json", runs / f".{THREE.key}.state-abc.safetensors", other):
        path.write_text("half")
    assert run(THREE, progress=False, stop_after=1) == interim
    assert _names(outputs) == {".json", ".safetensors", ".state.safetensors", other.name}
    run(THREE, progress=False)
    state.write_bytes(kept)  # killed after the JSON was written, before the state was deleted
    run(THREE, progress=False)
    assert not state.exists()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


LONGER = dataclasses.replace(TINY_CNN, epochs=60)


def run_longer():
    run(LONGER, progress=False)


@pytest.mark.slow
def test_kill_nine_loses_at_most_the_running_epoch(outputs, tmp_path, monkeypatch):
    process = start(run_longer)
    state = outputs / "runs" / f"{LONGER.key}.state.safetensors"
    for _ in range(3000):
        if state.exists() or not process.is_alive():
            break
        time.sleep(0.02)
    process.kill()
    process.join()
    done = len(load_tensors(state)[1]["history"])
    assert 1 <= done < LONGER.epochs and find(LONGER) is None

    finish(start(run_longer))
    resumed = find(LONGER)
    monkeypatch.setenv("GVAE_OUTPUTS", str(tmp_path / "elsewhere"))
    finish(start(run_longer))
    whole = find(LONGER)
    assert resumed.history == whole.history and resumed.metrics == whole.metrics
    assert not state.exists()


@pytest.mark.slow
def test_two_processes_on_one_folder_share_one_run(outputs):
    processes = [start(run_longer) for _ in range(2)]
    for process in processes:
        finish(process)
    assert len(list((outputs / "runs").glob("*.json"))) == 1 and find(LONGER)


def test_a_trained_model_is_measured_anew_and_keeps_its_record(outputs, monkeypatch):
    result = run(TINY_SVAE, progress=False)
    record = json.loads(result.path.read_text())
    changed = record | {"metrics": {"test_upright_loss": 0.0}, "seconds": 1.5}
    result.path.write_text(json.dumps(changed))
    load, locked = results.Result.load_model, []

    def behind_the_lock(self):  # so that no other process trains on meanwhile
        with pytest.raises(Timeout):
            FileLock(lock_path(TINY_SVAE)).acquire(timeout=0)
        locked.append(self)
        return load(self)

    monkeypatch.setattr(results.Result, "load_model", behind_the_lock)
    again = measure_again(result)
    assert locked == [result]
    assert again.metrics == result.metrics and again.seconds == 1.5 and again.history == result.history
    result.checkpoint.unlink()
    with pytest.raises(FileNotFoundError):
        measure_again(result)
