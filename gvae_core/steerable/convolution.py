"""`FastR2Conv`: escnn's steerable convolution, in the fastest of its exact ways."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import escnn.nn as enn
import torch
import torch.nn.functional as F
from escnn.nn import GeometricTensor
from torch import Tensor, nn

from . import native, torch_path
from .factors import Factors, costs, factorise
from .features import Features, as_features
from .layers import _Fast

LAYOUT_COST = 64  # multiply-adds of a dense convolution in the time in which one value is packed or unpacked
# Multiply-adds of dense convolutions without gradient, fits to 1,500 shapes on one and two threads with AVX-512:
FEW = 7.5e6  # up to so many, and those of 64 more channels, a plain matrix product ends before oneDNN's convolution
MANY = 2e6  # from so many on, a small batch between like types gains from a filter that is in oneDNN's order already


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

    def _factorise(self) -> None:
        factors = factorise(self)
        try:
            plan, self._native_refusal = native.ConvolutionPlan(factors, self.stride, self.padding), None
        except ValueError as reason:
            plan, self._native_refusal = None, str(reason)
        self._factors: Factors = factors
        self._costs = costs(factors)
        self._plan: native.ConvolutionPlan | None = plan
        paths = ("torch", "native") if plan else ("torch",)
        self._ways = {packed: {path: self._way(path, packed) for path in paths} for packed in (False, True)}
        self._only_dense = {packed: {*ways.values()} == {"dense"} for packed, ways in self._ways.items()}
        basis = self._sampled_basis.detach().clone()
        self._prepared_for = basis, _sample(basis).contiguous(), self._geometry
        self._prepared_as: tuple | None = None
        self._constants: tuple[tuple, tuple] | None = None
        self._expanded: tuple[tuple, Tensor, Tensor | None, tuple] | None = None
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
        return self._dense()[0]

    @property
    def expanded_bias(self) -> Tensor | None:
        """The bias of every channel, [C_out]."""
        return None if self.bias is None else self.bias_expansion @ self.bias

    def __deepcopy__(self, memo: dict) -> FastR2Conv:
        self._expanded = None  # is made again; a filter in oneDNN's order cannot be copied
        return super().__deepcopy__(memo)

    def _dense(self) -> tuple[Tensor, Tensor | None, dict | None]:
        """``filter``, ``expanded_bias``, and see `_kept`."""
        return self._kept("dense", lambda: (self._dense_filter(), self.expanded_bias))

    def _dense_filter(self) -> Tensor:
        f, basis = self._factors, self._sampled_basis
        blocks = self.weights.view(-1, len(basis)) @ basis.flatten(1)
        blocks = blocks.view(f.fields_out, f.fields_in, f.components_out, f.components_in, -1).transpose(1, 2)
        return blocks.reshape(self.out_type.size, self.in_type.size, self.kernel_size, self.kernel_size)

    def _packed_bias(self) -> Tensor | None:
        """``expanded_bias`` as [components out, lanes]."""
        bias = self.expanded_bias
        return None if bias is None else native.pad_fields(bias.view(self._factors.fields_out, -1).T).contiguous()

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
        (block,) = self._modules["_basisexpansion"]._modules.values()
        return block._buffers["sampled_basis"]

    @property
    def _geometry(self) -> tuple:
        return self.stride, self.padding, self.dilation, self.groups, self.padding_mode

    def _is_prepared(self) -> bool:
        """Whether the factors are those of the layer as it is now: its buffer may have been loaded or written.

        A basis that is another tensor, or was written to, is compared with the known one; and because a write through
        ``.data`` leaves no trace, so are some thousand of its values in every call.
        """
        known, sample, geometry = self._prepared_for
        if geometry != self._geometry:
            return False
        if not torch_path.eager():
            return True
        basis = self._sampled_basis
        identity = _identity(basis)
        if self._prepared_as != identity:
            if not _equal(basis, known):
                return False
            self._prepared_as = identity
        return basis.device.type != "cpu" or torch.equal(_sample(basis), sample)

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

    def _kept(self, way: str, expand: Callable[[], tuple]) -> tuple:
        """What the weights and the bias expand to; kept between calls that nothing differentiates, traces or casts.

        Last comes a dict for what else follows from it, kept as long, or None where nothing is kept.
        """
        weights, bias = self.weights, self.bias
        if (
            torch.is_grad_enabled()
            or not torch_path.eager()
            or not weights.is_cpu  # a comparison would wait for the device
            or torch.is_autocast_enabled("cpu")  # what it expands to has another dtype
        ):
            return *expand(), None
        key = way, *_identity(self._sampled_basis), weights.dtype, None if bias is None else bias.dtype
        kept = self._expanded
        if (
            kept is None
            or kept[0] != key
            or not torch.equal(kept[1], weights)
            or not (bias is None or torch.equal(kept[2], bias))
        ):
            copies = weights.detach().clone(), None if bias is None else bias.detach().clone()
            kept = self._expanded = key, *copies, (*expand(), {})
        return kept[3]

    def forward(self, input: GeometricTensor) -> GeometricTensor:
        assert input.type == self.in_type
        if self._only_dense[getattr(input, "packed", False)] and self._prepared_for[-1] == self._geometry:
            return self._convolve_dense(input)
        x = as_features(input)
        if not self._is_prepared():
            try:
                self._factorise()
            except ValueError as reason:
                warnings.warn(f"back to escnn's forward: {reason}", RuntimeWarning, stacklevel=2)
                self._back_to_escnn(str(reason))
                return self(input)
        way = self._way_of(x)
        if way == "dense" or self._takes_escnn(input) or torch_path.transformed() or not self._fits(x):
            return self._convolve_dense(x)  # torch says what does not fit
        f, weights = self._factors, self.weights
        filters, coefficients, basis_out = self._float_constants()
        weights = weights.view(f.fields_out, f.fields_in, -1)
        if way == "native":
            mixing, bias, _ = self._kept(
                "native",
                lambda: (
                    (coefficients.T @ weights.permute(2, 1, 0).flatten(1)).unflatten(1, (f.fields_in, -1)),
                    self._packed_bias(),
                ),
            )
            raw, keep = x.packed_with_keep()
            return Features(native.Convolve.apply(self._plan, raw, keep, mixing, bias), self.out_type, packed=True)
        mixing, bias, _ = self._kept("torch", lambda: (weights @ coefficients, self.expanded_bias))
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

    def _way_of(self, x: Features) -> str:
        """What this input takes: "native", "torch" or "dense"."""
        return self._ways[x.packed]["native" if self._takes_native(x, self.weights, self.bias) else "torch"]

    def _way(self, path: str, packed: bool) -> str:
        """The cheaper of a path and the dense convolution, by the rule of `factors.costs`.

        Between the compiled layers, whose features are packed, the dense convolution unpacks, and its result is packed
        again, as that of an image is; between planes, a compiled convolution packs and unpacks.
        """
        layout = {"dense": 0, path: 0}
        if path == "native":
            image = self._factors.components_in == 1
            layout["dense" if packed else path] += self.in_type.size
            layout["dense" if packed or image else path] += self.out_type.size
        cost = {way: self._costs[way] + LAYOUT_COST * channels for way, channels in layout.items()}
        return min(cost, key=cost.get)

    def _fits(self, x: Features) -> bool:
        """Whether the kernel fits into the padded map, and the input's dtype to the weights'."""
        sides = zip(x.grid[1:], _pair(self.padding))
        large = all(side > 0 and side + 2 * p >= self.kernel_size for side, p in sides)
        return large and (x.raw.dtype == self.weights.dtype or torch.is_autocast_enabled(x.raw.device.type))

    def _convolve_dense(self, input: GeometricTensor) -> GeometricTensor:
        """escnn's own convolution, with the weights as they are now."""
        x, (filter, bias, plans) = input.tensor, self._dense()
        way = "conv2d"  # which says what does not fit
        if plans is not None and native.readable(x):
            plan = plans.get(x.shape)  # which another thread may clear
            if plan is None:
                plan = self._dense_plan(x.shape, filter)
                plans.clear()  # a second filter is as large as the first
                plans[x.shape] = plan
            way, reordered, settings = plan
        if way == "product":
            y = torch._C._nn.thnn_conv2d(x, filter, [self.kernel_size] * 2, bias, self.stride, self.padding)
        elif way == "reordered" and x.is_contiguous() and torch._C._get_mkldnn_enabled():
            y = torch.ops.mkldnn._convolution_pointwise(x, reordered, bias, *settings, "none", [], "").contiguous()
        else:
            y = F.conv2d(x, filter, bias, self.stride, self.padding)
        return Features(y, self.out_type) if y.ndim == 4 else GeometricTensor(y, self.out_type)

    def _dense_plan(self, shape: torch.Size, filter: Tensor) -> tuple[str, Tensor | None, tuple]:
        """The fastest of torch's convolutions for inputs of a shape; the filter in oneDNN's order where it asks for it; and
        oneDNN's other arguments."""
        way = _fastest_dense(shape, filter.shape, self.stride, self.padding) if native.readable(filter) else "conv2d"
        settings = _pair(self.padding), _pair(self.stride), [1, 1], 1
        if way != "reordered":
            return way, None, settings
        if not torch._C._get_mkldnn_enabled():
            return "conv2d", None, settings
        return way, torch.ops.mkldnn._reorder_convolution_weight(filter, *settings, list(shape)), settings

    def _back_to_escnn(self, reason: str) -> None:
        filter, bias = self.filter.detach(), self.expanded_bias
        self.__class__, self.__dict__["_steerable_refusal"] = enn.R2Conv, reason
        if not self.training:  # its buffers in eval mode
            self.register_buffer("filter", filter)
            if bias is None:
                self.expanded_bias = None
            else:
                self.register_buffer("expanded_bias", bias.detach())


