"""The fast steerable layers against escnn's own, layer by layer and as whole networks."""

from __future__ import annotations

import argparse
import copy
import ctypes
import pickle
import platform
import shutil
import threading
import warnings
from pathlib import Path

import escnn.nn as enn
import pytest
import torch
from escnn import gspaces
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gvae_core.bench import steerable as steerable_bench
from gvae_core.steerable import accelerate, explain, layers, native, path_in_use
from gvae_core.steerable.factors import factorise

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


@pytest.fixture(scope="session", autouse=True)
def kernel_cache(tmp_path_factory):
    """Build the kernels in a directory of the session, not in the user's cache."""
    directory = tmp_path_factory.mktemp("kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GVAE_CACHE", str(directory))
        native.load.cache_clear()
        yield directory
        native.load.cache_clear()


@pytest.fixture(scope="module", autouse=True)
def factored():
    """The layers of the tests are small, where a dense convolution is the fastest way: take the path's own way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers.FastR2Conv, "_way", lambda self, path, packed: path)
        yield


@pytest.fixture
def chosen(monkeypatch):
    """The fastest way, by the rule."""
    monkeypatch.setattr(layers.FastR2Conv, "_way", CHOOSE)


CHOOSE = layers.FastR2Conv._way


# ---- layers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "dtype"), NATIVE_ONLY_FLOAT32)
@settings(deadline=None, max_examples=25)
@given(
    frequencies=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    counts=st.tuples(st.integers(1, 20), st.integers(1, 35)),
    kernel_size=st.sampled_from([1, 3, 4, 5, 6]),
    stride=st.integers(1, 2),
    padding=st.integers(0, 3),
    extra=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    batch=st.integers(1, 4),
    bias=st.booleans(),
    training=st.booleans(),
)
def test_convolution(path, dtype, frequencies, counts, kernel_size, stride, padding, extra, batch, bias, training):
    in_type, out_type = so2_fields(max(frequencies), counts[0]), None
    group = in_type.fibergroup
    reprs = [group.spectral_regular_representation(*group.bl_irreps(f)) for f in frequencies]
    in_type, out_type = (enn.FieldType(in_type.gspace, n * [r]) for n, r in zip(counts, reprs))
    try:
        stock = enn.R2Conv(in_type, out_type, kernel_size, stride=stride, padding=padding, bias=bias)
    except ValueError:  # the basis is empty: kernel 1 between different irreps
        return
    fast, stock = pair(stock, path, dtype)
    assert explain(fast)[0].path == path
    for module in (fast, stock):
        module.train(training)
    assert_same(
        fast,
        stock,
        torch.randn(batch, in_type.size, *(kernel_size + e for e in extra), dtype=dtype),
    )


@pytest.mark.parametrize(("path", "dtype"), NATIVE_ONLY_FLOAT32)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", [enn.FourierELU, enn.FourierPointwise])
def test_network(path, dtype, training, activation):
    fast, stock = pair(encoder(activation=activation), path, dtype)
    assert path_in_use(fast) == path
    for _ in range(2):  # the running statistics move on
        for module in (fast, stock):
            module.train().train(training)  # escnn's filter in eval mode is good for one backward pass
        assert_same(fast, stock, torch.randn(6, 1, 14, 13, dtype=dtype))


@pytest.mark.usefixtures("chosen")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("training", [True, False])
def test_the_fastest_way(path, training):
    """By sizes alone: dense from the image, without a compiler between few fields too; the same numbers."""
    fast, stock = pair(encoder(fields=(4, 4, 48), padding=1), path)
    ways = [row.way for row in explain(fast) if row.kind == "R2Conv"]
    assert ways[:3] == ["dense", {"native": "native", "torch": "dense"}[path], path]
    assert all("against" in row.note for row in explain(fast) if row.kind == "R2Conv")
    for _ in range(2):
        for module in (fast, stock):
            module.train().train(training)
        assert_same(fast, stock, torch.randn(3, 1, 14, 13))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("options", [{"affine": False}, {"momentum": None}, {"track_running_stats": False}])
def test_batch_norm_options(path, options):
    fields = so2_fields(3, 5)
    layers = [enn.R2Conv(so2_fields(3, 2), fields, 3), enn.IIDBatchNorm2d(fields, **options)]
    fast, stock = pair(enn.SequentialModule(*layers, enn.R2Conv(fields, fields, 3)), path)
    for training in (True, True, False):
        for module in (fast, stock):
            module.train().train(training)
        assert_same(fast, stock, 3 + torch.randn(4, 14, 7, 8))


@pytest.mark.parametrize("path", PATHS)
def test_other_orders_of_layers(path):
    """What is pending between layers is also applied where the next layer cannot take it."""
    gspace = gspaces.rot2dOnR2(maximum_frequency=2)
    act = enn.FourierPointwise(gspace, 3, gspace.fibergroup.bl_irreps(2), N=9, function="p_tanh")
    fields = act.in_type
    layers = [
        enn.FieldDropout(fields, 0.3), enn.IIDBatchNorm2d(fields), enn.FieldDropout(fields, 0.2),
        act,
        enn.R2Conv(fields, fields, 3, padding=1), enn.NormNonLinearity(fields),
        enn.FieldDropout(fields, 0.3),
        enn.PointwiseAvgPool2D(fields, 2), enn.IIDBatchNorm2d(fields), enn.IIDBatchNorm2d(fields),
        enn.FieldDropout(fields, 0.3), enn.FieldDropout(fields, 0.3), enn.R2Conv(fields, fields, 3),
        enn.FieldDropout(fields, 0.3, inplace=True),
    ]  # fmt: skip
    fast, stock = pair(enn.SequentialModule(*layers), path)
    assert_same(fast, stock, torch.randn(3, fields.size, 9, 8))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("sigma, stride, padding", [(1.0, 2, None), (0.66, 1, None), (0.8, (1, 3), (0, 2))])
def test_antialiased_pooling(path, sigma, stride, padding):
    gspace = gspaces.rot2dOnR2(maximum_frequency=2)
    act = enn.FourierELU(gspace, 5, gspace.fibergroup.bl_irreps(2), N=8)
    fields = act.in_type
    pool = [enn.PointwiseAvgPoolAntialiased2D(fields, sigma, stride, padding) for _ in range(4)]
    layers = enn.SequentialModule(
        pool[0], enn.R2Conv(fields, fields, 3, padding=1), pool[1], enn.FieldDropout(fields, 0.3),
        pool[2], act, enn.FieldDropout(fields, 0.3), enn.R2Conv(fields, fields, 1), pool[3],
    )  # fmt: skip
    fast, stock = pair(layers, path)
    assert {row.path for row in explain(fast)} == {path}
    assert_same(fast, stock, torch.randn(3, fields.size, 25, 21))


@pytest.mark.parametrize("path", PATHS)
def test_masks(path):
    gspace = gspaces.rot2dOnR2(maximum_frequency=2)
    act = enn.FourierELU(gspace, 5, gspace.fibergroup.bl_irreps(2), N=8)
    fields = act.in_type
    mask = [enn.MaskModule(fields, 9, margin, sigma) for margin, sigma in ((0, 2), (25, 1), (50, 0.5))]
    layers = enn.SequentialModule(
        mask[0], enn.R2Conv(fields, fields, 3, padding=1), mask[1], act, mask[2], enn.FieldDropout(fields, 0.3),
        enn.R2Conv(fields, fields, 1), enn.IIDBatchNorm2d(fields), mask[0],
    )  # fmt: skip
    fast, stock = pair(layers, path)
    assert {row.path for row in explain(fast)} == {path}
    assert_same(fast, stock, torch.randn(3, fields.size, 9, 9))


def test_out_irreps():
    gspace = gspaces.rot2dOnR2(maximum_frequency=3)
    irreps = gspace.fibergroup.bl_irreps
    act = enn.FourierELU(gspace, 4, irreps(3), out_irreps=irreps(1), N=12)
    layers = enn.SequentialModule(enn.R2Conv(so2_fields(1, 2), act.in_type, 3), act)
    for path in ("torch", "native"):
        fast, stock = pair(copy.deepcopy(layers), path)
        assert_same(fast, stock, torch.randn(3, 6, 6, 6))


def test_cyclic_group_goes_through_the_irreps():
    gspace = gspaces.rot2dOnR2(8)
    fields = enn.FieldType(gspace, 3 * [gspace.regular_repr])
    fast, stock = pair(enn.R2Conv(fields, fields, 5, padding=2), "native")
    (row,) = explain(fast)
    assert row.path == "torch" and "irreps' own basis" in row.note
    assert_same(fast, stock, torch.randn(2, fields.size, 7, 7))


def test_reflections():
    """O(2): escnn's Clebsch-Gordan code hands scikit-learn an np.matrix, which it refuses; `escnn_fixes` mends it."""
    for gspace in (gspaces.flipRot2dOnR2(maximum_frequency=2), gspaces.flipRot2dOnR2(N=4)):
        group = gspace.fibergroup
        representation = group.spectral_regular_representation(*group.bl_irreps(1))
        fields = enn.FieldType(gspace, 2 * [representation])
        fast, stock = pair(enn.R2Conv(fields, fields, 3, padding=1), "native")
        assert explain(fast)[0].fast
        assert_same(fast, stock, torch.randn(2, fields.size, 6, 6))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"groups": 2}, "groups"),
        ({"dilation": 2}, "dilation"),
        ({"padding_mode": "circular"}, "padding_mode"),
    ],
)
def test_unsupported_convolutions_keep_escnns_forward(change, reason):
    fields = so2_fields(2, 4)
    fast, stock = pair(enn.R2Conv(fields, fields, 3, padding=1, **change), "native")
    (row,) = explain(fast)
    assert not row.fast and reason in row.note and type(fast) is enn.R2Conv
    assert_same(fast, stock, torch.randn(2, fields.size, 8, 8))


