"""The kernels in the folder `kernels`, called through ctypes; `building` compiles and loads them."""

from __future__ import annotations

import ctypes
from ctypes import Structure, c_int64, c_void_p

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import torch_path
from .building import load
from .factors import Factors

LANES = 8  # fields are padded to this
MAX_COMPONENTS, MAX_GRID = 64, 256


class _Convolution(Structure):
    _fields_ = (
        [(name, c_int64) for name in ("images", "height", "width", "components", "fields")]
        + [(name, c_int64) for name in ("height_out", "width_out", "components_out", "fields_out")]
        + [(name, c_int64) for name in ("kernel", "stride", "pad_y", "pad_x")]
        + [(name, c_int64) for name in ("filters", "first_component", "end_component", "blocks", "maps", "threads")]
        + [(name, c_void_p) for name in ("bank", "parity", "block", "term_begin", "term_source", "term_value")]
        + [(name, c_void_p) for name in ("back_begin", "back_map", "back_value")]
    )


class _Activation(Structure):
    _fields_ = [
        (name, c_int64)
        for name in (
            "images",
            "pixels",
            "components",
            "components_out",
            "lanes",
            "grid",
            "relu",
            "threads",
        )
    ] + [(name, c_void_p) for name in ("mean", "scale", "shift", "samples", "project", "project_back", "samples_back")]


# ---- packed features -----------------------------------------------------------------------------


