"""SO(2)-steerable layers, several times faster than escnn's with exactly escnn's outputs.

`accelerate` turns the layers of a model into fast ones, `report` says which are and why not. How:
`factors` (few filters and a mixing matrix instead of a dense kernel), `torch_path` (in torch
operations, any device), `native` and `kernels.cpp` (compiled for this CPU), `features` (what stays
packed or pending between layers), `layers`.
"""

from .layers import LayerReport, accelerate, path_in_use, report

__all__ = ["LayerReport", "accelerate", "path_in_use", "report"]
