"""The profiles: which runs each notebook asks for, at which size.

smoke: every cell executes, nothing is learned. quick: real numbers on a laptop. paper: the papers'.
"""

from __future__ import annotations

from . import papers
from .data import load_mnist
from .experiments import RunSpec
from .outputs import PROFILES

# Sizes of the steerable networks by profile; the other networks are small enough as they are.
_GCNN_SIZES = {
    "smoke": dict(fields=(2, 2, 4), frequency=2),
    "quick": dict(fields=(8, 8, 16), frequency=4, invariants=32),
    "paper": dict(),
}
_SGVAE_SIZES = {
    "smoke": dict(fields=(2, 2, 4), frequency=2, invariants=8, decoder_channels=(8, 8, 8)),
    "quick": dict(fields=(8, 8, 16), frequency=4, dropout=0.0),
    "paper": dict(),
}
_SVAE_SIZES = {
    "smoke": dict(channels=(8, 8, 8), decoder_channels=(8, 8, 8)),
    "quick": dict(channels=(64, 64, 64), decoder_channels=(128, 64, 32), dropout=0.0),
    "paper": dict(),
}
_EPOCHS = {  # classifiers, S-GVAE and S-VAE, cells of the grid
    "smoke": (1, 1, 1),
    "quick": (10, 20, 6),
    "paper": (50, 100, 50),
}


def resolve_source(source: str) -> str:
    """``auto`` -> the source that `data.load_mnist` finds on this machine; others stay."""
    return load_mnist(source).source


def table1(profile: str, source: str, seed: int = 0) -> list[RunSpec]:
    """CNN and G-CNN of Table 1 (report), trained on upright digits."""
    common = dict(
        epochs=_epochs(profile)[0],
        learning_rate=0.001 if profile == "paper" else 0.003,
        decay=0.95 if profile == "paper" else 0.8,
        paper_loss=True,
        seed=seed,
        **_data(profile, source),
    )
    return [RunSpec(model="cnn", **common), RunSpec(model="gcnn", sizes=_GCNN_SIZES[profile], **common)]


def autoencoder(
    model: str, profile: str, source: str, seed: int = 0, *, latent_dim: int, beta: float, epochs: int | None = None
) -> RunSpec:
    """One autoencoder; ``epochs`` defaults to the retrained models' number."""
    paper = profile == "paper"
    epochs = epochs or _epochs(profile)[1]
    return RunSpec(
        model=model,
        latent_dim=latent_dim,
        beta=beta,
        epochs=epochs,
        learning_rate=0.005,
        decay=0.9 if paper else 0.02 ** (1 / epochs),  # a short run, too, ends at a small rate
        weight_decay=1e-5,
        seed=seed,
        sizes=(_SVAE_SIZES if model == "svae" else _SGVAE_SIZES)[profile],
        **_data(profile, source),
    )


def table2(profile: str, source: str, seed: int = 0) -> list[RunSpec]:
    """The grid of Table 2, S-GVAE and S-VAE: latent dimension x beta."""
    betas = papers.BETAS if profile != "smoke" else papers.BETAS[1:2]
    return [
        autoencoder(model, profile, source, seed, latent_dim=dim, beta=beta, epochs=_epochs(profile)[2])
        for model in ("sgvae", "svae")
        for dim in papers.LATENT_DIMS
        for beta in betas
    ]


def best_models(profile: str, source: str, seed: int = 0) -> dict[str, RunSpec]:
    """The models of Figure 1: beta = 0.1; the S-GVAE with d = 6, the S-VAE with d = 10."""
    return {
        model: autoencoder(model, profile, source, seed, latent_dim=dim, beta=0.1)
        for model, dim in (("sgvae", 6), ("svae", 10))
    }


def sphere_and_plane(profile: str, source: str, seed: int = 0) -> dict[str, RunSpec]:
    """An S-GVAE on the sphere in 3-space and a Gaussian VAE on the plane, with the same encoder."""
    return {
        model: autoencoder(model, profile, source, seed, latent_dim=dim, beta=1.0)
        for model, dim in (("sgvae", 3), ("gaussian", 2))
    }


def _epochs(profile: str) -> tuple[int, int, int]:
    if profile not in PROFILES:
        raise ValueError(f"expected a profile among {', '.join(PROFILES)}; got {profile!r}")
    return _EPOCHS[profile]


def _data(profile: str, source: str) -> dict:
    # quick must stay quick where the full MNIST is at hand
    counts = {"smoke": (200, 100), "quick": (4000, 500), "paper": (None, None)}[profile]
    return dict(source=resolve_source(source), train_images=counts[0], test_images=counts[1])