def lanes(fields: int) -> int:
    """The number of fields after padding."""
    return -(-fields // LANES) * LANES


def pad_fields(x: Tensor) -> Tensor:
    """[..., fields] -> [..., lanes], padded with zeros."""
    missing = lanes(x.shape[-1]) - x.shape[-1]
    return F.pad(x, (0, missing)) if missing else x  # nothing to pad would still be a copy


def pack(x: Tensor, fields: int) -> Tensor:
    """[N, fields * components, H, W] -> [N, H, W, components, lanes]."""
    n, channels, height, width = x.shape
    by_field = x.reshape(n, fields, channels // fields, height, width)
    return pad_fields(by_field.permute(0, 3, 4, 2, 1)).contiguous()


def unpack(x: Tensor, fields: int) -> Tensor:
    """[N, H, W, components, lanes] -> [N, fields * components, H, W]."""
    n, height, width, components, _ = x.shape
    return x[..., :fields].permute(0, 4, 3, 1, 2).reshape(n, fields * components, height, width).contiguous()


class Pack(torch.autograd.Function):
    """`pack` by the kernels, which takes a fraction of torch's time; `Unpack` is its gradient, and the reverse."""

    @staticmethod
    def forward(ctx, x: Tensor, fields: int) -> Tensor:
        ctx.fields = fields
        n, channels, height, width = x.shape
        packed = x.new_empty(n, height, width, channels // fields, lanes(fields))
        _move(load().steerable_pack, n, fields, channels // fields, height * width, x.contiguous(), packed)
        return packed

    @staticmethod
    def backward(ctx, grad: Tensor):
        if readable(grad):
            return Unpack.apply(grad, ctx.fields), None
        return unpack(grad, ctx.fields), None


class Unpack(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, fields: int) -> Tensor:
        ctx.fields = fields
        n, height, width, components, _ = x.shape
        planes = x.new_empty(n, fields * components, height, width)
        _move(load().steerable_unpack, n, fields, components, height * width, x.contiguous(), planes)
        return planes

    @staticmethod
    def backward(ctx, grad: Tensor):
        if readable(grad):
            return Pack.apply(grad, ctx.fields), None
        return pack(grad, ctx.fields), None


def _move(function, n: int, fields: int, components: int, pixels: int, source: Tensor, target: Tensor) -> None:
    sizes = (n, fields, components, pixels, torch.get_num_threads())
    _check(function(*map(c_int64, sizes), _address(source), _address(target)))


# ---- convolution ---------------------------------------------------------------------------------


class ConvolutionPlan:
    """The factors as the kernels want them: few scalar filters, maps as sparse sums.

    A map is sum_t value_t * (filter_t * component_t), with filters that are shared by all maps up
    to a factor: 5 for SO(2) and kernel 4. Each is even or odd under the mirrors x -> -x and y -> -y (parity: 0 even,
    1 odd in x, 2 odd in y, 3 in both), so that its upper left quarter says all of it.
    """

    def __init__(self, factors: Factors, stride: int, padding: int | tuple[int, int]):
        if factors.basis_in is not None or factors.basis_out is not None:
            raise ValueError("its fields are not sums of irreps in the irreps' own basis")
        if max(factors.components_in, factors.components_out) > MAX_COMPONENTS:
            raise ValueError(f"its fields have more than {MAX_COMPONENTS} components")
        self.factors, self.stride, self.trivial_components = (
            factors,
            stride,
            factors.trivial_components,
        )
        self.pad_y, self.pad_x = (padding, padding) if isinstance(padding, int) else padding
        maps, components, k, _ = factors.filters.shape
        flat = factors.filters.reshape(maps, components, k * k)
        used = np.flatnonzero(np.abs(flat).max((0, 2)) > 1e-12)
        self.first, self.end = int(used[0]), int(used[-1]) + 1
        bank: list[list[np.ndarray]] = [[], [], [], []]  # filters by parity
        found: list[tuple[int, int, int, int, float]] = []  # map, component, parity, filter of it, value
        for m, d in zip(*np.nonzero(np.abs(flat).max(2) > 1e-12)):
            for parity, row in enumerate(_by_parity(flat[m, d].reshape(k, k))):
                if np.abs(row).max() < 1e-6 * np.abs(flat[m, d]).max():  # escnn samples in float32
                    continue
                for index, filter_ in enumerate(bank[parity]):  # noqa: B007 - needed where the loop ends
                    value = (row * filter_).sum() / (filter_ * filter_).sum()
                    if np.abs(row - value * filter_).max() < 1e-7 * np.abs(row).max():
                        break
                else:
                    index, value = len(bank[parity]), 1.0
                    bank[parity].append(row)
                found.append((m, d, parity, index, value))
        counts = [len(filters) for filters in bank]
        self.filters, before = sum(counts), np.cumsum([0, *counts])
        terms = [(m, (before[p] + i) * (self.end - self.first) + d - self.first, v) for m, d, p, i, v in found]
        self.parity = np.array(counts, np.int32)
        quarters = [_quarter(np.array(filters), parity) for parity, filters in enumerate(bank) if filters]
        self.bank = np.concatenate([quarter.T.ravel() for quarter in quarters]).astype(np.float32)
        self.blocks = np.array([[b.start, b.size, b.first_map, b.maps] for b in factors.blocks], np.int32)
        self.terms = _sparse(terms, maps)
        self.back = _sparse([(s, m, v) for m, s, v in terms], self.filters * (self.end - self.first))
        self.addresses = [a.ctypes.data for a in (self.bank, self.parity, self.blocks, *self.terms, *self.back)]

    def __deepcopy__(self, memo: dict) -> ConvolutionPlan:
        return self  # nothing changes it

    def describe(self, x: Tensor) -> _Convolution:
        """The C structure for inputs like ``x`` [N, H, W, components, lanes]."""
        f, k = self.factors, self.factors.filters.shape[-1]
        images, height, width, *channels = x.shape
        sides = [(side + 2 * pad - k) // self.stride + 1 for side, pad in ((height, self.pad_y), (width, self.pad_x))]
        if min(sides) < 1 or channels != [f.components_in, lanes(f.fields_in)]:
            raise ValueError(
                f"expected [N, H, W, {f.components_in}, {lanes(f.fields_in)}], a kernel of {k} fitting into it, "
                f"got {list(x.shape)}"
            )
        return _Convolution(
            images, height, width, f.components_in, f.fields_in, *sides,
            f.components_out, f.fields_out, k, self.stride, self.pad_y, self.pad_x,
            self.filters, self.first, self.end, len(self.blocks), len(f.filters),
            torch.get_num_threads(), *self.addresses,
        )  # fmt: skip


def _by_parity(filter_: np.ndarray) -> list[np.ndarray]:
    """[k, k] -> its four parts by parity, which sum to it."""
    by_x = [(filter_ + sign * filter_[:, ::-1]) / 2 for sign in (1, -1)]
    return [(part + sign * part[::-1]) / 2 for sign in (1, -1) for part in by_x]


def _quarter(filters: np.ndarray, parity: int) -> np.ndarray:
    """Filters [F, k, k] of a parity -> their upper left quarters, flat; an odd one has no middle row or column."""
    k = filters.shape[-1]
    rows, columns = (k // 2 if parity & bit else k - k // 2 for bit in (2, 1))
    return filters[:, :rows, :columns].reshape(len(filters), -1)


def _sparse(entries: list[tuple[int, int, float]], rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, column, value) -> row starts, columns, values."""
    entries = sorted(entries)
    begin = np.searchsorted([e[0] for e in entries], np.arange(rows + 1)).astype(np.int32)
    return (
        begin,
        np.array([e[1] for e in entries], np.int32),
        np.array([e[2] for e in entries], np.float32),
    )


def readable(*tensors: Tensor | None, device: str = "cpu") -> bool:
    """Whether kernels can read them: plain float32 tensors with memory on the kind of device."""
    for t in tensors:
        if t is not None and not (
            type(t) in (Tensor, torch.nn.Parameter)
            and t.dtype == torch.float32
            and t.device.type == device
            and t.layout == torch.strided
            and torch._C._has_storage(t)  # those of a batched gradient have none
        ):
            return False
    return True


def takes(*tensors: Tensor | None) -> bool:
    """Whether the kernels are there and can be used now, on these tensors."""
    return torch_path.eager() and readable(*tensors) and load() is not None


def _address(x: Tensor | None) -> c_void_p:
    if x is None:
        return c_void_p(None)
    if not readable(x) or not x.is_contiguous():
        raise ValueError(f"expected contiguous float32 on the CPU, got {x.dtype}, {x.device}, {x.stride()}")
    return c_void_p(x.data_ptr())


def _check(status: int) -> None:
    if status:
        raise MemoryError("the steerable kernels could not allocate their scratch memory")


class Convolve(torch.autograd.Function):
    """Packed x [N, H, W, components, lanes], keep, mixing [entries, fields in, fields out] and bias
    [components out, lanes] -> packed y."""

    @staticmethod
    def forward(
        ctx,
        plan: ConvolutionPlan,
        x: Tensor,
        keep: Tensor | None,
        mixing: Tensor,
        bias: Tensor | None,
    ):
        ctx.plan = plan
        ctx.save_for_backward(x, keep, mixing)
        c = plan.describe(x)
        y = x.new_empty(c.images, c.height_out, c.width_out, c.components_out, lanes(c.fields_out))
        pointers = [_address(t) for t in (x, keep, mixing, bias, y)]
        _check(load().steerable_convolve(ctypes.byref(c), *pointers))
        return y

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, keep, mixing = ctx.saved_tensors
        _, need_x, _, need_mixing, need_bias = ctx.needs_input_grad
        grad_x = grad_mixing = None
        if torch.is_grad_enabled() or not readable(grad):  # somebody differentiates the gradient, or takes several
            grad_x, grad_mixing = torch_path.differentiable_gradients(
                lambda x, mixing: _convolve_in_torch(ctx.plan, x, keep, mixing),
                (x, mixing),
                (need_x, need_mixing),
                grad,
            )
        elif need_x or need_mixing:
            grad = grad.contiguous()
            grad_x = torch.empty_like(x) if need_x else None
            grad_mixing = torch.empty_like(mixing) if need_mixing else None
            pointers = [_address(t) for t in (x, keep, mixing, grad, grad_x, grad_mixing)]
            _check(load().steerable_convolve_backward(ctypes.byref(ctx.plan.describe(x)), *pointers))
        grad_bias = None
        if need_bias:  # a bias sits on trivial irreps only
            grad_bias = (
                torch.stack(
                    [
                        component.sum((0, 1, 2))
                        if i in ctx.plan.trivial_components
                        else torch.zeros_like(component[0, 0, 0])
                        for i, component in enumerate(grad.unbind(3))
                    ]
                )
                if grad.numel()
                else grad.new_zeros(grad.shape[3:])
            )
        return None, grad_x, None, grad_mixing, grad_bias


def _convolve_in_torch(plan: ConvolutionPlan, x: Tensor, keep: Tensor | None, mixing: Tensor) -> Tensor:
    """`Convolve` without a bias, in operations that torch can differentiate any number of times."""
    f, n = plan.factors, len(x)
    x = x[..., : f.fields_in].permute(0, 4, 3, 1, 2)
    x = (x if keep is None else x * keep).reshape(n, -1, *x.shape[3:])
    y = torch_path.convolve(
        x,
        torch.from_numpy(f.filters).to(x),
        mixing.permute(2, 1, 0),
        None,
        f.blocks,
        components_out=f.components_out,
        stride=plan.stride,
        padding=(plan.pad_y, plan.pad_x),
    )
    return pack(y, f.fields_out)


# ---- batch norm statistics and activations -------------------------------------------------------


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance of every channel of packed x, each [components, lanes]."""
    images, height, width, components, padded = x.shape
    parts = x.new_empty(images, 2, components, padded)
    sizes = (images, height * width, components * padded, torch.get_num_threads())
    _check(load().steerable_statistics(*map(c_int64, sizes), _address(x), _address(parts)))
    means, squares = parts.double().unbind(1)
    mean = means.mean(0)
    total = squares.sum(0) + height * width * (means - mean).square().sum(0)
    return mean.to(x.dtype), (total / (images * height * width - 1)).to(x.dtype)


class ActivationPlan:
    """A and its inverse in groups of four rows, as the kernels read them."""

    def __init__(self, samples: Tensor, projection: Tensor, relu: bool):
        self.components_out, self.components, self.relu = len(projection), samples.shape[1], relu
        if projection.shape[1] != len(samples) or max(projection.shape[0], samples.shape[1]) > MAX_COMPONENTS:
            raise ValueError(f"expected A and its inverse, got {list(samples.shape)} and {list(projection.shape)}")
        if len(samples) > MAX_GRID:
            raise ValueError(f"expected at most {MAX_GRID} samples, got {len(samples)}")
        grid = -(-len(samples) // 4) * 4
        padding = (0, 0, 0, grid - len(samples))
        a = F.pad(samples.detach(), padding)
        inverse = F.pad(projection.detach().T, padding).T
        self.grid = grid
        self.matrices = samples, projection
        self.tables = [_by_four(m) for m in (a, inverse, inverse.T, a.T)]

    def describe(self, x: Tensor, affine: tuple[Tensor, ...]) -> _Activation:
        images, height, width, components, padded = x.shape
        if components != self.components or any(t.numel() not in (padded, components * padded) for t in affine):
            raise ValueError(f"expected {self.components} components, got {list(x.shape)}")
        return _Activation(
            images, height * width, components, self.components_out, padded, self.grid, self.relu,
            torch.get_num_threads(), *(_address(t) for t in affine or (None,) * 3),
            *(_address(t) for t in self.tables),
        )  # fmt: skip

    def in_torch(self, x: Tensor, *affine: Tensor) -> Tensor:
        """`Activate` in operations that torch can differentiate any number of times."""
        if affine:
            mean, scale, shift = affine
            x = (x - mean) * scale + shift
        samples, projection = self.matrices
        return projection @ (F.relu if self.relu else F.elu)(samples @ x)


def _by_four(matrix: Tensor) -> Tensor:
    """[rows, columns] -> [ceil(rows / 4), columns, 4], padded with zeros."""
    rows, columns = matrix.shape
    padded = F.pad(matrix, (0, 0, 0, -rows % 4))
    return padded.reshape(-1, 4, columns).transpose(1, 2).contiguous()


class Activate(torch.autograd.Function):
    """Packed x [N, H, W, components, lanes] and a pending batch norm (mean and shift
    [components, lanes], scale [1, lanes], or nothing) -> packed y."""

    @staticmethod
    def forward(ctx, plan: ActivationPlan, x: Tensor, *affine: Tensor) -> Tensor:
        ctx.plan = plan
        ctx.save_for_backward(x, *affine)
        y = x.new_empty(*x.shape[:3], plan.components_out, x.shape[4])
        _check(load().steerable_activate(ctypes.byref(plan.describe(x, affine)), _address(x), _address(y)))
        return y

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, *affine = ctx.saved_tensors
        if torch.is_grad_enabled() or not readable(grad):
            needed = ctx.needs_input_grad[1:]
            return None, *torch_path.differentiable_gradients(ctx.plan.in_torch, (x, *affine), needed, grad)
        grad = grad.contiguous()
        images, _, _, components, padded = x.shape
        grad_x = torch.empty_like(x)
        grad_scale = x.new_empty(images, padded) if affine else None
        grad_shift = x.new_empty(images, components, padded) if affine else None
        pointers = [_address(t) for t in (x, grad, grad_x, grad_scale, grad_shift)]
        _check(load().steerable_activate_backward(ctypes.byref(ctx.plan.describe(x, tuple(affine))), *pointers))
        if not affine:
            return None, grad_x
        return None, grad_x, None, grad_scale.sum(0, keepdim=True), grad_shift.sum(0)
