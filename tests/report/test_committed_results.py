"""The numbers of README and outputs/README.md are those of the committed results, which are the current profiles'."""

import functools
import json
import re
import statistics
from pathlib import Path

import pytest

from gvae_core import metrics
from gvae_core.mnist import load_splits
from gvae_core.models import parameter_count
from gvae_core.report import findings, profiles, results_page, tables
from gvae_core.runs.measures import kinds_of_input
from gvae_core.runs.results import find

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "outputs" / "quick"
PAGE = (ROOT / "outputs" / "README.md").read_text()


def records(profile: str) -> list[dict]:
    """The committed JSONs, read without the package."""
    return [json.loads(path.read_text()) for path in (ROOT / "outputs" / profile / "runs").glob("*.json")]


def test_the_page_and_the_findings_are_those_of_the_committed_files():
    assert results_page.page(ROOT / "outputs") == PAGE, "run `gvae publish`"
    paper = ROOT / "outputs" / "paper"
    numbers = findings.numbers(paper / "runs", "paper", paper / "reconstructions_full_size.json")
    assert json.loads((paper / "findings.json").read_text()) == numbers, "run `gvae publish --profile paper`"


@pytest.mark.parametrize("profile", ["paper", "quick"])
def test_the_pages_numbers_are_those_of_the_jsons(profile):
    def is_cell(spec: dict) -> bool:  # of Table 2, at full size
        of_it = spec["model"] in ("sgvae", "svae") and spec["protocol"] == "upright"
        return of_it and spec["decay"] == 0.9 and spec["epochs"] == 50 and not spec["sizes"]

    farthest: dict[tuple, int] = {}  # epochs of each cell, by whichever seed
    for spec, history in ((record["spec"], record["history"]) for record in records(profile)):
        if is_cell(spec):
            place = spec["model"], spec["latent_dim"], spec["beta"]
            farthest[place] = max(len(history), farthest.get(place, 0))
    assert len(farthest) == (30 if profile == "paper" else 0)
    at = min(farthest.values(), default=0) - 1  # after the last epoch that all have reached
    for record in records(profile):
        spec, history = record["spec"], record["history"]
        rows = [line for line in PAGE.splitlines() if f"]({profile}/runs/{spec['model']}-" in line and "±" not in line]
        there = (other["spec"] for other in records(profile) if len(other["history"]) > at)
        alone = sum(other | {"seed": 0} == spec | {"seed": 0} for other in there) == 1
        if is_cell(spec) and alone and len(history) > at:
            loss = history[at]["validation_loss"] / 1000
            shown = f"{loss:.2f}k | {history[at]['validation_squared_error']:.1f} |"
            start = f"| {spec['latent_dim']} | {spec['beta']:g} |"
            assert any(start in row and shown in row and f"after {len(history)} |" in row for row in rows)
        if spec["model"] == "gcnn" and spec["seed"] == 0 and spec["sizes"].get("mask") is None:
            accuracy = f"**{record['metrics']['test_rotated_accuracy']:.2%}**"
            assert any(accuracy in row and f"| {record['parameters']:,} |" in row for row in rows)


def test_links_of_the_page_lead_to_files():
    links = re.findall(r"\]\(([^)]+)\)", PAGE)
    assert len(links) > 40 and all((ROOT / "outputs" / link).is_file() for link in links)


@pytest.mark.parametrize("name", ["table1", "table2"])
def test_quick_tables_have_all_their_runs(name):
    specs = profiles.TABLES[name]("quick", "mnist5k", 0)
    results = results_page.committed(COMMITTED, "quick", profiles.TABLES[name])
    assert [result.spec for result in results] == specs and all(result.complete for result in results)


