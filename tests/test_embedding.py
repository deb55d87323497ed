"""Codes, angles and canonical views of images that were never upright, from Python and from the command line."""

import copy
import csv
import os
import signal
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from forked import finish, start
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from gvae_core import RotationAgnosticEmbedding, embedding, load_images, rotate, save_model, sgvae, training
from gvae_core.__main__ import main
from gvae_core.checkpoints import load_tensors, save_tensors
from gvae_core.files import cache_folder
from gvae_core.models import encoder_layout
from gvae_core.rotation import mirrored, random_angles

NETWORK = dict(fields=(2, 2, 4), frequency=2, invariants=8, decoder_channels=(4, 4, 4))
TINY = dict(latent_dim=3, epochs=4, batch_size=16, device="cpu", progress=False, network=NETWORK)


COMPILED = cache_folder() / "steerable"  # is shared: compiling takes longer than all else here


def empty_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    COMPILED.mkdir(parents=True, exist_ok=True)
    (folder / "steerable").symlink_to(COMPILED)
    monkeypatch.setenv("GVAE_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    return empty_cache(tmp_path_factory, monkeypatch)


def crosses_and_bars(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Bright L and T shapes on a grey that is not black, each at an angle of its own: bytes [N, 1, 28, 28], labels."""
    pictures = torch.full((2, 1, 28, 28), 0.0)
    pictures[0, 0, 7:21, 9:12] = pictures[0, 0, 18:21, 9:19] = 0.6
    pictures[1, 0, 7:21, 12:15] = pictures[1, 0, 7:10, 7:20] = 0.6
    labels = torch.arange(count) % 2
    turned = rotate(pictures[labels], random_angles(count, 1)) + 0.3 + 0.02 * torch.rand(count, 1, 28, 28)
    return (255 * turned).round().to(torch.uint8), labels


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return crosses_and_bars(40)[0]


@pytest.fixture(scope="module")
def fitted(images, tmp_path_factory) -> RotationAgnosticEmbedding:
    with pytest.MonkeyPatch.context() as patch:
        empty_cache(tmp_path_factory, patch)
        return RotationAgnosticEmbedding(**TINY).fit(images)


def test_what_it_gives(fitted, images):
    codes = fitted.transform(images)
    assert codes.shape == (40, 3) and np.allclose(np.linalg.norm(codes, axis=1), 1, atol=1e-5)
    angles, spread = fitted.poses(images)
    assert angles.shape == spread.shape == (40,) and (np.abs(angles) <= 180).all() and (spread > 0).all()
    for pictures in (fitted.canonical(images), fitted.reconstruct(images)):
        assert pictures.shape == (40, 1, 28, 28) and 0 <= pictures.min() and pictures.max() <= 1
    assert np.array_equal(codes, fitted.transform(images.float() / 255))
    assert np.array_equal(codes, fitted.transform(images[:, 0].numpy()))
    assert np.isfinite([epoch["train_loss"] for epoch in fitted.history_]).all()


def test_a_quarter_turn_moves_the_angle_and_not_the_code(fitted, images):
    turned = torch.rot90(images, 1, (2, 3))
    assert np.allclose(fitted.transform(turned), fitted.transform(images), atol=1e-3)
    moved = fitted.poses(turned)[0] - fitted.poses(images)[0]
    assert np.allclose(np.exp(1j * np.deg2rad(moved)), 1j, atol=1e-2)
    assert torch.allclose(fitted.canonical(turned), fitted.canonical(images), atol=0.05)


def test_more_frames_are_the_same_model_read_better(fitted, images, tmp_path):
    assert fitted.set_params(frames=3).key(images) == clone(fitted).set_params(frames=1).key(images)
    try:
        codes, angles = fitted.transform(images), fitted.poses(images)[0]
        fitted.save(tmp_path / "model.safetensors")
    finally:
        fitted.set_params(frames=1)
    assert np.array_equal(
        RotationAgnosticEmbedding.load(tmp_path / "model.safetensors", "cpu").transform(images), codes
    )
    assert not np.allclose(fitted.transform(images), codes, atol=1e-4)
    model = sgvae(3, pose=True, images=fitted.model_.images, **embedding.NETWORK | NETWORK | {"frames": 3}).eval()
    model.load_state_dict(fitted.model_.state_dict())
    with torch.no_grad():
        assert np.allclose(model.poses(images / 255)[0], angles, atol=1e-3)


@pytest.mark.slow
def test_with_reflections_codes_do_not_see_mirror_images(images, tmp_path):
    reflecting = RotationAgnosticEmbedding(**{**TINY, "epochs": 1}, reflections=True).fit(images)
    moved = torch.rot90(images.flip(3), 1, (2, 3))
    codes, hands = reflecting.transform(images), reflecting.handedness(images)
    assert np.abs(reflecting.transform(moved) - codes).max() < 1e-3
    assert np.array_equal(reflecting.handedness(moved), -hands) and set(np.abs(hands)) == {1}
    assert [numbers.shape for numbers in reflecting.poses(images)] == [(40,), (40,)]
    assert torch.allclose(reflecting.canonical(moved), reflecting.canonical(images), atol=0.05)
    reflecting.save(tmp_path / "model.safetensors")
    loaded = RotationAgnosticEmbedding.load(tmp_path / "model.safetensors", "cpu")
    assert np.array_equal(loaded.handedness(images), hands) and loaded.reflections


def test_without_reflections_names_and_files_are_as_before(fitted, images, tmp_path):
    fitted.save(tmp_path / "model.safetensors")
    assert "reflections" not in load_tensors(tmp_path / "model.safetensors")[1]["embedding"]["parameters"]
    assert fitted.key(images) != RotationAgnosticEmbedding(**TINY, reflections=True).key(images)
    with pytest.raises(ValueError, match=r"expected a model with the group O\(2\)"):
        fitted.handedness(images)


@pytest.mark.slow
def test_a_seed_gives_the_same_codes_and_another_seed_others(fitted, images):
    parts = {**TINY, "epochs": 1}
    first, again, other = (RotationAgnosticEmbedding(**parts, seed=seed).fit(images) for seed in (0, 0, 1))
    assert np.array_equal(first.transform(images), again.transform(images))
    assert not np.allclose(first.transform(images), other.transform(images), atol=0.01)


@pytest.mark.slow
def test_in_scikit_learn(images):
    _, labels = crosses_and_bars(40)
    short = RotationAgnosticEmbedding(**{**TINY, "epochs": 1})
    copy = clone(short)
    assert copy.get_params() == short.get_params() and not hasattr(copy, "model_")
    clusters = make_pipeline(copy, KMeans(2, n_init=1, random_state=0)).fit_predict(images)
    assert set(clusters) == {0, 1}
    scores = cross_val_score(make_pipeline(copy, KNeighborsClassifier(3)), images, labels, cv=2)
    assert scores.shape == (2,) and np.isfinite(scores).all()
    assert copy.set_params(latent_dim=4).fit_transform(images).shape == (40, 4)


@pytest.mark.slow
def test_an_image_set_is_read_where_it_lies(fitted, images, tmp_path):
    np.save(tmp_path / "images.npy", images.numpy())
    own = load_images(tmp_path / "images.npy")
    assert np.array_equal(RotationAgnosticEmbedding(**TINY).fit(own).transform(own), fitted.transform(images))
    with_labels = cross_val_score(
        make_pipeline(RotationAgnosticEmbedding(**{**TINY, "epochs": 1}), KNeighborsClassifier(1)),
        own, crosses_and_bars(40)[1], cv=2,
    )  # fmt: skip
    assert np.isfinite(with_labels).all()


def test_saved_and_loaded(fitted, images, tmp_path):
    fitted.save(tmp_path / "model.safetensors")
    loaded = RotationAgnosticEmbedding.load(tmp_path / "model.safetensors", "cpu")
    assert np.array_equal(loaded.transform(images), fitted.transform(images))
    assert loaded.get_params() | {"network": None} == fitted.get_params() | {"network": None}
    assert loaded.scale_ is None and loaded.history_ == fitted.history_
    loaded.save(tmp_path / "again.safetensors")


def test_a_file_of_another_version_or_model_is_refused(fitted, tmp_path):
    fitted.save(tmp_path / "model.safetensors")
    tensors, about = load_tensors(tmp_path / "model.safetensors")
    save_tensors(tmp_path / "old.safetensors", tensors, about | {"format": 0})
    with pytest.raises(ValueError, match="expected a model in format 1, found format 0"):
        RotationAgnosticEmbedding.load(tmp_path / "old.safetensors")
    save_model(sgvae(3, **NETWORK), tmp_path / "digits.safetensors")
    with pytest.raises(ValueError, match="expected a file by RotationAgnosticEmbedding.save, found another model's"):
        RotationAgnosticEmbedding.load(tmp_path / "digits.safetensors")
    with pytest.raises(FileNotFoundError):
        RotationAgnosticEmbedding.load(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda images: images[:1], "expected at least 16 images to learn from, got 1"),
        (
            lambda images: images[:, :, :, :20],
            r"expected images \[N, C, H, H\] or \[N, H, H\], square, got \[40, 1, 28",
        ),
        (lambda images: images.long(), "expected images of bytes, or of floats in .0, 1., got torch.int64"),
        (lambda images: images.float(), r"expected images of finite values in \[0, 1\], got values from"),
        (lambda images: images / 255 * torch.nan, "got values from nan to nan"),
        (lambda images: torch.zeros_like(images), "expected images that are not all the same"),
        (lambda images: images[:, :, :20, :20], "expected size to be a whole number of at least 28, got 20"),
    ],
)
def test_bad_images_are_refused(images, cache, change, message):
    with pytest.raises(ValueError, match=message):
        RotationAgnosticEmbedding(**TINY).fit(change(images))
    assert not list(cache.rglob("*.safetensors"))


def test_what_does_not_fit_the_model_is_refused(fitted, images, tmp_path):
    with pytest.raises(ValueError, match=r"expected images \[N, 1, 28, 28\], got \[40, 3, 28, 28\]"):
        fitted.transform(images.repeat(1, 3, 1, 1))
    np.save(tmp_path / "wide.npy", images.numpy().astype(np.uint16) * 100)
    with pytest.raises(ValueError, match="expected 8-bit images, as those it learned from, got the scale"):
        fitted.transform(load_images(tmp_path / "wide.npy"))
    with pytest.raises(ValueError, match="expected minutes to be a number above 0, got -1"):
        RotationAgnosticEmbedding(minutes=-1).fit(images)


@pytest.mark.slow
def test_a_limit_of_time_is_kept(images, fitted):  # whose layers are compiled by now
    start = time.perf_counter()
    limited = RotationAgnosticEmbedding(**{**TINY, "epochs": 1e6}, minutes=3 / 60).fit(images)
    assert time.perf_counter() - start < 20  # 3 seconds, and what a busy machine makes of building the model
    assert limited.history_[-1]["learning_rate"] < 0.005 / 5  # it came to its end, far from a million epochs
    assert np.isfinite(limited.transform(images)).all()


@pytest.mark.slow
def test_an_interrupted_fit_goes_on_and_ends_with_the_same_codes(images, fitted, cache, monkeypatch):
    whole, losses, calls = embedding.fit, embedding.pose_losses, []

    def interrupted(*arguments, **more):
        whole(*arguments, stop_after=3, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(embedding, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        RotationAgnosticEmbedding(**TINY).fit(images)
    (state,) = (cache / "fits").glob("*.safetensors")
    monkeypatch.setattr(embedding, "fit", whole)
    monkeypatch.setattr(embedding, "pose_losses", lambda *a, **more: (calls.append(1), losses(*a, **more))[1])
    resumed = RotationAgnosticEmbedding(**TINY).fit(images)
    assert np.array_equal(resumed.transform(images), fitted.transform(images)) and not state.exists()
    assert len(calls) == 2 * (len(fitted.history_) - 3)  # a step and a validation for each round that was left


def test_more_images_than_are_compared_with_each_other(monkeypatch):
    """The others get the orientation that those have which look like them."""
    monkeypatch.setattr(embedding, "_SYNCHRONISED", 60)
    monkeypatch.setattr(embedding, "_KNOWN", 40)
    pixels, labels = crosses_and_bars(150)
    form = embedding.ImageFormat.measured(pixels / 255)
    (found,) = embedding._orientations(pixels, torch.arange(150), form)
    apart = torch.deg2rad(found - random_angles(150, 1))
    for label in (0, 1):
        offsets = torch.polar(torch.ones(150), apart)[labels == label]
        assert offsets.mean().abs() > 0.95
        assert (offsets[30:].mean() / offsets[:30].mean()).angle().abs() < 0.2  # radians
    sides = torch.where(torch.arange(150) % 4 < 2, -1.0, 1.0)
    turned, hands = embedding._orientations(mirrored(pixels, sides), torch.arange(150), form, handed=True)
    same = (hands * sides)[::2].mean()  # of the L; the T is its own mirror image
    apart = torch.deg2rad(turned - same * random_angles(150, 1))[::2]
    assert same.abs() == 1 and torch.polar(torch.ones(75), apart).mean().abs() > 0.95


# --- commands -----------------------------------------------------------------------------------------


@pytest.fixture
def tiny_default(monkeypatch):
    monkeypatch.setattr(embedding, "NETWORK", embedding.NETWORK | NETWORK)


@pytest.fixture
def folder(images, tmp_path):
    from PIL import Image

    for index, image in enumerate(images[:, 0].numpy()):
        place = tmp_path / "own" / "LT"[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{index:02}.png")
    return tmp_path / "own"


def test_threads_and_a_model_in_train_mode_read_the_same_codes(fitted, images):
    framed = copy.deepcopy(fitted).set_params(frames=3)
    expected, counts = framed.transform(images), 8 * [40, 7, 30, 12]
    framed.model_.train()
    before = copy.deepcopy(framed.model_.state_dict())
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda count: framed.transform(images[:count]), counts))
    assert all(np.abs(codes - expected[: len(codes)]).max() < 1e-4 for codes in found)
    assert [len(codes) for codes in found] == counts and framed.model_.training
    assert all(torch.equal(value, before[name]) for name, value in framed.model_.state_dict().items())


@pytest.mark.slow
def test_a_model_of_another_scale_is_not_this_model(images, tmp_path, tiny_default, capsys):
    wide = images[:, 0].numpy().astype(np.uint16)
    for factor in (16, 64):  # the same bytes, once scaled
        np.save(tmp_path / f"{factor}.npy", wide * factor)
        command = ["fit", str(tmp_path / f"{factor}.npy"), "--out", str(tmp_path / "m.safetensors"), "--epochs", "1"]
        assert main([*command, "--latent-dim", "3", "--device", "cpu"]) == 0
        assert "is this model already" not in capsys.readouterr().out
        scale = RotationAgnosticEmbedding.load(tmp_path / "m.safetensors").scale_
        assert scale == load_images(tmp_path / f"{factor}.npy").scale


@pytest.mark.slow
def test_fit_and_embed(folder, tmp_path, tiny_default, capsys):
    (folder / "broken.jpg").write_bytes(b"no image")
    model, table = tmp_path / "models" / "own.safetensors", tmp_path / "codes.csv"
    command = ["fit", str(folder), "--out", str(model), "--latent-dim", "3", "--epochs", "1", "--device", "cpu"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "not used: broken.jpg: cannot identify" in said and "40 images of 28 pixels, channels: 1" in said
    assert main(command) == 0
    assert f"{model} is this model already" in capsys.readouterr().out
    Image = pytest.importorskip("PIL.Image")
    Image.new("RGB", (50, 40), (90, 90, 90)).save(folder / "L" / "large.png")  # of another size, and colour
    assert main(["embed", str(folder), "--model", str(model), "--out", str(table)]) == 0
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert list(rows[0]) == ["name", "label", "angle", "spread", "z1", "z2", "z3"] and len(rows) == 41
    assert [row["label"] for row in rows] == ["L"] * 21 + ["T"] * 20 and rows[20]["name"] == "L/large.png"
    fitted = RotationAgnosticEmbedding.load(model, "cpu")
    with warnings.catch_warnings(action="ignore"):
        own = load_images(folder, size=28, channels=1)
    codes = np.array([[float(row[f"z{axis}"]) for axis in (1, 2, 3)] for row in rows])
    assert np.allclose(codes, fitted.transform(own), atol=1e-5)
    assert np.allclose([float(row["angle"]) for row in rows], fitted.poses(own)[0], atol=1e-3, rtol=1e-5)
    assert [path for path in tmp_path.rglob(".*")] == []


@pytest.mark.slow
def test_fit_and_embed_with_reflections(folder, tmp_path, tiny_default, monkeypatch):
    monkeypatch.setattr(embedding, "REFLECTING", {"group": "O(2)"})
    model, table = tmp_path / "own.safetensors", tmp_path / "codes.csv"
    command = ["fit", str(folder), "--out", str(model), "--latent-dim", "3", "--epochs", "1", "--device", "cpu"]
    assert main([*command, "--reflections"]) == 0
    assert main(["embed", str(folder), "--model", str(model), "--out", str(table), "--frames", "2"]) == 0
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert list(rows[0]) == ["name", "label", "angle", "spread", "handedness", "z1", "z2", "z3"] and len(rows) == 40
    fitted = RotationAgnosticEmbedding.load(model, "cpu").set_params(frames=2)
    assert np.array_equal([float(row["handedness"]) for row in rows], fitted.handedness(load_images(folder)))
    fitted.save(model)
    assert main(["embed", str(folder), "--model", str(model), "--out", str(tmp_path / "again.csv")]) == 0
    assert (tmp_path / "again.csv").read_text() == table.read_text()  # with the frames that the model was saved with


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["fit", "nowhere", "--out", "m.safetensors"], "no such path"),
        (["fit", "OWN", "--out", "m.safetensors", "--minutes", "0"], "expected a number above 0, got '0'"),
        (
            ["fit", "OWN", "--out", "m.safetensors", "--size", "300"],
            "expected images of 28 to 128 pixels, got size 300",
        ),
        (["fit", "OWN", "--out", "OWN/L/00.png/m.safetensors"], "expected to write into"),
        (["embed", "OWN", "--model", "OWN/L/00.png", "--out", "c.csv"], "00.png"),
        (["embed", "OWN", "--model", "nowhere.safetensors", "--out", "c.csv"], "no checkpoint at"),
        (["fit", "OWN", "--out", "OWN"], "expected a file to write to, got the folder"),
        (["fit", "nowhere", "--out", "OWN/L/00.png"], "no such path"),
        (["embed", "OWN", "--model", "OWN/L/00.png", "--out", "OWN"], "expected a file to write to, got the folder"),
        (["embed", "OWN", "--model", "OWN/L/00.png", "--out", "OWN/L/00.png"], "got OWN/L/00.png for both"),
    ],
)
def test_commands_say_what_is_wrong(folder, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([word.replace("OWN", str(folder)) for word in arguments])
    assert ended.value.code == 2 and message.replace("OWN", str(folder)) in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.safetensors")) and not list(tmp_path.rglob("*.csv"))
    assert len(list(folder.rglob("*.png"))) == 40


@pytest.mark.slow
def test_embed_on_a_cluster_gives_the_same_table(folder, fitted, tmp_path, capsys):
    from distributed import LocalCluster

    fitted.save(tmp_path / "model.safetensors")
    command = ["embed", str(folder), "--model", str(tmp_path / "model.safetensors"), "--device", "cpu", "--out"]
    assert main([*command, str(tmp_path / "here.csv")]) == 0
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        assert main([*command, str(tmp_path / "there.csv"), "--scheduler", cluster.scheduler_address]) == 0
    assert (tmp_path / "here.csv").read_text() == (tmp_path / "there.csv").read_text()


def test_threads_of_a_worker_share_a_model_and_compute_one_after_the_other(monkeypatch):
    running, seen = [], []

    class Model:
        def set_params(self, frames):
            return self

        def numbers(self, pixels):
            running.append(self)
            time.sleep(0.02)
            seen.append(len(running))
            running.pop()
            return []

    monkeypatch.setattr(embedding, "_of_bytes", lambda model: Model())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: embedding._on_worker(b"", np.zeros(1), 3), range(8)))
    assert seen == [1] * 8


@pytest.mark.slow
def test_a_name_that_is_no_text_is_written_as_it_is(folder, fitted, tmp_path):
    fitted.save(tmp_path / "model.safetensors")
    os.rename(folder / "L" / "00.png", os.fsencode(folder / "L") + b"/caf\xe9.png")
    words = ["embed", str(folder), "--model", str(tmp_path / "model.safetensors"), "--device", "cpu", "--out"]
    assert main([*words, str(tmp_path / "codes.csv")]) == 0
    assert b"\nL/caf\xe9.png,L," in (tmp_path / "codes.csv").read_bytes().replace(b"\r", b"")


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"batch_size": 1}, "batch_size to be a whole number of at least 2, got 1"),
        ({"batch_size": 3.0}, "batch_size to be a whole number of at least 2, got 3.0"),
        ({"latent_dim": 1}, "latent_dim to be a whole number of at least 2, got 1"),
        ({"seed": 1.5}, "seed to be a whole number of at least 0, got 1.5"),
        ({"seed": 2**70}, "seed to be a whole number below"),
        ({"frames": 0}, "frames to be a whole number of at least 1, got 0"),
        ({"beta": -1}, "beta to be a number of at least 0, got -1"),
        ({"learning_rate": None}, "learning_rate to be a number of at least 0, got None"),
        ({"epochs": "1"}, "epochs to be a number above 0, got '1'"),
        ({"epochs": True}, "epochs to be a number above 0, got True"),
        ({"minutes": 0}, "minutes to be a number above 0, got 0"),
        ({"network": {"feilds": (2, 2, 4)}}, r"network to have names among \['decoder_channels', .*, got \['feilds'\]"),
        ({"network": {"frames": 3, "pose": True}}, r"network to have names among .*, got \['frames', 'pose'\]"),
        ({"network": ["fields"]}, "network to be a mapping of the arguments of sgvae"),
    ],
)
def test_parameters_that_make_no_sense_are_refused_before_anything_is_done(images, cache, parameters, message):
    with pytest.raises(ValueError, match=f"expected {message}"):
        RotationAgnosticEmbedding(**TINY | parameters).fit(images)
    assert not (cache / "fits").exists()


@pytest.mark.slow
def test_numbers_of_numpy_and_layouts_are_parameters_that_can_be_saved(images, tmp_path):
    network = NETWORK | {"fields": (np.int64(2), 2, 4), "layout": encoder_layout("isotropic")}
    network |= {"decoder_channels": range(4, 7)}
    numpy_ = dict(latent_dim=np.int64(3), epochs=np.float32(1), batch_size=np.int64(16), seed=np.int64(0))
    embedding = RotationAgnosticEmbedding(**TINY | numpy_ | {"network": network}).fit(images)
    embedding.save(path := tmp_path / "model.safetensors")
    again = RotationAgnosticEmbedding.load(path, "cpu")
    assert np.array_equal(again.transform(images), embedding.transform(images))


@pytest.mark.slow
def test_what_a_training_goes_on_from_is_there_until_the_model_is(images, cache, tmp_path):
    (tmp_path / "model.safetensors").mkdir()  # cannot be written, as on a full disk
    with pytest.raises(OSError):
        RotationAgnosticEmbedding(**TINY).fit(images, save_to=tmp_path / "model.safetensors")
    assert len(list((cache / "fits").glob("*.safetensors"))) == 1
    RotationAgnosticEmbedding(**TINY).fit(images, save_to=tmp_path / "own.safetensors")
    assert not list((cache / "fits").glob("*.safetensors")) and (tmp_path / "own.safetensors").is_file()


@pytest.mark.slow
def test_every_image_is_seen_as_often_as_epochs_say(images, monkeypatch):
    seen = []

    def losses(model, batch, *common, **more):
        seen.extend(image.numpy().tobytes() for image in batch if model.training)
        return training.pose_losses(model, batch, *common, **more)

    monkeypatch.setattr(embedding, "pose_losses", losses)
    RotationAgnosticEmbedding(**TINY | {"epochs": 2, "batch_size": 5}).fit(images)
    often = Counter(seen).values()
    assert len(often) == 38 and set(often) == {2, 3}  # two are held out; the last round is a whole one


@pytest.mark.slow
def test_a_model_that_another_process_has_stored_meanwhile_is_read(images, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    first = RotationAgnosticEmbedding(**TINY | {"epochs": 1}).fit(images, save_to=path)
    assert RotationAgnosticEmbedding(**TINY).stored(path, images) is None
    monkeypatch.setattr(embedding, "fit", lambda *_, **__: pytest.fail("trained again"))
    second = RotationAgnosticEmbedding(**TINY | {"epochs": 1}).fit(images, save_to=path)
    assert np.array_equal(second.transform(images), first.transform(images)) and second.history_ == first.history_


def test_arrays_that_torch_cannot_read_are_read(fitted, images):
    floats = images.numpy() / 255
    expected = fitted.transform(floats)
    locked = floats.copy()
    locked.flags.writeable = False  # of which torch would warn
    for array in (locked, floats.astype(">f8"), np.asfortranarray(floats)):
        assert np.allclose(fitted.transform(array), expected, atol=1e-5)
    mirrored_twice = np.flip(np.ascontiguousarray(np.flip(floats, 3)), 3)  # a view of negative strides
    assert np.array_equal(fitted.transform(mirrored_twice), expected)
    assert fitted.transform(floats[:0]).shape == (0, 3) and fitted.canonical(images[:0]).shape == (0, 1, 28, 28)
    assert np.allclose(fitted.transform(torch.from_numpy(floats).requires_grad_()), expected)


def test_a_channel_that_is_always_dark_is_no_obstacle(images):
    colour = torch.cat([images, images.flip(3), torch.zeros_like(images)], 1)
    form = embedding.ImageFormat.measured(colour / 255)
    assert form.std[2] == 1 and form.mean[2] == 0
    codes = RotationAgnosticEmbedding(**TINY | {"epochs": 1}).fit_transform(colour)
    assert np.isfinite(codes).all()


def test_a_file_of_a_later_version_is_refused(fitted, tmp_path):
    fitted.save(path := tmp_path / "model.safetensors")
    tensors, metadata = load_tensors(path)
    metadata["embedding"]["parameters"]["later"] = 1
    save_tensors(path, tensors, metadata)
    with pytest.raises(ValueError, match=f"{path}: expected a file of this version of gvae-core.*later"):
        RotationAgnosticEmbedding.load(path)


def fit_tiny(*words):
    embedding.NETWORK |= NETWORK
    assert main(["fit", *words]) == 0


@pytest.mark.slow
def test_a_killed_fit_goes_on_and_ends_with_the_same_codes(folder, images, tmp_path, tiny_default, cache):
    words = [str(folder), "--latent-dim", "3", "--epochs", "12", "--device", "cpu", "--out"]
    killed, whole = ([*words, str(tmp_path / f"{name}.safetensors")] for name in ("killed", "whole"))
    states = lambda: [path for path in (cache / "fits").glob("*.safetensors") if not path.name.startswith(".")]  # noqa: E731
    # in a process of its own each time: other tests may have changed the threads of this one
    process = start(fit_tiny, *killed)
    while process.is_alive() and not states():
        time.sleep(0.05)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL and not (tmp_path / "killed.safetensors").exists()
    assert len(states()) == 1
    finish(start(fit_tiny, *killed))
    assert states() == [] and not list((cache / "fits").glob(".*"))
    finish(start(fit_tiny, *whole))
    codes = [
        RotationAgnosticEmbedding.load(tmp_path / f"{name}.safetensors", "cpu").transform(images)
        for name in ("killed", "whole")
    ]
    assert np.array_equal(*codes)
