"""Runs: what is trained (`RunSpec`), the profiles' lists of runs, and `run` with its cache on disk.

One run is one `RunSpec` is one JSON file and one safetensors checkpoint, named by the spec's content.
A run that exists is loaded, not repeated; an interrupted one resumes from its last epoch. A run may also
be stopped and measured before its last epoch: its result says so, and the run goes on from there.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import inspect
import json
import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
from filelock import FileLock
from torch import nn

from . import metrics, models, training
from .atomic import write_text
from .checkpoints import load_tensors, save_tensors
from .data import TRAINING_DIGITS, Digits, Splits, load_mnist, split
from .outputs import COMMITTED, outputs_directory
from .rotation import random_angles, rotate
from .steerable import path_in_use

CLASSIFIERS = {"cnn": models.CNNClassifier, "gcnn": models.GCNNClassifier}
AUTOENCODERS = {
    "sgvae": models.sgvae,
    "svae": models.svae,
    "gaussian": functools.partial(models.sgvae, gaussian=True),
}
BUILDERS = CLASSIFIERS | AUTOENCODERS

ANGLES = tuple(range(-180, 181, 15))  # accuracy and drift are measured at these, in degrees
DRIFT_IMAGES = 200  # the latent drift is a mean over so many test digits
ANGLE_SEED = 20220901  # of the rotated test images' angles, the same for every run


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
        _expect("model", self.model, sorted(BUILDERS))
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
        known = [p for p in inspect.signature(BUILDERS[self.model]).parameters if p not in ("latent_dim", "gaussian")]
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
        for size in ("grid", "kernel_size", "frames"):  # where one table has several networks of a model, these tell them apart
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
            return BUILDERS[self.model](**arguments)


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


@dataclass(frozen=True)
class Result:
    """A run that was measured: at its end, or after the epochs it was stopped at (``complete`` is False).

    ``history`` holds one dict per epoch (see `training.fit`), ``metrics`` the numbers after the last of
    them, ``seconds`` what the epochs in it took, all sessions together, and these last numbers,
    ``steerable`` the path of the steerable layers (see `steerable.accelerate`; empty without any),
    ``path`` the JSON file all of it was read from.
    """

    spec: RunSpec
    history: list[dict]
    metrics: dict
    seconds: float
    device: str
    steerable: str
    versions: dict[str, str]
    parameters: int
    path: Path

    @property
    def epochs_reached(self) -> int:
        return len(self.history)

    @property
    def complete(self) -> bool:
        """Whether all epochs of the spec are done; a table of an incomplete result names the epochs."""
        return self.epochs_reached == self.spec.epochs

    @property
    def checkpoint(self) -> Path:
        return self.path.with_suffix(".safetensors")

    def load_model(self) -> nn.Module:
        """The trained model in eval mode, on the CPU."""
        return load_model(self.checkpoint)


def load_model(checkpoint: Path) -> nn.Module:
    """Rebuild a trained model from a checkpoint alone: the spec is in its metadata."""
    tensors, metadata = load_tensors(checkpoint)
    if "spec" not in metadata:
        raise ValueError(f"{checkpoint}: expected a run's checkpoint with its spec, found {sorted(metadata)}")
    model = RunSpec.from_dict(metadata["spec"]).build()
    model.load_state_dict(tensors)
    return model.eval()


def runs_folder() -> Path:
    """Where this machine's runs are written."""
    return outputs_directory() / "runs"


def lock_path(spec: RunSpec) -> Path:
    """Whoever works on a run holds this lock."""
    return runs_folder() / f"{spec.key}.lock"


def state_path(spec: RunSpec) -> Path:
    """Where an unfinished run keeps what it needs to go on (see `training.fit`)."""
    return runs_folder() / f"{spec.key}.state.safetensors"


def find(spec: RunSpec, *, incomplete: bool = False) -> Result | None:
    """The finished run of ``spec``, from this machine's runs or the committed ones, or None.

    With ``incomplete`` also one that was stopped before its last epoch, the one that got farthest;
    ``Result.complete`` tells which it is.
    """
    paths = (folder / f"{spec.key}.json" for folder in (runs_folder(), COMMITTED))
    results = [read_result(path) for path in paths if path.is_file()]
    results = [result for result in results if result.complete or incomplete]
    return max(results, key=lambda result: result.epochs_reached, default=None)


