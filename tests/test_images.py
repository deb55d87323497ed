"""Folders and arrays of one's own become bytes of one size, and what cannot be used is said."""

import errno
import os
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from gvae_core import load_images
from gvae_core.image_files import read_file
from gvae_core.images import as_floats


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GVAE_CACHE", str(folder))
    return folder / "images"


@pytest.fixture
def folder(tmp_path):
    """Two classes: dark and bright squares of 40 pixels, PNG and JPEG."""
    for value, name in ((40, "dark"), (200, "bright")):
        (tmp_path / "cells" / name).mkdir(parents=True)
        for index, suffix in enumerate(("png", "jpg", "jpeg")):
            Image.new("L", (40, 40), value + index).save(tmp_path / "cells" / name / f"{index}.{suffix}")
    return tmp_path / "cells"


def test_folder_with_classes(folder):
    images = load_images(folder)
    assert images.shape == (6, 1, 40, 40) and len(images) == 6 and images.pixels.dtype == np.uint8
    assert images.names == [f"{name}/{file}" for name in ("bright", "dark") for file in ("0.png", "1.jpg", "2.jpeg")]
    assert images.classes == ["bright", "dark"] and images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.class_of(5) == "dark" and images.unreadable == [] and images.scale is None
    torch.testing.assert_close(images[1][0, 0, 0].item(), 201 / 255, atol=1e-6, rtol=0)
    torch.testing.assert_close(images[3:5].mean((1, 2, 3)), torch.tensor([40.0, 41.0]) / 255)
    assert torch.equal(images.images[np.array([4, 0])], images[np.array([4, 0])])


def test_files_of_one_folder_have_no_labels(folder):
    images = load_images(folder / "dark")
    assert images.labels is None and images.class_of(0) == ""


def test_a_second_load_reads_no_file(folder, monkeypatch):
    first = load_images(folder, size=32)
    monkeypatch.setattr("gvae_core.images.read_file", None)
    again = load_images(folder, size=32)
    assert isinstance(again.pixels, np.memmap) and np.array_equal(first.pixels, again.pixels)
    assert again.names == first.names and torch.equal(again.labels, first.labels)


def test_a_changed_file_is_seen(folder):
    load_images(folder)
    Image.new("L", (40, 40), 7).save(folder / "dark" / "0.png")
    assert load_images(folder).pixels[3].max() == 7
    (folder / "dark" / "1.jpg").unlink()
    assert len(load_images(folder)) == 5


def test_few_bright_pixels_set_the_scale(tmp_path):
    images = np.full((40, 64, 64), 7, np.uint16)
    images[range(40), range(40), 5] = 1000
    np.save(tmp_path / "sparse.npy", images)
    (tmp_path / "sparse.npy").rename(tmp_path / "sparse.NPY")
    loaded = load_images(tmp_path / "sparse.NPY")
    assert loaded.scale == (7, 1000) and loaded.pixels.max() == 255 and loaded.pixels.min() == 0


def test_a_colour_that_is_transparent_is_white(tmp_path):
    for mode, black in (("L", 0), ("RGB", (0, 0, 0))):
        picture = Image.new(mode, (30, 30), "gray")
        picture.putpixel((0, 0), black)
        picture.save(tmp_path / f"{mode}.png", transparency=black)
        values = read_file(tmp_path / f"{mode}.png")
        assert (np.atleast_1d(values[0, 0]) == 255).all() and (np.atleast_1d(values[9, 9]) == 128).all()


def test_labels_of_bytes_are_text(tmp_path):
    labels = np.array(["Zoë".encode(), b"dog"] * 5)
    np.savez(
        tmp_path / "set.npz", images=np.random.default_rng(0).integers(0, 255, (10, 28, 28), np.uint8), labels=labels
    )
    assert load_images(tmp_path / "set.npz").classes == ["Zoë", "dog"]