def test_model_with_unsupported_layers():
    """Same outputs as before, and the report lists what is not fast."""
    gspace = gspaces.rot2dOnR2(maximum_frequency=2)
    group = gspace.fibergroup
    mixed = enn.FieldType(gspace, [gspace.trivial_repr, group.irrep(1), group.irrep(1)])
    uniform = so2_fields(2, 3)
    layers = [
        enn.MaskModule(enn.FieldType(gspace, [gspace.trivial_repr]), 12),
        enn.R2Conv(enn.FieldType(gspace, [gspace.trivial_repr]), mixed, 3),
        enn.IIDBatchNorm2d(mixed),
        enn.NormNonLinearity(mixed), enn.R2Conv(mixed, uniform, 3), enn.FieldDropout(uniform, 0.2),
        enn.R2Conv(uniform, uniform, 3),
    ]  # fmt: skip
    fast, stock = pair(enn.SequentialModule(*layers), "native")
    assert [row.fast for row in explain(fast)] == [True, False, False, False, False, True, True]
    assert all(row.note for row in explain(fast) if not row.fast)
    assert_same(fast, stock, torch.randn(3, 1, 12, 12))


def test_multiply_adds():
    """The counts of the method: 59 maps and 113 multiply-adds instead of 2704, 5 scalar filters."""
    fields = so2_fields(6, 2)
    factors = factorise(enn.R2Conv(fields, fields, 4))
    assert (len(factors.filters), factors.multiplications) == (59, 113)
    assert factors.residual < 1e-9
    assert native.ConvolutionPlan(factors, 1, 0).bank.shape == (16, 5)


