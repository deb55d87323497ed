"""What tables and figures say of a run beside its `RunSpec.title`, and the sentence under each committed figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # which load torch: the index of a report needs only the sentences
    from ..runs.results import Result
    from ..runs.spec import RunSpec

# Figures that are committed, by their name without `_full_size`, with the sentence under each.
FIGURES = {
    "accuracy_by_angle": "Accuracy over the angle of the test digits: the G-CNNs on centred grids keep theirs at quarter turns, the CNNs do not.",
    "table2": "Table 2 as heat maps, ours beside the papers'.",
    "figure1": "Rotated digits above; the S-GVAE draws upright digits, most of them the right ones; the S-VAE does not.",
    "full_turn_2": "One digit through the full turn, and what the two models make of it.",
    "six_and_nine": "Rotated 6s and 9s, and what the models make of them.",
    "common_orientation": "Digits as they came, and turned back by angles computed from the images alone.",
    "angles_found": "Angles found on turned test digits, less the orientation of their class, against those they were turned by (grey line: equal). The digits of a class differ in slant, so the band is wide.",
    "same_way_up": "Test digits turned at random; turned back by the pose that the model found; drawn by the model, as they came.",
    "latent_drift": "How far the code moves while a digit turns; dotted, the angle between different digits.",
    "latent_spaces": "Codes by digit: the S-GVAE's sphere, d = 3, and a Gaussian VAE's plane, d = 2.",
    "explorer": "The rotation explorer: ten digits turned by 60°, their reconstructions, how far the codes move.",
}


def trained(result: Result) -> str:
    """How long a model was trained, such as ``15 epochs of 4,000 digits``."""
    noun = "epoch" if result.spec.epochs == 1 else "epochs"
    return f"{epochs(result)} {noun} of {result.spec.training_digits:,} digits"


def epochs(result: Result) -> str:
    """The epochs that a result has reached, and of how many where it was stopped before its end."""
    return f"{result.spec.epochs}" if result.complete else f"{result.epochs_reached} of {result.spec.epochs}"


def schedule(spec: RunSpec) -> str:
    """Learning rate, its factor per epoch and the weight decay."""
    decay = f", weight decay {spec.weight_decay:g}" if spec.weight_decay else ""
    return f"{spec.learning_rate:g}, × {spec.decay:.3g} an epoch{decay}"


def sizes(spec: RunSpec) -> str:
    """Where the network's sizes leave the papers'."""
    named = (f"{name} {str(value).strip('[]')}".replace("_", " ") for name, value in spec.sizes.items())
    return "; ".join(named) or "the papers' sizes"
