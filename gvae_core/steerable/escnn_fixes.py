"""Two faults of escnn 1.0.11 that reach everybody who builds its layers; each is mended where escnn looks it up.

1. Its decomposition of tensor products (O(2), D_N) hands scikit-learn's `randomized_svd` an `np.matrix`, which
   scikit-learn refuses since version 1.2: no kernel with reflections can be built.
2. It keeps every sampled basis and hands the same module to all layers of a process: ``a.double()`` converts the
   basis of an unrelated model ``b`` and of every model to come. Each layer gets a copy of its own.
"""

from __future__ import annotations

import copy
import functools

import escnn.group._numerical as numerical
import numpy as np
import torch
from escnn.nn.modules.basismanager import BlocksBasisExpansion
from escnn.nn.modules.basismanager import basisexpansion_singleblock as singleblock
from torch import nn


def apply() -> None:
    """Mend both; a second call changes nothing."""
    if not isinstance(singleblock._stored_filters, _Bases):
        singleblock._stored_filters = _Bases(singleblock._stored_filters)
        numerical.randomized_svd = _of_arrays(numerical.randomized_svd)


class _Bases(dict):
    """escnn's store of sampled bases; what is taken out is a copy."""

    def __getitem__(self, key: tuple) -> nn.Module:
        return own_copy(super().__getitem__(key))


class _OwnBasis(singleblock.SingleBlockBasisExpansion):
    """Equal to nothing but itself: torch takes equal modules for one, and escnn's comparison samples the basis anew."""

    __eq__, __hash__ = object.__eq__, object.__hash__


class _OwnBases(BlocksBasisExpansion):
    __eq__, __hash__ = object.__eq__, object.__hash__


def own_copy(block: nn.Module) -> nn.Module:
    """A sampled basis with buffers of its own; what it was sampled from stays shared."""
    own = copy.copy(block)
    own.__class__ = _OwnBasis
    # escnn's buffer is a permuted view, and every flattening of it a copy
    own._buffers = {n: b.clone(memory_format=torch.contiguous_format) for n, b in block._buffers.items()}
    return own


def own_bases(expansion: BlocksBasisExpansion) -> None:
    """Give a layer that was built before `apply`, or copied, its own copy of every sampled basis."""
    expansion.__class__ = _OwnBases
    for name, block in expansion._modules.items():
        expansion._modules[name] = own_copy(block)


def _of_arrays(svd):
    @functools.wraps(svd)
    def with_arrays(matrix, *args, **kwargs):
        return svd(np.asarray(matrix) if isinstance(matrix, np.matrix) else matrix, *args, **kwargs)

    return with_arrays
