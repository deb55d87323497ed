"""Notebooks refuse parameters that make no sense in their first cell."""

from pathlib import Path

import jupytext
import pytest

from gvae_core.report.parameters import check_parameters

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.py"))
GOOD = dict(profile="smoke", source="mnist5k", seed=0)


def test_good_parameters_give_the_source():
    assert check_parameters(**GOOD, digits=(20, 1, 500)) == "mnist5k"
    assert check_parameters(**GOOD | {"source": "auto"}) in ("mnist", "mnist5k")


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(digits=(-5, 1, 500)), "parameter digits: expected a whole number from 1 to 500, got -5"),
        (dict(digits=(0, 1, 500)), "got 0"),
        (dict(digits=(501, 1, 500)), "got 501"),
        (dict(digits=(2.5, 1, 500)), "got 2.5"),
        (dict(digits=(True, 1, 500)), "got True"),
        (dict(seed=-1), "parameter seed: expected a whole number from 0 to 4,294,967,295, got -1"),
        (dict(profile="tiny"), "parameter profile: expected one of smoke, quick, paper, got 'tiny'"),
        (dict(source="cifar"), "parameter source: expected one of auto, mnist, mnist5k, got 'cifar'"),
    ],
)
def test_senseless_parameters_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        check_parameters(**GOOD | change)


@pytest.mark.parametrize(
    "name, value",
    [
        ("01", "digits = -5"),
        ("01", "digits = 0"),
        ("01", "angle_step = 0"),
        ("03", "samples = 0"),
        ("05", "first_digit = -1"),
        ("08", "size = 27"),
    ]
    + [(path.stem[:2], "seed = -1") for path in NOTEBOOKS],
)
def test_the_first_cell_of_each_notebook_refuses_them(name, value):
    (path,) = (path for path in NOTEBOOKS if path.stem.startswith(name))
    code = [cell for cell in jupytext.read(path).cells if cell.cell_type == "code"]
    assert code[0].metadata["tags"] == ["parameters"]
    with pytest.raises(ValueError, match=f"parameter {value.split()[0]}: expected a whole number"):
        exec("\n".join([code[0].source, value, code[1].source]), {})