@functools.lru_cache(256)
def _fastest_dense(x: torch.Size, filter: torch.Size, stride: int, padding: int | tuple[int, int]) -> str:
    """The fastest without gradient: "product", a matrix product; "reordered", oneDNN's convolution with the filter in
    its order already; or "conv2d"."""
    channels_out, channels, k, _ = filter
    if len(x) != 4 or x[1] != channels:
        return "conv2d"
    height, width = ((side + 2 * p - k) // stride + 1 for side, p in zip(x[2:], _pair(padding)))
    windows = x[0] * height * width * channels * k * k
    if min(x[0], height, width) < 1:
        return "conv2d"
    if k == 1 or stride**2 * windows * (channels_out + 64) <= FEW:
        return "product"
    like = 16 <= channels < 2 * channels_out < 4 * channels
    return "reordered" if like and x[0] <= 10 and windows * channels_out >= MANY else "conv2d"


def _pair(value: int | tuple[int, int]) -> list[int]:
    return [value] * 2 if isinstance(value, int) else list(value)


def _sample(basis: Tensor) -> Tensor:
    """At most 4096 values from all over the basis."""
    return basis.detach().flatten()[:: basis.numel() // 4096 + 1]


def _identity(tensor: Tensor) -> tuple:
    """Changes whenever the tensor is replaced, moved or written to in place, but not with a write through ``.data``."""
    return id(tensor), tensor.data_ptr(), None if tensor.is_inference() else tensor._version


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
