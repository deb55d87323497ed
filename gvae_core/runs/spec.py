"""What is trained: `RunSpec`, everything that determines a run's numbers, and the key that its files are named by."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from ..images import TRAINING_DIGITS
from .kinds import AUTOENCODERS, CLASSIFIERS, KINDS


@dataclass(frozen=True)
class RunSpec:
    """Everything that determines a run's numbers; equal specs are the same run.

    Parameters
    ----------
    model : cnn, gcnn (classifiers), sgvae, svae, gaussian (autoencoders)
    source : mnist or mnist5k
    epochs, learning_rate, decay, weight_decay, batch_size : see `training.Schedule`
    seed : of initial values and of everything random in training
    protocol : training images ``upright`` or ``rotated`` at random
    latent_dim, beta : autoencoders only
    paper_loss : classifiers only; minimise the cross-entropy of softmax outputs (report, Table 1)
    train_images, test_images : use only the first so many of a split (None: all)
    sizes : keyword arguments of the model's builder in `models`, e.g. ``{"frequency": 4}``

    Raises
    ------
    ValueError, TypeError : a field is unknown, has the wrong type or an impossible value
    """

    model: str
    source: str
    epochs: int
    learning_rate: float
    decay: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = 100
    seed: int = 0
    protocol: str = "upright"
    latent_dim: int | None = None
    beta: float | None = None
    paper_loss: bool | None = None
    train_images: int | None = None
    test_images: int | None = None
    sizes: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self):
        _expect("model", self.model, sorted(KINDS))
        _expect("source", self.source, ["mnist", "mnist5k"])
        _expect("protocol", self.protocol, ["upright", "rotated"])
        for name, kind, least in _NUMBERS:
            value = getattr(self, name)
            optional = name in ("latent_dim", "beta", "train_images", "test_images")
            if value is None and optional:
                continue
            if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value) or value < least:
                noun = "a whole number" if kind is int else "a number"
                raise ValueError(f"RunSpec: expected {name} to be {noun} of at least {least}, got {value!r}")
            if kind is not int:
                object.__setattr__(self, name, float(value))  # 1 and 1.0 are the same run, so the same key
        if self.training_digits % self.batch_size == 1:  # batch normalisation has no statistics of one image
            raise ValueError(
                f"RunSpec: expected a last batch of more than one image, got batch_size {self.batch_size}"
                f" for {self.training_digits} training images"
            )
        for name, owners in (("latent_dim", AUTOENCODERS), ("beta", AUTOENCODERS), ("paper_loss", CLASSIFIERS)):
            if (getattr(self, name) is not None) != (self.model in owners):
                rule = "a value" if self.model in owners else "None"
                raise ValueError(
                    f"RunSpec: expected {rule} for {name} with model {self.model!r}, got {getattr(self, name)!r}"
                )
        if self.paper_loss is not None and not isinstance(self.paper_loss, bool):
            raise ValueError(f"RunSpec: expected paper_loss to be True or False, got {self.paper_loss!r}")
        known = [
            p for p in inspect.signature(KINDS[self.model].build).parameters if p not in ("latent_dim", "gaussian")
        ]
        for name in self.sizes:
            _expect(f"a size of {self.model}", name, known)
        # JSON knows no tuples: the same content must give the same key before and after a round trip
        object.__setattr__(self, "sizes", json.loads(json.dumps(dict(self.sizes), sort_keys=True)))

    @classmethod
    def from_dict(cls, fields: Mapping) -> RunSpec:
        """The spec of a result's JSON; an unknown field is an error with the closest known name."""
        known = [f.name for f in dataclasses.fields(cls)]
        for name in fields:
            _expect("a field of RunSpec", name, known)
        return cls(**fields)

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    @property
    def key(self) -> str:
        """Name of the run's files: the model and the hash of the content."""
        content = json.dumps(self.to_dict(), sort_keys=True)
        return f"{self.model}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    @property
    def title(self) -> str:
        """A few words for progress bars and tables."""
        words = [self.model]
        if self.model in AUTOENCODERS:
            words.append(f"d={self.latent_dim} beta={self.beta:g}")
        for size in (
            "grid",
            "kernel_size",
            "frames",
        ):  # where one table has several networks of a model, these tell them apart
            if size in self.sizes:
                words.append(f"{size}={self.sizes[size]}".translate(str.maketrans("", "", "[] ")))
        words += ["cross-entropy"] if self.paper_loss is False else []
        words += [self.protocol] if self.protocol != "upright" else []
        return " ".join([*words, f"seed={self.seed}"])

    @property
    def training_digits(self) -> int:
        """How many digits an epoch sees."""
        return self.train_images or TRAINING_DIGITS[self.source]

    def build(self) -> nn.Module:
        """The model with its initial values, which depend on the seed alone."""
        arguments = dict(self.sizes) | ({"latent_dim": self.latent_dim} if self.model in AUTOENCODERS else {})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return KINDS[self.model].build(**arguments)


_NUMBERS = (
    ("epochs", int, 1),
    ("learning_rate", (int, float), 0),
    ("decay", (int, float), 0),
    ("weight_decay", (int, float), 0),
    ("batch_size", int, 2),
    ("seed", int, 0),
    ("latent_dim", int, 2),
    ("beta", (int, float), 0),
    ("train_images", int, 2),
    ("test_images", int, 2),
)


def _expect(what: str, value: object, known: list[str]) -> None:
    if value in known:
        return
    close = difflib.get_close_matches(str(value), known, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ValueError(f"expected {what} among {', '.join(known)}; got {value!r}{hint}")
