"""What is committed is a copy of what was computed, and nothing else."""

import dataclasses
import shutil

import pytest
from examples import TINY_CNN, TINY_SVAE

from gvae_core import run
from gvae_core.report import publish, results_page, tables
from gvae_core.runs.results import Result

CELL = dataclasses.replace(TINY_SVAE, beta=500.0)


@pytest.fixture
def checkout(tmp_path, monkeypatch, outputs):
    """An empty checkout, in which one grid of three runs is all there is; the judge reads only the second."""
    root = tmp_path / "checkout"
    root.mkdir()

    def grid(*specs):
        return lambda profile, source, seed: [dataclasses.replace(spec, seed=seed) for spec in specs]

    monkeypatch.setattr(publish, "ROOT", root)
    lists = {"table1": grid(TINY_CNN), "table2": grid(TINY_SVAE, CELL), "reconstructions": grid(TINY_CNN, TINY_SVAE)}
    for module in (publish, results_page):
        monkeypatch.setattr(module, "TABLES", lists)
    monkeypatch.setattr(publish, "reconstructions", lists["reconstructions"])
    monkeypatch.setattr(publish, "sphere_and_plane", lambda profile, source, seed: {})
    return root


@pytest.mark.slow
def test_results_and_shown_figures_are_copied_and_the_page_is_written(checkout, outputs):
    results = [run(TINY_CNN, progress=False), run(TINY_SVAE, progress=False, stop_after=1), run(CELL, progress=False)]
    drawn = (f"figures/paper/{name}.png" for name in ("figure1_full_size", "same_way_up", "other"))
    for name in (*drawn, "tables/paper/t.md"):
        (outputs / name).parent.mkdir(parents=True, exist_ok=True)
        (outputs / name).write_text(name)
    read = tables.measured([(results[2], {"upright": 0.875})], judge=results[0].spec.key, digits=64)
    tables.save("x", "reconstructions_full_size", profile="paper", source="mnist5k", numbers=read)
    stale, seed, source = (checkout / f"outputs/paper/runs/cnn-{i}.json" for i in range(3))
    stale.parent.mkdir(parents=True)
    record = results[0].path.read_text()
    stale.write_text(record.replace('"epochs": 2', '"epochs": 3'))
    seed.write_text(record.replace('"seed": 0', '"seed": 1'))
    source.write_text(record.replace('"source": "mnist5k"', '"source": "mnist"'))
    written = publish.publish("paper", "mnist5k")
    assert not stale.exists() and seed.exists() and source.exists()
    names = {result.path.name for result in results} | {result.checkpoint.name for result in results[:2]}
    drawn = {f"{name}_full_size.png" for name in ("accuracy_by_angle", "table2", "latent_drift")}
    assert {path.name for path in written} == {
        *names, *drawn, "figure1_full_size.png", "same_way_up_full_size.png", "reconstructions_full_size.json", "findings.json",
        "README.md",
    }  # fmt: skip
    for result in results:
        assert (checkout / "outputs/paper/runs" / result.path.name).read_bytes() == result.path.read_bytes()
    page = (checkout / "outputs/README.md").read_text()
    assert f"[{CELL.key}](paper/runs/{CELL.key}.json)" in page and "**87.5%**" in page
    assert "1 of 2 networks are trained to their last epoch, 1 in part." in page
    assert f"{results[2].history[-1]['validation_loss'] / 1000:.2f}k after 2" in page
    assert f"### [{results[1].checkpoint.name}](paper/runs/{results[1].checkpoint.name})" in page  # a model card
    assert not any(path.suffix == ".safetensors" for path in publish.publish("quick", "mnist5k"))


def test_the_hours_that_remain_are_told_by_the_device_that_computed(tmp_path):
    spec = dataclasses.replace(TINY_SVAE, epochs=10)

    def begun(epochs, hours, device):
        return Result(spec, [{}] * epochs, {}, hours * 3600.0, device, "", {}, 1, tmp_path)

    card, cpu = "NVIDIA H100, float32", "x86_64 CPU, 1 threads"
    runs = [begun(4, 8.0, cpu), begun(5, 1.0, card), begun(5, 2.0, card), begun(10, 5.0, "Another, float32")]
    assert results_page._hours_left(runs) == "3.0 more hours on NVIDIA H100 and 12.0 more hours on x86_64 CPU"


def test_a_fresh_clone_makes_the_same_page(checkout, outputs):
    run(TINY_CNN, progress=False)
    publish.publish("quick", "mnist5k")
    page = (checkout / "outputs/README.md").read_text()
    shutil.rmtree(outputs)
    (checkout / "outputs/README.md").unlink()
    publish.publish("quick", "mnist5k")
    assert (checkout / "outputs/README.md").read_text() == page


def test_smoke_numbers_are_not_published(checkout):
    run(TINY_CNN, progress=False)
    with pytest.raises(ValueError, match="expected a profile among paper, quick, whose numbers are results; got smoke"):
        publish.publish("smoke", "mnist5k")


def test_checkpoints_are_those_of_the_first_seed(checkout):
    first, second = (run(dataclasses.replace(TINY_CNN, seed=seed), progress=False) for seed in (0, 1))
    written = {path.name for path in publish.publish("paper", "mnist5k", seeds=(0, 1))}
    assert {name for name in written if "cnn" in name} == {first.path.name, second.path.name, first.checkpoint.name}


def test_nothing_to_publish_is_an_error(checkout):
    with pytest.raises(ValueError, match="expected results of profile paper, source mnist5k; found none"):
        publish.publish("paper", "mnist5k")


def test_a_large_file_is_refused_and_nothing_is_written(checkout, monkeypatch):
    run(TINY_SVAE, progress=False)
    monkeypatch.setattr(publish, "CHECKPOINT_BYTES", 1000)
    with pytest.raises(ValueError, match="at most 1,000 bytes"):
        publish.publish("paper", "mnist5k")
    assert not (checkout / "outputs").exists()
