"""The README's numbers are those of the committed results, which are the current quick profile's."""

from pathlib import Path

import pytest

from gvae_core import profiles, tables
from gvae_core.experiments import read_result

ROOT = Path(__file__).parents[1]
COMMITTED = ROOT / "outputs" / "quick"
SPECS = {"table1": profiles.table1("quick", "mnist5k"), "table2": profiles.table2("quick", "mnist5k")}


@pytest.mark.parametrize("name", SPECS)
def test_tables_come_from_committed_runs(name):
    results = [read_result(COMMITTED / "runs" / f"{spec.key}.json") for spec in SPECS[name]]
    assert [result.spec for result in results] == SPECS[name]
    assert all(len(result.history) == result.spec.epochs for result in results)
    table = getattr(tables, name)(results)
    assert table in (ROOT / "README.md").read_text()
    assert table in (COMMITTED / f"{name}.md").read_text()


def test_quick_claims_hold():
    *_, cnn, gcnn = (read_result(COMMITTED / "runs" / f"{spec.key}.json").metrics for spec in SPECS["table1"])
    assert gcnn["test_rotated_accuracy"] >= max(0.8, cnn["test_rotated_accuracy"] + 0.3)
