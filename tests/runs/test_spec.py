"""What a spec is hashed by: committed runs keep their keys, whatever is renamed or added later."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from examples import TINY_CNN, TINY_GCNN, TINY_SGVAE, TINY_SVAE

from gvae_core import RunSpec
from gvae_core.files import PROFILES
from gvae_core.mnist import load_splits
from gvae_core.models import LAYOUTS, EncoderLayout
from gvae_core.report import profiles
from gvae_core.runs.results import Result, by_seed
from gvae_core.runs.spec import TEST_DIGITS

ROOT = Path(__file__).parents[2]
COMMITTED = sorted(ROOT.glob("outputs/*/runs/*.json"))
RECORDED = json.loads(Path(__file__).with_name("profile_keys.json").read_text())  # from commit 9a2cd5e


def test_every_committed_run_has_the_key_it_is_named_by():
    specs = [RunSpec.from_dict(json.loads(path.read_text())["spec"]) for path in COMMITTED]
    assert [spec.key for spec in specs] == [path.stem for path in COMMITTED] and len(specs) >= 43
    for spec in specs:
        again = RunSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
        assert again == spec and again.key == spec.key and "grid" not in spec.sizes


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("source", ["mnist5k", "mnist"])
def test_profiles_list_the_runs_they_always_did(profile, source):
    for seed in (0, 1):
        listed = {name: table(profile, source, seed) for name, table in profiles.TABLES.items()}
        del listed["born_rotated"], listed["groups"], listed["two_frames"]  # came later
        listed["sphere_and_plane"] = listed.pop("sphere_and_gaussian")
        if profile == "paper":  # others since: a training that ends, and d = 6 too
            del listed["sphere_and_plane"]
        listed["short_schedule"] = profiles.short_schedule(source, seed)
        for name, specs in listed.items():
            assert [spec.key for spec in specs] == RECORDED[f"{profile} {source} {seed} {name}"].split(), name


@pytest.mark.parametrize(
    "spec, old, new",
    [
        (TINY_SGVAE, {"grid": "isotropic"}, {"layout": "isotropic"}),
        (TINY_SGVAE, {"grid": "paper"}, {}),
        (TINY_GCNN, {"kernel_size": [9, 4, 4]}, {"layout": "table1_wide"}),
        (TINY_GCNN, {}, {"layout": "table1"}),
    ],
)
def test_old_and_new_spelling_are_the_same_run(spec, old, new):
    old, new = (spec.to_dict() | {"sizes": spec.sizes | sizes} for sizes in (old, new))
    assert RunSpec.from_dict(old) == RunSpec(**new)
    assert RunSpec.from_dict(old).key == RunSpec(**new).key


def test_a_layout_of_ones_own_survives_json_and_has_its_own_key():
    layout = EncoderLayout(32, (2, 1, 2), kernel_size=(6, 4, 4))
    spec = dataclasses.replace(TINY_SGVAE, sizes=TINY_SGVAE.sizes | {"layout": layout})
    again = RunSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    named = [dataclasses.replace(spec, sizes=spec.sizes | {"layout": name}) for name in LAYOUTS]
    assert again == spec and len({s.key for s in (spec, again, *named)}) == 1 + len(LAYOUTS)
    assert again.build().encoder.blocks[0].state_dict().keys() == spec.build().encoder.blocks[0].state_dict().keys()


def test_the_group_is_part_of_the_key_unless_it_is_the_first():
    keys = [
        dataclasses.replace(TINY_GCNN, sizes=TINY_GCNN.sizes | group).key
        for group in ({}, {"group": "SO(2)"}, {"group": "O(2)"}, {"group": "C4"})
    ]
    assert keys[0] == keys[1] and len(set(keys)) == 3


def test_the_model_version_is_part_of_the_key_from_the_second_on():
    first, second = (dataclasses.replace(TINY_CNN, model_version=version) for version in (1, 2))
    assert first.key != second.key == TINY_CNN.key
    record = first.to_dict()
    del record["model_version"]  # as runs were stored before there were versions
    assert RunSpec.from_dict(record) == first
    with pytest.raises(ValueError, match="model_version among 1, 2; got 3"):
        dataclasses.replace(TINY_CNN, model_version=3)


def test_a_field_added_later_counts_where_it_is_used():
    @dataclass(frozen=True)
    class Later(RunSpec):
        pose: bool = field(default=False, metadata={"unhashed": False})

    plain, posed = Later(**TINY_CNN.to_dict()), Later(**TINY_CNN.to_dict(), pose=True)
    assert plain.key == TINY_CNN.key != posed.key
    assert Later.from_dict(TINY_CNN.to_dict()) == plain


@pytest.mark.parametrize("name, there", [("train_images", 4000), ("test_images", 500)])
def test_more_digits_than_there_are_is_an_error(name, there):
    with pytest.raises(ValueError, match=f"{name} to be at most {there}, all of mnist5k's, got {there + 1}"):
        dataclasses.replace(TINY_CNN, **{name: there + 1})
    splits = load_splits("mnist5k")
    assert len(splits.validation.images) == len(splits.test.images) == TEST_DIGITS["mnist5k"]


def test_a_last_batch_of_one_is_found_with_the_true_number():
    with pytest.raises(ValueError, match="got batch_size 43 for 4000 training images"):
        dataclasses.replace(TINY_CNN, train_images=None, batch_size=43)


def test_numbers_of_numpy_are_numbers_and_other_sizes_than_a_mapping_are_an_error():
    fields = {"seed": np.int64(0), "learning_rate": np.float64(TINY_GCNN.learning_rate)}
    sizes = TINY_GCNN.sizes | {"frequency": np.int64(TINY_GCNN.sizes["frequency"])}
    again = dataclasses.replace(TINY_GCNN, **fields, sizes=sizes)
    assert again == TINY_GCNN and again.key == TINY_GCNN.key and json.dumps(again.to_dict())
    with pytest.raises(ValueError, match="seed to be a whole number of at least 0, got .*1.0"):
        dataclasses.replace(TINY_GCNN, seed=np.float64(1))
    assert {again, TINY_GCNN} == {TINY_GCNN}
    with pytest.raises(ValueError, match="a size of svae among .*; got 'images'"):
        dataclasses.replace(TINY_SVAE, sizes={"images": {"size": 48}})
    with pytest.raises(ValueError, match="test_images to be at least 12 with protocol 'born_rotated', got 5"):
        dataclasses.replace(TINY_SVAE, protocol="born_rotated", test_images=5)
    with pytest.raises(ValueError, match=r"sizes to be a mapping of the builder's arguments, got \[1\]"):
        dataclasses.replace(TINY_GCNN, sizes=[1])


def test_every_use_of_random_numbers_has_its_own_stream():
    uses = ("initial values", "training", "test")
    first, second = (
        {dataclasses.replace(TINY_CNN, seed=seed, model_version=version).stream(use) for seed in (0, 1) for use in uses}
        for version in (1, 2)
    )
    assert first == {0, 1} and len(second) == 6  # the committed runs keep the one stream they had
    with torch.random.fork_rng():
        torch.manual_seed(0)  # also what the first epoch of `training.fit` began with
        start = torch.nn.Conv2d(1, 2, 3).weight
    first, second = (dataclasses.replace(TINY_CNN, model_version=version).build()[0].weight for version in (1, 2))
    assert torch.equal(start, first) and not torch.equal(start, second)


def _result(seed: int, epochs: int) -> Result:
    spec = dataclasses.replace(TINY_CNN, seed=seed)
    return Result(spec, epochs * [{}], {}, 1.0, "cpu", "", {}, 1, Path())


def test_seeds_of_unequal_progress_are_not_averaged():
    first, stopped, third = _result(0, 2), _result(1, 1), _result(2, 2)
    assert by_seed([first, stopped, third]) == [[first, third], [stopped]]
