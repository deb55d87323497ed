"""Fast drop-in subclasses of escnn's layers, and `accelerate`, which puts them into a model.

A fast layer *is* the escnn layer with another ``forward``: `accelerate` only changes the class of
the modules it knows, so parameters, buffers, state dict, hooks and training mode stay as they were.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import escnn.nn as enn
import torch
import torch.nn.functional as F
from escnn.nn import GeometricTensor
from torch import Tensor, nn

from . import native, torch_path
from .factors import Factors, factorise, uniform_representation
from .features import Affine, Features, as_features

PATHS = ("escnn", "torch", "native")


class _Fast:
    """What the fast layers share: the path they take.

    ``steerable_path`` is the path asked for; the compiled kernels additionally need float32 on a
    CPU outside autocast, and a compiler.
    """

    steerable_path: str = "native"
    _native_refusal: str | None = None  # why this layer has no compiled version

    def _prepare(self) -> None:
        """Compute what the fast forward needs; ValueError, saying why, where it cannot be fast."""

    def _takes_native(self, x: Features) -> bool:
        return (
            self.steerable_path == "native"
            and self._native_refusal is None
            and x.raw.device.type == "cpu"
            and x.raw.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and native.load() is not None
        )


def _state(tensor: Tensor) -> tuple:
    """Changes whenever the tensor is replaced or written to in place."""
    return (
        tensor.data_ptr(),
        tensor.device,
        tensor.dtype,
        None if tensor.is_inference() else tensor._version,
    )


class FastR2Conv(_Fast, enn.R2Conv):
    """`escnn.nn.R2Conv` as a few spatial filters and one matrix product per irrep, see `factors`.

    In eval mode the expanded weights are kept, and expanded again once they have changed.
    """

    def _prepare(self) -> None:
        factors = factorise(self)
        try:
            plan, self._native_refusal = (
                native.ConvolutionPlan(factors, self.stride, self.padding),
                None,
            )
        except ValueError as reason:
            plan, self._native_refusal = None, str(reason)
        self._factors: Factors = factors
        self._plan: native.ConvolutionPlan | None = plan
        self._prepared_for = _state(self._sampled_basis)
        self._constants: tuple[tuple, tuple] | None = None
        self._expanded: tuple[tuple, Tensor] | None = None

    def train(self, mode: bool = True) -> FastR2Conv:
        # escnn expands the dense filter for eval mode; it stays in the state dict, but nothing
        # differentiates it
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.steerable_path == "escnn"):
            return super().train(mode)

    @property
    def _sampled_basis(self) -> Tensor:
        (block,) = self.basisexpansion._modules.values()  # children() would hash its basis, for half a millisecond
        return block.sampled_basis

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_constants": None, "_expanded": None}

    def _float_constants(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Filters, mixing and basis_out in the weights' dtype and on their device."""
        f, key = self._factors, (self.weights.device, self.weights.dtype)
        constants = self._constants
        if constants is None or constants[0] != key:
            arrays = (f.filters, f.mixing, f.basis_out)
            constants = (
                key,
                tuple(None if a is None else torch.from_numpy(a).to(*key) for a in arrays),
            )
            self._constants = constants
        return constants[1]

    def _mixing(self, expand: Callable[[], Tensor], path: str) -> Tensor:
        """The expanded weights; kept between calls where nothing can differentiate them."""
        compiling = torch.compiler.is_compiling()
        if self.training or torch.is_grad_enabled() or compiling or self.weights.is_inference():
            return expand()
        key, kept = (path, *_state(self.weights)), self._expanded
        if kept is None or kept[0] != key:
            kept = self._expanded = key, expand()
        return kept[1]

    def forward(self, input: GeometricTensor) -> GeometricTensor:
        assert input.type == self.in_type
        if self.steerable_path == "escnn":
            return super().forward(input)
        if not torch.compiler.is_compiling() and self._prepared_for != _state(self._sampled_basis):
            try:  # moved, copied, or another basis was loaded
                self._prepare()
            except ValueError as reason:
                warnings.warn(f"back to escnn's forward: {reason}", RuntimeWarning, stacklevel=2)
                self.__class__, self.__dict__["_steerable_refusal"] = enn.R2Conv, str(reason)
                return self(input)
        f, x = self._factors, as_features(input)
        filters, coefficients, basis_out = self._float_constants()
        weights = self.weights.view(f.fields_out, f.fields_in, -1)
        bias = None if self.bias is None else self.bias_expansion @ self.bias
        if self._takes_native(x):
            mixing = self._mixing(
                lambda: (coefficients.T @ weights.permute(2, 1, 0).flatten(1)).unflatten(1, (f.fields_in, -1)),
                "native",
            )
            if bias is not None:
                bias = native.pad_fields(bias.view(f.fields_out, -1).T).contiguous()
            raw, keep = x.packed_with_keep()
            return Features(
                native.Convolve.apply(self._plan, raw, keep, mixing, bias),
                self.out_type,
                packed=True,
            )
        mixing = self._mixing(lambda: weights @ coefficients, "torch")
        y = torch_path.convolve(
            x.tensor,
            filters,
            mixing,
            basis_out,
            f.blocks,
            components_out=f.components_out,
            stride=self.stride,
            padding=self.padding,
        )
        return Features(y if bias is None else y + bias.view(1, -1, 1, 1), self.out_type)