# ---- a module stays what it was ------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_parameters_state_dict_and_optimiser_go_on(path):
    module = encoder()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    parameters, state = list(module.parameters()), copy.deepcopy(module.state_dict())
    assert accelerate(module, path) is module
    assert all(a is b for a, b in zip(parameters, module.parameters(), strict=True))
    assert list(module.state_dict()) == list(state)
    module(module.in_type(torch.randn(3, 1, 16, 16))).tensor.square().sum().backward()
    optimiser.step()
    assert not torch.equal(module.state_dict()["4.weights"], state["4.weights"])
    stock = encoder()
    for mode in (True, False):  # the keys change with the mode, as in escnn
        stock.train(mode), module.train(mode)
        stock.load_state_dict(module.state_dict())
        module.load_state_dict(stock.state_dict())
    stock.train(), module.train()
    assert_same(module, stock, torch.randn(2, 1, 16, 16))


def test_accelerate_twice_and_change_the_path():
    module = encoder()
    types = [type(m) for m in accelerate(accelerate(module, "torch"), "torch").modules()]
    assert path_in_use(module) == "torch"
    accelerate(module, "escnn")
    assert path_in_use(module) == "escnn" and types == [type(m) for m in module.modules()]


def test_deepcopy_and_pickle():
    module = accelerate(encoder(), "torch")
    x = torch.randn(2, 1, 16, 16)
    clone = copy.deepcopy(module)
    assert_same(clone, module, x)
    # escnn's groups cannot be pickled (their irreps are local functions); what is added here can.
    convolution = module[4]
    added = {k: v for k, v in convolution.__getstate__().items() if k not in vars(encoder()[4])}
    assert {"_factors", "_plan", "steerable_path"} <= pickle.loads(pickle.dumps(added)).keys()


