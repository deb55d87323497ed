"""What tables and figures say of a run beside its `RunSpec.title`."""

from __future__ import annotations

from ..runs.results import Result
from ..runs.spec import RunSpec


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
