"""Fast drop-in subclasses of escnn's layers; the convolution is in `convolution`, `paths` puts them into a model.

A fast layer *is* the escnn layer with another ``forward``: only the class of a module is changed, so parameters,
buffers, state dict, hooks and training mode stay as they were.
"""

from __future__ import annotations

import copy
import functools
import math
import os
from types import ModuleType

import escnn.nn as enn
import torch
import torch.nn.functional as F
from escnn.nn import GeometricTensor
from torch import Tensor, nn

from . import native, torch_path
from .factors import uniform_representation
from .features import Affine, Features, as_features


class _Fast:
    """What the fast layers share: the path they take.

    ``steerable_path`` is the path asked for; the compiled kernels additionally need float32 on a CPU outside autocast
    and torch.func's transforms, and a compiler.
    """

    steerable_path: str = "native"
    _native_refusal: str | None = None  # why this layer has no compiled version

    def _prepare(self) -> None:
        """Compute what the fast forward needs; ValueError, saying why, where it cannot be fast."""

    def _takes_escnn(self, input: GeometricTensor) -> bool:
        """Asked for, or values that are no maps over a plane (points, volumes, a gspace without a plane)."""
        return self.steerable_path == "escnn" or not (isinstance(input, Features) or input.tensor.ndim == 4)

    def _takes_native(self, x: Features, *others: Tensor | None) -> bool:
        """Whether the kernels can read the input and the layer's other tensors: never another dtype or device."""
        return (
            self.steerable_path == "native"
            and self._native_refusal is None
            and not torch.is_autocast_enabled("cpu")
            and native.takes(x.raw, *others)
        )

    def __deepcopy__(self, memo: dict) -> nn.Module:
        copied = memo[id(self)] = copy.copy(self)
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def __copy__(self) -> nn.Module:
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __reduce_ex__(self, protocol: int):
        raise TypeError(
            "escnn's groups cannot be pickled, nor can a module that holds them: save its state_dict() and load it "
            "into a model that is built anew (copy.deepcopy works)"
        )


def _check_plane(layer: enn.EquivariantModule) -> None:
    dimension = layer.in_type.gspace.dimensionality
    if dimension != 2:
        raise ValueError(f"its gspace has {dimension} dimensions, not 2")


class FastIIDBatchNorm2d(_Fast, enn.IIDBatchNorm2d):
    """`escnn.nn.IIDBatchNorm2d`: only the statistics are taken here, the rest waits.

    As in escnn mean and variance are detached, only trivial irreps have their mean removed, and the
    variance is the mean over components of the unbiased variance of each.
    """

    def _prepare(self) -> None:
        _check_plane(self)
        if uniform_representation(self.in_type) is None:
            raise ValueError("the fields differ in their representation")

    def forward(self, input: GeometricTensor) -> GeometricTensor:
        assert input.type == self.in_type
        if self._takes_escnn(input):
            return super().forward(input)
        x = as_features(input).applied()
        ((name, components),) = self._sizes
        shape = (self._nfields[name], components)

        def own(suffix: str) -> Tensor:
            return getattr(self, f"{self._escape_name(name)}_{suffix}")

        trivial = self._has_trivial[name]
        from_batch = self.training or not self.track_running_stats
        # The kernels' statistics are faster than torch's, and the next layer would pack.
        if from_batch and not x.packed and self._takes_native(x):
            x = Features(native.Pack.apply(x.raw, len(x.type)), x.type, packed=True)
        if from_batch and math.prod(x.grid) < 2:  # escnn makes its running statistics NaN
            raise ValueError(f"expected more than one value per channel for the statistics, got {[*x.tensor.shape]}")
        if self.training:
            self.num_batches_tracked += 1
        if from_batch:
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


@functools.cache
def triton_kernels() -> ModuleType | None:
    """Where Triton is installed, as it is with torch's builds for GPUs; its import takes a second."""
    try:
        from . import triton_kernels
    except ImportError:
        return None
    return triton_kernels


def _by_triton(x: Tensor, *others: Tensor) -> bool:
    on_gpu = x.is_cuda or "TRITON_INTERPRET" in os.environ
    return on_gpu and triton_kernels() is not None and triton_kernels().takes(x, *others)


