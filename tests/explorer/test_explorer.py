"""The rotation explorer without a browser: its controls, its views, its page, its memory."""

import asyncio
import base64
import dataclasses
import gc
import io
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from examples import TINY_SGVAE
from jupyter_client.manager import KernelManager
from own_images import own_images, own_model, pose_model
from PIL import Image

from gvae_core import SphericalVAE, metrics, rotate, sgvae, svae
from gvae_core.checkpoints import save_tensors
from gvae_core.explorer import RotationExplorer
from gvae_core.explorer.markup import Dial, PolarPlot, SpherePlot
from gvae_core.explorer.pad import digit_from_strokes
from gvae_core.explorer.picker import DRAWN
from gvae_core.explorer.snapshot import Snapshot, yardstick, yardstick_sample
from gvae_core.explorer.tiles import Tiles
from gvae_core.explorer.turn import ANGLES, Found, Turn
from gvae_core.explorer.worker import Worker
from gvae_core.files import write_text
from gvae_core.mnist import load_splits
from gvae_core.report import trained_models as trained
from gvae_core.report.profiles import full_size_pair, sphere_and_plane
from gvae_core.report.trained_models import trained_models
from gvae_core.runs.results import read_result


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    small = svae(4, channels=(4, 4, 4), decoder_channels=(4, 4, 4)).eval()
    return {"S-GVAE": TINY_SGVAE.build().eval(), "S-VAE": small}


@pytest.fixture(scope="module", name="pose_model")
def _pose_model():
    return pose_model()


@pytest.fixture
def explorer(models, digits):
    return RotationExplorer(models, digits.images[:60], digits.labels[:60])


def snapshots(models):
    return {name: Snapshot(model) for name, model in models.items()}


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"), dtype=float)


def rows(explorer) -> np.ndarray:
    """[rows, height, width] of the picture shown."""
    shown = pixels(explorer.image.value)
    return shown.reshape(len(explorer.turn.models) + 1, -1, shown.shape[1])


# --- the controls ---------------------------------------------------------------------------------


def test_moving_the_slider_replaces_the_picture_in_place(explorer):
    widget, before = explorer.image, rows(explorer)
    explorer.slider.value = 40
    after = rows(explorer)
    assert explorer.image is widget and after.shape == before.shape  # nothing can flicker or jump
    assert np.abs(after - before)[0].mean() > 5
    explorer.slider.value = 0
    assert np.array_equal(rows(explorer), before)