def test_the_readmes_summary_is_that_of_the_jsons():
    def mean(name: str, model: str, **spec) -> float:
        found = [r for r in records("paper") if ({"model": model} | spec).items() <= r["spec"].items()]
        return statistics.mean(r["metrics"][name] for r in found)

    rotated = functools.partial(mean, "test_rotated_accuracy", paper_loss=True, sizes={})
    wide = mean("test_rotated_accuracy", "gcnn", paper_loss=True, sizes={"kernel_size": [9, 4, 4]})
    isotropic = next(r for r in records("paper") if r["spec"]["model"] == "gcnn" and r["spec"]["sizes"].get("mask"))
    best = mean("test_rotated_accuracy", "gcnn", sizes=isotropic["spec"]["sizes"])
    numbers = [f"{share:.1%}" for share in (rotated("cnn"), rotated("gcnn"), wide, best)]
    shares = json.loads((ROOT / "outputs" / "paper" / "reconstructions_full_size.json").read_text())["shares"]
    for key in ("sgvae-828419987313", "sgvae-a39260aaae50", "svae-16f0ef449af4"):
        numbers.append(f"{shares[key]['rotated']:.1%}")
    text = (ROOT / "README.md").read_text()
    assert [number for number in numbers if f"| {number} |" not in text] == []


def test_the_readmes_sentence_on_table_2_is_that_of_the_jsons():
    cells = results_page.committed(ROOT / "outputs" / "paper", "paper", profiles.TABLES["table2"])
    epoch = tables.common_epoch(cells)
    said = tables.agreement(cells, epoch)
    kept, pairs = (sum(map(int, column)) for column in zip(*re.findall(r"in (\d+) of (\d+) pairs", said)))
    below = [-float(number) for number in re.findall(r"\| ([+-][\d.]+)% \|", said)]
    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"after {epoch} of 50 epochs" in text and f"In {kept} of {pairs} pairs of cells" in text
    assert f"the losses are {min(below):.0f}% to {max(below):.0f}% below" in text


def test_the_readmes_numbers_of_digits_never_upright_are_those_of_the_jsons():
    born = [r for r in records("paper") if r["spec"]["protocol"] == "born_rotated"]
    pose, plain, svae, spatial = (
        [
            r["metrics"]
            for r in born
            if r["spec"]["model"] == model and bool(r["spec"]["sizes"].get("pose")) == with_pose
        ]
        for model, with_pose in (("sgvae", True), ("sgvae", False), ("svae", False), ("spatial", False))
    )
    assert len(pose) > 1

    def mean(seeds: list[dict], table: str, name: str) -> float:
        return statistics.mean(numbers[table][name] for numbers in seeds)

    errors = [
        " / ".join(f"{mean(m, 'angle_errors', name):.2f}°" for name in ("mean", "median")) for m in (pose, spatial)
    ]
    agree = []
    for seeds in (pose, spatial):
        by_class = [statistics.mean(values) for values in zip(*(m["resultant_by_class"] for m in seeds))]
        agree.append(f"{min(by_class):.2f}, {max(by_class):.2f}")
    rows = [[first, "–", "–", last] for first, last in (errors, agree)]
    for name in ("kmeans_hungarian", "neighbours_12000"):
        rows.append([f"{mean(m, 'codes', name):.1%}" for m in (pose, plain, svae, spatial)])
    text = (ROOT / "README.md").read_text()
    (cnn,) = (r["metrics"]["test_rotated_accuracy"] for r in born if r["spec"]["model"] == "cnn")
    assert f"reads {cnn:.1%} of" in text
    assert [row for row in rows if f"| {' | '.join(row)} |" not in text] == []