class FastFourierPointwise(_Fast, enn.FourierPointwise):
    """`escnn.nn.FourierPointwise` in one pass: batch norm, sample, function, project back."""

    def _prepare(self) -> None:
        _check_plane(self)
        sizes = max(self.rho.size, self.rho_out.size), len(self.A)
        if self._function not in (F.elu, F.elu_, F.relu, F.relu_):
            self._native_refusal = f"the compiled kernels have no {self._function.__name__}"
        elif sizes[0] > native.MAX_COMPONENTS or sizes[1] > native.MAX_GRID:
            self._native_refusal = "more than {1} samples or {0} components".format(*sizes)

    def forward(self, input: GeometricTensor) -> GeometricTensor:
        assert input.type == self.in_type
        if self._takes_escnn(input):
            return super().forward(input)
        x = as_features(input)
        if x.keep is not None:
            x = Features(x.tensor, x.type)
        relu = self._function in (F.relu, F.relu_)
        if self._takes_native(x, self.A, self.Ainv, *(x.affine or ())):
            plan = native.ActivationPlan(self.A, self.Ainv, relu=relu)
            affine = [native.pad_fields(a.T).contiguous() for a in x.affine or ()]
            raw = x.raw if x.packed else native.Pack.apply(x.raw, len(self.in_type))
            return Features(native.Activate.apply(plan, raw, *affine), self.out_type, packed=True)
        planes, tensors = x.planes, (self.A, self.Ainv, *(x.affine or ()))
        if self.steerable_path == "native" and self._native_refusal is None and _by_triton(planes, *tensors):
            y = triton_kernels().Activate.apply(*tensors[:2], relu, planes.contiguous(), *tensors[2:])
        else:
            y = torch_path.sample_activate_project(planes, x.affine, *tensors[:2], self._function)
        return Features(y, self.out_type)


class FastFourierELU(FastFourierPointwise, enn.FourierELU):
    """`escnn.nn.FourierELU`, see `FastFourierPointwise`."""


class FastFieldDropout(_Fast, enn.FieldDropout):
    """`escnn.nn.FieldDropout` with the same random draws; the next convolution applies it."""

    def _prepare(self) -> None:
        _check_plane(self)
        if len(self._order) != 1:
            raise ValueError("the fields differ in their size")
        if self.inplace:
            raise ValueError("inplace=True changes its input")

    def forward(self, input: GeometricTensor) -> GeometricTensor:
        assert input.type == self.in_type
        if self._takes_escnn(input) or not self.training:
            return super().forward(input)
        x = as_features(input).applied()
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
        if self._takes_escnn(input) or not x.packed or x.affine is not None:
            return super().forward(input)
        channels_last = x.kept().flatten(3).permute(0, 3, 1, 2)
        pooled = F.avg_pool2d(channels_last, self.kernel_size, self.stride, self.padding, self.ceil_mode)
        packed = pooled.permute(0, 2, 3, 1).unflatten(3, x.raw.shape[3:]).contiguous()
        return Features(packed, self.out_type, packed=True)


class FastPointwiseAvgPoolAntialiased2D(_Fast, enn.PointwiseAvgPoolAntialiased2D):
    """`escnn.nn.PointwiseAvgPoolAntialiased2D`: a Gaussian is separable, so it is two matrix products."""

    def forward(self, input: GeometricTensor) -> GeometricTensor:
        assert input.type == self.in_type
        if self._takes_escnn(input):
            return super().forward(input)
        x = as_features(input).applied()
        n, height, width = x.grid
        rows, columns = self._blur(height, 0), self._blur(width, 1)
        if not x.packed:
            return Features(rows @ (x.raw @ columns.T), self.out_type)
        blurred = columns @ x.raw.flatten(0, 1).flatten(2)
        blurred = rows @ blurred.unflatten(0, (n, height)).flatten(2)
        return Features(blurred.reshape(n, len(rows), len(columns), *x.raw.shape[3:]), self.out_type, packed=True)

    def _blur(self, size: int, axis: int) -> Tensor:
        """The blur along one axis as a matrix [output positions, size]; outside of the map is zero."""
        profile = self.filter[0, 0].sum(1 - axis)
        padded = F.pad(torch.eye(size, dtype=profile.dtype, device=profile.device), [self.padding[axis]] * 2)
        windows = padded.unfold(1, len(profile), self.stride[axis])  # [size, output positions, taps]
        return (windows @ profile).T


class FastMaskModule(_Fast, enn.MaskModule):
    """`escnn.nn.MaskModule`; packed features are masked as they are."""

    def _prepare(self) -> None:
        _check_plane(self)

    def forward(self, input: GeometricTensor) -> GeometricTensor:
        assert input.type == self.in_type
        x = as_features(input)
        if self._takes_escnn(input) or not x.packed or x.affine is not None:
            return super().forward(input)
        assert x.raw.shape[1:3] == self.mask.shape[2:]
        return Features(x.kept() * self.mask[0, 0, :, :, None, None], self.out_type, packed=True)