def test_first_row_shows_the_turned_digits(explorer, digits):
    explorer.digits.select(["3"])
    explorer.slider.value = 90
    three = digits.images[:60][digits.labels[:60] == 3][0, 0]
    gap = explorer.turn.tiles.row_gap
    shown = rows(explorer)[0][gap // 2 : gap // 2 + 28]
    assert np.abs(shown - 255 * torch.rot90(three).numpy()).max() <= 2


def test_numbers_are_those_of_the_digits_shown(explorer, models):
    explorer.slider.value = 50
    view, images = explorer.turn.view(50), explorer.turn.images
    turned = rotate(images, 50)
    for name, model in models.items():
        measured = view.measures[name]
        posterior = model.encode(turned)
        assert measured.drift == pytest.approx(metrics.latent_drift(model, images, [50])[0], abs=1e-3)
        assert measured.concentration == pytest.approx(posterior.concentration.mean().item(), rel=1e-5)
        difference = metrics.reconstruct(model, turned) - images
        assert measured.error == pytest.approx(difference.square().mean().item(), rel=1e-5)
        assert f"code moved <b>{measured.drift:.1f}°</b>" in explorer.numbers.value
    assert "turned by <b>50°</b>" in explorer.numbers.value


def test_the_steerable_models_code_stays_at_quarter_turns(explorer):
    explorer.slider.value = -90
    view = explorer.turn.view(-90)
    assert view.measures["S-GVAE"].drift < 0.05 < 5 < view.measures["S-VAE"].drift


def test_play_and_number_box_are_linked_to_the_slider_in_the_browser(explorer):
    links = {(link.source[0], link.target[0]) for link in explorer._links}
    assert links == {(explorer.play, explorer.slider), (explorer.number, explorer.slider)}
    limits = [(control.min, control.max) for control in (explorer.play, explorer.slider, explorer.number)]
    assert limits == [(-180, 180)] * 3 and explorer.slider.continuous_update


def test_digits_are_picked_by_class_several_at_once(explorer, digits):
    assert list(explorer.turn.digits) == [str(digit) for digit in range(10)]
    for name in "012345689":
        explorer.digits.buttons[name].value = False
    assert list(explorer.turn.digits) == ["7"] and rows(explorer).shape[2] == 28
    before = explorer.turn.images.clone()
    explorer.digits.another.click()
    assert not torch.equal(explorer.turn.images, before)
    sevens = digits.images[:60][digits.labels[:60] == 7]
    assert torch.equal(explorer.turn.images[0], sevens[1])
    for _ in range(len(sevens) - 1):
        explorer.digits.another.click()
    assert torch.equal(explorer.turn.images, before)  # around, to the first one


def test_thumbnails_show_the_digits_and_follow_them(explorer):
    before = explorer.digits._style.value
    assert before.count("data:image/png;base64,") == 10
    thumbnail = base64.b64decode(re.search(r"base64,([^\"]*)", before)[1])
    assert np.abs(pixels(thumbnail) - 255 * explorer.turn.images[0, 0].numpy()).max() <= 2
    explorer.digits.another.click()
    assert explorer.digits._style.value != before


def test_without_labels_images_are_picked_one_by_one_from_pages(models, digits):
    explorer = RotationExplorer(models, digits.images[:53])
    picker = explorer.digits
    assert list(explorer.turn.digits) == [f"#{number}" for number in range(1, 11)]
    assert torch.equal(explorer.turn.images, digits.images[:10])
    assert picker.pages == 3 and picker.another not in picker.children and picker.previous.disabled
    first_page = picker._style.value
    picker.next.click()
    assert picker.page.value == 2 and picker._style.value != first_page and list(picker.buttons)[:2] == ["#21", "#22"]
    picker.buttons["#22"].value = True  # the picks of the first page stay
    assert torch.equal(explorer.turn.images[10], digits.images[21]) and len(explorer.turn.digits) == 11
    picker.page.value = 3
    assert [b.layout.visibility for b in picker._slots].count("hidden") == 7 and picker.next.disabled
    picker.page.value = 2
    assert [name for name, button in picker.buttons.items() if button.value] == ["#22"]
    picker.select(["#53", "#7"])
    assert torch.equal(explorer.turn.images, digits.images[[6, 52]]) and not picker.buttons["#22"].value
    with pytest.raises(ValueError, match=r"among #1, #2, #3, …, #53; got '#54'"):
        picker.select(["#54"])


class Disk:
    """Stands for a set of images on disk; counts those that are read."""

    def __init__(self, images, labels=None, classes=(), names=None):
        self.images, self.labels, self.classes, self.names, self.read = images, labels, classes, names, []

    def __len__(self):
        return 100_000

    def __getitem__(self, indices):
        self.read += indices
        return self.images[[index % len(self.images) for index in indices]]


def test_of_a_hundred_thousand_images_few_are_read(models, digits):
    disk = Disk(digits.images, names=[f"night/{number}.png" for number in range(100_000)])
    explorer = RotationExplorer(models["S-VAE"], disk)
    explorer.digits.page.value = 4_321
    explorer.slider.value = 30
    assert explorer.message.value == "" and len(disk.read) < 200
    button = explorer.digits.buttons["#86401"]
    assert button.tooltip == "show night/86400.png"
    button.value = True
    assert torch.equal(explorer.turn.images[-1], digits.images[86_400 % len(digits.images)])


def test_images_bring_their_classes_names(models, digits):
    labels = torch.tensor([2, 0] * 50_000)  # nothing of class 1
    explorer = RotationExplorer(models["S-VAE"], Disk(digits.images, labels, ["round", "empty", "long & thin"]))
    assert list(explorer.turn.digits) == ["round", "long & thin"]
    assert torch.equal(explorer.turn.images, digits.images[[1, 0]])
    explorer.digits.another.click()
    assert torch.equal(explorer.turn.images, digits.images[[3, 2]])


def test_a_broken_image_is_said_when_it_is_read(models, digits):
    images = digits.images[:400].clone()
    images[399] = float("nan")
    explorer = RotationExplorer(models["S-VAE"], images)
    explorer.digits.page.value = 20
    assert "got values from nan" in explorer.message.value
    explorer.digits.page.value = 1
    explorer.digits.select(["#5"])
    assert explorer.message.value == ""


def test_no_digit_picked_is_said(explorer):
    picture_before = explorer.image.value
    explorer.digits.select([])
    assert "at least one image" in explorer.message.value and explorer.image.value == picture_before
    explorer.digits.select(["4"])
    assert explorer.message.value == ""


def test_models_are_picked_and_loaded_only_then(models, digits):
    class Late(dict):
        loaded = []

        def __getitem__(self, name):
            self.loaded.append(name)
            return super().__getitem__(name)

    late = Late(models | {"third · d = 3": models["S-GVAE"]})
    explorer = RotationExplorer(late, digits.images[:10])
    assert set(late.loaded) == {"S-GVAE", "S-VAE"}
    explorer.picks[1].value = "third · d = 3"
    assert list(explorer.turn.models) == ["S-GVAE", "third · d = 3"]
    assert "third" in explorer.names.value and "d = 3" in explorer.names.value
    explorer.picks[1].value = "S-GVAE"  # the same in both: one row is enough
    assert rows(explorer).shape[0] == 2


def test_one_model_needs_no_dict(models, digits):
    explorer = RotationExplorer(models["S-GVAE"], digits.images[:2])
    assert rows(explorer).shape[0] == 2 and len(explorer.picks) == 1 and explorer.picks[0].disabled


def test_a_name_cannot_smuggle_html_in(models, digits):
    explorer = RotationExplorer({"<b>x</b>": models["S-VAE"]}, digits.images[:2])
    assert "<b>x</b>" not in explorer.names.value and "&lt;b&gt;x" in explorer.names.value


def test_an_error_in_a_callback_is_shown_and_goes_away(explorer, monkeypatch):
    def fail(angle):
        raise RuntimeError("broken <model>")

    with monkeypatch.context() as patched:
        patched.setattr(explorer.turn, "view", fail)
        explorer.slider.value = 10
        assert "RuntimeError" in explorer.message.value and "broken &lt;model&gt;" in explorer.message.value
    explorer.slider.value = 20
    assert explorer.message.value == ""
    with monkeypatch.context() as patched:
        patched.setattr(explorer.digits, "draw", fail)
        draw(explorer, [(10, 10), (50, 50)])
        assert "RuntimeError" in explorer.message.value


@pytest.mark.parametrize(
    "images, message", [(torch.zeros(3, 28, 28), r"\[3, 28, 28\]"), (torch.zeros(0, 1, 28, 28), r"\[0, 1, 28, 28\]")]
)
def test_bad_images_are_refused(models, images, message):
    with pytest.raises(ValueError, match=f"N > 0, got {message}"):
        RotationExplorer(models, images)


def test_other_bad_input_is_refused(models, digits):
    with pytest.raises(ValueError, match="at least one model"):
        RotationExplorer({}, digits.images[:1])
    with pytest.raises(ValueError, match=r"expected 5 labels.*got \[4\]"):
        RotationExplorer(models, digits.images[:5], digits.labels[:4])
    with pytest.raises(ValueError, match="expected 'x' to be a SphericalVAE, got Linear"):
        RotationExplorer({"x": torch.nn.Linear(2, 2)}, digits.images[:1])


@pytest.mark.slow
def test_reconstructions_stand_still_with_the_steerable_encoder_only(digits, outputs):
    trained = {kind: result.load_model() for kind, result in full_size_pair().items()}
    assert list(trained) == ["sgvae", "svae"]
    explorer = RotationExplorer(trained, digits.images, digits.labels)
    upright = rows(explorer)
    solid = upright[0] < 255
    spread = np.abs(upright - upright[:, :, :1])[:, solid].mean(1)
    assert (spread > 5).all()  # they do show something
    changes = []
    for angle in (-135, -90, -30, 20, 45, 180):
        explorer.slider.value = angle
        changes.append(np.abs(rows(explorer) - upright)[:, solid].mean(1))
    turned, steerable, plain = np.mean(changes, 0)
    assert turned > 20 and plain > 10 and steerable < plain / 2, (turned, steerable, plain)


# --- what belongs to the model and what does not --------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("way", ["data", "step", "load", "buffer"])
def test_the_picture_is_that_of_the_weights_as_they_are_now(digits, tmp_path, way):
    model, other = (svae(4, channels=(4, 4, 4), decoder_channels=(4, 4, 4)).eval() for _ in range(2))
    explorer = RotationExplorer(model, digits.images[:60], digits.labels[:60])
    explorer.slider.value = 40
    explorer.slider.value = 0
    typical = dict(explorer._yardsticks)
    if way == "data":  # leaves the tensors' versions as they are
        for p, q in zip(model.parameters(), other.parameters()):
            p.data.mul_(0.1).add_(q.data, alpha=0.9)
    elif way == "step":
        model.train()
        optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
        model.decode(model.encode(digits.images[:60]).rsample()).square().mean().backward()
        optimiser.step()
        model.eval()
    elif way == "load":
        model.load_state_dict(other.state_dict())
    else:
        model.encoder[2].running_mean.data.add_(3)
    explorer.slider.value = 40
    fresh = RotationExplorer(model, digits.images[:60], digits.labels[:60])
    fresh.slider.value = 40
    assert np.array_equal(pixels(explorer.image.value), pixels(fresh.image.value))
    assert explorer.numbers.value == fresh.numbers.value and explorer._yardsticks != typical
    drift = metrics.latent_drift(model, explorer.turn.images, [40])[0]
    assert explorer.turn.view(40).measures["reconstruction"].drift == pytest.approx(drift, abs=1e-3)
    explorer.save_html(tmp_path / "page.html")
    fresh.save_html(tmp_path / "fresh.html")
    assert (tmp_path / "page.html").read_text() == (tmp_path / "fresh.html").read_text()


def test_a_saved_page_is_that_of_the_weights_as_they_are_now(digits, tmp_path):
    model = svae(4, channels=(4, 4, 4), decoder_channels=(4, 4, 4)).eval()
    explorer = RotationExplorer(model, digits.images[:2])
    before = views_of(explorer.save_html(tmp_path / "a.html").read_text())
    model.encoder[0].weight.data.mul_(-2)
    after = views_of(explorer.save_html(tmp_path / "b.html").read_text())
    assert all(a["numbers"] != b["numbers"] for a, b in zip(before, after) if "by <b>0°" not in a["numbers"])


@pytest.mark.slow
def test_the_models_mode_and_statistics_stay_as_they_are(digits, tmp_path):
    for model in (TINY_SGVAE.build(), svae(4, channels=(4, 4, 4), decoder_channels=(4, 4, 4))):
        model.train()
        model.decoder.eval()  # a part of its own
        modes = [module.training for module in model.modules()]
        state = {name: value.clone() for name, value in model.state_dict().items()}
        explorer = RotationExplorer(model, digits.images[:60], digits.labels[:60])
        explorer.slider.value = 33
        explorer.measure_turn()
        explorer.save_html(tmp_path / "page.html")
        assert [module.training for module in model.modules()] == modes
        assert model.state_dict().keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        model.eval()
        evaluated = RotationExplorer(model, digits.images[:60], digits.labels[:60])
        evaluated.slider.value = 33
        assert np.array_equal(pixels(explorer.image.value), pixels(evaluated.image.value))  # dropout was off


def test_labels_sorted_by_class_have_a_yardstick(models):
    digits = load_splits("mnist5k").train
    order = digits.labels.argsort(stable=True)
    images, labels = digits.images[order], digits.labels[order]
    assert (labels[:100] == 0).all()
    explorer = RotationExplorer(models, images, labels)
    shuffled = RotationExplorer(models, digits.images, digits.labels)
    for name, typical in explorer._yardsticks.items():
        assert typical == pytest.approx(shuffled._yardsticks[name], rel=0.4)
        assert f"of {typical:.0f}° between images" in explorer.numbers.value
    sample = yardstick_sample(len(labels), labels)
    assert len(sample) == 100 and set(torch.bincount(labels[sample]).tolist()) == {10}
    assert torch.equal(sample, yardstick_sample(len(labels), labels))  # seeded
    rare = torch.zeros(5000, dtype=torch.long)
    rare[4321] = 1
    assert 4321 in yardstick_sample(5000, rare)


def test_yardsticks_without_two_classes(models, digits):
    model = models["S-VAE"]
    images = digits.images[digits.labels == 3][:2]
    between = metrics.angle_between(*metrics.latent_codes(model, images)).item()
    for labels in (None, torch.tensor([3, 3]), torch.tensor([3, 5])):
        explorer = RotationExplorer(model, images, labels)
        assert explorer._yardsticks["reconstruction"] == pytest.approx(between, rel=1e-4)
        assert "gvae-bar" in explorer.numbers.value and f"of {between:.0f}°" in explorer.numbers.value
    explorer = RotationExplorer(model, images[:1])
    assert np.isnan(explorer._yardsticks["reconstruction"]) and "between" not in explorer.numbers.value.split("of ")[-1]
    explorer.measure_turn()
    assert explorer.message.value == ""


def test_arrays_lists_and_words_are_converted(models, digits):
    images, labels = digits.images[:60], digits.labels[:60]
    expected = RotationExplorer(models, images, labels)
    expected.slider.value = 30
    for convert in (lambda x: x.numpy(), lambda x: x.numpy().astype(float), lambda x: x.double(), lambda x: x.tolist()):
        explorer = RotationExplorer(models, convert(images), labels.tolist())
        explorer.slider.value = 30
        assert explorer.message.value == "" and np.array_equal(rows(explorer), rows(expected))
    words = RotationExplorer(models, images, [f"class {label}" for label in labels.tolist()])
    assert list(words.turn.digits) == [f"class {label}" for label in range(10)]
    assert list(RotationExplorer(models, images, labels.numpy().astype(float)).turn.digits) == list("0123456789")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x: x * 255, r"images in \[0, 1\], got values from 0 to 255"),
        (lambda x: (x * 255).byte(), r"floats in \[0, 1\], got torch.uint8; divide by 255"),
        (lambda x: (x * 255).byte().numpy(), "got torch.uint8"),
        (lambda x: -x, r"in \[0, 1\], got values from -1 to"),
        (lambda x: x / 0, "in .0, 1., got values from nan"),
        (lambda x: x[..., :20], r"square images, got \[5, 1, 28, 20\]"),
        (lambda x: x[:, 0], r"N > 0, got \[5, 28, 28\]"),
    ],
)
def test_other_images_are_refused_by_name(models, digits, change, message):
    with pytest.raises(ValueError, match=message):
        RotationExplorer(models, change(digits.images[:5]))


