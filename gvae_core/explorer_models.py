"""The trained autoencoders at hand, by their specs in words, loaded when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from .experiments import Result, RunSpec, find, load_model, read_result
from .models import SphericalVAE
from .outputs import outputs_directory
from .profiles import best_models, sphere_and_plane, table2

KINDS = {"sgvae": "S-GVAE", "svae": "S-VAE"}  # Gaussian codes have no mean direction


class TrainedModels(Mapping[str, SphericalVAE]):
    """Name -> model; each is loaded from its checkpoint at its first use, and kept."""

    def __init__(self, checkpoints: Mapping[str, Path]):
        self.checkpoints = dict(checkpoints)
        self._loaded: dict[str, SphericalVAE] = {}

    def __getitem__(self, name: str) -> SphericalVAE:
        if name not in self._loaded:
            self._loaded[name] = load_model(self.checkpoints[name])
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.checkpoints)

    def __len__(self) -> int:
        return len(self.checkpoints)


def models_at_hand(profile: str, source: str, seed: int = 0) -> TrainedModels:
    """Every finished spherical autoencoder: the committed ones of outputs/paper, then the profile's own.

    An S-GVAE and an S-VAE, the best at hand of each, come first.

    Raises
    ------
    ValueError : there is none
    """
    results = [*_committed(), *_of_profile(profile, source, seed)]
    found = {result.spec.key: result for result in results if result.checkpoint.is_file()}
    if not found:
        raise ValueError(f"expected a trained S-GVAE or S-VAE of the profile {profile} in {outputs_directory()}, found none")
    first = [next((r for r in found.values() if r.spec.model == kind), None) for kind in KINDS]
    ordered = [r for r in first if r] + [r for r in found.values() if r not in first]
    named: dict[str, Path] = {}
    for result in ordered:
        name = words(result.spec)
        named[f"{name} ({result.spec.key[-4:]})" if name in named else name] = result.checkpoint
    return TrainedModels(named)


def words(spec: RunSpec) -> str:
    """A spec as a person would say it, the model's name before the first " · "."""
    count = "all" if spec.train_images is None else f"{spec.train_images:,}"
    epochs = "1 epoch" if spec.epochs == 1 else f"{spec.epochs} epochs"
    rotated = " rotated" if spec.protocol == "rotated" else ""
    seed = f", seed {spec.seed}" if spec.seed else ""
    return f"{KINDS[spec.model]} · d = {spec.latent_dim}, β = {spec.beta:g} · {epochs} of {count}{rotated} digits{seed}"


def _committed() -> Iterable[Result]:
    paths = sorted((outputs_directory() / "paper" / "runs").glob("*.json"))
    return [result for result in map(read_result, paths) if result.spec.model in KINDS]


def _of_profile(profile: str, source: str, seed: int) -> Iterable[Result]:
    asked = [list(of(profile, source, seed).values()) for of in (best_models, sphere_and_plane)]
    specs = [spec for specs in (*asked, table2(profile, source, seed)) for spec in specs if spec.model in KINDS]
    return [result for spec in specs if (result := find(spec))]
