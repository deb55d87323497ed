"""The rotation explorer: drag a slider, the digits turn, and see what each model makes of them."""

from .at_hand import models_at_hand
from .box import RotationExplorer

__all__ = ["RotationExplorer", "models_at_hand"]