def test_colour_images_are_shown_in_colour():
    class Colours(SphericalVAE):
        """Looks at one channel, and paints what it decodes red."""

        def encode(self, images):
            return super().encode(images[:, :1])

        def decode(self, z):
            grey = super().decode(z)
            return torch.cat((grey, 0 * grey, 0 * grey), 1)

    model = svae(3, channels=(4, 4, 4), decoder_channels=(4, 4, 4)).eval()
    model.__class__ = Colours
    images = torch.zeros(3, 3, 28, 28)
    images[:, 1, 4:20, 8:20] = 1  # green
    explorer = RotationExplorer(model, images)
    explorer.slider.value = 90
    shown = np.asarray(Image.open(io.BytesIO(explorer.image.value)))
    assert shown.shape[2] == 4 and explorer.message.value == ""
    top = explorer.turn.tiles.row_gap // 2
    expected = torch.rot90(images[0, 1]).numpy()
    tile = shown[top : top + 28, :28]
    assert np.array_equal(tile[..., 1] == 254, expected == 1) and tile[..., 0].max() == 0 and tile[..., 3].min() == 255
    assert shown[:, 28:32, 3].max() == 0  # the page shows between the tiles
    explorer.measure_turn()
    assert explorer.message.value == "" and "<b>" in explorer.numbers.value