def test_own_module_with_escnn_layers():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = encoder(), nn.Linear(6, 2)

        def forward(self, x):
            y = self.body(self.body.in_type(x)).tensor
            return self.head(y.view(len(y), 6, -1).mean(-1))  # view: needs escnn's memory layout

    stock = Model()
    fast = accelerate(copy.deepcopy(stock))
    x = torch.randn(3, 1, 16, 16)
    torch.manual_seed(0)
    expected = stock(x)
    torch.manual_seed(0)
    assert error(fast(x), expected) <= 1e-5


@pytest.mark.parametrize("path", PATHS)
def test_no_stale_weights_in_eval_mode(path):
    module, x = accelerate(encoder(), path).eval(), torch.randn(2, 1, 16, 16)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    with torch.no_grad():
        before = module(module.in_type(x)).tensor
        assert torch.equal(before, module(module.in_type(x)).tensor)
    module(module.in_type(x)).tensor.square().sum().backward()
    optimiser.step()
    with torch.no_grad():
        after = module(module.in_type(x)).tensor
        expected = accelerate(copy.deepcopy(module).train().eval(), "escnn")
        assert error(after, expected(module.in_type(x)).tensor) <= 1e-5 < error(after, before)
    with torch.inference_mode():
        assert error(module(module.in_type(x)).tensor, after) == 0


def test_another_basis_is_noticed():
    """A state dict with another sampled basis is what escnn would use: factorised again."""
    fields = so2_fields(2, 3)
    fast, stock = pair(enn.R2Conv(fields, fields, 3, recompute=True), "torch")
    x = torch.randn(2, fields.size, 6, 6)
    run(fast, x)
    state = {k: v * 1.5 if "sampled_basis" in k else v for k, v in stock.state_dict().items()}
    for module in (fast, stock):
        module.load_state_dict(state)
    assert_same(fast, stock, x)


def test_a_basis_without_factors_goes_back_to_escnn(monkeypatch):
    fields = so2_fields(2, 3)
    fast, stock = pair(enn.R2Conv(fields, fields, 3, recompute=True), "torch")

    def refuse(convolution):
        raise ValueError("a residual of 1")

    for module in (fast, stock):
        module._basisexpansion.get_submodule(next(iter(module._basisexpansion._modules))).sampled_basis.mul_(1.5)
    monkeypatch.setattr("gvae_core.steerable.layers.factorise", refuse)
    with pytest.warns(RuntimeWarning, match="residual"):
        assert_same(fast, stock, torch.randn(2, fields.size, 6, 6))
    assert explain(fast)[0].path == "escnn" and "residual" in explain(fast)[0].note


