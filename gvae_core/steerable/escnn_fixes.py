"""Four faults of escnn 1.0.11 that reach everybody who builds its layers; each is mended where escnn looks it up.

1. Its decomposition of tensor products (O(2), D_N) hands scikit-learn's `randomized_svd` an `np.matrix`, which
   scikit-learn refuses since version 1.2: no kernel with reflections can be built.
2. For O(2) that decomposition is a random search, which takes minutes for the kernels of one layer and finds another
   sign every time, so that a seed would not say what a network computes. A mean over the group says the same at once.
3. It keeps every sampled basis and hands the same module to all layers of a process: ``a.double()`` converts the
   basis of an unrelated model ``b`` and of every model to come. Each layer gets a copy of its own.
4. It works out the spread of the initial values weight by weight, which is nine tenths of the time that a network takes
   to build or to load. The fields of a type are alike, so one look at each pair of types says the same.
"""

from __future__ import annotations

import copy
import functools
import math
from collections import Counter, defaultdict

import escnn.group._numerical as numerical
import numpy as np
import torch
from escnn.group import O2, o2_group
from escnn.nn import init
from escnn.nn.modules.basismanager import BlocksBasisExpansion
from escnn.nn.modules.basismanager import basisexpansion_singleblock as singleblock
from torch import nn


def apply() -> None:
    """Mend them; a second call changes nothing."""
    if not isinstance(singleblock._stored_filters, _Bases):
        singleblock._stored_filters = _Bases(singleblock._stored_filters)
        numerical.randomized_svd = _of_arrays(numerical.randomized_svd)
        O2._clebsh_gordan_coeff, O2._tensor_product_irreps = _o2_coupling, _o2_product
        init._generalized_he_init_variances = _he_deviations


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


def _he_deviations(expansion: BlocksBasisExpansion) -> torch.Tensor:
    """He's standard deviations [weights], as escnn defines them for steerable filters (its name says variances)."""
    pairs = {
        pair: list(getattr(expansion, f"block_expansion_{expansion._escape_pair(pair)}").get_basis_info())
        for pair in expansion._representations_pairs
    }
    filters = defaultdict(Counter)  # of every irrep of an output field: how many filters come from each input irrep
    for (source, target), infos in pairs.items():
        for info in infos:
            filters[target, info["out_irrep_idx"]][info["in_irrep"]] += expansion._in_count[source]
    deviations = []
    for (source, target), infos in pairs.items():
        counts = [(filters[target, info["out_irrep_idx"]], info["in_irrep"]) for info in infos]
        one_pair = torch.tensor([1 / math.sqrt(len(count) * count[irrep]) for count, irrep in counts])
        deviations.append(one_pair.repeat(expansion._in_count[source] * expansion._out_count[target]))
    return torch.cat(deviations)


def _of_arrays(svd):
    @functools.wraps(svd)
    def with_arrays(matrix, *args, **kwargs):
        return svd(np.asarray(matrix) if isinstance(matrix, np.matrix) else matrix, *args, **kwargs)

    return with_arrays


def _o2_coupling(group: O2, *irreps: int | tuple) -> np.ndarray:
    """Clebsch-Gordan coefficients of three irreps of O(2), [sizes of the first and second, 0 or 1, size of the third]."""
    return _coupling(*map(group.get_irrep_id, irreps))


@functools.cache
def _coupling(*irreps: tuple) -> np.ndarray:
    """An irrep is contained once or not at all: the mean of the threefold tensor product over the group is v v^T or 0.

    v are the coefficients, up to a sign and their length; the first of the largest is made positive.
    """
    group = o2_group()
    irreps = [group.irrep(*irrep) for irrep in irreps]
    samples = group.grid(1 + sum(irrep.attributes["frequency"] for irrep in irreps))  # exact from so many angles on
    mean = sum(functools.reduce(np.kron, (irrep(g) for irrep in irreps)) for g in samples) / len(samples)
    largest = np.argmax(np.diag(mean).round(6))
    sizes = [irrep.size for irrep in irreps]
    if mean[largest, largest] < 1e-6:
        return np.zeros((*sizes[:2], 0, sizes[2]))
    return (mean[:, largest] * np.sqrt(sizes[2] / mean[largest, largest])).reshape(*sizes[:2], 1, sizes[2])


def _o2_product(group: O2, first: int | tuple, second: int | tuple) -> list[tuple[tuple, int]]:
    """The irreps of O(2) in a tensor product of two, each with its multiplicity, 1."""
    a, b = (group.get_irrep_id(irrep)[1] for irrep in (first, second))
    candidates = dict.fromkeys([(0, 0), (1, 0), (1, abs(a - b)), (1, a + b)])
    return [(irrep, 1) for irrep in candidates if _o2_coupling(group, first, second, irrep).shape[2]]
