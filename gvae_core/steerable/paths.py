"""`accelerate` puts the fast layers into a model, `explain` says which path each of its layers takes, and why."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass

import escnn.nn as enn
from escnn.nn.modules.basismanager import BlocksBasisExpansion
from torch import nn

from . import layers, native
from .convolution import FastR2Conv
from .escnn_fixes import own_bases

PATHS = ("escnn", "torch", "native")

FAST: dict[type, type] = {
    enn.R2Conv: FastR2Conv,
    enn.IIDBatchNorm2d: layers.FastIIDBatchNorm2d,
    enn.FourierPointwise: layers.FastFourierPointwise,
    enn.FourierELU: layers.FastFourierELU,
    enn.FieldDropout: layers.FastFieldDropout,
    enn.MaskModule: layers.FastMaskModule,
    enn.PointwiseAvgPool2D: layers.FastPointwiseAvgPool2D,
    enn.PointwiseAvgPoolAntialiased2D: layers.FastPointwiseAvgPoolAntialiased2D,
}


@dataclass(frozen=True)
class Explanation:
    """One layer of a model: the path it is on ("native", "torch" or "escnn"), why, and its way to compute.

    way : "native", "torch" or "dense": on both fast paths a convolution may be escnn's dense one, where that is faster
    """

    name: str
    kind: str
    path: str
    note: str
    way: str

    @property
    def fast(self) -> bool:
        return self.path != "escnn"

    def __str__(self) -> str:
        return f"{self.name or '(root)'}: {self.kind}: {self.path}" + (f", {self.note}" if self.note else "")


def default_path() -> str:
    """The path new fast layers take: ``GVAE_STEERABLE``, or the fastest one."""
    path = os.environ.get("GVAE_STEERABLE", "") or PATHS[-1]
    if path not in PATHS:
        raise ValueError(f"expected GVAE_STEERABLE to be one of {', '.join(PATHS)}, got {path!r}")
    return path


def accelerate(module: nn.Module, path: str | None = None) -> nn.Module:
    """Make the steerable layers inside a module fast; the same parameters, the same outputs.

    The module is changed in place and returned: every layer of a kind in `FAST` gets the class of
    its fast counterpart. Parameters are the very same tensors, so an existing optimiser goes on
    working; the state dict, hooks, training mode and random draws stay as they are. The sampled bases, which escnn
    shares among all models of a process, become the layers' own. A layer that cannot be fast keeps escnn's forward,
    and `explain` says why; it also says which convolutions take escnn's dense way because that is the fastest. Calling
    it again is harmless, and
    with another ``path`` it changes the path.

    Parameters
    ----------
    module : any module tree with escnn layers
    path : "native", "torch" or "escnn" (the layers' original forward); None takes the environment
        variable ``GVAE_STEERABLE``, or the fastest

    Derivatives of any order and torch.func's transforms work on every path: where the kernels cannot follow, escnn's
    convolution or torch operations compute the same. A module that takes and returns tensors (an encoder, say) is
    exported by ``torch.export.export(module.eval(), (images,))``, which traces torch operations alone. A module with
    escnn layers cannot be pickled, escnn's groups cannot: save its state dict, which loads in either mode.

    Raises
    ------
    ValueError : an unknown path

    Examples
    --------
    >>> from escnn import gspaces, nn
    >>> gspace = gspaces.rot2dOnR2(8)
    >>> fields = nn.FieldType(gspace, 4 * [gspace.regular_repr])
    >>> layer = accelerate(nn.R2Conv(fields, fields, kernel_size=3))
    >>> explain(layer)[0].fast
    True
    """
    path = default_path() if path is None else path
    if path not in PATHS:
        raise ValueError(f"expected a path among {', '.join(PATHS)}, got {path!r}")
    for layer in module.modules():
        if isinstance(layer, BlocksBasisExpansion):
            own_bases(layer)
        fast = FAST.get(type(layer))
        if fast is not None:
            original, layer.__class__ = layer.__class__, fast
            try:
                layer._prepare()
            except ValueError as reason:
                layer.__class__ = original
                layer.__dict__["_steerable_refusal"] = str(reason)
        if isinstance(layer, layers._Fast):
            layer.steerable_path = path
    return module


def explain(module: nn.Module) -> list[Explanation]:
    """For every layer of escnn inside a module: which path it takes (float32, on the device where it is), and why."""
    rows = []
    tensors = itertools.chain(module.parameters(), module.buffers())
    on_gpu = any(t.device.type != "cpu" for t in tensors)
    for name, layer in module.named_modules():
        if not isinstance(layer, enn.EquivariantModule) or isinstance(layer, enn.SequentialModule):
            continue
        path, way, notes = "escnn", "", []
        if not isinstance(layer, layers._Fast):
            notes.append(layer.__dict__.get("_steerable_refusal", "no fast version of this kind of layer"))
        elif layer.steerable_path == "escnn":
            notes.append("asked for")
        else:
            path = layer.steerable_path
            if path == "native" and layer._native_refusal:
                path = "torch"
                notes.append(f"no compiled version: {layer._native_refusal}")
            elif path == "native" and on_gpu:
                if not (isinstance(layer, layers.FastFourierPointwise) and layers.triton_kernels()):
                    path = "torch"
            elif path == "native" and native.load() is None:
                path = "torch"
                notes.append("the compiled kernels are not available")
            if isinstance(layer, FastR2Conv):
                f = layer._factors
                way = layer._way(path, packed=f.components_in > 1)  # features from a compiled layer, or an image
                dense = f.components_in * f.components_out * layer.kernel_size**2
                count = f"{f.multiplications} instead of {dense} multiply-adds"
                notes.append(f"{len(f.filters)} maps, {count} per pair of fields")
                kind = "dense" if way == "dense" else "factored"
                dense_cost, cost = layer._costs["dense"] / 1e3, layer._costs[path] / 1e3
                notes.append(f"{kind}, as its cost is {dense_cost:.1f} dense against {cost:.1f} thousand per pixel")
        rows.append(Explanation(name, type(layer).__name__.removeprefix("Fast"), path, "; ".join(notes), way or path))
    return rows


def path_in_use(module: nn.Module) -> str:
    """The paths a module's escnn layers take, for the record of a result: "escnn+native", ..."""
    return "+".join(sorted({row.path for row in explain(module)}))