def test_change_in_place_while_pending():
    fields = so2_fields(2, 3)
    norm = accelerate(enn.IIDBatchNorm2d(fields), "torch")
    x = fields(torch.randn(2, fields.size, 5, 5))
    y = norm(x)
    x += fields(torch.ones(2, fields.size, 5, 5))
    with pytest.raises(RuntimeError, match="changed in place"):
        y.tensor  # noqa: B018


@pytest.mark.parametrize("path", PATHS)
def test_two_threads_at_once(path):
    module = accelerate(encoder(), path).eval()
    inputs = [torch.randn(4, 1, 16, 16) for _ in range(4)]
    expected = [run(copy.deepcopy(module), x)["output"] for x in inputs]
    outputs = [None] * len(inputs)

    def work(i: int) -> None:
        for _ in range(5):
            with torch.no_grad():
                outputs[i] = module(module.in_type(inputs[i])).tensor

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(error(a, b) <= 1e-6 for a, b in zip(outputs, expected, strict=True))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("batch", [0, 1])
def test_tiny_batches(path, batch):
    fast, stock = pair(encoder(), path)
    fast.eval(), stock.eval()
    x = torch.randn(batch, 1, 16, 16, requires_grad=True)
    y = fast(fast.in_type(x)).tensor
    y.sum().backward()
    if batch:
        assert error(y, stock(stock.in_type(x)).tensor) <= 1e-5
    assert y.shape == (batch, 6, 5, 5) and x.grad.shape == x.shape


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("activation", [enn.FourierELU, enn.FourierPointwise])
def test_nan_stays_nan(path, activation):
    fast, stock = pair(encoder(activation=activation), path)
    x = torch.randn(3, 1, 16, 16)
    x[1, 0, 8, 8] = torch.nan
    found, expected = (net.eval()(net.in_type(x)).tensor.isnan() for net in (fast, stock))
    assert expected[1].all() and not expected[[0, 2]].any()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("path", PATHS)
def test_the_same_seed_gives_the_same_numbers(path):
    module, x = accelerate(encoder(), path), torch.randn(5, 1, 16, 16)
    first, second = run(copy.deepcopy(module), x), run(copy.deepcopy(module), x)
    assert all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("path", PATHS)
