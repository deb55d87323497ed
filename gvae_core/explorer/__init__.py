"""The rotation explorer: drag a slider, the digits turn, and see what each model makes of them."""

from .widget import RotationExplorer

__all__ = ["RotationExplorer"]
