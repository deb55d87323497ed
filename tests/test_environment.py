"""environment.yml says the same as pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

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
