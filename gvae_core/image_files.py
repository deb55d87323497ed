"""One image file -> its values: PNG, JPEG, BMP, WebP, TIFF of 8 and more bits, `.npy`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".npy")  # of one image each
# PNG of 16 bits and several channels, which Pillow cuts to the upper 8: what it takes for the upper byte, then the lower
_HALVES = {"RGB;16B": ("RGB;16B", "RGB;16L"), "RGBA;16B": ("RGBA;16B", "RGBA;16L"), "LA;16B": ("RGBA",)}


def read_file(file: Path) -> np.ndarray:
    """[H, W], [H, W, C] or [C, H, W], in the file's own numbers; alpha is laid on white. Any error where it is no such file."""
    if file.suffix.lower() not in SUFFIXES:
        raise ValueError(f"expected a name that ends in {', '.join(SUFFIXES)}")
    if file.suffix.lower() == ".npy":
        return np.load(file, allow_pickle=False)
    return (_read_tiff if file.suffix.lower() in (".tif", ".tiff") else _read_picture)(file)


def _read_tiff(file: Path) -> np.ndarray:
    with tifffile.TiffFile(file) as tiff:
        if not tiff.pages:
            raise ValueError("expected a page of pixels, got none")
        series, page = tiff.series[0], tiff.series[0].keyframe
        white_is_zero = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        bits, samples = page.bitspersample, page.samplesperpixel
        try:
            image = tiff.asarray()
        except (ImportError, ValueError, NotImplementedError) as error:
            if not isinstance(error, ImportError) and "imagecodecs" not in str(error):
                raise
            if len(series) == 1 and (bits <= 8 or samples == 1):  # of others Pillow takes a part
                with suppress(UnidentifiedImageError):
                    image = _read_picture(file)
                    return _negative(image) if white_is_zero and bits > 8 else image  # 8 bits Pillow inverts itself
            expected = "expected no compression, or one that Pillow reads and one page of 8 bits or of grey"
            raise ValueError(f"{expected}; got {len(series)} × {samples} × {bits} bits, {error}") from error
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            return np.moveaxis(np.take(page.colormap, image, 1) >> 8, 0, -1).astype(np.uint8)
    if page.extrasamples in ((1,), (2,)):  # alpha, with which the colours were multiplied or not
        image = _on_white(np.moveaxis(image, series.axes.index("S"), -1), page.extrasamples == (1,))
    return _negative(image) if white_is_zero else image


def _negative(image: np.ndarray) -> np.ndarray:
    return -image if image.dtype.kind == "f" else ~image


def _read_picture(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        if halves := _HALVES.get(picture.tile[0][3] if picture.tile else None):
            both = np.stack([_read_as(file, raw) for raw in halves], -1)
            both = both.reshape(*both.shape[:2], -1, 2).astype(np.uint16)
            image = both[..., 0] * 256 + both[..., 1]
            return image if image.shape[2] == 3 else _on_white(image)
        see_through = picture.mode in ("1", "L", "RGB") and "transparency" in picture.info  # one value is
        if not see_through and (picture.mode in ("1", "L", "RGB", "I", "F") or picture.mode.startswith("I;16")):
            return np.asarray(picture)
        alpha = "LA" if picture.mode in ("1", "L", "LA") else "RGBA"  # palettes and rarer
        return _on_white(np.asarray(picture.convert(alpha)))


def _read_as(file: Path, raw: str) -> np.ndarray:
    with Image.open(file) as picture:
        picture.tile = [(*picture.tile[0][:3], raw)]
        return np.asarray(picture)


def _on_white(image: np.ndarray, multiplied: bool = False) -> np.ndarray:
    """[H, W, C + 1], its last channel alpha -> [H, W, C], through which white shines."""
    white = 1 if image.dtype.kind == "f" else np.iinfo(image.dtype).max
    opaque = image[..., -1:] / white
    blended = image[..., :-1] * (1 if multiplied else opaque) + white * (1 - opaque)
    return (blended if white == 1 else np.round(blended).clip(0, white)).astype(image.dtype)
