import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import gvae_core.mnist
from gvae_core.mnist import load_splits

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # before a test or a process of its own starts threads
    share = max(1, os.cpu_count() // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    torch.set_num_threads(share)
    os.environ.setdefault("OMP_NUM_THREADS", str(share))


def pytest_xdist_auto_num_workers() -> int:
    return min(os.cpu_count() or 1, 4)  # of 1 GB and more each


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a file share its fixtures, so one process runs them; it runs all files that look at the report.

    Those with notebooks and browsers take minutes and come first, so that no process waits for them in the end.
    """
    with_report = {item.path for item in items if "smoke_report" in item.fixturenames}
    longest = {item.path for item in items if item.get_closest_marker("ui")}
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(
        key=lambda item: next(i for i, s in enumerate((with_report, longest, long, {item.path})) if item.path in s)
    )
    for item in items:
        group = "report" if item.path in with_report else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def digits() -> gvae_core.mnist.Digits:
    """Real test digits."""
    return load_splits("mnist5k").test


@pytest.fixture
def outputs(tmp_path, monkeypatch) -> Path:
    """An empty outputs folder."""
    monkeypatch.setenv("GVAE_OUTPUTS", str(tmp_path / "outputs"))
    return tmp_path / "outputs"


@pytest.fixture(scope="module")
def sockets() -> Iterator[str]:
    """A folder for kernels' connection files and sockets, whose paths are short: two kernels may take one TCP port."""
    with tempfile.TemporaryDirectory() as folder:
        yield folder


@pytest.fixture(scope="session")
def smoke_report(tmp_path_factory) -> SimpleNamespace:
    """`gvae report --profile smoke`, executed once: its process, its CPU seconds, its outputs and the site's folder."""
    outputs = tmp_path_factory.mktemp("smoke")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [Path(sys.executable).parent / "gvae", "report", "--profile", "smoke", "--outputs", outputs],
        capture_output=True, text=True, timeout=1000,
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
