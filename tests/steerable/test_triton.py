"""The GPU's kernels, which Triton also runs without one, slowly; against torch operations."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")
COMPARE = """
import itertools, torch, torch.nn.functional as F
from gvae_core.steerable import torch_path
from gvae_core.steerable.triton_kernels import Activate

torch.manual_seed(0)
# images, fields, components in and out, samples, height, width: fewer and more pixels than a program works on
sizes = (2, 3, 13, 13, 24, 5, 5), (1, 2, 9, 5, 16, 9, 9), (0, 2, 3, 3, 7, 4, 5)
for (n, fields, c, c_out, grid, height, width), function, normed in itertools.product(sizes, (F.elu, F.relu), (True, False)):
    samples, projection = torch.randn(grid, c), torch.randn(c_out, grid)
    x = torch.randn(n, fields * c, height, width, requires_grad=True)
    affine = [torch.randn(fields, c), torch.rand(fields, 1), torch.randn(fields, c)] if normed else []
    inputs = [x, *(part.requires_grad_() for part in affine[1:])]
    y = Activate.apply(samples, projection, function is F.relu, x, *affine)
    expected = torch_path.sample_activate_project(x, affine, samples, projection, function)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5 * c * grid)
    grad = torch.randn_like(y)
    found = torch.autograd.grad(y, inputs, grad, create_graph=True)  # to be differentiated: torch operations
    kernels, right = (torch.autograd.grad(output, inputs, grad, retain_graph=True) for output in (y, expected))
    for a, b, c_ in zip(kernels, found, right, strict=True):
        largest = c_.abs().max() if len(x) else 1
        assert (a - c_).abs().le(1e-5 * largest).all() and (b - c_).abs().le(1e-5 * largest).all()
    if n:
        x.data[0, 0, 0, 0] = torch.nan  # and what depends on it, no more and no less
        y = Activate.apply(samples, projection, function is F.relu, x, *affine)
        expected = torch_path.sample_activate_project(x, affine, samples, projection, function)
        assert expected.isnan().any() and torch.equal(y.isnan(), expected.isnan())
print("compared")
"""
IN_A_LAYER = """
import torch
from escnn import gspaces, nn
from gvae_core.steerable import accelerate, native, triton_kernels

native.takes = lambda *tensors: False  # as on a GPU
calls = []
apply = triton_kernels.Activate.apply
triton_kernels.Activate.apply = lambda *inputs: calls.append(len(inputs)) or apply(*inputs)
gspace = gspaces.rot2dOnR2(maximum_frequency=2)
elu = nn.FourierELU(gspace, 3, gspace.fibergroup.bl_irreps(2), N=8)
network = nn.SequentialModule(nn.IIDBatchNorm2d(elu.in_type), elu).train()
x = torch.randn(2, elu.in_type.size, 5, 5)
expected = network(elu.in_type(x)).tensor
fast = accelerate(network)
torch.testing.assert_close(fast(elu.in_type(x)).tensor, expected, rtol=1e-5, atol=1e-5)
print("compared", calls)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "script, said", [(COMPARE, "compared"), (IN_A_LAYER, "compared [7]")], ids=["kernels", "layer"]
)
def test_triton_computes_what_torch_does(script, said):
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == said, done.stderr[-3000:]