def test_autocast_follows_escnn(path):
    fast, stock = pair(encoder(), path)
    x = torch.randn(4, 1, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = run(fast, x)["output"], run(stock, x)["output"]
    assert error(found.float(), expected.float()) < 0.1  # bfloat16 has 3 digits, twelve layers


@pytest.mark.parametrize("path", PATHS)
def test_loss_curves_coincide(path):
    """200 optimiser steps from the same seed, dropout included: within 1e-3 of escnn's loss."""
    torch.manual_seed(0)
    stock = encoder(fields=(2, 2, 3), frequency=2)
    images = torch.randn(64, 1, 10, 10)
    target = images.mean((1, 2, 3))[:, None] + images.std((1, 2, 3))[:, None]

    def losses(module: nn.Module) -> torch.Tensor:
        optimiser = torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.9)
        generator, values = torch.Generator().manual_seed(1), []
        torch.manual_seed(2)
        for _ in range(200):
            batch = torch.randint(64, (8,), generator=generator)
            output = module(module.in_type(images[batch])).tensor.mean((2, 3))
            loss = (output - target[batch]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            values.append(loss.detach())
        return torch.stack(values)

    fast = accelerate(copy.deepcopy(stock), path)
    found, expected = losses(fast), losses(stock)
    assert expected[-50:].mean() < 0.7 * expected[:10].mean()  # it does learn
    assert ((found - expected).abs() / expected.abs()).max() <= 1e-3


# ---- choosing and building -----------------------------------------------------------------------


def test_environment_variable(monkeypatch):
    for path in ("escnn", "torch"):
        monkeypatch.setenv("GVAE_STEERABLE", path)
        assert path_in_use(accelerate(encoder())) == path
    monkeypatch.setenv("GVAE_STEERABLE", "fast")
    with pytest.raises(ValueError, match="GVAE_STEERABLE.*escnn, torch, native.*'fast'"):
        accelerate(encoder())
    with pytest.raises(ValueError, match="escnn, torch, native.*'cuda'"):
        accelerate(encoder(), "cuda")


@pytest.mark.parametrize("compiler", ["/nonexistent/compiler", "false"])
def test_without_a_compiler_the_torch_path_is_taken(monkeypatch, compiler):
    monkeypatch.setenv("CXX", compiler)
    native.load.cache_clear()
    try:
        module = accelerate(encoder(), "native")
        with pytest.warns(RuntimeWarning, match="torch path is used"):
            y = run(module, torch.randn(2, 1, 16, 16))["output"]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert path_in_use(module) == "torch"  # said once
        assert torch.isfinite(y).all()
    finally:
        native.load.cache_clear()


@needs_compiler
def test_built_once(tmp_path):
    first = native.build(tmp_path)
    stamp = first.stat().st_mtime_ns
    assert native.build(tmp_path) == first and first.stat().st_mtime_ns == stamp
    assert [p.suffix for p in tmp_path.iterdir() if p.suffix != ".lock"] == [".so"]


INSTRUCTION_SETS = {
    "x86_64": {
        "baseline": (),
        "avx2": ("-mavx2", "-mfma"),
        "avx512": ("-mavx512f", "-mavx512vl", "-mfma"),
    },
    "aarch64": {"baseline": ()},
}.get(platform.machine(), {"baseline": ()})


@needs_compiler
@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_every_instruction_set(name, tmp_path, monkeypatch):
    """The same source for narrower vectors, which every machine of the architecture can run."""
    if name != "baseline" and f"{name}" not in Path("/proc/cpuinfo").read_text():
        pytest.skip(f"this processor has no {name}")
    library = ctypes.CDLL(str(native.build(tmp_path, INSTRUCTION_SETS[name])))
    assert library.steerable_width() == {"baseline": 4, "avx2": 8, "avx512": 16}[name]
    monkeypatch.setattr(native, "load", lambda: library)
    for fields, kernel_size, padding in (
        ((5, 20, 3), 4, 2),
        ((16, 33, 17), 3, 1),
        ((2, 3, 2), 5, 0),
    ):
        module = encoder(fields, kernel_size=kernel_size, padding=padding, strides=(1, 2, 1))
        assert_same(*pair(module, "native"), torch.randn(3, 1, 21, 22))


def test_benchmark_prints_its_tables(monkeypatch, capsys):
    monkeypatch.setattr(steerable_bench, "NETWORKS", {"small": ((2, 2), 2, (1, 2), 12, 2)})
    parser = argparse.ArgumentParser()
    steerable_bench.add_arguments(parser)
    arguments = [
        "--networks",
        "small",
        "--variants",
        "escnn",
        "torch",
        "--repeats",
        "1",
        "--no-memory",
        "--batch",
    ]
    steerable_bench.main(parser.parse_args([*arguments, "2", "--threads", str(torch.get_num_threads())]))
    lines = capsys.readouterr().out.splitlines()
    header, stock, fast = (line.split() for line in lines[-3:])
    assert (stock[0], fast[0], fast[1]) == ("escnn", "torch", "torch") and header[0] == "variant"
    assert float(fast[-1]) <= 1e-5 and float(fast[-2]) <= 1e-5  # the errors it prints
    with pytest.raises(ValueError, match="--batch.*0"):
        steerable_bench.main(parser.parse_args([*arguments, "0"]))
