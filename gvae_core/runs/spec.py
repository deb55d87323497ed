"""What is trained: `RunSpec`, everything that determines a run's numbers, and the key that its files are named by."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import inspect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real

import torch
from torch import nn

from ..mnist import TRAINING_DIGITS
from ..models import encoder_layout
from ..models.arguments import plain
from .kinds import AUTOENCODERS, CLASSIFIERS, KINDS

# Raised by hand when a network, a loss or the use of random numbers changes its meaning, so that weights and numbers
# of before are never taken for new ones. 1: one stream of random numbers a seed; 2: one for every use.
MODEL_VERSION = 2
READABLE_VERSIONS = (1, 2)  # those that this code builds and computes as they were
TEST_DIGITS = {"mnist": 5_000, "mnist5k": 500}
NAMES = {
    "cnn": "CNN",
    "gcnn": "G-CNN",
    "svae": "S-VAE",
    "sgvae": "S-GVAE",
    "gaussian": "Gaussian VAE",
    "spatial": "spatial-VAE",
}


@dataclass(frozen=True)
class RunSpec:
    """Everything that determines a run's numbers; equal specs are the same run.

    Parameters
    ----------
    model : cnn, gcnn (classifiers), sgvae, svae, gaussian, spatial (autoencoders)
    source : mnist or mnist5k
    epochs, learning_rate, decay, weight_decay, batch_size : see `training.Schedule`
    seed : of initial values and of everything random in training
    protocol : training images ``upright``, each time ``rotated`` by another random angle, or ``born_rotated``, each by
        one random angle of its own, so that nothing is ever upright; ``spatial`` knows the last only
    latent_dim, beta : autoencoders only
    paper_loss : classifiers only; minimise the cross-entropy of softmax outputs (report, Table 1)
    train_images, test_images : use only the first so many of a split (None: all)
    sizes : keyword arguments of the model's builder in `models`, e.g. ``{"frequency": 4, "layout": "aligned"}``
    model_version : of the code that the run belongs to, see `MODEL_VERSION`

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
    # A field that is added later says with ``unhashed`` which value stands for what all runs before it were.
    model_version: int = field(default=MODEL_VERSION, metadata={"unhashed": 1})

    def __post_init__(self):
        _expect("model", self.model, sorted(KINDS))
        _expect("source", self.source, ["mnist", "mnist5k"])
        protocols = ["born_rotated"] if self.model == "spatial" else ["upright", "rotated", "born_rotated"]
        _expect(f"protocol of {self.model}", self.protocol, protocols)
        _expect("model_version", self.model_version, READABLE_VERSIONS)
        _require(isinstance(self.sizes, Mapping), "sizes to be a mapping of the builder's arguments", self.sizes)
        born_rotated = self.protocol == "born_rotated"
        _require(born_rotated or not self.sizes.get("pose"), "protocol 'born_rotated' with pose", self.protocol)
        for name in (*_WHOLE_NUMBERS, *_NUMBERS):
            value, least = getattr(self, name), _WHOLE_NUMBERS.get(name, 0)
            kind, noun = (Integral, "a whole number") if name in _WHOLE_NUMBERS else (Real, "a number")
            if value is None and name in ("latent_dim", "beta", "train_images", "test_images"):
                continue
            number = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
            _require(number and value >= least, f"{name} to be {noun} of at least {least}", value)
            # 1, 1.0 and numpy's 1 are the same run, so the same key
            object.__setattr__(self, name, int(value) if name in _WHOLE_NUMBERS else float(value))
        for name, there in (("train_images", TRAINING_DIGITS), ("test_images", TEST_DIGITS)):
            value, most = getattr(self, name), there[self.source]
            _require((value or 0) <= most, f"{name} to be at most {most}, all of {self.source}'s", value)
            enough = value is None or not born_rotated or value >= _BORN_ROTATED_LEAST
            _require(enough, f"{name} to be at least {_BORN_ROTATED_LEAST} with protocol 'born_rotated'", value)
        if self.training_digits % self.batch_size == 1:  # batch normalisation has no statistics of one image
            got = f"batch_size {self.batch_size} for {self.training_digits} training images"
            raise ValueError(f"RunSpec: expected a last batch of more than one image, got {got}")
        for name, owners in (("latent_dim", AUTOENCODERS), ("beta", AUTOENCODERS), ("paper_loss", CLASSIFIERS)):
            value, rule = getattr(self, name), "a value" if self.model in owners else "None"
            _require((value is None) == (rule == "None"), f"{rule} for {name} with model {self.model!r}", value)
        _require(
            self.paper_loss is None or isinstance(self.paper_loss, bool),
            "paper_loss to be True or False",
            self.paper_loss,
        )
        builder = inspect.signature(KINDS[self.model].build).parameters
        known = [name for name in builder if name not in ("latent_dim", "gaussian", "images")]
        for name in self.sizes:
            _expect(f"a size of {self.model}", name, known)
        # JSON knows no tuples: the same content must give the same key before and after a round trip
        sizes = json.loads(json.dumps(dict(self.sizes), sort_keys=True, default=plain))
        for name in ("layout", "group"):
            if name in sizes and sizes[name] == builder[name].default:
                del sizes[name]
        object.__setattr__(self, "sizes", sizes)

    @classmethod
    def from_dict(cls, fields: Mapping) -> RunSpec:
        """The spec of a result's JSON, of any age; an unknown field is an error with the closest known name."""
        known = [f.name for f in dataclasses.fields(cls)]
        for name in fields:
            _expect("a field of RunSpec", name, known)
        first = {f.name: f.metadata["unhashed"] for f in dataclasses.fields(cls) if "unhashed" in f.metadata}
        return cls(**first | dict(fields) | {"sizes": _with_layout(fields.get("model"), fields.get("sizes", {}))})

    def __hash__(self) -> int:
        return hash(self.key)

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    @property
    def key(self) -> str:
        """Name of the run's files: the model and the hash of the content, as it was first hashed."""
        content = self.to_dict() | {"sizes": _without_layout(self.model, self.sizes)}
        for f in dataclasses.fields(self):
            if "unhashed" in f.metadata and content[f.name] == f.metadata["unhashed"]:
                del content[f.name]
        return f"{self.model}-{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]}"

    @property
    def name(self) -> str:
        """The model in few words, beside a row of pictures: ``S-GVAE, 2 frames``."""
        return NAMES[self.model] + (f", {self.sizes['frames']} frames" if "frames" in self.sizes else "")

    @property
    def title(self) -> str:
        """The run in words, wherever one is named: its model and what tells it from others, ``S-GVAE, d = 6, β = 0.1``."""
        words = [NAMES[self.model]]
        words += [f"d = {self.latent_dim}", f"β = {self.beta:g}"] if self.model in AUTOENCODERS else []
        if self.sizes.get("layout") == "isotropic":
            words += ["isotropic layout"]
        elif "layout" in self.sizes:
            layout = encoder_layout(self.sizes["layout"])
            one = isinstance(layout.kernel_size, int)
            kernels = f"kernel {layout.kernel_size}" if one else f"kernels {', '.join(map(str, layout.kernel_size))}"
            words += [f"{kernels} on {layout.grid_size} × {layout.grid_size}"]
        words += [self.sizes["group"]] if "group" in self.sizes else []
        words += [f"{self.sizes['frames']} frames"] if "frames" in self.sizes else []
        words += ["pose"] if self.sizes.get("pose") else []
        words += ["plain cross-entropy"] if self.paper_loss is False else []
        words += [f"{self.protocol.replace('_', ' ')} digits"] if self.protocol != "upright" else []
        return ", ".join([*words, f"seed {self.seed}"] if self.seed else words)

    @property
    def any_seed(self) -> RunSpec:
        """What runs that differ in their seed alone have in common: the one of seed 0."""
        return dataclasses.replace(self, seed=0)

    @property
    def training_digits(self) -> int:
        """How many digits an epoch sees."""
        return self.train_images or TRAINING_DIGITS[self.source]

    def stream(self, use: str) -> int:
        """The seed of one use of random numbers, such as ``"initial values"``: each has a stream of its own."""
        if self.model_version < 2:
            return self.seed
        return int.from_bytes(hashlib.sha256(f"{self.seed} {use}".encode()).digest()[:7], "big")

    def build(self) -> nn.Module:
        """The model with its initial values, which depend on the seed alone."""
        arguments = dict(self.sizes) | ({"latent_dim": self.latent_dim} if self.model in AUTOENCODERS else {})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.stream("initial values"))
            return KINDS[self.model].build(**arguments)


