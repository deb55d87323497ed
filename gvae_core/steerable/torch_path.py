"""The fast layers in plain torch operations: any device, any dtype, differentiable.

On a CPU the maps are worth taking only while they stay in cache: the batch goes through in pieces
of a few images, and the backward pass takes the maps again instead of reading them from memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from .factors import Block

CACHE_BYTES = 8 << 20  # of intermediates per piece, about what two cores' share of L2 and L3 holds


def transformed() -> bool:
    """Whether torch.func's transforms or forward-mode differentiation are at work: no custom function follows those."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def eager() -> bool:
    """Whether operations simply run: no graph is traced, no transform is at work."""
    return not (torch.compiler.is_compiling() or transformed())


def differentiable_gradients(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], needed: Sequence[bool], grad: Tensor
) -> list[Tensor | None]:
    """Gradients of ``function(*inputs)``, which can be differentiated again; None where none is needed."""
    with torch.enable_grad():
        inputs = [x.view_as(x) if need else x for x, need in zip(inputs, needed)]  # not what they came from
        wanted = [x for x, need in zip(inputs, needed) if need]
        found = iter(torch.autograd.grad(function(*inputs), wanted, grad, create_graph=True))
    return [next(found) if need else None for need in needed]


class _InPieces(torch.autograd.Function):
    """``function(x[i : i + n], *others)`` for all pieces; backward recomputes the intermediates."""

    @staticmethod
    def forward(ctx, function: Callable[..., Tensor], n: int, x: Tensor, *others: Tensor) -> Tensor:
        ctx.function, ctx.n = function, n
        ctx.autocast = (
            torch.is_autocast_enabled(x.device.type),
            torch.get_autocast_dtype(x.device.type),
        )
        ctx.save_for_backward(x, *others)
        out = None
        for start in range(0, len(x), n):
            piece = function(x[start : start + n], *others)
            if out is None:
                out = piece.new_empty(len(x), *piece.shape[1:])
            out[start : start + n] = piece
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, *others = ctx.saved_tensors
        needed = ctx.needs_input_grad[2:]
        enabled, dtype = ctx.autocast
        if torch.is_grad_enabled() or not torch._C._has_storage(grad):  # to differentiate it again, or several at once
            with torch.autocast(x.device.type, dtype=dtype, enabled=enabled):
                return None, None, *differentiable_gradients(ctx.function, (x, *others), needed, grad)
        grads = [torch.empty_like(x) if needed[0] else None]
        grads += [torch.zeros_like(t) if need else None for t, need in zip(others, needed[1:])]
        others = [t.detach().requires_grad_(need) for t, need in zip(others, needed[1:])]
        for start in range(0, len(x), ctx.n):
            piece = x[start : start + ctx.n].detach().requires_grad_(needed[0])
            with torch.enable_grad(), torch.autocast(x.device.type, dtype=dtype, enabled=enabled):
                out = ctx.function(piece, *others)
            wanted = [t for t in (piece, *others) if t.requires_grad]
            found = iter(torch.autograd.grad(out, wanted, grad[start : start + ctx.n]))
            if needed[0]:
                grads[0][start : start + ctx.n] = next(found)
            for total, need in zip(grads[1:], needed[1:]):
                if need:
                    total += next(found)
        return None, None, *grads


def in_pieces(function: Callable[..., Tensor], bytes_per_item: int, x: Tensor, *others: Tensor) -> Tensor:
    """``function(x, *others)``, which treats every item of ``x`` alone; on a CPU piece by piece."""
    n = max(1, CACHE_BYTES // max(1, bytes_per_item))
    if x.device.type != "cpu" or not eager() or len(x) <= n:
        return function(x, *others)
    return _InPieces.apply(function, n, x, *others)


def convolve(
    x: Tensor,
    filters: Tensor,
    mixing: Tensor,
    basis_out: Tensor | None,
    blocks: Sequence[Block],
    *,
    components_out: int,
    stride: int,
    padding: int | tuple[int, int],
) -> Tensor:
    """Factorised steerable convolution: filter every field, then mix fields irrep by irrep.

    Parameters
    ----------
    x : [N, fields in * components, H, W]
    filters : Psi [maps, components, k, k]
    mixing : [fields out, fields in, entries], the weights expanded by `Factors.mixing`
    basis_out : [components out, components out] or None; what follows the irreps
    """
    fields_out, fields_in, _ = mixing.shape
    matrices, first = [], 0
    for b in blocks:
        w = mixing[..., first : first + b.size * b.maps].unflatten(-1, (b.size, b.maps))
        matrices.append(w.permute(0, 2, 3, 1).reshape(fields_out * b.size, b.maps * fields_in))
        first += b.size * b.maps

    def piece(x: Tensor, filters: Tensor, *matrices: Tensor) -> Tensor:
        n = x.shape[0]  # len(x) would fix the batch size of an exported program
        fields = x.reshape(n * fields_in, filters.shape[1], *x.shape[2:])
        if x.is_cuda:
            fields, filters = _aligned(fields), _aligned(filters)
        maps = F.conv2d(fields, filters, stride=stride, padding=padding)
        height, width = maps.shape[-2:]
        maps = maps.reshape(n, fields_in, len(filters), height * width).transpose(1, 2).flatten(1, 2)
        rows = maps.split([b.maps * fields_in for b in blocks], 1)  # whose gradients are put together in one pass
        out, end = [], 0
        for b, matrix, row in zip(blocks, matrices, rows):
            if b.start > end:  # irreps that no input reaches
                out.append(maps.new_zeros(n, fields_out, b.start - end, height * width))
            # not `matrix @ row`, which would copy the rows to make one product of all images
            out.append(torch.bmm(matrix.expand(n, -1, -1), row).view(n, fields_out, b.size, height * width))
            end = b.start + b.size
        if components_out > end:
            out.append(maps.new_zeros(n, fields_out, components_out - end, height * width))
        y = torch.cat(out, 2)
        if basis_out is not None:
            y = basis_out.to(y.dtype) @ y
        return y.view(n, fields_out * components_out, height, width)

    side = (x.shape[-1] + 2 * filters.shape[-1]) // stride
    floats = fields_in * len(filters) * side * side
    return in_pieces(piece, floats * x.element_size(), x, filters, *matrices)


def _aligned(x: Tensor) -> Tensor:
    """Channels last, and filled up with zeros to a multiple of 8, as the matrix units of a GPU want them."""
    x = x.permute(0, 2, 3, 1)
    return F.pad(x, (0, -x.shape[3] % 8)).permute(0, 3, 1, 2)


def sample_activate_project(
    x: Tensor,
    affine: Sequence[Tensor] | None,
    samples: Tensor,
    projection: Tensor,
    function: Callable[[Tensor], Tensor],
) -> Tensor:
    """Pending batch norm, inverse Fourier transform, pointwise function, Fourier transform.

    x : [N, fields * components, H, W]; samples : A [grid, components];
    projection : [components out, grid]
    """
    fields = x.shape[1] // samples.shape[1]

    def piece(x: Tensor, samples: Tensor, projection: Tensor, *affine: Tensor) -> Tensor:
        n, _, height, width = x.shape
        values = x.reshape(n, fields, samples.shape[1], height * width)
        if affine:
            mean, scale, shift = (a[..., None] for a in affine)
            values = torch.addcmul(shift, values - mean, scale)
        values = projection @ function(samples @ values)
        return values.view(n, fields * len(projection), height, width)

    floats = (fields * len(samples)) * x.shape[2] * x.shape[3]
    return in_pieces(piece, floats * x.element_size(), x, samples, projection, *(affine or ()))
