"""One's own images: a folder of files, or an array, as bytes of one size that are read from disk when they are needed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from .files import cache_folder, files_below, stamp, user_path, writing_into
from .image_files import read_file

PERCENTILES = (0.1, 99.9)  # of the values of images of more than 8 bits, which become 0 and 1
SIZES = (28, 128)  # between these lies the size that is chosen where none is asked for
_SAMPLE = 256  # images that size, channels and scale are found from
_AHEAD = 4  # images that are read ahead, per thread
_LUMINANCE = (0.2125, 0.7154, 0.0721)  # ITU-R BT.709, as in skimage.color.rgb2gray
_VERSION = 3  # raised by hand when the same files would give other bytes


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size; ``images[i]``, ``images[3:7]`` are float32 in [0, 1], read and converted at that moment.

    Parameters
    ----------
    pixels : uint8 [N, C, H, H], memory-mapped
    names : path of each image below its folder, or its position in the array
    labels : int64 [N], which of ``classes`` an image is of, or None
    classes : names of the labels: the folders of the files, or what the array of labels holds
    unreadable : name of and what was wrong with each file or row that is not among the images
    scale : the values that became 0 and 1 where images have more than 8 bits, else None
    """

    pixels: np.ndarray
    names: Sequence[str | int]
    labels: Tensor | None = None
    classes: Sequence[str] = ()
    unreadable: Sequence[tuple[str, str]] = ()
    scale: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.pixels.shape

    def __getitem__(self, index: object) -> Tensor:
        return as_floats(torch.from_numpy(np.ascontiguousarray(self.pixels[index])))

    @property
    def images(self) -> Tensor:
        """All of them at once, [N, C, H, H]; for more than the memory holds, use the set itself."""
        return self[:]

    def class_of(self, index: int) -> str:
        """The name of an image's class, empty where there are no labels."""
        return "" if self.labels is None else self.classes[self.labels[index]]