# How runs said a layout before layouts had names, which is what their keys are hashes of: an S-GVAE by a name
# under ``grid``, a G-CNN by the sizes in which it left the report's.
_GCNN_SIZES = {
    "table1": {},
    "table1_wide": {"kernel_size": [9, 4, 4]},
    "table1_odd": {"grid_size": 29, "kernel_size": 5},
    "isotropic": {
        "grid_size": 33,
        "kernel_size": [9, 5, 5],
        "padding": [4, 2, 2],
        "strides": [2, 1, 1],
        "blur_strides": [1, 2, 1],
        "mask": True,
    },
}


def _with_layout(model: str, sizes: Mapping) -> dict:
    """Sizes of a record of any age, with the layout by its name."""
    sizes = dict(sizes)
    if "grid" in sizes:
        sizes["layout"] = sizes.pop("grid")
    old = {name: sizes[name] for name in _GCNN_SIZES["isotropic"] if name in sizes}
    names = [name for name, its in _GCNN_SIZES.items() if its == old]
    if model != "gcnn" or not old or not names:
        return sizes
    return {name: value for name, value in sizes.items() if name not in old} | {"layout": names[0]}


def _without_layout(model: str, sizes: Mapping) -> dict:
    """Sizes as they were first hashed; a layout that is not among those stays as it is."""
    sizes = dict(sizes)
    layout = sizes.pop("layout", None)
    if isinstance(layout, str) and model != "gcnn":
        sizes["grid"] = layout
    elif isinstance(layout, str) and layout in _GCNN_SIZES:
        sizes |= _GCNN_SIZES[layout]
    elif layout is not None:
        sizes["layout"] = layout
    return sizes


_WHOLE_NUMBERS = dict(epochs=1, batch_size=2, seed=0, latent_dim=2, train_images=2, test_images=2)  # with the least
_BORN_ROTATED_LEAST = 12  # for ten clusters, and for ten neighbours of each digit
_NUMBERS = ("learning_rate", "decay", "weight_decay", "beta")


def _require(holds: bool, what: str, value: object) -> None:
    if not holds:
        raise ValueError(f"RunSpec: expected {what}, got {value!r}")


def _expect(what: str, value: object, known: Sequence) -> None:
    if value in known:
        return
    names = [str(name) for name in known]
    close = difflib.get_close_matches(str(value), names, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ValueError(f"expected {what} among {', '.join(names)}; got {value!r}{hint}")
