"""A module with fast layers stays what it was, in every mode and precision."""

from __future__ import annotations

import copy
import pickle
import threading

import escnn.nn as enn
import pytest
import torch
from comparing import PATHS, assert_same, encoder, error, pair, run, so2_fields
from torch import nn

from gvae_core.steerable import accelerate, explain, path_in_use


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


@pytest.mark.slow
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
    monkeypatch.setattr("gvae_core.steerable.convolution.factorise", refuse)
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


@pytest.mark.slow
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
