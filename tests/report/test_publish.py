"""What is committed is a copy of what was computed, and nothing else."""

import dataclasses

import pytest
from conftest import TINY_CNN, TINY_SVAE

from gvae_core import run
from gvae_core.report import publish

CELL = dataclasses.replace(TINY_SVAE, beta=500.0)


@pytest.fixture
def checkout(tmp_path, monkeypatch, outputs):
    """An empty checkout, in which one grid of three runs is all there is; the judge reads only the second."""
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "README.md").write_text("![x](outputs/paper/shown.png)")

    def grid(*specs):
        return lambda profile, source, seed: [dataclasses.replace(spec, seed=seed) for spec in specs]

    monkeypatch.setattr(publish, "ROOT", root)
    monkeypatch.setattr(publish, "TABLES", {"all": grid(TINY_CNN, TINY_SVAE, CELL)})
    monkeypatch.setattr(publish, "reconstructions", grid(TINY_CNN, TINY_SVAE))
    monkeypatch.setattr(publish, "sphere_and_plane", lambda profile, source, seed: {})
    return root


def test_results_tables_and_shown_figures_are_copied(checkout, outputs):
    results = [run(TINY_CNN, progress=False), run(TINY_SVAE, progress=False, stop_after=1), run(CELL, progress=False)]
    for name in ("figures/paper/shown.png", "figures/paper/other.png", "tables/paper/t.md"):
        (outputs / name).parent.mkdir(parents=True, exist_ok=True)
        (outputs / name).write_text(name)
    stale, seed, source = (checkout / f"outputs/paper/runs/cnn-{i}.json" for i in range(3))
    stale.parent.mkdir(parents=True)
    record = results[0].path.read_text()
    stale.write_text(record.replace('"epochs": 2', '"epochs": 3'))
    seed.write_text(record.replace('"seed": 0', '"seed": 1'))
    source.write_text(record.replace('"source": "mnist5k"', '"source": "mnist"'))
    written = publish.publish("paper", "mnist5k")
    assert not stale.exists() and seed.exists() and source.exists()
    names = {result.path.name for result in results} | {result.checkpoint.name for result in results[:2]}
    assert {path.name for path in written} == names | {"shown.png", "t.md"}
    for result in results:
        assert (checkout / "outputs/paper/runs" / result.path.name).read_bytes() == result.path.read_bytes()
    assert not any(path.suffix == ".safetensors" for path in publish.publish("quick", "mnist5k"))


def test_checkpoints_are_those_of_the_first_seed(checkout):
    first, second = (run(dataclasses.replace(TINY_CNN, seed=seed), progress=False) for seed in (0, 1))
    written = {path.name for path in publish.publish("paper", "mnist5k", seeds=(0, 1))}
    assert written == {first.path.name, second.path.name, first.checkpoint.name}


def test_nothing_to_publish_is_an_error(checkout):
    with pytest.raises(ValueError, match="expected results of profile paper, source mnist5k; found none"):
        publish.publish("paper", "mnist5k")


def test_a_large_file_is_refused_and_nothing_is_written(checkout, monkeypatch):
    run(TINY_SVAE, progress=False)
    monkeypatch.setattr(publish, "CHECKPOINT_BYTES", 1000)
    with pytest.raises(ValueError, match="at most 1,000 bytes"):
        publish.publish("paper", "mnist5k")
    assert not (checkout / "outputs").exists()
