"""Fast drop-in subclasses of escnn's layers, and `accelerate`, which puts them into a model.

A fast layer *is* the escnn layer with another ``forward``: `accelerate` only changes the class of
the modules it knows, so parameters, buffers, state dict, hooks and training mode stay as they were.
"""

from __future__ import annotations

import copy
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import escnn.nn as enn
import torch
import torch.nn.functional as F
from escnn.nn import GeometricTensor
from escnn.nn.modules.basismanager import BlocksBasisExpansion
from torch import Tensor, nn

from . import native, torch_path
from .escnn_fixes import own_bases
from .factors import Factors, costs, factorise, uniform_representation
from .features import Affine, Features, as_features

PATHS = ("escnn", "torch", "native")
LAYOUT_COST = 64  # multiply-adds of a dense convolution in the time in which one value is packed or unpacked


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


class FastR2Conv(_Fast, enn.R2Conv):
    """`escnn.nn.R2Conv` as a few spatial filters and one matrix product per irrep, see `factors`.

    The weights are expanded in every call that may be differentiated; the others keep what they expanded beside a copy
    of the weights, and expand again once the weights differ from it, however they were written. ``filter`` and
    ``expanded_bias``, which escnn registers in eval mode, are computed when asked for: the buffers are the same in both
    modes, the state dict has escnn's keys, and one with or without them is loaded in either mode.
    """

    def _prepare(self) -> None:
        self._factorise()
        self._eval_keys = not self.training or "filter" in self._buffers  # a new escnn layer has eval mode's keys
        for name in ("filter", "expanded_bias"):
            self._buffers.pop(name, None)
        self._expanded: tuple[tuple, Tensor, Tensor] | None = None

    def _factorise(self) -> None:
        factors = factorise(self)
        try:
            plan, self._native_refusal = native.ConvolutionPlan(factors, self.stride, self.padding), None
        except ValueError as reason:
            plan, self._native_refusal = None, str(reason)
        self._factors: Factors = factors
        self._costs = costs(factors)
        self._plan: native.ConvolutionPlan | None = plan
        ways = [("torch", False)] + [("native", packed) for packed in (False, True) if plan]
        self._always_dense = {self._way(*way) for way in ways} == {"dense"}
        self._prepared_for = self._sampled_basis.detach().clone(), self._geometry
        self._prepared_as: tuple | None = None
        self._constants: tuple[tuple, tuple] | None = None
        self._float_constants()

    def train(self, mode: bool = True) -> FastR2Conv:
        if mode or self.training:
            self._eval_keys = not mode
        self._expanded = None
        return nn.Module.train(self, mode)  # escnn's would expand the dense filter or drop it

    def _apply(self, *args, **kwargs) -> FastR2Conv:
        super()._apply(*args, **kwargs)
        self._float_constants()  # now, because nothing may be kept that is made while a graph is traced
        return self

    @property
    def filter(self) -> Tensor:
        """The dense filter [C_out, C_in, k, k] of the weights as they are now."""
        return self._mixing("dense", self._dense_filter)

    @property
    def expanded_bias(self) -> Tensor | None:
        """The bias of every channel, [C_out]."""
        return None if self.bias is None else self.bias_expansion @ self.bias

    def _dense_filter(self) -> Tensor:
        f, basis = self._factors, self._sampled_basis
        blocks = self.weights.view(-1, len(basis)) @ basis.flatten(1)
        blocks = blocks.view(f.fields_out, f.fields_in, f.components_out, f.components_in, -1).transpose(1, 2)
        return blocks.reshape(self.out_type.size, self.in_type.size, self.kernel_size, self.kernel_size)

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self._eval_keys:
            for name in ("expanded_bias", "filter"):
                value = getattr(self, name)
                if value is not None:
                    destination[prefix + name] = value if keep_vars else value.detach()

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        computed = {prefix + "filter", prefix + "expanded_bias"}
        super()._load_from_state_dict({k: v for k, v in state_dict.items() if k not in computed}, prefix, *args)

    @property
    def _sampled_basis(self) -> Tensor:
        (block,) = self.basisexpansion._modules.values()
        return block.sampled_basis

    @property
    def _geometry(self) -> tuple:
        return self.stride, self.padding, self.dilation, self.groups, self.padding_mode

    def _is_prepared(self) -> bool:
        """Whether the factors are those of the layer as it is now: its buffer may have been loaded or written.

        A basis that is another tensor, or was written to, is compared with the known one; and because a write through
        ``.data`` leaves no trace, so are some thousand of its values in every call.
        """
        known, geometry = self._prepared_for
        if geometry != self._geometry:
            return False
        if torch.compiler.is_compiling() or torch_path.transformed():
            return True
        basis = self._sampled_basis
        identity = _identity(basis)
        if self._prepared_as != identity:
            if not _equal(basis, known):
                return False
            self._prepared_as = identity
        return basis.device.type != "cpu" or torch.equal(_sample(basis), _sample(known))

    def _float_constants(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Filters, mixing and basis_out in the weights' dtype and on their device."""
        f, key = self._factors, (self.weights.device, self.weights.dtype)
        constants = self._constants
        if constants is None or constants[0] != key:
            arrays = (f.filters, f.mixing, f.basis_out)
            constants = key, tuple(None if a is None else torch.from_numpy(a).to(*key) for a in arrays)
            if not torch.compiler.is_compiling():
                self._constants = constants
        return constants[1]

    def _mixing(self, way: str, expand: Callable[[], Tensor]) -> Tensor:
        """The expanded weights; kept between calls where nothing can differentiate them."""
        if (
            torch.is_grad_enabled()
            or torch.compiler.is_compiling()
            or torch_path.transformed()
            or self.weights.device.type != "cpu"  # a comparison would wait for the device
        ):
            return expand()
        weights, kept, key = self.weights, self._expanded, (way, *_identity(self._sampled_basis))
        if kept is None or kept[0] != key or not _equal(kept[1], weights):
            kept = self._expanded = key, weights.detach().clone(), expand()
        return kept[2]

    def forward(self, input: GeometricTensor) -> GeometricTensor:
        assert input.type == self.in_type
        if self._always_dense and self._prepared_for[1] == self._geometry:
            return self._convolve_dense(input)
        if not self._is_prepared():
            try:
                self._factorise()
            except ValueError as reason:
                warnings.warn(f"back to escnn's forward: {reason}", RuntimeWarning, stacklevel=2)
                self._back_to_escnn(str(reason))
                return self(input)
        if self._takes_escnn(input) or torch_path.transformed():
            return self._convolve_dense(input)
        f, x = self._factors, as_features(input)
        if not self._fits(x):
            return self._convolve_dense(input)  # torch says what is wrong
        weights, bias = self.weights, self.expanded_bias
        way = self._way("native" if self._takes_native(x, weights, bias) else "torch", x.packed)
        if way == "dense":
            return self._convolve_dense(x)
        filters, coefficients, basis_out = self._float_constants()
        weights = weights.view(f.fields_out, f.fields_in, -1)
        if way == "native":
            mixing = self._mixing(
                "native",
                lambda: (coefficients.T @ weights.permute(2, 1, 0).flatten(1)).unflatten(1, (f.fields_in, -1)),
            )
            if bias is not None:
                bias = native.pad_fields(bias.view(f.fields_out, -1).T).contiguous()
            raw, keep = x.packed_with_keep()
            return Features(native.Convolve.apply(self._plan, raw, keep, mixing, bias), self.out_type, packed=True)
        mixing = self._mixing("torch", lambda: weights @ coefficients)
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

    def _way(self, path: str, packed: bool) -> str:
        """The cheaper of a path and the dense convolution, by the rule of `factors.costs`.

        Between the compiled layers, whose features are packed, the dense convolution unpacks and its result is packed
        again; a compiled convolution on planes packs them.
        """
        layout = {"native": {"dense": self.out_type.size, "native": 0}, "torch": {"dense": 0, "torch": 0}}[path]
        layout["dense" if packed else path] += self.in_type.size if path == "native" else 0
        cost = {way: self._costs[way] + LAYOUT_COST * channels for way, channels in layout.items()}
        return min(cost, key=cost.get)

    def _fits(self, x: Features) -> bool:
        """Whether the kernel fits into the padded map, and the input's dtype to the weights'."""
        pad = (self.padding, self.padding) if isinstance(self.padding, int) else self.padding
        large = all(side > 0 and side + 2 * p >= self.kernel_size for side, p in zip(x.grid[1:], pad))
        return large and (x.raw.dtype == self.weights.dtype or torch.is_autocast_enabled(x.raw.device.type))

    def _convolve_dense(self, input: GeometricTensor) -> GeometricTensor:
        """escnn's own convolution, with the weights as they are now."""
        y = F.conv2d(input.tensor, self.filter, self.expanded_bias, self.stride, self.padding)
        return Features(y, self.out_type) if y.ndim == 4 else GeometricTensor(y, self.out_type)

    def _back_to_escnn(self, reason: str) -> None:
        filter, bias = self.filter.detach(), self.expanded_bias
        self.__class__, self.__dict__["_steerable_refusal"] = enn.R2Conv, reason
        if not self.training:  # its buffers in eval mode
            self.register_buffer("filter", filter)
            if bias is None:
                self.expanded_bias = None
            else:
                self.register_buffer("expanded_bias", bias.detach())


def _check_plane(layer: enn.EquivariantModule) -> None:
    dimension = layer.in_type.gspace.dimensionality
    if dimension != 2:
        raise ValueError(f"its gspace has {dimension} dimensions, not 2")


def _sample(basis: Tensor) -> Tensor:
    """At most 4096 values from all over the basis."""
    return basis.detach().flatten()[:: basis.numel() // 4096 + 1]


def _identity(tensor: Tensor) -> tuple:
    """Changes whenever the tensor is replaced, moved or written to in place, but not with a write through ``.data``."""
    return id(tensor), tensor.data_ptr(), None if tensor.is_inference() else tensor._version


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)


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
        x = as_features(input)
        if x.affine is not None or x.keep is not None:
            x = Features(x.tensor, x.type)
        ((name, components),) = self._sizes
        shape = (self._nfields[name], components)

        def own(suffix: str) -> Tensor:
            return getattr(self, f"{self._escape_name(name)}_{suffix}")

        trivial = self._has_trivial[name]
        from_batch = self.training or not self.track_running_stats
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
        if self._takes_native(x, self.A, self.Ainv, *(x.affine or ())):
            plan = native.ActivationPlan(self.A, self.Ainv, relu=self._function in (F.relu, F.relu_))
            affine = [native.pad_fields(a.T).contiguous() for a in x.affine or ()]
            raw = x.raw if x.packed else native.Pack.apply(x.raw, len(self.in_type))
            return Features(native.Activate.apply(plan, raw, *affine), self.out_type, packed=True)
        y = torch_path.sample_activate_project(x.planes, x.affine, self.A, self.Ainv, self._function)
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
        if self._takes_escnn(input) or not x.packed or x.affine is not None or x.keep is not None:
            return super().forward(input)
        channels_last = x.raw.flatten(3).permute(0, 3, 1, 2)
        pooled = F.avg_pool2d(channels_last, self.kernel_size, self.stride, self.padding, self.ceil_mode)
        packed = pooled.permute(0, 2, 3, 1).unflatten(3, x.raw.shape[3:]).contiguous()
        return Features(packed, self.out_type, packed=True)


class FastPointwiseAvgPoolAntialiased2D(_Fast, enn.PointwiseAvgPoolAntialiased2D):
    """`escnn.nn.PointwiseAvgPoolAntialiased2D`: a Gaussian is separable, so it is two matrix products."""

    def forward(self, input: GeometricTensor) -> GeometricTensor:
        assert input.type == self.in_type
        if self._takes_escnn(input):
            return super().forward(input)
        x = as_features(input)
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

    def _prepare(self) -> None:
        _check_plane(self)

    def forward(self, input: GeometricTensor) -> GeometricTensor:
        assert input.type == self.in_type
        x = as_features(input)
        if self._takes_escnn(input) or not x.packed or x.affine is not None or x.keep is not None:
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
        if isinstance(layer, _Fast):
            layer.steerable_path = path
    return module


def explain(module: nn.Module) -> list[Explanation]:
    """For every layer of escnn inside a module: which path it takes (float32 on a CPU), and why."""
    rows = []
    for name, layer in module.named_modules():
        if not isinstance(layer, enn.EquivariantModule) or isinstance(layer, enn.SequentialModule):
            continue
        path, way, notes = "escnn", "", []
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