@pytest.mark.slow
def test_a_killed_load_leaves_nothing_that_counts(folder, cache):
    code = "import os; from gvae_core import images; images.json.dumps = lambda _: os._exit(9); images.load_images"
    assert subprocess.run([sys.executable, "-c", f"{code}({str(folder)!r})"]).returncode == 9
    assert [path.suffix for path in cache.iterdir() if path.is_dir()] == [".part"]
    assert len(load_images(folder)) == 6
    assert [path.suffix for path in cache.iterdir() if path.is_dir()] == [""]


def test_broken_files_are_listed_and_the_others_used(folder):
    whole = (folder / "dark" / "1.jpg").read_bytes()
    (folder / "dark" / "1.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    (folder / "notes.txt").write_text("mine")
    (folder / ".hidden.png").touch()
    tifffile.imwrite(folder / "wide.tif", np.zeros((40, 40), np.uint16))
    tifffile.imwrite(folder / "five.tif", np.zeros((5, 40, 40), np.uint8), photometric="minisblack")
    with pytest.warns(UserWarning, match="5 of 10 cannot be used, such as dark/1.jpg"):
        images = load_images(folder, channels=1)
    assert images.names == [f"{name}/{file}" for name, file in (
        ("bright", "0.png"), ("bright", "1.jpg"), ("bright", "2.jpeg"), ("dark", "0.png"), ("dark", "2.jpeg")
    )]  # fmt: skip
    assert images.labels.tolist() == [0, 0, 0, 1, 1] and images.pixels[:, 0, 0, 0].tolist() == [200, 201, 202, 40, 42]
    reasons = dict(images.unreadable)
    assert sorted(reasons) == ["dark/1.jpg", "empty.png", "five.tif", "notes.txt", "wide.tif"]
    assert reasons["five.tif"] == "expected 1 channel, got 5"
    assert reasons["wide.tif"] == "expected 8 bits a value as in the others"


def test_links_to_nothing_and_to_a_folder_above(folder):
    (folder / "dark" / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "dark" / "up").symlink_to(folder)
    (folder / "light").symlink_to(folder / "bright")
    with pytest.warns(UserWarning, match=r"1 of 7 cannot be used, such as dark/gone.png: .*No such file"):
        images = load_images(folder)
    assert images.names == [f"{name}/{file}" for name in ("bright", "dark") for file in ("0.png", "1.jpg", "2.jpeg")]
    Image.new("L", (40, 40), 9).save(folder / "nowhere.png")  # now the link has a target
    assert load_images(folder).names[-2:] == ["dark/gone.png", "nowhere.png"]


def test_mixed_sizes_are_padded_without_an_edge(tmp_path):
    for index, (height, width) in enumerate(((60, 30), (30, 60), (50, 50), (41, 40))):
        picture = np.full((height, width), 250, np.uint8)
        picture[height // 2 - 5 : height // 2 + 5, width // 2 - 5 : width // 2 + 5] = 10
        picture[0, 0] = 0  # one speck on the border
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    images = load_images(tmp_path)
    assert images.shape == (4, 1, 55, 55)  # the median of 60, 60, 50 and 41
    for image in images:
        assert image[0, 27, 27] < 0.2  # the centre stays in the centre
        assert (image[0, :, -1] > 0.97).all()
    assert (load_images(tmp_path, size=30, square="crop").pixels[:2, 0, 15, [0, -1]] == 250).all()
    columns = load_images(tmp_path, size=30, square="crop")[0][0, 15] < 0.5
    assert 9 <= columns.sum() <= 11  # cut, not reduced: the square keeps its 10 pixels


def test_reducing_does_not_alias(tmp_path):
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    np.save(tmp_path / "stripes.npy", np.stack([stripes, stripes.T]))
    reduced = load_images(tmp_path / "stripes.npy", size=28)[:]
    assert (reduced[:, :, 2:-2, 2:-2] - 0.5).abs().max() < 0.1


def test_colour_and_grey(tmp_path):
    Image.new("RGB", (30, 30), (255, 0, 0)).save(tmp_path / "red.png")
    Image.new("L", (30, 30), 100).save(tmp_path / "grey.png")
    Image.new("RGB", (30, 30), (0, 0, 255)).quantize(4).save(tmp_path / "palette.png")
    Image.new("LA", (30, 30), (0, 102)).save(tmp_path / "transparent.png")
    Image.new("1", (30, 30), 1).save(tmp_path / "two.png")
    colour = load_images(tmp_path)
    values = {name: values for name, values in zip(colour.names, colour.pixels[:, :, 0, 0].tolist())}
    assert values == {
        "grey.png": [100, 100, 100], "palette.png": [0, 0, 255], "red.png": [255, 0, 0],
        "transparent.png": [153, 153, 153], "two.png": [255, 255, 255],
    }  # fmt: skip
    assert load_images(tmp_path, channels=1).pixels[:, 0, 0, 0].tolist() == [100, 18, 54, 153, 255]


def test_one_odd_file_does_not_decide_the_channels(tmp_path):
    for index in range(3):
        Image.new("LA", (30, 30), (90, 255)).save(tmp_path / f"{index}.png")  # grey with alpha is grey
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((10, 30, 30), np.uint8), photometric="minisblack")
    with pytest.warns(UserWarning, match="1 of 4 cannot be used, such as stack.tif: expected 1 channel, got 10"):
        assert load_images(tmp_path).shape == (3, 1, 30, 30)
    Image.new("RGB", (30, 30)).save(tmp_path / "colour.png")
    with pytest.warns(UserWarning, match="1 of 5 cannot be used, such as stack.tif: expected 3 channels, got 10"):
        assert load_images(tmp_path).shape == (4, 3, 30, 30)


@pytest.mark.parametrize("kind, channels", [(2, 3), (6, 4), (4, 2)])
def test_png_of_16_bits_and_several_channels_keeps_them(tmp_path, kind, channels):
    pixels = np.random.default_rng(0).integers(0, 65536, (30, 31, channels), dtype=np.uint16)
    lines = pixels.astype(">u2").view(np.uint8).reshape(30, -1)
    lines[:, 2 * channels :] -= lines[:, : -2 * channels].copy()  # each line filtered: the difference from the left
    lines = b"".join(b"\1" + line.tobytes() for line in lines)
    header = struct.pack(">IIBBBBB", 31, 30, 16, kind, 0, 0, 0)
    with open(tmp_path / "deep.png", "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")):
            file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))
    opaque = pixels[..., 3:] / 65535 if channels == 4 else pixels[..., 1:] / 65535 if channels == 2 else 1
    expected = np.round(pixels[..., : channels - 1 + channels % 2] * opaque + 65535 * (1 - opaque))
    assert np.array_equal(read_file(tmp_path / "deep.png"), expected)