def run(spec: RunSpec, *, device: str = "cpu", progress: bool = True, stop_after: int | None = None) -> Result:
    """Train, measure and store what ``spec`` says, or load it where that was done before.

    A second process that asks for the same run waits for the first and loads its result.

    With ``stop_after=k``, less than ``spec.epochs``, the training stops after epoch k of the spec's schedule
    and the model is measured as it then is: an interim result, ``complete`` is False. A run that is already
    at epoch k or beyond is measured or loaded as it is. What is needed to go on stays on disk, and a later
    call with a larger k, or none, gives the numbers of a run without the stop. Where only the interim result
    came along (committed, on a fresh machine), a later call starts again from the first epoch.

    Raises
    ------
    training.NonFiniteLoss : the loss diverged
    ValueError, OSError : the data is missing or bad, the device is not there, ``stop_after`` is less than 1
    """
    last, device = goal(spec, stop_after), resolve_device(device)
    runs_folder().mkdir(parents=True, exist_ok=True)
    with FileLock(lock_path(spec)):
        _remove_remains(spec)
        result = find(spec, incomplete=True)
        if result and result.epochs_reached >= last:
            return result
        with _repeatable():
            return _run(spec, last, device, progress)


def _repeatable():
    """cuDNN without its faster algorithms whose sums come in a changing order, and without TF32.

    TF32 comes with ``torch.set_float32_matmul_precision("high")``, as it does for matrix products.
    """
    precise = torch.get_float32_matmul_precision() == "highest"
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=not precise)


def goal(spec: RunSpec, stop_after: int | None) -> int:
    """The epoch that ``run(spec, stop_after=stop_after)`` ends at; ValueError if that makes no sense."""
    if stop_after is None:
        return spec.epochs
    if isinstance(stop_after, bool) or not isinstance(stop_after, int) or stop_after < 1:
        raise ValueError(f"expected stop_after to be a whole number of at least 1, got {stop_after!r}")
    return min(spec.epochs, stop_after)


def resolve_device(device: str) -> str:
    """``auto`` -> cuda where torch sees a GPU, else cpu; ValueError for a device that is not there."""
    gpus = torch.cuda.device_count()
    if device == "auto":
        return "cuda" if gpus else "cpu"
    if device not in ("cpu", "cuda", *(f"cuda:{index}" for index in range(gpus))) or device == "cuda" and not gpus:
        raise ValueError(f"expected a device among auto, cpu, cuda, cuda:N; got {device!r}, and torch sees {gpus} GPUs")
    return device


def _remove_remains(spec: RunSpec) -> None:
    """Delete what a process left that was killed in the middle of a write; only who holds the lock may."""
    for temporary in (f".{spec.key}-*", f".{spec.key}.state-*"):
        for path in runs_folder().glob(temporary):
            path.unlink()
    if find(spec) and (runs_folder() / f"{spec.key}.json").is_file():
        state_path(spec).unlink(missing_ok=True)


def _run(spec: RunSpec, last: int, device: str, progress: bool) -> Result:
    splits = load_splits(spec.source, spec.train_images, spec.test_images)
    model = spec.build().to(device)
    path, state_file = runs_folder() / f"{spec.key}.json", state_path(spec)
    schedule = training.Schedule(
        spec.epochs, spec.learning_rate, spec.decay, spec.weight_decay, spec.batch_size
    )
    loop = dict(
        rotated=spec.protocol == "rotated",
        seed=spec.seed,
        state_file=state_file,
        stop_after=last,
        progress=progress,
        title=spec.title,
    )
    if spec.model in CLASSIFIERS:
        train, validation = ((part.images, part.labels) for part in (splits.train, splits.validation))
        history = training.fit_classifier(
            model, train, validation, schedule, paper_loss=spec.paper_loss, **loop
        )
        start = time.perf_counter()
        final = _classifier_metrics(model, splits.test)
    else:
        history = training.fit_vae(
            model, splits.train.images, splits.validation.images, schedule, beta=spec.beta, **loop
        )
        start = time.perf_counter()
        final = _vae_metrics(model, splits.test, spec)
    seconds = training.read_progress(state_file).seconds + time.perf_counter() - start
    record = {
        "spec": spec.to_dict(),
        "metrics": final,
        "history": history,
        "parameters": models.parameter_count(model),
        "seconds": round(seconds, 2),
        "device": _device_name(device),
        "steerable": path_in_use(model),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "escnn", "numpy", "gvae-core")},
    }
    # An interim result goes first and the JSON comes last: a JSON says that its own checkpoint is there.
    path.unlink(missing_ok=True)
    # escnn's buffers differ between modes; a state dict of train mode loads everywhere
    save_tensors(
        path.with_suffix(".safetensors"),
        model.train().state_dict(),
        {"spec": spec.to_dict(), "epochs_reached": len(history)},
    )
    write_text(path, json.dumps(record, indent=1))
    if len(history) == spec.epochs:
        state_file.unlink()
    return read_result(path)


