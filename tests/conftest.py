from pathlib import Path

import pytest
import torch

import gvae_core.mnist
from gvae_core.mnist import load_splits
from gvae_core.runs.spec import RunSpec


@pytest.fixture(scope="session")
def digits() -> gvae_core.mnist.Digits:
    """Real test digits."""
    return load_splits("mnist5k").test


@pytest.fixture
def outputs(tmp_path, monkeypatch) -> Path:
    """An empty outputs folder."""
    monkeypatch.setenv("GVAE_OUTPUTS", str(tmp_path / "outputs"))
    return tmp_path / "outputs"


TINY = dict(source="mnist5k", epochs=2, learning_rate=0.01, batch_size=32, train_images=96, test_images=64)
TINY_GCNN = RunSpec("gcnn", **TINY, paper_loss=True, sizes={"fields": [2, 2, 2], "frequency": 2})
TINY_CNN = RunSpec("cnn", **TINY, paper_loss=False, sizes={"channels": [2, 2, 4]})
TINY_SVAE = RunSpec(
    "svae", **TINY, latent_dim=4, beta=1.0, sizes={"channels": [4, 4, 4], "decoder_channels": [4, 4, 4]}
)
TINY_SGVAE = RunSpec(
    "sgvae", **TINY, latent_dim=3, beta=1.0,
    sizes={"fields": [2, 2, 2], "frequency": 2, "invariants": 8, "decoder_channels": [4, 4, 4]},
)  # fmt: skip


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
