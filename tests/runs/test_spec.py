"""What a spec is hashed by, and which results belong together."""

import dataclasses
from pathlib import Path

from conftest import TINY_CNN

from gvae_core.runs.run import Result, by_seed


def _result(seed: int, epochs: int) -> Result:
    spec = dataclasses.replace(TINY_CNN, seed=seed)
    return Result(spec, epochs * [{}], {}, 1.0, "cpu", "", {}, 1, Path())


def test_seeds_of_unequal_progress_are_not_averaged():
    first, stopped, third = _result(0, 2), _result(1, 1), _result(2, 2)
    assert by_seed([first, stopped, third]) == [[first, third], [stopped]]
