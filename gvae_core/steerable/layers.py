"""Fast drop-in subclasses of escnn's layers, and `accelerate`, which puts them into a model.

A fast layer *is* the escnn layer with another ``forward``: `accelerate` only changes the class of
the modules it knows, so parameters, buffers, state dict, hooks and training mode stay what they were.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import escnn.nn as enn
import torch
from escnn.nn import GeometricTensor
from torch import Tensor, nn

from . import torch_path
from .factors import Factors, factorise, uniform_representation
from .features import Affine, Features, as_features

PATHS = ("escnn", "torch")


class _Fast:
    """What the fast layers share: which path they take, and constants in the right dtype and device."""

    steerable_path: str = "torch"

    def _prepare(self) -> None:
        """Compute what the fast forward needs; ValueError, saying why, where it cannot be fast."""

    def _constants(self, like: Tensor, make: Callable[[], dict[str, Tensor | None]]) -> dict[str, Tensor | None]:
        """float64 constants, cast once per device and dtype; a plain cache, never in the state dict."""
        cache = self.__dict__.setdefault("_steerable_constants", {})
        key = (like.device, like.dtype)
        if key not in cache:
            cache[key] = {k: None if v is None else v.to(like.device, like.dtype) for k, v in make().items()}
        return cache[key]

    def __getstate__(self) -> dict:
        return {k: v for k, v in self.__dict__.items() if k != "_steerable_constants"}


class FastR2Conv(_Fast, enn.R2Conv):
    """`escnn.nn.R2Conv` as a few spatial filters and one matrix product per irrep, see `factors`."""

    def _prepare(self) -> None:
        self._factors: Factors = factorise(self)

    def forward(self, input: GeometricTensor) -> GeometricTensor:
        assert input.type == self.in_type
        if self.steerable_path == "escnn":
            return super().forward(input)
        f = self._factors
        x = as_features(input)
        constants = self._constants(
            self.weights,
            lambda: {
                "filters": torch.from_numpy(f.filters),
                "mixing": torch.from_numpy(f.mixing),
                "basis_out": None if f.basis_out is None else torch.from_numpy(f.basis_out),
            },
        )
        mixing = (self.weights.view(f.fields_out * f.fields_in, -1) @ constants["mixing"]).view(
            f.fields_out, f.fields_in, -1
        )
        y = torch_path.convolve(
            x.tensor,
            constants["filters"],
            mixing,
            constants["basis_out"],
            f.blocks,
            components_out=f.components_out,
            stride=self.stride,
            padding=self.padding,
        )
        if self.bias is not None:
            y = y + (self.bias_expansion @ self.bias).view(1, -1, 1, 1)
        return Features(y, self.out_type)


class FastIIDBatchNorm2d(_Fast, enn.IIDBatchNorm2d):
    """`escnn.nn.IIDBatchNorm2d`: only the statistics are taken here, the rest waits for the next layer.

    As in escnn mean and variance are detached, only trivial irreps have their mean removed, and the
    variance is the mean over components of the unbiased variance of each.
    """

    def _prepare(self) -> None:
        if uniform_representation(self.in_type) is None:
            raise ValueError("the fields differ in their representation")

    def forward(self, input: GeometricTensor) -> GeometricTensor:
        assert input.type == self.in_type
        if self.steerable_path == "escnn":
            return super().forward(input)
        x = as_features(input)
        if x.affine is not None or x.keep is not None:
            x = Features(x.tensor, x.type)
        ((name, components),) = self._sizes
        shape = (self._nfields[name], components)

        def own(suffix: str) -> Tensor:
            return getattr(self, f"{self._escape_name(name)}_{suffix}")

        trivial = self._has_trivial[name]
        if self.training:
            self.num_batches_tracked += 1
        if self.training or not self.track_running_stats:
            with torch.no_grad():
                variances, means = torch.var_mean(x.planes.unflatten(1, shape), (0, 3, 4))
                mean = means @ own("avg").T if trivial else torch.zeros_like(means)
                variance = variances.mean(1, keepdim=True)
                if self.track_running_stats:
                    factor = self.momentum if self.momentum is not None else 1.0 / self.num_batches_tracked.item()
                    own("running_var").mul_(1 - factor).add_(variance, alpha=factor)
                    if trivial:
                        own("running_mean").mul_(1 - factor).add_(mean, alpha=factor)
        else:
            variance = own("running_var")
            mean = own("running_mean") if trivial else variance.new_zeros(shape)
        scale = (own("weight") if self.affine else 1.0) / (variance + self.eps).sqrt()
        shift = own("bias") @ own("change_of_basis").T if self.affine and trivial else torch.zeros_like(mean)
        if not self.training and self.track_running_stats:
            # escnn reads the buffers now; later updates in place must not change this output
            mean = mean.clone()
        return Features(x.raw, self.out_type, packed=x.packed, affine=Affine(mean, scale, shift))


class FastFourierPointwise(_Fast, enn.FourierPointwise):
    """`escnn.nn.FourierPointwise` in one pass: pending batch norm, sample, function, project back."""

    def forward(self, input: GeometricTensor) -> GeometricTensor:
        assert input.type == self.in_type
        if self.steerable_path == "escnn":
            return super().forward(input)
        x = as_features(input)
        if x.keep is not None:
            x = Features(x.tensor, x.type)
        y = torch_path.sample_activate_project(x.planes, x.affine, self.A, self.Ainv, self._function)
        return Features(y, self.out_type)


class FastFourierELU(FastFourierPointwise, enn.FourierELU):
    """`escnn.nn.FourierELU`, see `FastFourierPointwise`."""


class FastFieldDropout(_Fast, enn.FieldDropout):
    """`escnn.nn.FieldDropout` with the same random draws; the next convolution applies it."""

    def _prepare(self) -> None:
        if len(self._order) != 1:
            raise ValueError("the fields differ in their size")
        if self.inplace:
            raise ValueError("inplace=True changes its input")

    def forward(self, input: GeometricTensor) -> GeometricTensor:
        assert input.type == self.in_type
        if self.steerable_path == "escnn" or not self.training:
            return super().forward(input)
        x = as_features(input)
        if x.affine is not None or x.keep is not None:
            x = Features(x.tensor, x.type)
        n, height, width = x.grid
        draws = torch.empty(n, len(self.in_type), 1, height, width, dtype=torch.float32, device=x.raw.device)
        draws.uniform_()
        keep = (draws > self.p).to(x.raw.dtype) / (1.0 - self.p)
        return Features(x.raw, self.out_type, packed=x.packed, keep=keep)


FAST: dict[type, type] = {
    enn.R2Conv: FastR2Conv,
    enn.IIDBatchNorm2d: FastIIDBatchNorm2d,
    enn.FourierPointwise: FastFourierPointwise,
    enn.FourierELU: FastFourierELU,
    enn.FieldDropout: FastFieldDropout,
}


@dataclass(frozen=True)
class LayerReport:
    """One layer of a model: is it fast, on which path, or why not."""

    name: str
    kind: str
    fast: bool
    note: str

    def __str__(self) -> str:
        return f"{self.name or '(root)'}: {self.kind}: {'fast' if self.fast else 'escnn'}, {self.note}"


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
    working; the state dict, hooks, training mode and random draws stay as they are. A layer that
    cannot be fast keeps escnn's forward, and `report` says why. Calling it again is harmless, and
    with another ``path`` it changes the path.

    Parameters
    ----------
    module : any module tree with escnn layers
    path : "native", "torch" or "escnn" (the layers' original forward); None takes the environment
        variable ``GVAE_STEERABLE``, or the fastest

    Raises
    ------
    ValueError : an unknown path

    Examples
    --------
    >>> from escnn import gspaces, nn
    >>> gspace = gspaces.rot2dOnR2(8)
    >>> fields = nn.FieldType(gspace, 4 * [gspace.regular_repr])
    >>> layer = accelerate(nn.R2Conv(fields, fields, kernel_size=3))
    >>> print(report(layer)[0].fast)
    True
    """
    path = default_path() if path is None else path
    if path not in PATHS:
        raise ValueError(f"expected a path among {', '.join(PATHS)}, got {path!r}")
    for layer in module.modules():
        fast = FAST.get(type(layer))
        if fast is not None:
            original, layer.__class__ = layer.__class__, fast
            try:
                layer._prepare()
            except ValueError as reason:
                layer.__class__ = original
                layer.__dict__["_steerable_refusal"] = str(reason)
        if isinstance(layer, _Fast):
            layer.steerable_path = path
    return module


def report(module: nn.Module) -> list[LayerReport]:
    """For every layer of escnn inside a module: is it fast, on which path, and why not."""
    rows = []
    for name, layer in module.named_modules():
        if not isinstance(layer, enn.EquivariantModule) or isinstance(layer, enn.SequentialModule):
            continue
        fast = isinstance(layer, _Fast) and layer.steerable_path != "escnn"
        kind = type(layer).__name__.removeprefix("Fast")
        if isinstance(layer, _Fast):
            note = f"{layer.steerable_path} path"
            if fast and isinstance(layer, FastR2Conv):
                f = layer._factors
                dense = f.components_in * f.components_out * layer.kernel_size**2
                note += f", {len(f.filters)} maps, {f.multiplications} of {dense} multiply-adds per pair of fields"
        else:
            note = layer.__dict__.get("_steerable_refusal", "no fast version of this kind of layer")
        rows.append(LayerReport(name, kind, fast, note))
    return rows
