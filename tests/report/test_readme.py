"""The README's commands are real, and CI runs the one for the tests."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from gvae_core.__main__ import build_parser

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```(?:bash|sh|shell|console)\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
# The commands without their comments, in the order of the page.
COMMANDS = [
    command
    for line in "".join(BLOCKS).splitlines()
    if (command := re.sub(r"\s+#.*", "", line).removeprefix("$ ").strip()) and command[0] != "#"
]


def first(word: str) -> str:
    return next(command for command in COMMANDS if word in command)


def test_two_commands_do_everything():
    assert first("gvae") == "pip install uv && uv run gvae report"
    assert first("pytest") == "uv run pytest"


def test_ci_runs_the_test_command():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines().count(first("pytest")) == 1
    subprocess.run(["bash", "-n", script], check=True)
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]


@pytest.mark.parametrize("command", [c for c in COMMANDS if re.search(r"\bgvae \w", c)])
def test_gvae_commands_have_valid_arguments(command):
    arguments = shlex.split(command.split("gvae ", 1)[1].split("&&")[0])
    build_parser().parse_args(arguments)  # exits on a wrong one


def test_files_that_commands_name_exist():
    names = {word for command in COMMANDS for word in shlex.split(command) if word.endswith(".ipynb")}
    missing = [name for name in names if "/" in name and not (ROOT / name).exists()]
    assert not missing


def test_the_python_example_runs_and_holds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # it writes a file
    (example,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert "assert" in example
    exec(compile(example, "README.md", "exec"), {})