GREY, WIDE = np.arange(900).reshape(30, 30).astype(np.uint8), np.arange(0, 63_000, 70, np.uint16).reshape(30, 30)
COLOUR = np.stack([GREY, GREY.T, GREY // 2], 2)


def _palette():
    return np.random.default_rng(0).integers(0, 65536, (3, 256), dtype=np.uint16)


def _blended(alpha):
    return np.round(COLOUR * (alpha[..., None] / 255) + 255 * (1 - alpha[..., None] / 255))


@pytest.mark.parametrize(
    "pixels, options, expected",
    [
        (GREY, dict(photometric="palette", colormap=_palette()), (_palette() >> 8)[:, GREY].transpose(1, 2, 0)),
        (GREY, dict(photometric="miniswhite"), 255 - GREY),
        (WIDE, dict(photometric="miniswhite"), 65535 - WIDE),
        (GREY > 99, dict(photometric="miniswhite"), GREY <= 99),
        (GREY / 9.0, dict(photometric="miniswhite"), -(GREY / 9.0)),
        (np.dstack([COLOUR, GREY]), dict(photometric="rgb", extrasamples=["unassalpha"]), _blended(GREY)),
        (
            np.stack([*COLOUR.transpose(2, 0, 1), GREY]),
            dict(photometric="rgb", extrasamples=["unassalpha"], planarconfig="separate"),
            _blended(GREY),
        ),
        (
            np.dstack([COLOUR // 2, GREY // 2 + 128]),
            dict(photometric="rgb", extrasamples=["assocalpha"]),
            COLOUR // 2 + (127 - GREY // 2)[..., None],
        ),
        (
            np.dstack([WIDE, WIDE * 0]),
            dict(photometric="minisblack", extrasamples=["unassalpha"], planarconfig="contig"),
            np.full((30, 30, 1), 65535),
        ),
    ],
)
def test_kinds_of_tiff(tmp_path, pixels, options, expected):
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    assert np.array_equal(read_file(tmp_path / "a.tif"), expected)


def _change_tag(file, name, value):
    with tifffile.TiffFile(file, mode="r+b") as tiff:
        for page in tiff.pages:
            page.tags[name].overwrite(value)


@pytest.mark.parametrize("missing", [ValueError("requires the 'imagecodecs' package"), ImportError("compression")])
def test_compressed_tiff(tmp_path, monkeypatch, missing):
    """Whichever way tifffile says that it has no codec."""

    def refuse(tiff):
        raise missing

    monkeypatch.setattr("gvae_core.image_files.tifffile.TiffFile.asarray", refuse)
    file = tmp_path / "a.tif"
    for pixels in (GREY, COLOUR, WIDE, WIDE.astype(np.float32)):
        Image.fromarray(pixels).save(file, compression="tiff_lzw")
        assert np.array_equal(read_file(file), pixels)
        if pixels.ndim == 2:
            _change_tag(file, "PhotometricInterpretation", 0)  # white is zero
            assert np.array_equal(read_file(file), -pixels if pixels.dtype.kind == "f" else ~pixels)
    Image.new("RGB", (30, 30), (200, 100, 50)).save(file, compression="jpeg")
    assert np.abs(read_file(file) - np.array([200.0, 100, 50])).max() < 3


def test_compressed_tiff_of_which_a_part_would_be_read_is_refused(tmp_path):
    for pixels, got in (
        (np.dstack([WIDE] * 3), "1 × 3 × 16 bits, .*LZW.* requires"),
        (np.stack([GREY] * 5), "5 × 1 × 8 bits, .*LZW.* requires"),
    ):
        kind = "rgb" if pixels.shape[2] == 3 else "minisblack"
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=kind, metadata=None)
        _change_tag(tmp_path / "a.tif", "Compression", 5)
        with pytest.raises(ValueError, match=f"expected no compression, or one that Pillow reads.*; got {got}"):
            read_file(tmp_path / "a.tif")
    (tmp_path / "cut.tif").write_bytes(b"II*\0\xff\0\0\0")
    with pytest.raises(ValueError, match="expected a page of pixels, got none"):
        read_file(tmp_path / "cut.tif")


def test_wide_values_have_one_scale_for_the_set_which_a_later_set_can_take(tmp_path):
    ramp = np.linspace(0, 1, 30 * 30).reshape(30, 30)
    for night, factor in (("first", 1.0), ("second", 0.5)):
        (tmp_path / night).mkdir()
        tifffile.imwrite(tmp_path / night / "a.tif", (1000 + 50_000 * factor * ramp).astype(np.uint16))
        tifffile.imwrite(tmp_path / night / "b.tiff", (1000 + 50_000 * factor * ramp[::-1]).astype(np.float32))
    first = load_images(tmp_path / "first")
    low, high = first.scale
    assert 1000 <= low < 1200 and 50_800 < high <= 51_000
    torch.testing.assert_close(first[0][0], torch.from_numpy(ramp).float(), atol=0.005, rtol=0)
    second = load_images(tmp_path / "second", scale=first.scale)
    assert second.scale == first.scale
    torch.testing.assert_close(second[0][0], torch.from_numpy(ramp / 2).float(), atol=0.005, rtol=0)
    assert load_images(tmp_path / "second").pixels.max() == 255


def test_images_of_other_depth_than_most_are_listed(tmp_path):
    for index in range(3):
        tifffile.imwrite(tmp_path / f"{index}.tif", np.arange(900, dtype=np.uint16).reshape(30, 30))
    Image.new("L", (30, 30), 3).save(tmp_path / "byte.png")
    with pytest.warns(UserWarning, match="1 of 4 cannot be used, such as byte.png"):
        images = load_images(tmp_path)
    assert (
        images.unreadable == [("byte.png", "expected more than 8 bits a value as in the others")] and len(images) == 3
    )


@pytest.mark.parametrize("shape", [(5, 30, 30), (5, 30, 30, 3), (5, 3, 30, 30), (5, 2, 30, 30)])
def test_npy_of_bytes_stays_where_it_is(tmp_path, cache, shape):
    rows = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / "rows.npy", rows)
    images = load_images(tmp_path / "rows.npy")
    expected = rows[:, None] if rows.ndim == 3 else rows.transpose(0, 3, 1, 2) if shape[3] == 3 else rows
    assert np.array_equal(images.pixels, expected) and list(images.names) == [0, 1, 2, 3, 4]
    assert torch.equal(images[2], torch.from_numpy(expected[2]) / 255) and not cache.exists()


def test_npy_of_floats(tmp_path):
    rows = np.random.default_rng(0).normal(size=(6, 32, 40))
    rows[2, 3, 3] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    with pytest.warns(UserWarning, match="1 of 6 cannot be used, such as 2: expected finite values"):
        images = load_images(tmp_path / "rows.npy", size=28)
    assert images.shape == (5, 1, 28, 28) and images.names == [0, 1, 3, 4, 5] and images.labels is None


def test_npz_finds_images_and_labels(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), dtype=np.uint8)
    np.savez_compressed(tmp_path / "a.npz", images=rows, labels=[3, 3, 10, 3], source=np.zeros((4, 3)))
    images = load_images(tmp_path / "a.npz")
    assert np.array_equal(images.pixels, rows.transpose(0, 3, 1, 2))
    assert images.classes == ["3", "10"] and images.labels.tolist() == [0, 0, 1, 0]
    np.savez(tmp_path / "b.npz", train_images=rows, train_labels=np.array([[7], [8], [8], [8]]), val_images=rows[:3])
    with pytest.raises(ValueError, match=r"expected one array of images, or its name as array; got None of train_im"):
        load_images(tmp_path / "b.npz")
    assert load_images(tmp_path / "b.npz", array="train_images").labels.tolist() == [0, 1, 1, 1]
    assert load_images(tmp_path / "b.npz", array="val_images").labels is None


@pytest.mark.parametrize("name, shape", [("labels", (3,)), ("label", (4, 10)), ("y", (4, 10)), ("labels", ())])
def test_labels_that_do_not_fit_are_said(tmp_path, name, shape):
    rows = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=rows, **{name: np.zeros(shape, int)})
    found = rf"{name} \[{', '.join(map(str, shape))}\] for images \[4, 28, 28\]"
    with pytest.raises(ValueError, match=f"^{tmp_path / 'a.npz'}: expected one label an image, got {found}"):
        load_images(tmp_path / "a.npz")


