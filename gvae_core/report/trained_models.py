"""The trained autoencoders of this machine and the committed ones, by name, loaded when they are asked for."""

from __future__ import annotations

from collections import UserDict
from pathlib import Path

from ..files import outputs_directory
from ..models import SphericalVAE
from ..runs.results import find, load_model
from .profiles import TABLES, best_models, full_size_models, full_size_results
from .words import trained

KINDS = ("sgvae", "svae")  # Gaussian codes have no mean direction


class TrainedModels(UserDict[str, SphericalVAE]):
    """Name -> model, made of name -> checkpoint; each is loaded at its first use, and kept."""

    def __getitem__(self, name: str) -> SphericalVAE:
        if isinstance(self.data[name], Path):
            self.data[name] = load_model(self.data[name])
        return self.data[name]


def trained_models(profile: str, source: str, seed: int = 0) -> TrainedModels:
    """Every spherical autoencoder with a checkpoint: those of the papers' size first, then the profile's own.

    An S-GVAE and an S-VAE come before all others, the best of each: trained upright before rotated, then
    of the papers' size, then to the end.

    Raises
    ------
    ValueError : there is none
    """
    specs = list(best_models(profile, source, seed).values())
    specs += [spec for table in TABLES.values() for spec in table(profile, source, seed)]
    full_size = [*full_size_models(), *full_size_results("sphere_and_gaussian", seeds=[0])]
    results = [*full_size, *filter(None, map(find, specs))]
    found = {r.spec.key: r for r in results if r.spec.model in KINDS and r.checkpoint.is_file()}
    if not found:
        raise ValueError(
            f"expected a trained S-GVAE or S-VAE of profile {profile} in {outputs_directory()}, found none"
        )
    best = sorted(found.values(), key=lambda r: (r.spec.protocol != "upright", r not in full_size, not r.complete))
    first = [next((r for r in best if r.spec.model == kind), None) for kind in KINDS]
    ordered = [r for r in first if r] + [r for r in found.values() if r not in first]
    named: dict[str, Path] = {}
    for result in ordered:
        model, details = result.spec.title.split(", ", 1)
        name = f"{model} · {details} · {trained(result)}"  # the explorer's title and details
        named[f"{name} ({result.spec.key[-4:]})" if name in named else name] = result.checkpoint
    return TrainedModels(named)
