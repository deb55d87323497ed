"""The Fourier activation on a GPU in one pass over memory, forward and backward, by Triton.

In torch operations, see `torch_path.sample_activate_project`, it takes a dozen passes, and the samples are kept.
"""

from __future__ import annotations

import os

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from . import native, torch_path

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton's own way to run without a GPU, for tests
PIXELS = 64  # of one field, that a program works on


@triton.jit
def _samples(
    x, mean, scale, shift, samples, index, fields, components, pixels, rows, grid, place, known,
    ROWS: tl.constexpr, AFFINE: tl.constexpr,
):  # fmt: skip
    """x - mean, what it is multiplied by, and the samples of the normalised values."""
    values = tl.load(x + (index * components + rows)[:, None] * pixels + place[None, :], known, 0.0)
    table = tl.load(samples + grid[:, None] * ROWS + rows[None, :])
    if AFFINE:
        channels, inside = index % fields * components + rows, rows < components
        centred = tl.where(known, values - tl.load(mean + channels, inside, 0.0)[:, None], 0.0)
        factor = tl.load(scale + index % fields)
        values = centred * factor + tl.load(shift + channels, inside, 0.0)[:, None]
        return centred, factor, tl.dot(table, values, input_precision="ieee")
    return values, 1.0, tl.dot(table, values, input_precision="ieee")


@triton.jit
def _activate(
    x, mean, scale, shift, samples, projection, y, fields, pixels, components, components_out,
    GRID: tl.constexpr, ROWS: tl.constexpr, ROWS_OUT: tl.constexpr, PIXELS: tl.constexpr,
    AFFINE: tl.constexpr, RELU: tl.constexpr,
):  # fmt: skip
    index, grid = tl.program_id(0).to(tl.int64), tl.arange(0, GRID)
    rows, rows_out = tl.arange(0, ROWS), tl.arange(0, ROWS_OUT)
    place = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    known = (rows < components)[:, None] & (place < pixels)[None, :]
    _, _, at = _samples(
        x, mean, scale, shift, samples, index, fields, components, pixels, rows, grid, place, known, ROWS, AFFINE
    )
    at = tl.where(at < 0, 0.0 if RELU else tl.exp(tl.minimum(at, 0.0)) - 1, at)  # a NaN stays: minimum would drop it
    found = tl.dot(tl.load(projection + rows_out[:, None] * GRID + grid[None, :]), at, input_precision="ieee")
    known = (rows_out < components_out)[:, None] & (place < pixels)[None, :]
    tl.store(y + (index * components_out + rows_out)[:, None] * pixels + place[None, :], found, known)


@triton.jit
def _activate_backward(
    x, mean, scale, shift, samples, projection, grad, grad_x, grad_scale, grad_shift,
    fields, pixels, components, components_out,
    GRID: tl.constexpr, ROWS: tl.constexpr, ROWS_OUT: tl.constexpr, PIXELS: tl.constexpr,
    AFFINE: tl.constexpr, RELU: tl.constexpr,
):  # fmt: skip
    index, grid = tl.program_id(0).to(tl.int64), tl.arange(0, GRID)
    rows, rows_out = tl.arange(0, ROWS), tl.arange(0, ROWS_OUT)
    place = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    known = (rows < components)[:, None] & (place < pixels)[None, :]
    centred, factor, at = _samples(
        x, mean, scale, shift, samples, index, fields, components, pixels, rows, grid, place, known, ROWS, AFFINE
    )
    known_out = (rows_out < components_out)[:, None] & (place < pixels)[None, :]
    of_y = tl.load(grad + (index * components_out + rows_out)[:, None] * pixels + place[None, :], known_out, 0.0)
    transposed = tl.load(projection + rows_out[None, :] * GRID + grid[:, None])
    of_at = tl.dot(transposed, of_y, input_precision="ieee")
    of_at *= tl.where(at > 0, 1.0, 0.0 if RELU else tl.exp(tl.minimum(at, 0.0)))
    transposed = tl.load(samples + grid[None, :] * ROWS + rows[:, None])
    of_values = tl.dot(transposed, of_at, input_precision="ieee")
    of_values = tl.where(known, of_values, 0.0)
    tl.store(grad_x + (index * components + rows)[:, None] * pixels + place[None, :], of_values * factor, known)
    if AFFINE:  # sums over this program's pixels; the programs' are added up afterwards, always in the same order
        program = index * tl.num_programs(1) + tl.program_id(1)
        tl.store(grad_scale + program, tl.sum(tl.sum(of_values * centred, 1), 0))
        tl.store(grad_shift + program * components + rows, tl.sum(of_values, 1), rows < components)