def test_labels_of_other_images_and_masks_are_let_be(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=rows, val_images=rows[:3], labels=[1, 2, 3, 4])
    assert load_images(tmp_path / "a.npz", array="val_images").labels is None
    np.savez(tmp_path / "b.npz", images=rows, labels=rows > 99, y=[1, 2, 3, 4])
    assert load_images(tmp_path / "b.npz").classes == ["1", "2", "3", "4"]
    np.savez(tmp_path / "c.npz", train_images=rows, train_labels=[1, 2, 3, 4], labels=["a", "b"])  # names of classes
    assert load_images(tmp_path / "c.npz").classes == ["1", "2", "3", "4"]


def test_bad_input_is_said(tmp_path, cache):
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"expected at least two images, found none \(it is empty\)"):
        load_images(tmp_path / "none")
    with pytest.raises(ValueError, match="no such path"):
        load_images(tmp_path / "nowhere")
    (tmp_path / "none" / "a.txt").touch()
    with pytest.raises(ValueError, match=r"found none \(1 × expected a name that ends in .png"):
        load_images(tmp_path / "none")
    with pytest.raises(ValueError, match="expected a folder of images"):
        load_images(tmp_path / "none" / "a.txt")
    Image.new("L", (30, 30)).save(tmp_path / "none" / "a.png")
    with pytest.raises(ValueError, match="expected at least two images, found 1 of 2"):
        load_images(tmp_path / "none")
    (tmp_path / "none" / "a.txt").unlink()
    with pytest.raises(ValueError, match="expected at least two images, found one$"):
        load_images(tmp_path / "none")
    with pytest.raises(ValueError, match=f"expected array for an .npz file only, got 'zz' for {tmp_path / 'none'}"):
        load_images(tmp_path / "none", array="zz")
    for name, rows, message in (
        ("objects", np.array([{}, {}]), "Python objects in dtype"),
        ("flat", np.zeros((5, 784)), r"expected images \[N, H, W\].* got \[5, 784\]"),
        ("complex", np.zeros((3, 30, 30), complex), "expected numbers, got complex128"),
        ("nan", np.full((3, 30, 30), np.nan), "3 × expected finite values"),
        ("constant", np.ones((3, 30, 30)), "expected images that are not constant, got 1 in all of them"),
    ):
        np.save(tmp_path / f"{name}.npy", rows)
        with pytest.raises(ValueError, match=message):
            load_images(tmp_path / f"{name}.npy")
    for arguments, message in (
        (dict(size=0), "expected size to be a whole number of at least 1, got 0"),
        (dict(size=True), "expected size to be a whole number of at least 1, got True"),
        (dict(channels=1.5), "expected channels to be a whole number"),
        (dict(square="squash"), "expected square to be 'pad' or 'crop', got 'squash'"),
        (dict(scale=(3, 1)), r"expected scale to be two finite, rising numbers, got \(3, 1\)"),
        *((dict(scale=odd), "expected scale to be two") for odd in (5, "09", (0, 1, 2), (0, np.inf), (0, (1, 2)))),
        (dict(array="zz"), "expected array for an .npz file only, got 'zz'"),
        (dict(channels=2), "expected 2 channels, got 3"),
    ):
        np.save(tmp_path / "good.npy", np.zeros((3, 30, 30, 3), np.uint8))
        with pytest.raises(ValueError, match=message):
            load_images(tmp_path / "good.npy", **arguments)
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_numbers_of_numpy_are_numbers(tmp_path):
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).uniform(0, 4000, (3, 30, 30)))
    usual = load_images(tmp_path / "rows.npy", size=28, scale=(0, 4000))
    for scale in ((np.float32(0), np.float32(4000)), np.array([0.0, 4000.0]), [np.int16(0), 4000]):
        images = load_images(tmp_path / "rows.npy", size=np.int64(28), channels=np.int8(1), scale=scale)
        assert np.array_equal(images.pixels, usual.pixels) and images.scale == (0.0, 4000.0)


