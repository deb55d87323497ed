"""What the tests of the steerable layers share: small networks, and escnn as the reference."""

from __future__ import annotations

import copy
import shutil

import escnn.nn as enn
import pytest
import torch
from escnn import gspaces
from torch import nn

from gvae_core.steerable import accelerate, convolution

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="no C++ compiler on this machine"
)
PATHS = ["torch", pytest.param("native", marks=needs_compiler)]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
NATIVE_ONLY_FLOAT32 = [
    ("torch", torch.float32),
    ("torch", torch.float64),
    pytest.param("native", torch.float32, marks=needs_compiler),
]
SMALL = dict(fields=(2, 3, 2), frequency=2, invariants=8, decoder_channels=(4, 4, 4))
CHOOSE = convolution.FastR2Conv._way  # the fastest way, by the rule; conftest.py replaces it


def so2_fields(frequency: int, count: int) -> enn.FieldType:
    gspace = gspaces.rot2dOnR2(maximum_frequency=max(frequency, 1))
    group = gspace.fibergroup
    return enn.FieldType(gspace, count * [group.spectral_regular_representation(*group.bl_irreps(frequency))])


def encoder(
    fields=(5, 4, 6),
    frequency=3,
    strides=(2, 1, 2),
    kernel_size=4,
    padding=2,
    dropout=0.1,
    activation=enn.FourierELU,
) -> enn.SequentialModule:
    """The papers' encoders (their sizes are in the benchmark), here small."""
    gspace = gspaces.rot2dOnR2(maximum_frequency=frequency)
    irreps = gspace.fibergroup.bl_irreps(frequency)
    field_type, layers = enn.FieldType(gspace, [gspace.trivial_repr]), []
    for count, stride in zip(fields, strides, strict=True):
        act = activation(gspace, count, irreps, N=4 * frequency)
        layers += [enn.R2Conv(field_type, act.in_type, kernel_size, stride=stride, padding=padding)]
        layers += [enn.IIDBatchNorm2d(act.in_type), act, enn.FieldDropout(act.out_type, dropout)]
        field_type = act.out_type
    invariant = enn.FieldType(gspace, fields[-1] * [gspace.trivial_repr])
    layers += [
        enn.PointwiseAvgPool2D(field_type, 2, stride=1),
        enn.R2Conv(field_type, invariant, 1),
    ]
    return enn.SequentialModule(*layers)


def error(a: torch.Tensor, b: torch.Tensor, least: float = 1e-30) -> float:
    """Largest difference, relative to the largest value of the reference b, or to ``least``."""
    assert a.shape == b.shape and a.dtype == b.dtype
    a, b = a.detach(), b.detach()
    return float((a - b).abs().max() / b.abs().max().clamp_min(least)) if b.numel() else 0.0


def run(module: nn.Module, x: torch.Tensor, seed: int = 0) -> dict[str, torch.Tensor]:
    """Output, all gradients and the buffers after one forward and backward pass."""
    x = x.clone().requires_grad_()
    module.zero_grad()
    torch.manual_seed(seed)
    y = module(enn.GeometricTensor(x, module.in_type)).tensor
    torch.manual_seed(seed + 1)
    (y * torch.randn(y.shape, dtype=y.dtype)).sum().backward()
    gradients = {f"gradient of {n}": p.grad for n, p in module.named_parameters() if p.grad is not None}
    buffers = {n: b.clone() for n, b in module.named_buffers() if "running" in n or "batches" in n}
    return {"output": y.detach(), "gradient of the input": x.grad, **gradients, **buffers}


def assert_same(fast: nn.Module, stock: nn.Module, x: torch.Tensor) -> None:
    found, expected = run(fast, x), run(stock, x)
    assert found.keys() == expected.keys()
    errors = {  # a bias has the gradient of a sum, and the terms of a sum may cancel
        name: error(found[name].double(), expected[name].double(), 1.0 if "bias" in name else 1e-30)
        for name in expected
    }
    assert max(errors.values()) <= TOLERANCE[x.dtype], errors


def pair(module: nn.Module, path: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module]:
    """(fast, stock) with the same random parameters."""
    for p in module.parameters():
        nn.init.normal_(p, std=0.3)
    stock = module.to(dtype)
    return accelerate(copy.deepcopy(stock), path), stock
