"""The rotation explorer without a browser."""

import io

import numpy as np
import pytest
import torch
from conftest import TINY_SGVAE
from PIL import Image

from gvae_core import svae
from gvae_core.explorer import RotationExplorer


@pytest.fixture
def models():
    small = svae(4, channels=(4, 4, 4), decoder_channels=(4, 4, 4)).eval()
    return {"S-GVAE": TINY_SGVAE.build().eval(), "S-VAE": small}


def pixels(explorer) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(explorer.image.value)), dtype=float)


def test_moving_the_slider_replaces_the_picture_in_place(models, digits):
    explorer = RotationExplorer(models, digits.images[:4])
    widget, before = explorer.image, pixels(explorer)
    explorer.slider.value = 40
    after = pixels(explorer)
    assert explorer.image is widget and after.shape == before.shape  # nothing can flicker or jump
    rows = after.shape[0] // 3
    assert np.abs(after - before)[:rows].mean() > 5
    explorer.slider.value = 0
    assert np.array_equal(pixels(explorer), before)


def test_first_row_shows_the_turned_digits(models, digits):
    explorer = RotationExplorer(models, digits.images[:2], scale=1)
    explorer.slider.value = 90
    row = pixels(explorer)[:28, :28]
    assert np.abs(row - 255 * torch.rot90(digits.images[0, 0]).numpy()).max() <= 1


def test_the_steerable_models_code_stays_at_quarter_turns(models, digits):
    explorer = RotationExplorer(models, digits.images[:4])
    explorer.slider.value = -90
    assert "S-GVAE: 0.0°" in explorer.numbers.value and "S-VAE: 0.0°" not in explorer.numbers.value


def test_an_error_in_the_callback_is_shown_and_goes_away(models, digits, monkeypatch):
    explorer = RotationExplorer(models, digits.images[:2])
    with monkeypatch.context() as patched:
        patched.setattr(explorer, "render", lambda degrees: 1 / 0)
        explorer.slider.value = 10
        assert "ZeroDivisionError" in explorer.message.value
    explorer.slider.value = 20
    assert explorer.message.value == ""


def test_one_model_needs_no_dict(models, digits):
    assert RotationExplorer(models["S-GVAE"], digits.images[:2]).image.value[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    "images, message", [(torch.zeros(3, 28, 28), r"\[3, 28, 28\]"), (torch.zeros(0, 1, 28, 28), r"\[0, 1, 28, 28\]")]
)
def test_bad_images_are_refused(models, images, message):
    with pytest.raises(ValueError, match=f"N > 0, got {message}"):
        RotationExplorer(models, images)
    with pytest.raises(ValueError, match="at least one model"):
        RotationExplorer({}, torch.zeros(1, 1, 28, 28))