def as_floats(images: Tensor) -> Tensor:
    """Bytes as float32 in [0, 1]; other images as they are."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def load_images(
    path: str | Path,
    size: int | None = None,
    channels: int | None = None,
    *,
    square: str = "pad",
    scale: tuple[float, float] | None = None,
    array: str | None = None,
    progress: bool = False,
) -> ImageSet:
    """Load a folder of images, or an array of them, at one size; a second time from the cache, where they stay as bytes.

    Parameters
    ----------
    path : a folder of PNG, JPEG, TIFF, BMP, WebP or ``.npy`` files, one image each; those in folders have the path of
        theirs as a label. Or a ``.npy`` or ``.npz`` file with an array [N, H, W], [N, H, W, C] or [N, C, H, W]; in an
        ``.npz`` an array called labels, label or y, [N], holds the labels.
    size : pixels of a side of the result; None: the median of the images' longer sides, within `SIZES`
    channels : of the result; colour is made grey, and grey colour, to get there; None: as most images have,
        but 3 where grey and colour mix. Alpha is no channel: white shines through.
    square : an oblong image is padded with the median of its border, or with ``"crop"`` cut, around its centre
    scale : the values that become 0 and 1 for images of more than 8 bits or of floats; None: their `PERCENTILES` over
        the set. A model has to see later images with the scale of those it learned from.
    array : its name in an ``.npz`` file that holds several arrays of images
    progress : show a bar

    Resizing is bilinear and anti-aliased. Memory does not grow with the number of images. Files and rows that are no
    images, cannot be read or hold NaN are listed in the result's ``unreadable``, a warning tells how many, and the
    rest is used. A folder that links lead to again is read once.

    ValueError where there is no such path, or less than two images in it, or an argument makes no sense.
    """
    path = user_path(path)
    for name, value in (("size", size), ("channels", channels)):
        if value is not None and (not isinstance(value, Integral) or isinstance(value, bool) or value < 1):
            raise ValueError(f"expected {name} to be a whole number of at least 1, got {value!r}")
    size, channels = (value and int(value) for value in (size, channels))  # numpy's numbers too
    if square not in ("pad", "crop"):
        raise ValueError(f"expected square to be 'pad' or 'crop', got {square!r}")
    if scale is not None:
        ends = np.array(scale, object)  # of objects: not even a ragged list fails
        real = ends.shape == (2,) and all(isinstance(end, Real) for end in ends)
        low, high = map(float, ends) if real else (0.0, 0.0)
        if not -np.inf < low < high < np.inf:
            raise ValueError(f"expected scale to be two finite, rising numbers, got {scale!r}")
        scale = (low, high)
    suffix = path.suffix.lower()
    if not path.exists():
        raise ValueError(f"expected a folder of images, or an .npy or .npz file, got {path}: no such path")
    if path.is_dir():
        names = sorted(files_below(path))
        stamps = ((name, *stamp(path / name)) for name in names)
    elif suffix in (".npy", ".npz"):
        names, stamps = None, [stamp(path)]
    else:
        raise ValueError(f"expected a folder of images, or an .npy or .npz file, got {path}")
    if array is not None and (names is not None or suffix != ".npz"):
        raise ValueError(f"expected array for an .npz file only, got {array!r} for {path}")
    asked = (size, channels, square, scale)
    if suffix == ".npy" and names is None and (found := _as_it_is(path, *asked)):
        return found
    digest = hashlib.sha256(repr((_VERSION, str(path), array, asked)).encode())
    for stamped in stamps:
        digest.update(repr(stamped).encode())
    with writing_into(cache_folder() / "images") as cache:
        folder = cache / digest.hexdigest()[:24]
        with FileLock(cache / f"{folder.name}.lock"):
            if not folder.exists():
                part = folder.with_suffix(".part")  # what a killed process left, begins anew
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                try:
                    _convert(path, names, array, asked, part, progress)
                    part.rename(folder)
                finally:
                    shutil.rmtree(part, ignore_errors=True)
    return _stored(folder)


def _stored(folder: Path) -> ImageSet:
    about = json.loads((folder / "set.json").read_text(encoding="utf-8"))
    pixels = np.load(folder / "pixels.npy", mmap_mode="c")  # torch wants arrays that may be written; the file stays
    names = range(len(pixels)) if about["names"] is None else about["names"]
    labels = None if about["labels"] is None else torch.tensor(about["labels"])
    unreadable = [tuple(entry) for entry in about["unreadable"]]
    scale = about["scale"] and tuple(about["scale"])
    if unreadable:
        name, reason = unreadable[0]
        warnings.warn(
            f"{len(unreadable)} of {len(unreadable) + len(names)} cannot be used, such as {name}: {reason}"
            " (all are listed in .unreadable)",
            stacklevel=3,
        )
    return ImageSet(pixels[: len(names)], names, labels, about["classes"], unreadable, scale)


# --- where images come from --------------------------------------------------------------------------


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What is raised while ``path`` is read, becomes a ValueError that names it."""
    try:
        yield
    except Exception as error:  # a broken file makes its reader raise anything
        if isinstance(error, OSError) and error.filename != str(path):  # the cache's disk is full, say
            raise
        expected = "expected a readable file of arrays without Python objects"
        raise ValueError(f"{path}: {expected}, got: {_reason(error)}") from error


def _as_it_is(path: Path, size: int | None, channels: int | None, square: str, scale: object) -> ImageSet | None:
    """The set of an array of bytes that needs no conversion, in place; else None."""
    rows = _memory_mapped(path)
    if rows.dtype != np.uint8 or scale or len(rows) < 2:
        return None
    pixels = rows[:, None] if rows.ndim == 3 else np.moveaxis(rows, _channel_axis(rows.shape[1:]) + 1, 1)
    height, width = pixels.shape[2:]
    fits = height == width and size in (None, height) and channels in (None, pixels.shape[1])
    return ImageSet(pixels, range(len(pixels))) if fits and (size or SIZES[0] <= height <= SIZES[1]) else None


def _memory_mapped(path: Path) -> np.ndarray:
    with _named(path):
        rows = np.lib.format.open_memmap(path, "c")
    if rows.ndim not in (3, 4):
        raise ValueError(f"{path}: expected images [N, H, W], [N, H, W, C] or [N, C, H, W], got {list(rows.shape)}")
    return rows