def test_files_that_are_no_arrays_are_named(tmp_path, cache, monkeypatch):
    rows = np.zeros((3, 30, 30), np.uint8)
    (tmp_path / "empty.npy").touch()
    (tmp_path / "text.npy").write_text("mine")
    (tmp_path / "text.npz").write_text("mine")
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as file:
        file.writestr("notes.txt", "mine")
    np.savez(tmp_path / "objects.npz", images=np.empty((3, 30, 30), object))
    np.savez(tmp_path / "names.npz", images=rows, labels=np.array(["a", "b", None]))
    np.savez(tmp_path / "good.npz", images=rows, labels=[1, 2, 3])
    broken = bytearray((tmp_path / "good.npz").read_bytes())
    broken[1000] ^= 255
    (tmp_path / "broken.npz").write_bytes(broken)
    readable = "expected a readable file of arrays without Python objects, got: "
    one = "expected one array of images, or"
    for name, array, message in (
        ("empty.npy", None, f"{readable}EOF"),
        ("text.npy", None, f"{readable}EOF: reading magic string"),
        ("text.npz", None, f"{readable}File is not a zip file"),
        ("other.npz", None, f"{one} its name as array; got None of no arrays"),
        ("objects.npz", None, rf"{one} .* got None of images \[3, 30, 30\] object"),
        ("names.npz", None, f"{readable}Object arrays cannot be loaded"),
        ("broken.npz", None, f"{readable}Bad CRC-32 for file 'images.npy'"),
        ("good.npz", "labels", rf"{one} .* got 'labels' of images \[3, 30, 30\] uint8, labels \[3\] int64"),
    ):
        with pytest.raises(ValueError, match=f"^{tmp_path / name}: {message}"):
            load_images(tmp_path / name, array=array)

    def fail(code: int, path: object = None) -> None:
        raise OSError(code, os.strerror(code), path and str(path))

    with monkeypatch.context() as patch:
        patch.setattr("gvae_core.images.zipfile.ZipFile", lambda path: fail(errno.EACCES, path))
        with pytest.raises(ValueError, match=f"^{tmp_path / 'good.npz'}: {readable}.*Permission denied"):
            load_images(tmp_path / "good.npz")
    monkeypatch.setattr("gvae_core.images.shutil.copyfileobj", lambda *_: fail(errno.ENOSPC))
    with pytest.raises(OSError, match=f"expected to write into {cache}"):  # which is no fault of the file
        load_images(tmp_path / "good.npz")


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_large_images_do_not_wait_in_memory(tmp_path, monkeypatch, kind):
    """64 images of 0.3 megapixels, of which two are read at a time."""
    for index in range(64):
        (tmp_path / f"{index}.png").touch()
    image = np.arange(500 * 600, dtype=kind).reshape(500, 600)
    monkeypatch.setattr("gvae_core.images.read_file", lambda file: image.copy())
    monkeypatch.setattr("gvae_core.images.os.cpu_count", lambda: 2)
    tracemalloc.start()
    try:
        assert load_images(tmp_path).shape == (64, 1, 128, 128)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 * image.nbytes


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """Peak memory of anonymous pages while 1,000 and 12,000 rows of floats are loaded, each in a process of its own."""
    peaks = []
    code = (
        "import sys, resource; from gvae_core import load_images; "
        "images = load_images(sys.argv[1], size=28); "
        "print(max(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('RssAnon')))"
    )
    for count in (1_000, 12_000):
        rows = np.lib.format.open_memmap(tmp_path / f"{count}.npy", "w+", np.float32, (count, 64, 64))
        rows[::2] = 1
        rows.flush()
        command = [sys.executable, "-c", code, str(tmp_path / f"{count}.npy")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
        peaks.append(int(done.stdout))
    assert peaks[1] < peaks[0] + 20_000  # kB; the rows are 197 MB


def test_as_floats():
    assert torch.equal(as_floats(torch.tensor([0, 255], dtype=torch.uint8)), torch.tensor([0.0, 1.0]))
    already = torch.rand(3)
    assert as_floats(already) is already
