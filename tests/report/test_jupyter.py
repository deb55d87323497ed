"""JupyterLab opens the notebooks as the README says, and saving one unchanged changes no file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


class Server:
    """Its contents API, as JupyterLab uses it."""

    def __init__(self, address: str):
        self.address = address

    def __call__(self, path: str, model: dict | None = None) -> dict:
        data = json.dumps(model).encode() if model else None
        request = urllib.request.Request(
            f"{self.address}api/contents/{path}?content=1", data, {"Authorization": "token secret"},
            method="PUT" if model else "GET",
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


@pytest.fixture(params=["notebooks/05_rotation_grid.ipynb", "notebooks", "."])
def server(request, tmp_path):
    """`jupyter lab TARGET` in a checkout whose .ipynb are newer than their .py."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    for name in NAMES:
        path = tmp_path / "notebooks" / name
        os.utime(path.with_suffix(".py"), (time.time() - 3600,) * 2)
        os.utime(path.with_suffix(".ipynb"))
    command = [sys.executable, "-m", "jupyter", "lab", tmp_path / request.param, "--no-browser", "--allow-root",
               "--IdentityProvider.token=secret", "--port=0", "--ServerApp.port_retries=0"]  # fmt: skip
    environment = os.environ | {"JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"), "HOME": str(tmp_path / "home")}
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        while not (found := list((tmp_path / "runtime").glob("jpserver-*.json"))):
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        time.sleep(0.5)  # the file may be there before its text
        yield Server(json.loads(found[0].read_text())["url"]), "" if request.param != "." else "notebooks/", tmp_path
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
def test_notebooks_open_and_saving_unchanged_changes_no_file(server):
    contents, folder, checkout = server
    for name in NAMES:
        notebook = contents(f"{folder}{name}.ipynb")
        contents(f"{folder}{name}.ipynb", {"type": "notebook", "content": notebook["content"]})
    for path in (ROOT / "notebooks").iterdir():
        if path.is_file():
            assert (checkout / "notebooks" / path.name).read_bytes() == path.read_bytes(), path.name