class FastIIDBatchNorm2d(_Fast, enn.IIDBatchNorm2d):
    """`escnn.nn.IIDBatchNorm2d`: only the statistics are taken here, the rest waits.

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
                if x.packed:
                    means, variances = (a[:, : shape[0]].T for a in native.statistics(x.raw.detach()))
                else:
                    variances, means = torch.var_mean(x.raw.unflatten(1, shape), (0, 3, 4))
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
    """`escnn.nn.FourierPointwise` in one pass: batch norm, sample, function, project back."""

    def _prepare(self) -> None:
        sizes = max(self.rho.size, self.rho_out.size), len(self.A)
        if self._function not in (F.elu, F.elu_, F.relu, F.relu_):
            self._native_refusal = f"the compiled kernels have no {self._function.__name__}"
        elif sizes[0] > native.MAX_COMPONENTS or sizes[1] > native.MAX_GRID:
            self._native_refusal = "more than {1} samples or {0} components".format(*sizes)

    def forward(self, input: GeometricTensor) -> GeometricTensor:
        assert input.type == self.in_type
        if self.steerable_path == "escnn":
            return super().forward(input)
        x = as_features(input)
        if x.keep is not None:
            x = Features(x.tensor, x.type)
        if x.packed and self._takes_native(x):
            plan = native.ActivationPlan(self.A, self.Ainv, relu=self._function in (F.relu, F.relu_))
            affine = [native.pad_fields(a.T).contiguous() for a in x.affine or ()]
            return Features(native.Activate.apply(plan, x.raw, *affine), self.out_type, packed=True)
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


class FastPointwiseAvgPool2D(_Fast, enn.PointwiseAvgPool2D):
    """`escnn.nn.PointwiseAvgPool2D`; packed features are pooled as they are."""

    def forward(self, input: GeometricTensor) -> GeometricTensor:
        assert input.type == self.in_type
        x = as_features(input)
        if self.steerable_path == "escnn" or not x.packed or x.affine is not None or x.keep is not None:
            return super().forward(input)
        channels_last = x.raw.flatten(3).permute(0, 3, 1, 2)
        pooled = F.avg_pool2d(channels_last, self.kernel_size, self.stride, self.padding, self.ceil_mode)
        packed = pooled.permute(0, 2, 3, 1).unflatten(3, x.raw.shape[3:]).contiguous()
        return Features(packed, self.out_type, packed=True)


class FastPointwiseAvgPoolAntialiased2D(_Fast, enn.PointwiseAvgPoolAntialiased2D):
    """`escnn.nn.PointwiseAvgPoolAntialiased2D`: a Gaussian is separable, so rows and columns are two matrix products."""

    def forward(self, input: GeometricTensor) -> GeometricTensor:
        assert input.type == self.in_type
        x = as_features(input)
        if self.steerable_path == "escnn":
            return super().forward(input)
        if x.affine is not None or x.keep is not None:
            x = Features(x.tensor, x.type)
        n, height, width = x.grid
        rows, columns = self._blur(height, 0), self._blur(width, 1)
        if not x.packed:
            return Features(rows @ (x.raw @ columns.T), self.out_type)
        blurred = columns @ x.raw.reshape(n * height, width, -1)
        blurred = rows @ blurred.reshape(n, height, -1)
        return Features(blurred.reshape(n, len(rows), len(columns), *x.raw.shape[3:]), self.out_type, packed=True)

    def _blur(self, size: int, axis: int) -> Tensor:
        """The blur along one axis as a matrix [output positions, size]; outside of the map is zero."""
        profile = self.filter[0, 0].sum(1 - axis)
        padded = F.pad(torch.eye(size, dtype=profile.dtype, device=profile.device), [self.padding[axis]] * 2)
        windows = padded.unfold(1, len(profile), self.stride[axis])  # [size, output positions, taps]
        return (windows @ profile).T


class FastMaskModule(_Fast, enn.MaskModule):
    """`escnn.nn.MaskModule`; packed features are masked as they are."""

    def forward(self, input: GeometricTensor) -> GeometricTensor:
        assert input.type == self.in_type
        x = as_features(input)
        if self.steerable_path == "escnn" or not x.packed or x.affine is not None or x.keep is not None:
            return super().forward(input)
        assert x.raw.shape[1:3] == self.mask.shape[2:]
        return Features(x.raw * self.mask[0, 0, :, :, None, None], self.out_type, packed=True)


FAST: dict[type, type] = {
    enn.R2Conv: FastR2Conv,
    enn.IIDBatchNorm2d: FastIIDBatchNorm2d,
    enn.FourierPointwise: FastFourierPointwise,
    enn.FourierELU: FastFourierELU,
    enn.FieldDropout: FastFieldDropout,
    enn.MaskModule: FastMaskModule,
    enn.PointwiseAvgPool2D: FastPointwiseAvgPool2D,
    enn.PointwiseAvgPoolAntialiased2D: FastPointwiseAvgPoolAntialiased2D,
}


@dataclass(frozen=True)
class LayerReport:
    """One layer of a model: the path it takes ("native", "torch" or "escnn") and why."""

    name: str
    kind: str
    path: str
    note: str

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
    >>> report(layer)[0].fast
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
    """For every layer of escnn inside a module: which path it takes (float32 on a CPU), and why."""
    rows = []
    for name, layer in module.named_modules():
        if not isinstance(layer, enn.EquivariantModule) or isinstance(layer, enn.SequentialModule):
            continue
        path, notes = "escnn", []
        if not isinstance(layer, _Fast):
            notes.append(layer.__dict__.get("_steerable_refusal", "no fast version of this kind of layer"))
        elif layer.steerable_path == "escnn":
            notes.append("asked for")
        else:
            path = layer.steerable_path
            if path == "native" and layer._native_refusal:
                path = "torch"
                notes.append(f"no compiled version: {layer._native_refusal}")
            elif path == "native" and native.load() is None:
                path = "torch"
                notes.append("the compiled kernels are not available")
            if isinstance(layer, FastR2Conv):
                f = layer._factors
                dense = f.components_in * f.components_out * layer.kernel_size**2
                notes.append(
                    f"{len(f.filters)} maps, {f.multiplications} instead of {dense} multiply-adds per pair of fields"
                )
        rows.append(LayerReport(name, type(layer).__name__.removeprefix("Fast"), path, "; ".join(notes)))
    return rows


def path_in_use(module: nn.Module) -> str:
    """The paths a module's escnn layers take, for the record of a result: "escnn+native", ..."""
    return "+".join(sorted({row.path for row in report(module)}))