# --- a pose ---------------------------------------------------------------------------------------


def pose_row(explorer, number: int) -> np.ndarray:
    """A row of the picture without its gaps, [h, width]."""
    tiles, shown = explorer.turn.tiles, np.asarray(Image.open(io.BytesIO(explorer.image.value)).convert("L"), float)
    top = number * (tiles.drawn + tiles.row_gap) + tiles.row_gap // 2
    return shown[top : top + tiles.drawn]


def test_with_a_pose_the_reconstruction_turns_along_and_the_canonical_view_stands_still(pose_model, digits):
    images, labels = digits.images, digits.labels
    explorer = RotationExplorer({"with pose": pose_model, "again": pose_model}, images, labels)
    explorer.digits.select(["2", "4", "7"])
    turn = explorer.turn
    assert turn.tiles.rows == 5 and turn._periods == {"with pose": 90, "again": 90}
    at_zero, canonical = pose_row(explorer, 1), pose_row(explorer, 2)
    with torch.no_grad():
        upright, _ = pose_model.poses(turn.images)
        for angle in (37, 127, -53, 180):  # three of them a quarter turn apart: answered once
            explorer.slider.value = angle
            turned = rotate(turn.images, angle)
            poses, arcs = pose_model.poses(turned)
            view = turn.view(angle)
            found = view.found["with pose"]
            difference = (poses - upright - found.angles + 180).remainder(360) - 180
            assert difference.abs().max() < 0.1 and torch.allclose(found.arcs, arcs, rtol=1e-3)
            assert ((found.angles - angle + 180).remainder(360) - 180).abs().max() < 5
            expected = pose_model.reconstruct(turned).clamp(0, 1)
            drawn = turn._rows["with pose"][angle % 90].turned(angle // 90).tiles[0]
            assert (drawn / 254 - expected).abs().max() < 0.01
            error = (expected - turned).square().mean().item()
            assert view.measures["with pose"].error == pytest.approx(error, rel=1e-3)
            moved = np.abs(pose_row(explorer, 1) - at_zero).mean()
            assert np.abs(pose_row(explorer, 2) - canonical).mean() < moved / 4 and moved > 10
            assert f"angle found <b>{found.mean:.1f}°</b>" in explorer.numbers.value
            assert f"±{found.arcs.mean():.0f}°" in explorer.numbers.value
    assert len(turn._rows["with pose"]) == 5  # 0, 30, 90, 120 and 37
    assert explorer.message.value == "" and explorer.dial.layout.display is None


def test_dial_shows_the_sliders_angle_the_one_found_and_the_arc(pose_model, digits):
    turn = Turn(snapshots({"m": pose_model}), {"a": digits.images[:1], "b": digits.images[1:2]})
    view = turn.view(70)
    found, marker = view.found["m"], Dial.of(turn).marker(view)

    def angle_of(x, y):
        return np.degrees(np.arctan2(-float(x), -float(y)))  # 0° is up, counter-clockwise

    hand, needle = (angle_of(*ends) for ends in re.findall(r'<line x2="([-.\d]+)" y2="([-.\d]+)"', marker))
    assert hand == pytest.approx(70, abs=0.1) and needle == pytest.approx(found.mean, abs=0.2)
    dots = [angle_of(*ends) for ends in re.findall(r'<circle cx="([-.\d]+)" cy="([-.\d]+)"', marker)]
    assert dots == pytest.approx(found.angles.tolist(), abs=0.2)
    for path, angle, half in zip(re.findall(r'd="M([^"]+)"', marker), found.angles, found.arcs):
        x, y, _, _, _, large, _, u, v = re.split("[A ]", path)
        width = (angle_of(u, v) - angle_of(x, y)) % 360
        assert width == pytest.approx(2 * half.item(), abs=0.4) and large == str(int(half > 90))
        assert (angle_of(x, y) + half.item() - angle.item() + 180) % 360 == pytest.approx(180, abs=0.4)
    assert "a: found" in marker and Dial.of(Turn(snapshots({"s": TINY_SGVAE.build()}), turn.digits)) is None


@pytest.mark.slow
def test_with_reflections_the_canonical_view_of_a_mirror_image_is_the_same(digits):
    sizes = dict(fields=(2, 2, 4), frequency=2, layout="isotropic", invariants=8, decoder_channels=(4, 4, 4))
    model = snapshots({"m": sgvae(4, pose=True, group="O(2)", **sizes).eval()})
    views = []
    for images in (digits.images[:2], digits.images[:2].flip(-1)):
        turn = Turn(model, {"a": images[:1], "b": images[1:]})
        turn.view(0)
        views.append([tiles.double() for tiles in turn._rows["m"][0].tiles])
    (drawn, canonical), (drawn_mirrored, canonical_again) = views
    assert (canonical - canonical_again).abs().max() <= 2 < 10 < canonical.mean()
    assert (drawn_mirrored - drawn).abs().max() > 2


def test_mean_of_angles_found_is_that_of_directions():
    found = Found(torch.tensor([170.0, -170.0, -179.0]), torch.tensor([5.0, 7.0, 9.0]))
    assert abs(found.mean) == pytest.approx(179.7, abs=0.1)


def test_dial_is_there_for_models_with_a_pose_only(pose_model, models, digits):
    explorer = RotationExplorer(models | {"pose": pose_model}, digits.images[:3])
    assert explorer.dial.layout.display == "none" and explorer.turn.tiles.rows == 3
    explorer.picks[0].value = "pose"
    assert explorer.dial.layout.display is None and explorer.turn.tiles.rows == 4
    assert explorer.sphere.layout.display == "none" and "canonical view" in explorer.names.value


# --- images of one's own --------------------------------------------------------------------------


def test_corners_that_a_turn_uncovers_have_the_colour_of_the_background():
    background = torch.tensor([0.9, 0.5, 0.7])
    images = background[:, None, None].repeat(3, 1, 48, 48)
    images[:, :, 14:40, 20:30] = 0.2
    explorer = RotationExplorer(own_model(), images)
    explorer.slider.value = 45
    tiles = explorer.turn.tiles
    shown = np.asarray(Image.open(io.BytesIO(explorer.image.value)), float)
    tile = shown[tiles.row_gap // 2 :][:48, :48]
    assert tiles.disc and tile[0, 0, 3] == 0  # a disc: a turned square would have no place for its corners
    for place in ((3, 24), (24, 3), (10, 10)):
        assert np.abs(tile[place][:3] / 254 - background.numpy()).max() < 0.01
    seen = explorer.turn._turned([45])[0]
    assert torch.allclose(seen[:, :, 0, 0], background, atol=1e-5)  # what the model is given


def test_colour_images_of_48_pixels_with_a_pose(tmp_path):
    images = own_images()
    explorer = RotationExplorer(own_model(), images)
    assert explorer.digits.pages == 15 and not explorer.images.on_black and "Draw" not in str(explorer.children[5])
    explorer.digits.page.value = 2
    explorer.digits.select(["#27"])
    canonical = pose_row(explorer, 2)
    explorer.slider.value = 60
    assert torch.equal(explorer.turn.images, images[26:27]) and explorer.message.value == ""
    assert explorer.turn.view(60).found["reconstruction"].mean == pytest.approx(60, abs=3)
    assert np.abs(pose_row(explorer, 2) - canonical).mean() < 4 < 10 < np.abs(pose_row(explorer, 0) - canonical).mean()
    views = views_of(explorer.save_html(tmp_path / "page.html").read_text())
    assert all({"picture", "numbers", "dial", "polar"} == view.keys() for view in views)


def test_a_model_that_fades_shows_what_it_sees(digits):
    model, image = pose_model(), digits.images[:1]
    model.images = model.encoder.images = dataclasses.replace(model.images, fade=True)
    explorer = RotationExplorer(model, image)
    explorer.slider.value = 90
    seen = model.images.turned(image, 0.0)
    assert not torch.allclose(seen, image, atol=0.1)
    assert not explorer.turn.tiles.disc
    assert np.abs(pose_row(explorer, 0) - 254 * torch.rot90(seen[0, 0]).numpy()).max() <= 1


def test_a_model_of_other_images_is_refused_by_name(models, digits):
    for images, got in (
        (torch.rand(4, 3, 28, 28), r"\[4, 3, 28, 28\]"),
        (torch.rand(4, 1, 48, 48), r"\[4, 1, 48, 48\]"),
    ):
        with pytest.raises(ValueError, match=rf"S-GVAE: expected images \[N, 1, 28, 28\], got {got}"):
            RotationExplorer(models, images)


# --- plots ----------------------------------------------------------------------------------------


def test_plots_are_drawn_once_and_only_their_markers_move(explorer):
    explorer.measure_turn()
    polar, sphere = explorer.polar.background.value, explorer.sphere.background.value
    markers = explorer.polar.marker.value, explorer.sphere.marker.value
    plots = explorer._plots
    explorer.slider.value = 77
    explorer.measure_turn()
    assert explorer._plots is plots
    assert (explorer.polar.background.value, explorer.sphere.background.value) == (polar, sphere)
    assert all(new != old for new, old in zip((explorer.polar.marker.value, explorer.sphere.marker.value), markers))
    explorer.digits.select(["1"])
    assert "measuring" in explorer.polar.background.value and explorer.polar.marker.value == ""
    explorer.measure_turn()
    assert explorer.polar.background.value != polar and explorer.sphere.background.value.count(">1</text>") == 1


def test_polar_marker_lies_on_its_curve(models, digits):
    turn = Turn(snapshots(models), {"0": digits.images[:1]})
    plot = PolarPlot(turn, {"S-GVAE": 60.0, "S-VAE": float("nan")})
    assert plot.background.count("stroke-dasharray:2 4") == 1  # no yardstick, no circle
    for angle in (-135, 0, 60):
        x, y = map(float, re.search(r'<circle cx="([-.\d]+)" cy="([-.\d]+)"', plot.marker(turn.view(angle))).groups())
        assert f"{x:.1f} {y:.1f}" in plot.background
        distance = turn.view(angle).measures["S-GVAE"].drift / plot.limit * plot.radius
        assert np.hypot(x, y) == pytest.approx(distance, abs=0.1)
        if distance > 1:  # counter-clockwise, from the top, as the digits turn
            assert np.degrees(np.arctan2(-x, -y)) == pytest.approx(angle, abs=6 / distance)


def test_sphere_keeps_lengths_and_faces_the_viewer(models, digits):
    turn = Turn(snapshots(models), {"a": digits.images[:1]})
    plot = SpherePlot.of(turn)
    assert plot.name == "S-GVAE"
    assert torch.allclose(plot._axes @ plot._axes.T, torch.eye(3).double(), atol=1e-6)
    assert torch.linalg.det(plot._axes) > 0  # not a mirror image
    ((x, y, near),) = plot._project(turn.upright["S-GVAE"])
    assert np.hypot(x, y) < 1e-3 * plot.radius and near  # the mean of one code is that code
    assert SpherePlot.of(Turn(snapshots({"S-VAE": models["S-VAE"]}), turn.digits)) is None


def test_yardstick_compares_different_classes(models, digits):
    model, images, labels = models["S-VAE"], digits.images[:40], digits.labels[:40]
    expected = metrics.typical_angle(metrics.latent_codes(model, images), labels)
    assert yardstick(model, images, labels) == expected
    assert yardstick(model, images, None) < expected  # two of a class are closer
    assert np.isnan(yardstick(model, images[:1], None))


def test_picture_puts_images_where_they_belong():
    images = torch.linspace(0, 1, 2 * 14 * 14).reshape(2, 1, 14, 14)
    tiles = Tiles(2, 14, 2)
    levels = tiles.picture([tiles.draw(images), tiles.draw(1 - images)])
    high, wide = 14 + tiles.row_gap, 14 + tiles.gap
    assert levels.shape == (2 * high, 2 * wide - tiles.gap) and levels.dtype == np.uint8
    for row, column in np.ndindex(2, 2):
        top, left = high * row + tiles.row_gap // 2, wide * column
        tile = levels[top : top + 14, left : left + 14]
        expected = images[column, 0] if row == 0 else 1 - images[column, 0]
        assert np.abs(tile / 254 - expected.numpy()).max() < 0.003
        tile[:] = 255
    assert (levels == 255).all()  # transparent everywhere else


@pytest.mark.parametrize("count, side", [(1, 28), (10, 28), (1, 128), (4, 96), (10, 64), (24, 48)])
def test_tiles_fit_the_strip_and_are_as_sharp_as_the_screen(count, side):
    tiles = Tiles(count, side, 3)
    width, height = tiles.screen_size
    assert width <= 525 and height == 3 * tiles.row and tiles.row - 6 >= tiles.tile - 1e-6
    assert tiles.tile >= min(64, side) or width > 500
    assert tiles.drawn == min(side, round(tiles.tile))
    drawn = tiles.draw(torch.rand(count, 3, side, side))
    assert drawn.shape == (count, 4, tiles.drawn, tiles.drawn)
    assert tiles.picture([drawn] * 3).shape[:2] == tiles.size[::-1]


def test_tiles_of_images_with_a_background_are_discs():
    for channels in (1, 3):
        drawn = Tiles(1, 48, 1, disc=True).draw(torch.rand(1, channels, 48, 48))
        opacity = drawn[0, -1]
        assert len(drawn[0]) == channels + 1 and opacity[0, 0] == 0 and (opacity[20:28, 2:46] == 255).all()


# --- the drawing pad ------------------------------------------------------------------------------


def draw(explorer, points) -> None:
    pad = explorer.pad
    pad._down(*points[0])
    for point in points[1:]:
        pad._move(*point)
    pad._up(*points[-1])


def test_a_drawn_digit_is_shown_alone_until_it_is_wiped_out(explorer):
    explorer.digits.select(["2", "5"])
    draw(explorer, [(60, 20), (60, 180)])
    assert list(explorer.turn.digits) == [DRAWN]
    assert torch.equal(explorer.turn.images, digit_from_strokes(explorer.pad.strokes))
    one_stroke = explorer.turn.images
    draw(explorer, [(20, 90), (150, 90)])
    assert len(explorer.pad.strokes) == 2 and not torch.equal(explorer.turn.images, one_stroke)
    explorer.slider.value = 90
    explorer.digits.buttons["2"].value = True
    assert list(explorer.turn.digits) == ["2", DRAWN]
    explorer.pad.clear.click()
    assert list(explorer.turn.digits) == ["2", "5"] and explorer.pad.strokes == []
    explorer.pad.clear.click()  # nothing there: nothing happens
    assert list(explorer.turn.digits) == ["2", "5"]


def test_the_first_finger_draws(explorer):
    touch = dict.fromkeys(("start", "move", "end", "cancel"))
    for kind in touch:
        touch[kind] = getattr(explorer.pad.canvas, f"_touch_{kind}_callbacks")
    touch["start"]([(60, 20)])
    touch["start"]([(60, 20), (150, 150)])  # a palm
    touch["move"]([(60, 180), (150, 150)])
    touch["end"]([(150, 150)])
    touch["move"]([(150, 160)])
    touch["end"]([])
    assert explorer.pad.strokes == [[(60, 20), (60, 180)]] and list(explorer.turn.digits) == [DRAWN]
    touch["start"]([(20, 90)])
    touch["move"]([(150, 90)])
    touch["cancel"]([])
    assert len(explorer.pad.strokes) == 2 and explorer.message.value == ""


def test_moving_without_pressing_draws_nothing(explorer):
    explorer.pad._move(5, 5)
    explorer.pad._up(5, 5)
    assert explorer.pad.strokes == [] and len(explorer.turn.digits) == 10


def test_strokes_become_a_digit_as_mnist_has_them():
    angles = np.linspace(0, 2 * np.pi, 60)
    ring = np.stack((300 + 200 * np.cos(angles), 50 + 100 * np.sin(angles)), -1)
    image = digit_from_strokes([ring.tolist()])
    assert image.shape == (1, 1, 28, 28) and image.dtype == torch.float32
    assert image.min() >= 0 and 0.9 < image.max() <= 1
    ink = image[0, 0] > 0.1
    columns, lines = ink.any(0).nonzero()[:, 0], ink.any(1).nonzero()[:, 0]
    assert (columns[0], columns[-1]) == (4, 23)  # the longer side fills the box of 20
    assert lines[-1] - lines[0] + 1 in (11, 12)  # 17.8 / 2 + 2.2: the aspect is kept
    bigger = [(10 * ring + 7).tolist()]
    assert torch.allclose(digit_from_strokes(bigger), image, atol=1e-4)  # whatever size it is drawn in


def test_centre_of_mass_is_in_the_middle():
    hook = [[(0, 0), (0, 100), (30, 100)]]
    image = digit_from_strokes(hook)[0, 0]
    grid = torch.arange(28) + 0.5
    for axis in (0, 1):
        assert (image.sum(axis) @ grid / image.sum()).item() == pytest.approx(14, abs=0.05)


def test_centring_never_cuts_ink_off():
    blob = [[(0.0, float(y)) for y in np.linspace(0, 3, 400)], [(x / 10, 0.0) for x in range(1000)]]
    image = digit_from_strokes([*blob[:1], blob[1]])[0, 0]
    assert image[0].max() == image[-1].max() == image[:, 0].max() == image[:, -1].max() == 0


def test_a_dot_is_a_digit_and_nothing_is_an_error():
    dot = digit_from_strokes([[(5, 5)]])[0, 0]
    assert dot[13:15, 13:15].min() > 0.7 and dot.sum() == pytest.approx(np.pi * 1.1**2, rel=0.1)
    with pytest.raises(ValueError, match="at least one point"):
        digit_from_strokes([[]])


def test_no_pad_for_images_of_another_size(models, digits):
    class Pooled(type(models["S-VAE"])):
        def encode(self, images):
            return super().encode(images[..., :28, :28])

    model = svae(4, channels=(4, 4, 4), decoder_channels=(4, 4, 4)).eval()
    model.__class__ = Pooled
    model.decode = lambda z: torch.zeros(len(z), 1, 40, 40)
    explorer = RotationExplorer(model, torch.rand(3, 1, 40, 40))
    explorer.slider.value = 30
    assert explorer.message.value == "" and not any(explorer.pad in _descendants(child) for child in explorer.children)


def _descendants(widget):
    return [widget, *(inner for child in getattr(widget, "children", ()) for inner in _descendants(child))]


# --- bursts and hours -----------------------------------------------------------------------------


class SlowTurn:
    """Stands for a `Turn` of 20 angles; `release` lets its threads go on."""

    def __init__(self, release):
        self.release, self.order, self.claimed, self.stopped = release, [], set(), False

    def is_of(self, names, digits):
        return names == ("model",)

    def seen(self, angle):
        return angle if angle in self.order else None

    def next_batch(self, angle, ahead, one):
        batch = sorted(set(range(20)) - self.claimed, key=lambda other: abs(other - angle))[: 1 if one else 4]
        self.claimed.update(batch)
        return batch

    def compute(self, angles):
        assert self.release.wait(5)
        if 13 in angles:
            raise RuntimeError("bad angle")
        self.order += angles

    complete = False

    def stop(self):
        self.stopped = True


def test_the_newest_value_wins_and_the_rest_is_filled_nearest_first():
    shown, errors, release, turns = [], [], threading.Event(), []

    def prepare(request):
        turns.append(turns[-1] if turns and not turns[-1].stopped else SlowTurn(release))
        return turns[-1]

    worker = Worker(
        prepare, lambda turn, view: shown.append(view), print, print, lambda error: errors.append(str(error))
    )

    async def burst():
        worker.submit((("model",), {}, 0))
        await asyncio.sleep(0.1)  # all threads wait in compute now
        for angle in range(1, 10):
            worker.submit((("model",), {}, angle))
        release.set()
        for _ in range(100):
            await asyncio.sleep(0.02)
            if errors:
                break
        worker.submit((("model",), {}, 9))  # the next request begins anew
        await asyncio.sleep(0.3)

    asyncio.run(burst())
    assert shown[-1] == 9 and len(shown) < 6, shown  # at most one now and then of what was overtaken
    assert set(errors) == {"bad angle"} and turns[0].stopped and turns[-1] is not turns[0]
    order = turns[0].order
    assert order.index(9) < order.index(11) and 19 not in order[: order.index(9)]


def test_angles_are_filled_nearest_first_and_ahead_of_a_drag(models, digits):
    turn = Turn(snapshots(models), {str(i): digits.images[i : i + 1] for i in range(10)})
    assert turn.next_batch(40)[0] == 40 and turn.next_batch(40, one=True) != [40]
    assert turn.next_batch(41, ahead=6, one=True) == [47] and turn.next_batch(0, ahead=-6, one=True) == [-6]
    batches = []
    while batch := turn.next_batch(40):
        batches.append(batch)
    angles = [angle for batch in batches for angle in batch]
    assert len(angles) == len(set(angles)) and len(batches) < 130  # few and large
    assert {*range(30, 51)} - {40, 41, 39, 38, 47} <= {*angles[:60]}
    assert {*range(-180, -175)} <= {*angles[:120]}  # a drag across the whole range begins there


def test_an_explorer_in_a_loop_fills_all_angles_and_follows_the_weights(digits):
    model = svae(3, channels=(4, 4, 4), decoder_channels=(4, 4, 4)).eval()

    async def use():
        explorer = RotationExplorer(model, digits.images[:4])
        explorer._worker.start()
        for _ in range(500):
            await asyncio.sleep(0.02)
            if len(explorer.turn._views) == 361 and explorer._plots:
                break
        first, turn = len(explorer.turn._views), explorer.turn
        explorer.slider.value = 77
        at_once = "turned by <b>77°" in explorer.numbers.value
        await asyncio.sleep(0.3)
        unchanged = explorer.turn is turn
        model.decoder[0].weight.data.mul_(-1)
        explorer.slider.value = 78
        for _ in range(200):
            await asyncio.sleep(0.02)
            if explorer.turn is not turn:
                break
        explorer.slider.value = 79
        explorer.digits.select(["#1"])  # stops the filling
        for _ in range(200):
            await asyncio.sleep(0.02)
            if explorer.turn.digits.keys() == {"#1"} and explorer.turn.seen(79):
                break
        assert explorer.message.value == ""
        return first, at_once, unchanged, explorer.image.value, explorer.numbers.value

    first, at_once, unchanged, image, numbers = asyncio.run(use())
    assert first == 361 and at_once and unchanged
    fresh = RotationExplorer(model, digits.images[:4])
    fresh.digits.select(["#1"])
    fresh.slider.value = 79
    assert np.abs(pixels(fresh.image.value) - pixels(image)).max() <= 1 and "turned by <b>79°" in numbers


def test_quarter_turns_are_computed_once_only_where_a_model_gives_the_same_answer(models, digits):
    turn = Turn(snapshots(models), {"a": digits.images[:1], "b": digits.images[1:2]})
    assert turn._periods == {"S-GVAE": 90, "S-VAE": 360}
    turn.views(range(-180, 181))  # two more were answered to find the period
    assert len(turn._rows["S-GVAE"]) == 92 and len(turn._rows["S-VAE"]) == 360
    for angle in (-163, 100, 45):
        turned = rotate(turn.images, angle)
        for name, model in models.items():
            codes = metrics.latent_codes(model, turned)
            assert metrics.angle_between(turn.view(angle).codes[name], codes).max() < 0.01


DRAG = """
import asyncio, re, sys, time, torch
sys.path.insert(0, {tests!r})
from examples import TINY_SGVAE, TINY_SVAE
from gvae_core.bench.explorer import drag
from gvae_core.explorer import RotationExplorer
from gvae_core.mnist import load_splits
test = load_splits("mnist5k").test
models = dict(a=TINY_SGVAE.build().eval(), b=TINY_SVAE.build().eval())
explorer, late = asyncio.run(drag(lambda: RotationExplorer(models, test.images, test.labels)))
wrong = [a for a, v in explorer.turn._views.items() if v.angle != a]
print(sum(ms <= 33 for ms in late) / len(late), len(late), wrong)
"""


@pytest.mark.slow
def test_a_drag_beside_two_busy_processes_is_answered_in_time():
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    code, shares = DRAG.format(tests=str(Path(__file__).parents[1])), []
    try:
        while max(shares, default=0) < 0.95 and len(shares) < 3:  # other tests' processes come on top of the two
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=300
            )
            assert done.returncode == 0, done.stderr
            share, count, wrong = done.stdout.split()[-3:]
            assert count == "361" and wrong == "[]", done.stdout
            shares.append(float(share))
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert max(shares) >= 0.95, shares


KERNEL = """
import threading, time, torch, sys
sys.path.insert(0, {tests!r})
from examples import TINY_SGVAE
from gvae_core.explorer import RotationExplorer
from gvae_core.explorer.snapshot import Snapshot, yardstick, yardstick_sample
from gvae_core.explorer.tiles import Tiles
from gvae_core.explorer.turn import ANGLES, Found, Turn
from gvae_core.mnist import load_splits
e = RotationExplorer(TINY_SGVAE.build().eval(), load_splits("mnist5k").test.images[:8])
views, threads = [], set()
compute, show = Turn.compute, e._worker._show
def slow(turn, angles):
    time.sleep(0.02); threads.add(threading.current_thread().name)
    return compute(turn, angles)
def count(turn, view):
    views.append(view.angle); show(turn, view)
Turn.compute, e._worker._show = slow, count
print(e.slider.model_id)
"""


@pytest.mark.slow
def test_a_burst_of_events_builds_no_backlog_in_a_real_kernel(tmp_path, sockets, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    manager = KernelManager(kernel_name="python3", transport="ipc", connection_file=f"{sockets}/kernel.json")
    manager.kernel_spec_manager.kernel_dirs = []
    manager.start_kernel()
    client = manager.client()
    client.start_channels()

    def execute(code: str) -> str:
        texts = []

        def take(message):
            assert message["msg_type"] != "error", message["content"]
            texts.append(message["content"].get("text", "") if message["msg_type"] == "stream" else "")

        client.execute_interactive(code, output_hook=take, timeout=120)
        return "".join(texts).strip()

    try:
        client.wait_for_ready(timeout=60)
        slider = execute(KERNEL.format(tests=str(Path(__file__).parents[1]))).splitlines()[-1]
        for angle in range(-179, 180):  # a drag across the whole range, all at once
            data = {"method": "update", "state": {"value": angle}, "buffer_paths": []}
            content = {"comm_id": slider, "data": data}
            client.shell_channel.send(client.session.msg("comm_msg", content))
        # the kernel answers in order: when this cell runs, every event has been delivered
        pending = json.loads(execute("import json; print(json.dumps([len(views), e.slider.value]))"))
        final = json.loads(
            execute(
                "import asyncio\nfor _ in range(100):\n    await asyncio.sleep(0.02)\n"
                "    if views and views[-1] == 179: break\nawait asyncio.sleep(0.1)\n"
                "print(json.dumps([views, sorted(threads), e.message.value, '179°' in e.numbers.value]))"
            )
        )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    views, threads, message, shown = final
    assert pending[1] == 179  # every event was taken in
    assert views[-1] == 179 and views == sorted(views)
    assert len(views) - pending[0] < 20  # what is left to draw after the last event
    assert all(thread.startswith("explorer_") for thread in threads) and message == "" and shown


def resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_an_hour_of_play_leaks_nothing(models, digits):
    explorer = RotationExplorer(models, digits.images[:100], digits.labels[:100])
    memory = []
    for update in range(6000):
        if update % 1200 == 0:
            explorer.digits.select([str(update // 1200), "9"])
            explorer.digits.another.click()
        explorer.slider.value = (37 * update) % 361 - 180
        if update % 1200 == 1199:
            gc.collect()
            memory.append(resident_mib())
    assert explorer.message.value == ""
    assert len(explorer.turn._views) <= 361
    assert memory[-1] - memory[1] < 4, memory  # MiB; a leak of 1.5 kB an update would be 5


# --- models at hand -------------------------------------------------------------------------------


def test_trained_models_are_the_profiles_and_the_committed_ones(outputs, monkeypatch):
    def finish(spec, folder, checkpoint=True):
        history = [{}] * min(spec.epochs, 2)
        record = dict(spec=spec.to_dict(), history=history, metrics={}, seconds=1, device="", steerable="", versions={})
        write_text(folder / f"{spec.key}.json", json.dumps(record | {"parameters": 1}))
        if checkpoint:
            save_tensors(folder / f"{spec.key}.safetensors", spec.build().state_dict(), {"spec": spec.to_dict()})
        return read_result(folder / f"{spec.key}.json")

    own = trained.best_models("smoke", "mnist5k")
    monkeypatch.setattr(trained, "full_size_models", list)
    monkeypatch.setattr(trained, "full_size_results", lambda table, seeds: [])
    with pytest.raises(ValueError, match="found none"):
        trained_models("smoke", "mnist5k")
    finish(own["sgvae"], outputs / "runs")
    finish(own["svae"], outputs / "runs")
    finish(sphere_and_plane("smoke", "mnist5k")["sgvae"], outputs / "runs", checkpoint=False)
    models = trained_models("smoke", "mnist5k")
    svae_name = "S-VAE · d = 10, β = 0.1 · 1 epoch of 200 digits"
    assert list(models) == ["S-GVAE · d = 6, β = 0.1 · 1 epoch of 200 digits", svae_name]
    assert all(isinstance(checkpoint, Path) for checkpoint in models.data.values())  # none is loaded yet
    interim = dataclasses.replace(TINY_SGVAE, epochs=9)
    monkeypatch.setattr(
        trained, "full_size_models", lambda: [finish(interim, outputs / "x"), finish(TINY_SGVAE, outputs / "x")]
    )
    models = trained_models("smoke", "mnist5k")
    name = "S-GVAE · d = 3, β = 1 · 2 epochs of 96 digits"  # complete, so it leads
    assert list(models)[:2] == [name, svae_name] and len(models) == 4
    assert models[name] is models[name] and models[name].latent_dim == 3


# --- the page -------------------------------------------------------------------------------------


def views_of(text: str) -> list[dict]:
    return json.loads(re.search(r"^const views = (\[.*\]);$", text, re.M)[1])


def test_saved_page_needs_nothing_but_itself(explorer, tmp_path):
    page = explorer.save_html(tmp_path / "explorer.html")
    text = page.read_text(encoding="utf-8")
    assert page.stat().st_size <= 3_000_000
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)|@import|url\((?!"?data:)|https?://""", text)
    views = views_of(text)
    assert len(views) == len(ANGLES) == 73
    assert [int(re.search(r"turned by <b>(-?\d+)°", view["numbers"])[1]) for view in views] == list(ANGLES)
    assert all({"picture", "numbers", "polar", "sphere"} == view.keys() for view in views)
    data = base64.b64decode(views[ANGLES.index(40)]["picture"].partition("base64,")[2])
    saved = Image.open(io.BytesIO(data)).convert("RGBA")
    explorer.slider.value = 40
    shown = Image.open(io.BytesIO(explorer.image.value)).convert("RGBA")
    solid = np.asarray(shown)[..., 3] > 0
    difference = np.abs(np.asarray(saved, float) - np.asarray(shown, float))[..., 0][solid]
    assert saved.size == shown.size and difference.mean() < 6
    assert "prefers-color-scheme: dark" in text and 'id="play"' in text


def test_a_page_saved_in_the_home_folder(models, digits, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    page = RotationExplorer(models["S-VAE"], digits.images[:1]).save_html("~/page.html")
    assert page == tmp_path / "page.html" and page.is_file() and not (tmp_path / "~").exists()


def test_saved_page_without_a_sphere_and_too_large_a_page(models, digits, tmp_path, monkeypatch):
    explorer = RotationExplorer(models["S-VAE"], digits.images[:2])
    page = explorer.save_html(tmp_path / "explorer.html")
    assert 'id="sphere"' not in page.read_text() and "sphere" not in views_of(page.read_text())[0]
    monkeypatch.setattr("gvae_core.explorer.page.LIMIT", 10_000)
    with pytest.raises(ValueError, match="at most 10,000 bytes, got .* fewer images"):
        explorer.save_html(tmp_path / "large.html")
    assert not (tmp_path / "large.html").exists()
