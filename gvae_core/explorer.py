"""The rotation explorer: an ipywidgets slider that turns digits while their reconstructions stand still."""

from __future__ import annotations

import io
from collections.abc import Mapping

import ipywidgets as widgets
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from .metrics import angle_between, decoded, latent_codes
from .rotation import rotate

GAP = 2  # pixels between tiles, before scaling


class RotationExplorer(widgets.VBox):
    """Rotated digits above, each model's reconstructions below, updated while the slider is dragged.

    One image widget of fixed size shows all rows; its PNG bytes are replaced in place, so nothing
    flickers. An error in a callback appears in a line under the slider instead of vanishing.

    Parameters
    ----------
    models : a `SphericalVAE`, or a dict name -> `SphericalVAE`
    images : [N, 1, H, W] in [0, 1], shown side by side
    scale : screen pixels per image pixel

    Raises
    ------
    ValueError : there is no model or no image, or the images have another shape
    """

    def __init__(self, models: nn.Module | Mapping[str, nn.Module], images: Tensor, *, scale: int = 3):
        models = {"reconstruction": models} if isinstance(models, nn.Module) else dict(models)
        if not models:
            raise ValueError("expected at least one model, got none")
        if images.ndim != 4 or images.shape[1] != 1 or len(images) == 0:
            raise ValueError(f"expected images [N, 1, H, W] with N > 0, got {list(images.shape)}")
        self.models, self.images, self.scale = models, images, scale
        self._upright = {name: latent_codes(model, images) for name, model in models.items()}
        self.slider = widgets.FloatSlider(
            value=0, min=-180, max=180, step=1, description="angle", readout_format=".0f",
            layout=widgets.Layout(width="640px"),
        )
        first = self.render(0)
        height, width = self._size
        self.image = widgets.Image(value=first, format="png", width=width, height=height)
        self.numbers = widgets.HTML()
        self.message = widgets.HTML()
        self.slider.observe(self._on_angle, names="value")
        rows = widgets.HTML("<br>".join(f"row {i + 1}: {name}" for i, name in enumerate(["rotated input", *models])))
        self._show_numbers(0)
        super().__init__([self.slider, self.image, rows, self.numbers, self.message])

    def render(self, degrees: float) -> bytes:
        """PNG of all rows with the images turned by ``degrees``."""
        turned = rotate(self.images, degrees)
        self._codes = {name: latent_codes(model, turned) for name, model in self.models.items()}
        rows = [turned, *(decoded(model, self._codes[name]) for name, model in self.models.items())]
        tiles = [functional.pad(torch.cat(tuple(row), -1)[0], (0, 0, 0, GAP)) for row in rows]
        pixels = torch.cat(tiles, 0)[:-GAP].mul(255).byte().numpy()
        self._size = self.scale * pixels.shape[0], self.scale * pixels.shape[1]  # the browser scales
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def _on_angle(self, change: Mapping) -> None:
        try:
            self.image.value = self.render(change["new"])
            self._show_numbers(change["new"])
            self.message.value = ""
        except Exception as error:  # ipywidgets would swallow it
            self.message.value = f"<b>{type(error).__name__}</b>: {error}"

    def _show_numbers(self, degrees: float) -> None:
        drifts = (
            f"{name}: {angle_between(codes, self._upright[name]).mean():.1f}°" for name, codes in self._codes.items()
        )
        self.numbers.value = f"mean angle between the codes at {degrees:.0f}° and at 0° — " + "; ".join(drifts)
