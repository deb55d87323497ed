"""Runs in words, for tables and figures."""

from __future__ import annotations

from collections.abc import Sequence

from ..models import LAYOUTS, encoder_layout
from ..runs.results import Result
from ..runs.spec import RunSpec

NAMES = {"cnn": "CNN", "gcnn": "G-CNN", "svae": "S-VAE", "sgvae": "S-GVAE", "gaussian": "Gaussian VAE"}


def label(result: Result) -> str:
    """Name of a result's model; a classifier says where it leaves the papers' kernel, grid or loss."""
    spec = result.spec
    words = [NAMES[spec.model]]
    if spec.model == "gcnn" and "layout" in spec.sizes:
        layout = encoder_layout(spec.sizes["layout"])
        kernels, size = layout.kernel_size, layout.grid_size
        kernel = f"kernel {kernels}" if isinstance(kernels, int) else "kernels " + ", ".join(map(str, kernels))
        grid = f" on {size} × {size}" if size != LAYOUTS["table1"].grid_size else ""
        words.append(f"{kernel}{grid}{' with discs' if layout.mask_features else ''}")
    return ", ".join(words + (["plain cross-entropy"] if spec.paper_loss is False else []))


def network(spec: RunSpec) -> str:
    """The model with what tells a table's cells apart: ``S-GVAE, d = 6, β = 0.1``, ``CNN, plain cross-entropy``."""
    words = [NAMES[spec.model]]
    if spec.latent_dim:
        words += [f"d = {spec.latent_dim}", f"β = {spec.beta:g}"]
    words += ["plain cross-entropy"] if spec.paper_loss is False else []
    words += ["rotated digits"] if spec.protocol == "rotated" else []
    return ", ".join([*words, f"seed {spec.seed}"] if spec.seed else words)


def training(result: Result) -> str:
    """An autoencoder's training in words, such as ``d = 6, 15 epochs of 4,000 digits``."""
    spec = result.spec
    words = [f"d = {spec.latent_dim}"]
    words += [f"layout {spec.sizes['layout']}"] if "layout" in spec.sizes else []
    words += [f"{spec.sizes['frames']} frames"] if "frames" in spec.sizes else []
    words += ["trained on rotated digits"] if spec.protocol == "rotated" else []
    noun = "epoch" if spec.epochs == 1 else "epochs"
    return ", ".join([*words, f"{epochs([result])} {noun} of {spec.training_digits:,} digits"])


def schedule(spec: RunSpec) -> str:
    """Learning rate, its factor per epoch and the weight decay."""
    decay = f", weight decay {spec.weight_decay:g}" if spec.weight_decay else ""
    return f"{spec.learning_rate:g}, × {spec.decay:.3g} an epoch{decay}"


def sizes(spec: RunSpec) -> str:
    """Where the network's sizes leave the papers'."""
    named = (f"{name} {str(value).strip('[]')}".replace("_", " ") for name, value in spec.sizes.items())
    return "; ".join(named) or "the papers' sizes"


def epochs(group: Sequence[Result]) -> str:
    """The epochs that a group of seeds has reached, and of how many where it was stopped before its end."""
    result = group[0]
    return f"{result.spec.epochs}" if result.complete else f"{result.epochs_reached} of {result.spec.epochs}"