def takes(*tensors: Tensor) -> bool:
    """Whether the kernels can read them: plain float32 tensors on a GPU, outside autocast, tracing and transforms."""
    plain = torch_path.eager() and not torch.is_autocast_enabled("cuda")
    return plain and native.readable(*tensors, device="cpu" if INTERPRETED else "cuda")


class Activate(torch.autograd.Function):
    """`torch_path.sample_activate_project` with ELU, or ReLU, and the same arguments; x contiguous."""

    @staticmethod
    def forward(ctx, samples: Tensor, projection: Tensor, relu: bool, x: Tensor, *affine: Tensor) -> Tensor:
        ctx.relu = relu
        ctx.save_for_backward(samples, projection, x, *affine)
        n, channels, height, width = x.shape
        fields = channels // samples.shape[1]
        y = x.new_empty(n, fields * len(projection), height, width)
        _launch(_activate, samples, projection, relu, x, affine, y)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor):
        samples, projection, x, *affine = ctx.saved_tensors
        if torch.is_grad_enabled() or not takes(grad):  # somebody differentiates the gradient
            function = F.relu if ctx.relu else F.elu

            def in_torch(x: Tensor, *affine: Tensor) -> Tensor:
                return torch_path.sample_activate_project(x, affine, samples, projection, function)

            needed = ctx.needs_input_grad[3:]
            return None, None, None, *torch_path.differentiable_gradients(in_torch, (x, *affine), needed, grad)
        n, channels, height, width = x.shape
        programs = n, channels // samples.shape[1], -(-height * width // PIXELS)
        grad_x, of_affine = torch.empty_like(x), ()
        if affine:
            of_affine = x.new_empty(*programs, 1), x.new_empty(*programs, samples.shape[1])
        _launch(
            _activate_backward,
            samples,
            projection,
            ctx.relu,
            x,
            affine,
            grad.contiguous(),
            grad_x,
            *(of_affine or (x, x)),
        )
        sums = [part.sum((0, 2)) for part in of_affine]
        return None, None, None, grad_x, *((None, *sums) if affine else ())


def _launch(kernel, samples: Tensor, projection: Tensor, relu: bool, x: Tensor, affine: tuple, *others: Tensor) -> None:
    """Samples and projection filled up with zeros to powers of 2 of at least 16, what a matrix product takes."""
    (grid, components), components_out = samples.shape, len(projection)
    fields, pixels = x.shape[1] // components, x.shape[2] * x.shape[3]
    sides = [max(16, triton.next_power_of_2(side)) for side in (grid, components, components_out)]
    tables = [
        F.pad(table, (0, sides[columns] - table.shape[1], 0, sides[rows] - len(table))).contiguous()
        for table, rows, columns in ((samples, 0, 1), (projection, 2, 0))
    ]
    affine = [part.contiguous() for part in affine] or (x, x, x)
    if x.numel():
        kernel[(len(x) * fields, -(-pixels // PIXELS))](
            x, *affine, *tables, *others, fields, pixels, components, components_out,
            *sides, PIXELS, affine[0] is not x, relu,
        )  # fmt: skip
