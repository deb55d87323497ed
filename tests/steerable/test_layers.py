"""The fast steerable layers against escnn's own, layer by layer and as whole networks."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util

import escnn.nn as enn
import numpy as np
import pytest
import torch
from comparing import NATIVE_ONLY_FLOAT32, PATHS, assert_same, encoder, error, pair, so2_fields
from escnn import gspaces
from hypothesis import given, settings
from hypothesis import strategies as st

from gvae_core.steerable import explain, native, path_in_use
from gvae_core.steerable.convolution import FastR2Conv
from gvae_core.steerable.factors import factorise


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
        mask[0], enn.R2Conv(fields, fields, 3, padding=1), mask[1], act, enn.FieldDropout(fields, 0.3), mask[2],
        enn.FieldDropout(fields, 0.3), enn.R2Conv(fields, fields, 1), enn.IIDBatchNorm2d(fields), mask[0],
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


@pytest.mark.usefixtures("chosen")
@pytest.mark.parametrize("kernel, stride, padding, bias", [(3, 1, 0, True), (5, 2, (3, 2), False), (1, 1, 0, True)])
def test_dense_without_gradient(kernel, stride, padding, bias, monkeypatch):
    """Torch has other convolutions, faster on few small images; under autocast they would stay in float32."""
    ways, plan = [], FastR2Conv._dense_plan

    def noted(*arguments):
        ways.append((found := plan(*arguments))[0])
        return found

    monkeypatch.setattr(FastR2Conv, "_dense_plan", noted)
    fields = so2_fields(2, 4)
    fast, stock = pair(enn.R2Conv(fields, fields, kernel, stride=stride, padding=padding, bias=bias), "native")
    fast.eval(), stock.eval()
    for batch, side, way in ((1, 9, "product"), (10, 29, "reordered"), (11, 29, "conv2d")):
        x = enn.GeometricTensor(torch.randn(batch, fields.size, side, side), fields)
        with torch.no_grad():
            expected = stock(x).tensor
            assert error(y := fast(x).tensor, expected) <= 1e-5 and y.is_contiguous()
            assert ways == ["product" if kernel == 1 else way]
            assert error(copy.deepcopy(fast)(x).tensor, expected) <= 1e-5
            last_channels = x.tensor.contiguous(memory_format=torch.channels_last)
            assert error(fast(enn.GeometricTensor(last_channels, fields)).tensor, expected) <= 1e-5
            for layer in fast, stock:
                layer.weights.data.neg_()
            expected = stock.train().eval()(x).tensor  # its filter is made anew
            assert error(fast(x).tensor, expected) <= 1e-5
            ways.clear()
            fast.train().eval()  # nothing is kept
            with torch.autocast("cpu", torch.bfloat16):
                assert fast(x).tensor.dtype == torch.bfloat16 and not ways
            assert error(fast(x).tensor, expected) <= 1e-5
        ways.clear()
        assert error(fast(x).tensor, expected) <= 1e-5 and not ways
    with torch.no_grad():
        fast.bias = stock.bias = stock.expanded_bias = None
        assert error(fast(x).tensor, stock(x).tensor) <= 1e-5
        with pytest.raises(RuntimeError, match="input"):
            fast(enn.GeometricTensor(torch.randn(2, fields.size, 0, 0), fields))


def test_initial_values_are_escnns():
    """`escnn_fixes` works out their spread once for each pair of representations, escnn for every weight."""
    spec = importlib.util.spec_from_file_location("stock", enn.init.__file__)
    spec.loader.exec_module(stock := importlib.util.module_from_spec(spec))
    rotations, reflections = gspaces.rot2dOnR2(maximum_frequency=3), gspaces.flipRot2dOnR2(maximum_frequency=2)
    bands = [rotations.fibergroup.bl_regular_representation(frequency) for frequency in (1, 3)]
    mixed = [bands[1], rotations.trivial_repr, bands[0], bands[1], rotations.irrep(1), bands[0]]
    fourier = reflections.fibergroup.spectral_regular_representation(*reflections.fibergroup.bl_irreps(2))
    for gspace, source, target, kernel in (
        (rotations, [rotations.trivial_repr], mixed, 5),
        (rotations, mixed, [bands[0], rotations.irrep(2), bands[1]], 3),
        (rotations, mixed, 4 * [rotations.trivial_repr], 1),
        (reflections, 2 * [fourier], [reflections.irrep(1, 1), fourier, reflections.irrep(1, 0)], 3),
    ):
        torch.manual_seed(0)
        layer = enn.R2Conv(enn.FieldType(gspace, source), enn.FieldType(gspace, target), kernel)
        torch.manual_seed(0)
        stock.generalized_he_init(expected := torch.empty_like(layer.weights.data), layer.basisexpansion)
        assert torch.equal(layer.weights, expected)


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
    plan = native.ConvolutionPlan(factors, 1, 0)
    assert plan.parity.tolist() == [2, 1, 1, 1] and plan.bank.shape == (5 * 16 // 4,)


@pytest.mark.skipif(native.load() is None, reason="needs a compiler")
@pytest.mark.parametrize("kernel_size", range(1, 8))
def test_filters_of_no_parity(kernel_size):
    """Any filter is the sum of four that are even or odd under each mirror: the kernels take random ones, too."""
    torch.manual_seed(0)
    fields = so2_fields(2, 3)
    factors = factorise(enn.R2Conv(fields, fields, kernel_size, rings=[0.0], sigma=[0.6]))
    random = np.random.default_rng(0).normal(size=factors.filters.shape)
    plan = native.ConvolutionPlan(dataclasses.replace(factors, filters=random), stride=1, padding=1)
    x = native.pack(torch.randn(2, fields.size, 8, 9), 3).requires_grad_()
    mixing = torch.randn(factors.mixing.shape[1], 3, 3, requires_grad=True)
    results = []
    for convolve in (native.Convolve.apply, native._convolve_in_torch):
        y = convolve(plan, x, None, mixing, *[None] * (convolve is not native._convolve_in_torch))
        gradients = torch.autograd.grad((y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum(), (x, mixing))
        results.append([y, *gradients])
    for ours, expected in zip(*results):
        assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()
