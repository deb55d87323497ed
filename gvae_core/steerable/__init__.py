"""SO(2)-steerable layers, several times faster than escnn's with exactly escnn's outputs.

`accelerate` turns the layers of a model into fast ones, `explain` says which are and why not (`paths`). How:
`factors` (few filters and a mixing matrix instead of a dense kernel), `torch_path` (in torch
operations, any device), `native`, `building` and the folder `kernels` (compiled for this CPU), `triton_kernels` (for a
GPU), `features` (what stays packed or pending between layers), `convolution`, `layers`, and `escnn_fixes` (four faults
of escnn, mended on import).
"""

from . import escnn_fixes
from .paths import Explanation, accelerate, explain, path_in_use

escnn_fixes.apply()

__all__ = ["Explanation", "accelerate", "explain", "path_in_use"]