def read_result(path: Path) -> Result:
    """The run stored in a JSON file; ValueError, naming the file, if that is not one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return Result(
            spec=RunSpec.from_dict(record.pop("spec")), path=path, **record
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: expected a run's result, found something else ({error}); delete it to rerun") from error


def by_seed(results: Sequence[Result]) -> list[list[Result]]:
    """Groups of results whose specs differ in the seed alone, in order of appearance."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(dataclasses.replace(result.spec, seed=0).key, []).append(result)
    return list(groups.values())


def _device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


@functools.lru_cache(maxsize=2)
def _splits(source: str) -> Splits:
    return split(load_mnist(source))


def load_splits(source: str, train_images: int | None = None, test_images: int | None = None) -> Splits:
    """The splits of a source (see `data.split`), each cut to its first images; read once per process.

    ``test_images`` limits validation and test alike.
    """

    def first(part: Digits, count: int | None) -> Digits:
        return dataclasses.replace(
            part, images=part.images[:count], labels=part.labels[:count], indices=part.indices[:count]
        )

    whole = _splits(source)
    return Splits(
        first(whole.train, train_images), first(whole.validation, test_images), first(whole.test, test_images)
    )


def kinds_of_input(test: Digits) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What the tiny paper's Table 1 has read: upright digits, each turned by its own random angle, turned 6s, turned 9s.

    Images [N, 1, 28, 28] and labels [N] by kind.
    """
    turned, labels = _turned(test.images), test.labels
    inputs = {"upright": (test.images, labels), "rotated": (turned, labels)}
    return inputs | {f"rotated {d}s": (turned[labels == d], labels[labels == d]) for d in (6, 9)}


def _turned(images: torch.Tensor) -> torch.Tensor:
    return rotate(images, random_angles(len(images), ANGLE_SEED))


# --- final numbers --------------------------------------------------------------------------------


def _classifier_metrics(model: nn.Module, test: Digits) -> dict:
    """On the test digits, upright and each turned by its own random angle, and by common angles."""
    turned = _turned(test.images)
    numbers = {}
    for name, images in (("upright", test.images), ("rotated", turned)):
        losses = training.evaluate(
            model, functools.partial(training.classifier_losses, model), (images, test.labels), metrics.BATCH
        )
        numbers |= losses.named(f"test_{name}")
    by_angle = metrics.accuracy_by_angle(model, test.images, test.labels, ANGLES)
    return numbers | {"angle_seed": ANGLE_SEED, "angles": list(ANGLES), "accuracy_by_angle": by_angle}


def _vae_metrics(model: nn.Module, test: Digits, spec: RunSpec) -> dict:
    """On the test digits: losses of upright ones, and of turned ones against the *upright* targets."""
    turned = _turned(test.images)
    losses = functools.partial(training.vae_losses, model, beta=spec.beta)
    numbers = {}
    for name, images in (("upright", test.images), ("rotated", turned)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed)
            numbers |= training.evaluate(model, losses, (images, test.images), metrics.BATCH).named(f"test_{name}")
    some, labels = test.images[:DRIFT_IMAGES], test.labels[:DRIFT_IMAGES]
    return numbers | {
        "angle_seed": ANGLE_SEED,
        "angles": list(ANGLES),
        "latent_drift": metrics.latent_drift(model, some, ANGLES),
        "typical_angle": metrics.typical_angle(metrics.latent_codes(model, some), labels),
    }
