"""environment.yml says the same as pyproject.toml."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
CONDA = [entry for entry in ENVIRONMENT["dependencies"] if isinstance(entry, str)]


def test_environment_installs_the_project_and_nothing_twice():
    assert ENVIRONMENT["name"] == "gvae" and ENVIRONMENT["channels"] == ["conda-forge"]
    assert [entry for entry in ENVIRONMENT["dependencies"] if entry not in CONDA] == [{"pip": ["-e ."]}]
    names = [re.match(r"[\w.-]+", entry)[0].lower() for entry in CONDA]
    assert len(set(names)) == len(names)
    assert not {Requirement(line).name.lower() for line in PROJECT["dependencies"]} & set(names)
    assert not {"torch", "pytorch"} & set(names)  # conda-forge's other name


def test_environment_python_fits_the_project():
    (version,) = (entry.partition("=")[2] for entry in CONDA if entry.startswith("python="))
    assert f"{version}.0" in SpecifierSet(PROJECT["requires-python"])


def test_the_exact_versions_fit_the_ranges_and_the_committed_results():
    lines = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    exact = {requirement.name: str(requirement.specifier).removeprefix("==") for requirement in lines}
    assert all(requirement.url is None and "+" not in str(requirement) for requirement in lines)
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    for requirement in map(Requirement, PROJECT["dependencies"] + extras):
        assert requirement.specifier.contains(exact[requirement.name]), requirement
    for path in (ROOT / "outputs" / "quick" / "runs").glob("*.json"):
        versions = json.loads(path.read_text())["versions"]
        assert {name: exact[name] for name in ("torch", "escnn", "numpy")}.items() <= versions.items(), path


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
def test_one_process_runs_the_tests_of_a_file(request):
    """xdist reads the groups from the node ids: two processes that share a file would make its fixtures twice."""
    assert request.node.nodeid.endswith(f"@{request.node.path}")
