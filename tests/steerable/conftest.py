"""The kernels are built once; the small layers of the tests take the path's own way."""

from __future__ import annotations

import pytest
from comparing import CHOOSE

from gvae_core.steerable import convolution, native


@pytest.fixture(scope="session", autouse=True)
def kernel_cache(tmp_path_factory):
    """Build the kernels in a directory of the session, not in the user's cache."""
    directory = tmp_path_factory.mktemp("kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GVAE_CACHE", str(directory))
        native.load.cache_clear()
        yield directory
        native.load.cache_clear()


@pytest.fixture(scope="module", autouse=True)
def factored():
    """The layers of the tests are small, where a dense convolution is the fastest way: take the path's own way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution.FastR2Conv, "_way", lambda self, path, packed: path)
        yield


@pytest.fixture
def chosen(monkeypatch):
    """The fastest way, by the rule."""
    monkeypatch.setattr(convolution.FastR2Conv, "_way", CHOOSE)
