"""SO(2)-steerable layers, several times faster than escnn's with exactly escnn's outputs.

`accelerate` turns the layers of a model into fast ones, `report` says which are and why not. How:
`factors` (few filters and a mixing matrix instead of a dense kernel), `torch_path`, `features`
(what stays pending between layers), `layers`.
"""

from .layers import LayerReport, accelerate, report

__all__ = ["LayerReport", "accelerate", "report"]