def _unpacked(path: Path, array: str | None, folder: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The images of an .npz file, written into ``folder`` and mapped from there, and their labels."""
    shapes, candidates, known = {}, [], []
    with _named(path), zipfile.ZipFile(path) as file:
        for name in (name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy")):
            with file.open(f"{name}.npy") as member:
                kind = np.lib.format.read_magic(member)
                header = np.lib.format.read_array_header_1_0 if kind == (1, 0) else np.lib.format.read_array_header_2_0
                shapes[name], _, dtype = header(member)
            known.append(f"{name} {list(shapes[name])} {dtype}")
            if len(shapes[name]) in (3, 4) and dtype.kind in "buif":
                candidates.append(name)
    chosen = array or ("images" if "images" in candidates else candidates[0] if len(candidates) == 1 else None)
    if chosen not in candidates:
        found = f"{array!r} of {', '.join(known) or 'no arrays'}"
        raise ValueError(f"{path}: expected one array of images, or its name as array; got {found}")
    count = shapes[chosen][:1]
    others = {shapes[name][:1] for name in candidates} - {count}
    labelled = None
    for name in (chosen.replace("images", "labels"), chosen.replace("x", "y"), "labels", "label", "y"):
        if name not in shapes or name in candidates or shapes[name][:1] in others:  # other images' labels, or masks
            continue
        if shapes[name] in (count, (*count, 1)):
            labelled = name
            break
        found = f"{name} {list(shapes[name])} for {chosen} {list(shapes[chosen])}"
        raise ValueError(f"{path}: expected one label an image, got {found}")
    labels = None
    with _named(path), zipfile.ZipFile(path) as file:
        with file.open(f"{chosen}.npy") as member, open(folder / "unpacked.npy", "wb") as target:
            shutil.copyfileobj(member, target)
        if labelled:
            with file.open(f"{labelled}.npy") as member:
                labels = np.lib.format.read_array(member, allow_pickle=False).reshape(-1)
        return np.lib.format.open_memmap(folder / "unpacked.npy", "c"), labels


# --- one image ---------------------------------------------------------------------------------------


def _channel_axis(shape: Sequence[int]) -> int:
    """Which axis of an image [H, W, C] or [C, H, W] has the channels: the shorter of first and last."""
    return 0 if shape[0] < shape[2] else 2


def _planes(image: np.ndarray) -> Tensor:
    """An image as its file has it -> [C, H, W], bytes or float32; ValueError where it is none."""
    if image.dtype.kind not in "buif":
        raise ValueError(f"expected numbers, got {image.dtype}")
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"expected an image [H, W], [H, W, C] or [C, H, W], got {list(image.shape)}")
    image = image[None] if image.ndim == 2 else np.moveaxis(image, _channel_axis(image.shape), 0)
    if image.dtype == bool:
        image = image.astype(np.uint8) * 255
    if image.dtype != np.uint8:
        image = image.astype(np.float32)
        if not np.isfinite(image).all():
            raise ValueError("expected finite values, got NaN or infinity")
    return torch.from_numpy(np.array(image))  # a copy, which torch may write to


def _fitted(planes: Tensor, size: int, channels: int, square: str) -> Tensor:
    """[C, H, W] -> float32 [channels, size, size], its values in the same unit."""
    if len(planes) == 3 and channels == 1:
        planes = (planes * torch.tensor(_LUMINANCE)[:, None, None]).sum(0, keepdim=True)
    if len(planes) not in (1, channels):
        raise ValueError(f"expected {channels} channel{'s' * (channels > 1)}, got {len(planes)}")
    height, width = planes.shape[1:]
    if height != width:
        side = max(height, width) if square == "pad" else min(height, width)
        top, left = abs(side - height) // 2, abs(side - width) // 2
        if square == "crop":
            planes = planes[:, top : top + side, left : left + side]
        else:
            border = torch.cat([planes[:, [0, -1]].flatten(1), planes[:, :, [0, -1]].flatten(1)], 1)
            padded = border.median(1).values[:, None, None].repeat(1, side, side)
            padded[:, top : top + height, left : left + width] = planes
            planes = padded
    planes = planes.float()  # not before it is cut or padded: a large photo has a quarter of the size as bytes
    if planes.shape[-1] != size:
        planes = F.interpolate(planes[None], size=(size, size), mode="bilinear", antialias=True)[0]
    return planes.expand(channels, size, size)


# --- all of them -------------------------------------------------------------------------------------


def _each(read: Callable[[int], object], indices: Iterable[int]) -> Iterator[tuple[int, object]]:
    """What ``read`` gives for each index, in order, or the reason why it gives nothing; a few are read at a time.

    Results wait for their turn, so that ``read`` should give small ones.
    """

    def attempt(index: int) -> object:
        try:
            return read(index)
        except Exception as error:  # a broken file makes its reader raise anything
            return _reason(error)

    threads = min(8, os.cpu_count() or 1)
    ahead = deque()
    with ThreadPoolExecutor(threads) as pool:
        for index in indices:
            ahead.append((index, pool.submit(attempt, index)))
            if len(ahead) > _AHEAD * threads:
                first, future = ahead.popleft()
                yield first, future.result()
        yield from ((index, future.result()) for index, future in ahead)


def _convert(
    path: Path, names: list[str] | None, array: str | None, asked: tuple, folder: Path, progress: bool
) -> None:
    """Write ``pixels.npy`` and ``set.json`` into ``folder``."""
    labels = None
    if names is None:
        rows, labels = _unpacked(path, array, folder) if path.suffix.lower() == ".npz" else (_memory_mapped(path), None)
        count, name_of = len(rows), lambda index: index
    else:
        count, name_of = len(names), names.__getitem__
        if any("/" in name for name in names):
            labels = [name.rpartition("/")[0] for name in names]

    def read(index: int) -> Tensor:
        return _planes(rows[index] if names is None else read_file(path / names[index]))

    size, channels, square, scale = asked
    size, channels, scale = _as_asked(read, count, path, size, channels, square, scale)

    def to_bytes(index: int) -> Tensor:
        planes = read(index)
        if (planes.dtype == torch.uint8) != (scale is None):
            raise ValueError(f"expected {'8 bits' if scale is None else 'more than 8 bits'} a value as in the others")
        fitted = _fitted(planes, size, channels, square)
        low, high = scale or (0, 255)
        return ((fitted - low) * (255 / (high - low))).round().clamp(0, 255).to(torch.uint8)

    pixels = np.lib.format.open_memmap(folder / "pixels.npy", "w+", np.uint8, (count, channels, size, size))
    kept, unreadable = [], []
    for index, found in tqdm(_each(to_bytes, range(count)), "load", count, disable=not progress, mininterval=1.0):
        if isinstance(found, str):
            unreadable.append((str(name_of(index)), found))
        else:
            pixels[len(kept)] = found.numpy()
            kept.append(index)
    if len(kept) < 2:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in unreadable[:5])
        found = f"{len(kept)} of {count} ({reasons})" if unreadable else "one"
        raise ValueError(f"{path}: expected at least two images, found {found}")
    pixels.flush()
    if labels is not None and (labels := np.asarray(labels)).dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    classes, codes = ([], None) if labels is None else np.unique(labels[kept], return_inverse=True)
    about = {
        "names": None if names is None and len(kept) == count else [name_of(index) for index in kept],
        "labels": None if codes is None else codes.tolist(),
        "classes": [str(name) for name in classes],
        "unreadable": unreadable,
        "scale": scale,
    }
    (folder / "set.json").write_text(json.dumps(about), encoding="utf-8")
    (folder / "unpacked.npy").unlink(missing_ok=True)


def _as_asked(
    read: Callable[[int], Tensor],
    count: int,
    path: Path,
    size: int | None,
    channels: int | None,
    square: str,
    scale: tuple[float, float] | None,
) -> tuple[int, int, tuple[float, float] | None]:
    """Size, channels and scale as they were asked for, or as a random sample of the images suggests."""

    def kind(index: int) -> tuple[torch.Size, torch.dtype]:  # of large images no more than this is kept
        planes = read(index)
        return planes.shape, planes.dtype

    def values(index: int) -> Tensor:
        planes = read(index)
        return _fitted(planes, size, len(planes), square).flatten()

    sample, reasons = {}, Counter()
    for index, found in _each(kind, np.random.default_rng(0).permutation(count)):
        if isinstance(found, str):
            reasons[found] += 1
        else:
            sample[index] = found
        if len(sample) == _SAMPLE:
            break
    if not sample:
        why = "; ".join(f"{number} × {reason}" for reason, number in reasons.most_common(3)) or "it is empty"
        raise ValueError(f"{path}: expected at least two images, found none ({why})")
    if size is None:
        size = int(np.clip(np.median([max(shape[1:]) for shape, _ in sample.values()]), *SIZES))
    if channels is None:  # as most have: one odd file among them decides nothing
        counts = Counter(shape[0] for shape, _ in sample.values())
        channels = max(counts, key=lambda number: (counts[number], number))
        channels = 3 if channels == 1 and 3 in counts else channels
    wide = [index for index, (_, dtype) in sample.items() if dtype != torch.uint8]
    if scale is None and 2 * len(wide) > len(sample):
        found = [found for _, found in _each(values, wide) if not isinstance(found, str)]
        scale = tuple(np.percentile(torch.cat(found).numpy(), PERCENTILES).tolist())
        if not scale[0] < scale[1]:  # few bright pixels on an even ground
            scale = min(map(torch.min, found)).item(), max(map(torch.max, found)).item()
        if not scale[0] < scale[1]:
            raise ValueError(f"{path}: expected images that are not constant, got {scale[0]:g} in all of them")
    return size, channels, scale
