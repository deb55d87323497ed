"""What careless use does to the fast layers: odd sizes and dtypes, weights written behind their back, other models."""

from __future__ import annotations

import copy
import itertools
import random
import subprocess
import sys
from pathlib import Path

import escnn.nn as enn
import numpy as np
import pytest
import torch
from comparing import CHOOSE, PATHS, SMALL, encoder, error, so2_fields
from escnn.group import o2_group
from torch import nn
from torch.nn.utils import parametrize

from gvae_core.models import sgvae
from gvae_core.steerable import accelerate, convolution

# ---- no input whatever may kill the process -----------------------------------------------------


def layer_and_input(seed: int) -> tuple[nn.Module, torch.Tensor, bool]:
    """One layer or a small network, an input that may or may not fit it, and the mode."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    kernel, stride = draw.choice([1, 3, 3, 4, 5]), draw.choice([1, 1, 2, 3])
    padding = draw.choice([0, 1, 2, 2, (0, 3)]) if draw.random() < 0.95 else -1
    fields = so2_fields(draw.choice([0, 1, 2, 3]), draw.choice([1, 2, 15, 17, 40]))
    if draw.random() < 0.5:
        count = draw.choice([1, 3, 16])
        act = enn.FourierELU(fields.gspace, count, fields.representations[0].irreps, N=12)
        layers = [enn.R2Conv(fields, act.in_type, kernel, stride=stride, padding=padding, initialize=False)]
        layers += [enn.IIDBatchNorm2d(act.in_type), act, enn.FieldDropout(act.out_type, 0.5)]
        layers += [enn.R2Conv(act.out_type, act.out_type, draw.choice([1, 3]), initialize=False)]
        layers += [enn.PointwiseAvgPool2D(act.out_type, draw.choice([1, 2, 5]), 1)]
        module = enn.SequentialModule(*layers)
    else:
        module = enn.R2Conv(fields, fields, kernel, stride=stride, padding=padding, bias=draw.random() < 0.7)
    for p in module.parameters():
        nn.init.normal_(p, std=0.3)
    dtype = draw.choice([torch.float32] * 12 + [torch.float64, torch.float16, torch.bfloat16, torch.int64])
    if draw.random() < 0.2:
        module = module.to(draw.choice([torch.float64, torch.bfloat16]))
        dtype = draw.choice([dtype, next(module.parameters()).dtype])
    shape = (draw.choice([0, 1, 2, 5]), fields.size, *(draw.choice([0, 1, 3, 6, 9, 11, 12, 18]) for _ in range(2)))
    if draw.random() < 0.05:
        shape = shape[: draw.choice([2, 3])]
    x = torch.randn(shape)
    x = (x * 3).to(dtype)
    layout = draw.choice(["contiguous", "channels last", "step", "expanded", "transposed"])
    if x.ndim == 4:
        if layout == "channels last":
            x = x.contiguous(memory_format=torch.channels_last)
        elif layout == "step":
            x = x.repeat_interleave(2, 3)[..., ::2]
        elif layout == "expanded" and len(x):
            x = x[:1].expand_as(x)
        elif layout == "transposed":
            x = x.mT.contiguous().mT
    return module, x, draw.random() < 0.7


def outcome(module: nn.Module, x: torch.Tensor) -> list[torch.Tensor] | str:
    """Output and gradients, or the name of the error."""
    try:
        x = x.detach().requires_grad_(x.is_floating_point())
        torch.manual_seed(1)
        y = module(enn.GeometricTensor(x, module.in_type)).tensor
        if y.requires_grad:
            y.square().sum().backward()
        return [y.detach(), x.grad, *(p.grad for p in module.parameters())]
    except Exception as problem:  # whatever escnn says
        return type(problem).__name__


def compare(seeds: range, path: str) -> tuple[int, int]:
    """How many inputs gave escnn's numbers and how many an error; raises where the two differ."""
    equal = refused = 0
    for seed in seeds:  # the path's own way and the fastest one in turn
        convolution.FastR2Conv._way = CHOOSE if seed % 2 else lambda self, path, packed: path
        stock, x, training = layer_and_input(seed)
        fast = accelerate(copy.deepcopy(stock), path)
        found, expected = (outcome(net.train().train(training), x) for net in (fast, stock))
        if isinstance(found, str) or isinstance(expected, str):  # escnn's batch norm refuses an empty batch
            assert found in (expected, "ValueError") or not len(x), (seed, found, expected)
            refused += 1
            continue
        tolerance = {torch.float64: 1e-10, torch.float32: 3e-5}.get(expected[0].dtype, 0.2)
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert (a is None) == (b is None), (seed, i)
            if a is not None:
                assert a.shape == b.shape and a.dtype == b.dtype, (seed, i)
                assert torch.equal(a.isnan(), b.isnan()), (seed, i, x.shape)
                assert error(a.double().nan_to_num(), b.double().nan_to_num()) <= tolerance, (seed, i, x.shape, x.dtype)
        equal += 1
    return equal, refused


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_random_inputs_give_escnns_numbers_or_an_error(path):
    """In a process of its own, which must survive every one of them."""
    code = f"""
import sys, warnings
sys.path.insert(0, {str(Path(__file__).parent)!r})
warnings.simplefilter("ignore")
from test_faults import compare
print(*compare(range(80), {path!r}))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, (result.returncode, result.stderr[-2000:])
    equal, refused = map(int, result.stdout.splitlines()[-1].split())
    assert equal >= 12 and refused >= 20, (equal, refused)


@pytest.mark.parametrize("path", PATHS)
def test_a_map_smaller_than_the_kernel_is_escnns_error(path):
    for side in (1, 2, 3):
        module, messages = encoder(padding=0, kernel_size=4), []
        for net in (accelerate(copy.deepcopy(module), path).eval(), module.eval()):
            with pytest.raises(RuntimeError) as caught:
                net(net.in_type(torch.randn(2, 1, side, side)))
            messages.append(str(caught.value))
        assert messages[0] == messages[1]


# ---- weights are never stale --------------------------------------------------------------------


def by_copy(m: nn.Module, new: dict) -> None:
    for n, p in m.named_parameters():
        p.copy_(new[n])


def by_data(m: nn.Module, new: dict) -> None:
    for n, p in m.named_parameters():
        p.data.mul_(0.9).add_(new[n], alpha=0.5)


def by_assigned_data(m: nn.Module, new: dict) -> None:
    for n, p in m.named_parameters():
        p.data = new[n].clone()


def by_set(m: nn.Module, new: dict) -> None:
    for n, p in m.named_parameters():
        p.set_(new[n].clone())


def by_numpy(m: nn.Module, new: dict) -> None:
    for n, p in m.named_parameters():
        p.detach().numpy()[...] = new[n].numpy()


def by_state_dict(m: nn.Module, new: dict) -> None:
    m.load_state_dict(new, strict=False)


def by_assigned_state_dict(m: nn.Module, new: dict) -> None:
    m.load_state_dict({n: t.clone() for n, t in new.items()}, strict=False, assign=True)


def by_new_parameter(m: nn.Module, new: dict) -> None:
    for n, p in list(m.named_parameters()):
        parent, _, name = n.rpartition(".")
        setattr(m.get_submodule(parent), name, nn.Parameter(new[n].clone(), p.requires_grad))


def by_optimiser(m: nn.Module, new: dict) -> None:
    optimiser = torch.optim.SGD(m.parameters(), lr=0.5)
    for n, p in m.named_parameters():
        p.grad = new[n].clone()
    optimiser.step()
    optimiser.zero_grad()


WRITERS = [by_copy, by_data, by_assigned_data, by_set, by_numpy, by_state_dict, by_assigned_state_dict]
WRITERS += [by_new_parameter, by_optimiser]


@pytest.mark.slow
@pytest.mark.parametrize("path", [*PATHS, "escnn", "dense"])
@pytest.mark.parametrize("write", WRITERS)
def test_every_way_to_write_weights_is_seen(monkeypatch, path, write):
    if path == "dense":
        monkeypatch.setattr(convolution.FastR2Conv, "_way", lambda self, path, packed: "dense")
    fast, x = accelerate(encoder(), None if path == "dense" else path).eval(), torch.randn(2, 1, 16, 16)
    stock = encoder()
    stock.load_state_dict(fast.state_dict())
    before = None
    with torch.no_grad():
        for _ in range(3):
            new = {n: torch.randn_like(p) for n, p in stock.named_parameters() if "mask" not in n}
            for net in (fast, stock):
                write(net, new)
            found = fast(fast.in_type(x)).tensor
            expected = stock.train().eval()(stock.in_type(x)).tensor
            assert error(found, expected) <= 1e-5
            assert before is None or error(before, expected) > 1e-3
            before = found.clone()


@pytest.mark.parametrize("path", PATHS)
def test_mean_teacher_by_data(path):
    """The usual moving average, in eval mode all the time: never a step behind."""
    student, x = accelerate(encoder(), path), torch.randn(4, 1, 16, 16)
    teacher = copy.deepcopy(student).eval()
    stock = encoder()
    optimiser = torch.optim.SGD(student.parameters(), lr=0.1)
    for _ in range(3):
        student(student.in_type(x)).tensor.square().mean().backward()
        optimiser.step(), optimiser.zero_grad()
        for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
            slow.data.mul_(0.5).add_(fast.data, alpha=0.5)
        stock.load_state_dict(teacher.state_dict(), strict=False)
        with torch.no_grad():
            found = teacher(teacher.in_type(x)).tensor
            assert error(found, stock.train().eval()(stock.in_type(x)).tensor) <= 1e-5


@pytest.mark.parametrize("path", PATHS)
def test_parametrized_and_functional_weights(path):
    class Half(nn.Module):
        def forward(self, w):
            return w / 2

    module, x = accelerate(encoder(), path).eval(), torch.randn(2, 1, 16, 16)
    halved = copy.deepcopy(module)
    for layer in halved.modules():
        if isinstance(layer, enn.R2Conv):
            layer.weights.data /= 2
    expected = halved(halved.in_type(x)).tensor
    with torch.no_grad():
        plain = module(module.in_type(x)).tensor
        parameters = {n: p / 2 if n.endswith(".weights") else p for n, p in module.named_parameters()}
        swapped = torch.func.functional_call(module, parameters, (module.in_type(x),)).tensor
        assert error(swapped, expected) <= 1e-5 and torch.equal(plain, module(module.in_type(x)).tensor)
        for layer in list(module.modules()):
            if isinstance(layer, enn.R2Conv):
                parametrize.register_parametrization(layer, "weights", Half())
        assert error(module(module.in_type(x)).tensor, expected) <= 1e-5


# ---- models of one process do not touch each other ----------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("change", [lambda m: m.double(), lambda m: m.half().float(), lambda m: m.to("meta")])
def test_a_second_model_of_another_dtype(path, change):
    first, second, stock = accelerate(encoder(), path), accelerate(encoder(), path).eval(), encoder().eval()
    x = torch.randn(2, 1, 16, 16)
    expected = [net(net.in_type(x)).tensor.detach() for net in (second, stock)]
    change(first), change(encoder())
    second.train(), second.eval()
    stock.train(), stock.eval()
    assert all(torch.equal(net(net.in_type(x)).tensor, y) for net, y in zip((second, stock), expected))
    new = encoder()
    assert {b.dtype for n, b in new.named_buffers() if "basis" in n} == {torch.float32}
    accelerate(new, path)(new.in_type(x)).tensor.sum().backward()


def test_every_layer_owns_its_buffers():
    module = accelerate(encoder())
    bases = [b.data_ptr() for n, b in module.named_buffers() if "sampled_basis" in n]
    assert len(bases) == len(set(bases)) == 4


def test_the_papers_model_in_two_precisions():
    torch.manual_seed(0)
    single, double = sgvae(**SMALL), sgvae(**SMALL).eval()
    double.load_state_dict(single.state_dict())
    single.eval(), double.double()
    single.train(), single.eval()
    x = torch.rand(3, 1, 28, 28)
    assert error(single.encoder(x).double(), double.encoder(x.double())) <= 1e-5


def test_tensor_products_of_o2_decompose_into_irreps():
    group = o2_group()
    irreps = [(0, 0), (1, 0), (1, 1), (1, 2), (1, 3)]
    for first, second in itertools.product(irreps, irreps):
        product = group._tensor_product_irreps(first, second)
        bases = [
            group._clebsh_gordan_coeff(first, second, irrep)[:, :, 0].reshape(-1, group.irrep(*irrep).size)
            for irrep, _ in product
        ]
        whole = np.concatenate(bases, 1)
        assert np.allclose(whole.T @ whole, np.eye(group.irrep(*first).size * group.irrep(*second).size))
        for g in group.testing_elements(7):
            product_of_g = np.kron(group.irrep(*first)(g), group.irrep(*second)(g))
            for (irrep, _), basis in zip(product, bases):
                assert np.allclose(product_of_g @ basis, basis @ group.irrep(*irrep)(g))
    assert group._clebsh_gordan_coeff((1, 1), (1, 2), (1, 2)).shape == (2, 2, 0, 2)
    # (x + iy)(u + iv): always this sign, whatever the machine
    assert np.allclose(group._clebsh_gordan_coeff((1, 1), (1, 2), (1, 3))[:, :, 0, 0], np.diag([1, -1]) / 2**0.5)
