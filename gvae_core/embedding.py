"""`RotationAgnosticEmbedding`: codes, poses and canonical views of one's own images, in scikit-learn's manner."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import math
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .checkpoints import load_metadata
from .devices import repeatable, resolve_device
from .files import cache_folder, user_path
from .images import SIZES, ImageSet, as_floats
from .metrics import BATCH
from .models import ImageFormat, PoseVAE, evaluating, load_model, reading, save_model, sgvae
from .models.arguments import check_number, check_whole, plain
from .models.autoencoders import degrees, hands
from .rotation import mirrored
from .synchronisation import common_handedness, common_orientation, handedness_among, orientation_among
from .training import Losses, Schedule, fit, pose_losses

LEAST = 16  # images to learn from
SEEN = 60_000  # images that a training without ``epochs`` sees, but every one at least once
# A larger one, fields (16, 32, 48) and frequency 3, takes 2.6 times as long a step, and learns less in the same time.
NETWORK = dict(
    fields=(8, 16, 32),
    frequency=2,
    layout="isotropic",
    invariants=64,
    decoder_channels=(64, 48, 32),
    dropout=0.0,
    inner_dropout=0.0,
)
REFLECTING = dict(group="O(2)", fields=(6, 11, 22))  # as many parameters, for 1.7 times the time
_END = 0.03  # of the learning rate is left at the end
_ROUND = 4_000  # images at most between two states on disk
_MEASURED = 2_000  # images whose background and spread stand for all
_SYNCHRONISED = 5_000  # images that are compared with each other; the cost grows with the square
_KNOWN = 2_000  # of these all others are compared with
_SMALL = 32  # pixels of the copies that are compared
_ONE_AT_A_TIME = threading.RLock()  # threads share a model, its mode and its frames, and what is warned of
_VERSION = 3  # raised by hand when the same images and parameters would give another model

Numbers = tuple[np.ndarray, ...]  # codes [N, d], angles and spread [N] in degrees, with reflections hands [N], 1 or -1


class RotationAgnosticEmbedding(TransformerMixin, BaseEstimator):
    """Codes of images that were never upright, which do not see how an image is turned, and apart from them its angle.

    A `PoseVAE` learns from the images alone, in the orientations that they have. Images are an `ImageSet`, or an array
    or tensor [N, C, H, H] or [N, H, H], square, of bytes or of floats in [0, 1], as many and as large as
    `load_images` makes them.

    Parameters
    ----------
    latent_dim : of the codes, unit vectors
    epochs : how often every image is seen; None: as often as makes `SEEN` images in all, at least once
    minutes : limit of the whole `fit`, within which the learning rate comes to its end; then a second fit need not
        give the same codes. None: no limit
    beta, learning_rate, batch_size : see `training.pose_losses` and `training.Schedule`
    reflections : codes do not see either whether an image is mirrored, which `handedness` says; canonical views are
        mirrored back
    frames : turned copies of an image that are averaged where it is read, not in training: 3 make codes and angles move
        less between quarter turns, in three times the time
    network : arguments of `models.sgvae` that differ from `NETWORK`, with reflections from `REFLECTING`
    seed : of everything random; the same seed gives the same codes, on one machine and number of threads
    device : cpu, cuda, cuda:N, or auto: a GPU if there is one
    progress : show a bar

    Attributes after ``fit``: ``model_``, the `PoseVAE`; ``scale_`` of the images' values, see `load_images`;
    ``history_`` of the training.

    A `fit` that is killed goes on from its last round when it is called again with the same images and parameters.
    """

    def __init__(
        self,
        latent_dim: int = 32,
        *,
        epochs: float | None = None,
        minutes: float | None = None,
        beta: float = 0.1,
        learning_rate: float = 0.005,
        batch_size: int = 50,
        reflections: bool = False,
        frames: int = 1,
        network: Mapping[str, object] | None = None,
        seed: int = 0,
        device: str = "auto",
        progress: bool = True,
    ):
        self.latent_dim = latent_dim
        self.epochs = epochs
        self.minutes = minutes
        self.beta = beta
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.reflections = reflections
        self.frames = frames
        self.network = network
        self.seed = seed
        self.device = device
        self.progress = progress

    def fit(
        self, images: ImageSet | np.ndarray | Tensor, y: object = None, *, save_to: str | Path | None = None
    ) -> RotationAgnosticEmbedding:
        """Learn from at least 16 images; ``y`` is ignored.

        With ``save_to`` the model is in that file before what a killed training would go on from is deleted: nothing is
        lost where it cannot be written. Where the file is this model already, see `stored`, it is read.

        ValueError where the images are no such, all the same, or a parameter makes no sense; `training.NonFiniteLoss`
        where the loss diverged; OSError where the file cannot be written.
        """
        start = time.perf_counter()
        self._check_parameters()
        device, pixels = resolve_device(self.device), _checked(images)
        if len(pixels) < LEAST:
            raise ValueError(f"expected at least {LEAST} images to learn from, got {len(pixels)}")
        key, folder = self.key(images), cache_folder() / "fits"
        folder.mkdir(parents=True, exist_ok=True)
        state_file = folder / f"{key}.safetensors"
        with FileLock(folder / f"{key}.lock"), repeatable():
            self.scale_, self.key_ = _scale(images), key
            # another process may have stored it while this one waited
            if save_to and (stored := self.stored(save_to, images)):
                self.model_, self.history_ = stored.model_, stored.history_
            else:
                self._fit(pixels.to(device), start, state_file)
                if save_to:
                    self.save(save_to)
            for path in (state_file, *folder.glob(f".{key}-*")):  # the latter of a write that was killed
                path.unlink(missing_ok=True)
        return self

    def _check_parameters(self) -> None:
        check_whole(2, latent_dim=self.latent_dim, batch_size=self.batch_size)
        check_whole(frames=self.frames)
        check_whole(0, seed=self.seed)
        if self.seed >= 2**63:
            raise ValueError(f"expected seed to be a whole number below 2^63, got {self.seed}")
        check_number(beta=self.beta, learning_rate=self.learning_rate)
        network = self.network or {}
        if not isinstance(network, Mapping):
            raise ValueError(f"expected network to be a mapping of the arguments of sgvae, got {network!r}")
        known = inspect.signature(sgvae).parameters.keys() - {"latent_dim", "frames", "gaussian", "pose", "images"}
        if unknown := set(network) - known:
            raise ValueError(f"expected network to have names among {sorted(known)}, got {sorted(unknown)}")
        for name in ("epochs", "minutes"):
            if (value := getattr(self, name)) is not None:
                check_number(positive=True, **{name: value})

    def key(self, images: ImageSet | np.ndarray | Tensor) -> str:
        """Name of what `fit` gives: the hash of images, parameters and versions."""
        parameters = self._parameters() | {name: version(name) for name in ("torch", "escnn")}
        parameters = {name: value for name, value in parameters.items() if name not in ("device", "progress", "frames")}
        digest = hashlib.sha256(json.dumps([_VERSION, parameters], sort_keys=True, default=repr).encode())
        pixels = _checked(images)
        digest.update(f"{pixels.dtype} {list(pixels.shape)}".encode())
        for part in pixels.split(1_000):
            digest.update(part.cpu().numpy().tobytes())
        return digest.hexdigest()[:24]

    def stored(self, path: str | Path, images: ImageSet | np.ndarray | Tensor) -> RotationAgnosticEmbedding | None:
        """What `fit` of these images gives, where a file by `save` holds it already; else None."""
        try:
            found = self.load(path, self.device)
        except (ValueError, FileNotFoundError):  # nothing, or another model's
            return None
        # the key is of the scaled bytes
        return found if (found.key_, found.scale_) == (self.key(images), _scale(images)) else None

    def _parameters(self) -> dict[str, object]:
        """Without what was added later where it is as before, for keys and files."""
        later = {"reflections": False, "frames": 1}
        return {
            name: value for name, value in self.get_params(deep=False).items() if (name, value) not in later.items()
        }

    def _fit(self, pixels: Tensor, start: float, state_file: Path) -> None:
        seed, batch_size = int(self.seed), int(self.batch_size)  # torch takes no numbers of numpy
        order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))
        validation, train = order.split([(held := min(max(len(order) // 20, 1), 500)), len(order) - held])
        sample = as_floats(pixels[train[:_MEASURED].sort().values].cpu())
        if sample.min() == sample.max():
            raise ValueError(f"expected images that are not all the same, got {sample.max():g} everywhere")
        images = ImageFormat.measured(sample)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = NETWORK | (REFLECTING if self.reflections else {}) | dict(self.network or {})
            model = sgvae(self.latent_dim, pose=True, images=images, **network).to(pixels.device)
        common = _orientations(pixels, train, images, model.handed)
        batch = min(batch_size, len(train))
        seen = math.ceil(round(self.epochs * len(train), 6)) if self.epochs else max(SEEN, len(train))
        a_round = batch * math.ceil(min(seen / 20, _ROUND) / batch)  # so that no batch is smaller
        rounds = math.ceil(seen / a_round)
        left = None if self.minutes is None else max(60 * self.minutes - (time.perf_counter() - start), 1.0)
        schedule = Schedule(rounds, self.learning_rate, _END ** (1 / rounds), 1e-5, batch, a_round, left)

        def losses(index: Tensor, *common: Tensor) -> Losses:
            return pose_losses(model, as_floats(pixels[index]), *common, beta=self.beta)

        loop = dict(seed=seed, state_file=state_file, progress=self.progress)
        self.history_ = fit(model, losses, (train, *common), (validation,), schedule, **loop)
        self.model_ = model

    def transform(self, images: ImageSet | np.ndarray | Tensor) -> np.ndarray:
        """Codes [N, latent_dim], unit vectors that do not see how an image is turned.

        Here and in all below: ValueError where images are not of the size, channels and scale that were fitted.
        """
        return np.concatenate([codes for codes, *_ in self.numbers(images)])

    def poses(self, images: ImageSet | np.ndarray | Tensor) -> tuple[np.ndarray, np.ndarray]:
        """How images are turned: degrees [N], counter-clockwise, and half the arc that holds 90 % of the posterior, [N].

        Angles are against an orientation that training found. An image that looks alike after a turn has a wide arc.
        """
        _, angles, spread, *_ = zip(*self.numbers(images))
        return np.concatenate(angles), np.concatenate(spread)

    def handedness(self, images: ImageSet | np.ndarray | Tensor) -> np.ndarray:
        """Hands of images, 1 or -1, [N]: an image and its mirror image differ in it, and in the angle.

        Which is which training found. An image that is its own mirror image has either. ValueError without reflections.
        """
        return torch.cat([*self._each(PoseVAE.handedness, images)]).cpu().numpy()

    def canonical(self, images: ImageSet | np.ndarray | Tensor) -> Tensor:
        """Images [N, C, H, H], each turned back by its angle, with reflections mirrored back too, so that all lie alike."""
        return torch.cat([*self._each(PoseVAE.canonical, images)]).clamp(0, 1).cpu()

    def reconstruct(self, images: ImageSet | np.ndarray | Tensor) -> Tensor:
        """Images [N, C, H, H] drawn anew from code and angle."""
        return torch.cat([*self._each(PoseVAE.reconstruct, images)]).clamp(0, 1).cpu()

    def numbers(self, images: ImageSet | np.ndarray | Tensor) -> Iterator[Numbers]:
        """Codes, angles and spread of some images after the other, so that memory does not grow with their number."""
        return self._each(_numbers, images)

    @torch.no_grad()
    def _each(self, function: Callable, images: ImageSet | np.ndarray | Tensor) -> Iterator:
        """``function(model, batch)`` for one batch after the other."""
        check_is_fitted(self)
        self._check_scale(images)
        device = next(self.model_.parameters()).device
        many = max(1, BATCH * SIZES[0] ** 2 // self.model_.images.size**2)  # so that memory is that of digits
        for batch in _checked(images).split(many):
            with _ONE_AT_A_TIME, evaluating(self.model_), reading(self.model_, self.frames):
                found = function(self.model_, as_floats(batch.to(device)))
            yield found

    def _check_scale(self, images: object) -> None:
        if isinstance(images, ImageSet) and images.scale != self.scale_:
            expected, found = ("8-bit images" if s is None else f"the scale {s}" for s in (self.scale_, images.scale))
            raise ValueError(f"expected {expected}, as those it learned from, got {found}; see scale of load_images")

    def save(self, path: str | Path) -> None:
        """Write model, scale and parameters to a ``.safetensors`` file, whole or not at all."""
        check_is_fitted(self)
        parameters = json.loads(json.dumps(self._parameters(), default=plain))
        about = {"parameters": parameters, "scale": self.scale_, "key": self.key_, "history": self.history_}
        save_model(self.model_, user_path(path), embedding=about)

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> RotationAgnosticEmbedding:
        """The fitted estimator of a file by `save`.

        FileNotFoundError where there is none; ValueError where it is no such file, or one of another version.
        """
        path = user_path(path)
        model, about = load_model(path), load_metadata(path).get("embedding")
        if not about or not isinstance(model, PoseVAE):
            raise ValueError(f"{path}: expected a file by RotationAgnosticEmbedding.save, found another model's")
        try:
            embedding = cls(**about["parameters"] | {"device": device})
            embedding.scale_ = about["scale"] and tuple(about["scale"])
            embedding.key_, embedding.history_ = about["key"], about["history"]
        except (TypeError, KeyError) as error:
            raise ValueError(
                f"{path}: expected a file of this version of gvae-core, found another ({error})"
            ) from error
        embedding.model_ = model.to(resolve_device(device))
        return embedding


def _scale(images: object) -> tuple[float, float] | None:
    return images.scale if isinstance(images, ImageSet) else None


def _checked(images: ImageSet | np.ndarray | Tensor) -> Tensor:
    """Images of any accepted kind as [N, C, H, H], bytes or floats in [0, 1]; copied only where torch cannot read them."""
    if isinstance(images, ImageSet):
        return torch.from_numpy(images.pixels)
    if isinstance(images, np.ndarray):  # mirrored or turned views, and numbers in the order of other machines
        images = np.ascontiguousarray(images, images.dtype.newbyteorder("="))
    try:
        if isinstance(images, np.ndarray) and not images.flags.writeable:  # torch warns, but here it is only read
            with _ONE_AT_A_TIME, warnings.catch_warnings(action="ignore"):
                images = torch.from_numpy(images)
        pixels = torch.as_tensor(images).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        what = f"expected an array, a tensor or an ImageSet (see load_images), got {type(images).__name__}"
        raise ValueError(f"{what}: {error}") from error
    pixels = pixels.float() if pixels.dtype == torch.bfloat16 else pixels  # which numpy does not know
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels
    if pixels.ndim != 4 or pixels.shape[2] != pixels.shape[3]:
        raise ValueError(f"expected images [N, C, H, H] or [N, H, H], square, got {list(pixels.shape)}")
    if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
        raise ValueError(f"expected images of bytes, or of floats in [0, 1], got {pixels.dtype}")
    if pixels.is_floating_point() and len(pixels):
        low, high = (value.item() for value in pixels.aminmax())
        if not (low >= 0 and high <= 1):  # a NaN makes both NaN
            raise ValueError(f"expected images of finite values in [0, 1], got values from {low:g} to {high:g}")
    return pixels


@torch.no_grad()
def _orientations(pixels: Tensor, chosen: Tensor, images: ImageFormat, handed: bool = False) -> tuple[Tensor, ...]:
    """How the chosen images are turned against one common orientation, degrees, and if ``handed`` their hands before that.

    The first by all pairs, the rest by those.
    """

    def small(indices: Tensor) -> Tensor:
        batches = (
            images.turnable(as_floats(pixels[index].cpu())).mean(1, keepdim=True) for index in indices.split(BATCH)
        )
        return torch.cat([F.interpolate(batch, size=min(images.size, _SMALL), mode="area") for batch in batches])

    first, rest = chosen[:_SYNCHRONISED], chosen[_SYNCHRONISED:]
    views = small(first)
    hand = common_handedness(views) if handed else torch.ones(len(views))
    views = mirrored(views, hand)
    angles = common_orientation(views, sweeps=2)
    known, found = (views[:_KNOWN], angles[:_KNOWN]), [(angles, hand)]
    for views in map(small, rest.split(_KNOWN)):
        hand = handedness_among(views, known[0]) if handed else torch.ones(len(views))
        found.append((orientation_among(mirrored(views, hand), *known), hand))
    return tuple(torch.cat(parts) for parts in zip(*found))[: 1 + handed]


def _numbers(model: PoseVAE, batch: Tensor) -> Numbers:
    content, pose, *hand = model.posteriors(batch)
    parts = (content.mode, degrees(pose.loc), pose.cap_angle(0.9), *map(hands, hand))
    return tuple(part.cpu().numpy() for part in parts)


def numbers_on_cluster(path: Path, images: ImageSet, scheduler: str, frames: int) -> Iterator[Numbers]:
    """What the model of a file by `RotationAgnosticEmbedding.save` says about images, computed by dask's workers.

    Model and images travel to them, a few parts at a time; nothing else is shared. ValueError where dask is not
    installed, OSError where no scheduler answers at this address.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ValueError("a scheduler needs dask: pip install 'gvae-core[cluster]'") from error
    RotationAgnosticEmbedding.load(path, "cpu")._check_scale(images)
    with Client(scheduler, timeout=30) as client:
        model = client.scatter(path.read_bytes(), broadcast=True)
        ahead = 2 * sum(client.nthreads().values()) + 1
        waiting = deque()
        for first in range(0, len(images), 4 * BATCH):
            part = np.ascontiguousarray(images.pixels[first : first + 4 * BATCH])
            waiting.append(client.submit(_on_worker, model, part, frames, pure=False))
            if len(waiting) > ahead:
                yield from waiting.popleft().result()
        for task in waiting:
            yield from task.result()


def _on_worker(model: bytes, pixels: np.ndarray, frames: int) -> list[Numbers]:
    with _ONE_AT_A_TIME:
        return list(_of_bytes(model).set_params(frames=frames).numbers(pixels))


@functools.lru_cache(maxsize=2)
def _of_bytes(model: bytes) -> RotationAgnosticEmbedding:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        path.write_bytes(model)
        return RotationAgnosticEmbedding.load(path)
