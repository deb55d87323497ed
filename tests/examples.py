"""Small runs and images that several tests take."""

import math

import torch

from gvae_core.models import ImageFormat
from gvae_core.runs.spec import RunSpec

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


FORMATS = [
    ImageFormat(size, channels=channels, mean=(0.9,) * channels, std=0.3, fade=True)
    for size, channels in ((28, 3), (32, 1), (33, 3), (48, 3), (64, 5), (96, 3), (128, 1))
]


def own_images(form: ImageFormat, count: int = 3) -> torch.Tensor:
    """Dark, coloured ellipses on white, each turned by its own angle."""
    generator = torch.Generator().manual_seed(1)
    axis = torch.linspace(-1, 1, form.size)
    angles, size = torch.rand(2, count, 1, 1, generator=generator)
    x, y = (axis.expand(count, form.size, -1), axis[:, None].expand(count, -1, form.size))
    cos, sin = (2 * math.pi * angles).cos(), (2 * math.pi * angles).sin()
    along, across = cos * x + sin * y, cos * y - sin * x
    inside = torch.sigmoid(20 * (1 - (along / (0.4 + 0.3 * size)) ** 2 - (across / (0.3 + 0.1 * along)) ** 2))
    darkness = torch.linspace(0.8, 0.4, form.channels)[:, None, None]
    return 0.95 - darkness * inside[:, None]