def test_what_notebook_03_says_of_sphere_and_gaussian_at_the_end_of_a_training():
    """With two degrees of freedom nearly the same; with d = 6 the one draws upright digits better, the other turned ones."""
    both = {d: profiles.sphere_and_plane("paper", "mnist", dims=d).values() for d in ((3, 2), (6, 6))}
    ended = {d: [find(spec) for spec in specs] for d, specs in both.items()}
    assert all(result.complete for results in ended.values() for result in results)
    assert all(result.checkpoint.is_file() for result in ended[3, 2])

    def ratio(d: tuple[int, int], digits: str) -> float:
        sphere, gaussian = (result.metrics[f"test_{digits}_squared_error"] for result in ended[d])
        return gaussian / sphere

    assert 1 < ratio((3, 2), "upright") < 1.05
    assert ratio((6, 6), "upright") > 1.1 and ratio((6, 6), "rotated") < 0.95
    sphere, gaussian = ([epoch["validation_loss"] for epoch in result.history] for result in ended[6, 6])
    assert gaussian[-2] - gaussian[-1] > 2 * (sphere[-2] - sphere[-1])  # still falling


def test_what_notebook_04_says_of_two_frames():
    """A lower loss than the papers' network after as many epochs, with fewer parameters; the S-VAE's is lower still."""
    for spec in profiles.two_frames("paper", "mnist"):
        ours = find(spec, incomplete=True)
        cells = [s for s in profiles.table2("paper", "mnist") if (s.latent_dim, s.beta) == (spec.latent_dim, spec.beta)]
        sgvae, svae = (find(cell, incomplete=True) for cell in cells)
        epoch = min(result.epochs_reached for result in (ours, sgvae, svae))
        assert epoch >= 8
        losses = [tables.thousands(*tables.after_epoch([result], epoch)) for result in (svae, ours, sgvae)]
        assert losses == sorted(losses) and ours.parameters < sgvae.parameters


@pytest.mark.slow
def test_committed_checkpoints_are_those_of_a_fresh_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("GVAE_OUTPUTS", str(tmp_path))
    models = profiles.full_size_models()
    assert "sgvae" in {result.spec.model for result in models}
    assert all(result.checkpoint.stat().st_size < 8_000_000 for result in models)
    for result in models:
        assert parameter_count(result.load_model()) == result.parameters


@pytest.mark.slow
def test_the_full_size_sgvae_does_not_see_the_angle_and_the_svae_does(monkeypatch, tmp_path):
    monkeypatch.setenv("GVAE_OUTPUTS", str(tmp_path))
    judge = find(profiles.best_judge("quick", "mnist5k"))
    assert judge.metrics["test_upright_accuracy"] >= 0.99
    inputs = kinds_of_input(load_splits("mnist5k").test)  # no full-size training has seen these
    pair = {model: result.load_model() for model, result in profiles.full_size_pair().items()}
    read = {model: metrics.reconstruction_accuracy(judge.load_model(), vae, inputs) for model, vae in pair.items()}
    # 500 digits: the standard error of a difference is about a point
    assert read["sgvae"]["rotated"] >= read["sgvae"]["upright"] - 0.02
    assert read["sgvae"]["rotated"] >= 0.88
    assert read["svae"]["rotated"] <= 0.5 < 0.9 <= read["svae"]["upright"]


def test_quick_claims_hold():
    numbers = [result.metrics for result in results_page.committed(COMMITTED, "quick", profiles.table1)]
    for cnn, gcnn in (numbers[:2], numbers[2:]):  # with the papers' loss, with plain cross-entropy
        assert gcnn["test_rotated_accuracy"] >= max(0.8, cnn["test_rotated_accuracy"] + 0.3)


def test_the_group_with_reflections_alone_reads_mirrored_digits_as_it_reads_others():
    results = {
        r.spec.sizes.get("group", "SO(2)"): r for r in results_page.committed(COMMITTED, "quick", profiles.groups)
    }
    assert list(results) == ["C4", "C8", "SO(2)", "O(2)"] and all(result.complete for result in results.values())
    lost = {g: r.metrics["test_rotated_accuracy"] - r.metrics["test_mirrored_accuracy"] for g, r in results.items()}
    assert abs(lost.pop("O(2)")) < 0.003 and min(lost.values()) > 0.03, lost
    sizes = [result.parameters for result in results.values()]
    assert max(sizes) < 1.03 * min(sizes)
