import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import gvae_core.mnist
from gvae_core.mnist import load_splits


@pytest.fixture(scope="session")
def digits() -> gvae_core.mnist.Digits:
    """Real test digits."""
    return load_splits("mnist5k").test


@pytest.fixture
def outputs(tmp_path, monkeypatch) -> Path:
    """An empty outputs folder."""
    monkeypatch.setenv("GVAE_OUTPUTS", str(tmp_path / "outputs"))
    return tmp_path / "outputs"


@pytest.fixture(scope="session")
def smoke_report(tmp_path_factory) -> SimpleNamespace:
    """`gvae report --profile smoke`, executed once: its process, its CPU seconds, its outputs and the site's folder."""
    outputs = tmp_path_factory.mktemp("smoke")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [Path(sys.executable).parent / "gvae", "report", "--profile", "smoke", "--outputs", outputs],
        capture_output=True, text=True, timeout=540,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return SimpleNamespace(done=done, seconds=seconds, outputs=outputs, folder=outputs / "executed" / "smoke")


@pytest.fixture(scope="module")  # while it lives nobody else can start an event loop
def chromium():
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        said = f"no browser among {', '.join(names)}; on Debian: apt-get update && apt-get install -y chromium"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(said)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM)
        yield browser
        browser.close()


CHROMIUM = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
