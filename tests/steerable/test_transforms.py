"""State dicts of either mode, pickling, transforms, export, and spaces of all kinds."""

from __future__ import annotations

import copy
import io
import itertools
import pickle

import escnn.nn as enn
import pytest
import torch
from comparing import PATHS, SMALL, encoder, error
from escnn import gspaces
from torch import nn

from gvae_core.models import sgvae
from gvae_core.steerable import accelerate, explain

# ---- state dicts --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PATHS, "escnn"])
@pytest.mark.parametrize(("saved", "loading"), [*itertools.product([True, False], repeat=2)])
def test_state_dicts_load_in_every_mode(path, saved, loading):
    source, target = accelerate(encoder(), path).train(saved), accelerate(encoder(), path).train(loading)
    target.load_state_dict(source.state_dict())
    source.eval(), target.eval()
    x = torch.randn(2, 1, 16, 16)
    assert torch.equal(source(source.in_type(x)).tensor, target(target.in_type(x)).tensor)
    stock = encoder().train(saved)
    stock.load_state_dict(target.train().train(saved).state_dict())  # escnn's keys in each mode
    target.train(loading).load_state_dict(stock.state_dict())


def test_a_loaded_filter_does_not_outlive_its_weights():
    module = accelerate(encoder()).eval()
    state = module.state_dict()
    assert all(torch.equal(state[f"{i}.filter"], module[i].filter) for i in (0, 4, 8))
    module.load_state_dict({**state, "4.weights": torch.ones_like(state["4.weights"])})
    assert not torch.equal(module[4].filter, state["4.filter"])


@pytest.mark.parametrize("use_buffers", [True, False])
@pytest.mark.parametrize("mode", [True, False])
def test_averaged_models(use_buffers, mode):
    module, x = accelerate(encoder()), torch.randn(2, 1, 16, 16)
    average = torch.optim.swa_utils.AveragedModel(module, use_buffers=use_buffers).train(mode)
    for training in (True, False, True):
        with torch.no_grad():
            module.train(training)[4].weights += 1
        average.update_parameters(module)
    expected = copy.deepcopy(average.module).train().eval()
    weights = module[4].weights.detach()
    assert error(average.module[4].weights, weights - 1) <= 1e-5  # of 1, 2 and 3 more than at first
    assert torch.equal(average.eval()(module.in_type(x)).tensor, expected(module.in_type(x)).tensor)


# ---- pickling -----------------------------------------------------------------------------------


def test_pickling_says_what_to_do_instead():
    model = sgvae(**SMALL)
    for save in (pickle.dumps, lambda m: torch.save(m, io.BytesIO())):
        for module in (model, accelerate(encoder())):
            with pytest.raises(TypeError, match="state_dict"):
                save(module)
    clone, x = copy.deepcopy(model).eval(), torch.rand(2, 1, 28, 28)
    assert torch.equal(clone.encoder(x), model.eval().encoder(x))
    shallow = copy.copy(model.encoder.blocks[1][0])
    assert shallow.weights is model.encoder.blocks[1][0].weights


# ---- transforms, second derivatives, export -----------------------------------------------------


def network(path: str | None) -> enn.SequentialModule:
    """Without dropout and batch statistics, which escnn cannot transform either."""
    torch.manual_seed(3)
    module = encoder(fields=(3, 4, 2), frequency=2, dropout=0.0).eval()
    for layer in module.modules():
        if path is None and isinstance(layer, enn.R2Conv):
            layer.train()  # escnn's filter of eval mode does not follow the weights
    return module if path is None else accelerate(module, path)


def output(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return module(module.in_type(x)).tensor.mean((2, 3))


@pytest.mark.filterwarnings("ignore:.torch.jit.script")  # torch's own, inside jvp
@pytest.mark.parametrize("path", PATHS)
def test_transforms(path):
    fast, stock, x = network(path), network(None), torch.randn(3, 1, 14, 14)
    results = []
    for net in (fast, stock):
        jvp = torch.func.jvp(lambda x: output(net, x), (x,), (torch.ones_like(x),))
        single = x[:1]
        jacobian = torch.func.jacrev(lambda x: output(net, x))(single)
        mapped = torch.func.vmap(lambda x: output(net, x[None]))(x)
        hessian = torch.func.hessian(lambda s: output(net, s * single).sum())(torch.ones(()))
        parameters = {n: p.detach() for n, p in net.named_parameters()}

        def loss(parameters, x):
            return torch.func.functional_call(net, parameters, (net.in_type(x[None]),)).tensor.square().sum()

        per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)["4.weights"]
        vectorised = torch.autograd.functional.jacobian(lambda x: output(net, x), single, vectorize=True)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
            tangent = torch.autograd.forward_ad.unpack_dual(output(net, dual)).tangent
        results.append([*jvp, jacobian, mapped, hessian, per_sample, vectorised, tangent])
    errors = [error(a, b) for a, b in zip(*results, strict=True)]
    assert max(errors) <= 1e-4, errors


@pytest.mark.parametrize("path", PATHS)
def test_gradient_penalty(path):
    """Gradients of gradients, in training mode with dropout and batch statistics."""
    fast = accelerate(encoder(), path)
    stock, x = encoder(), torch.randn(40, 1, 14, 14)  # enough images to go through in pieces
    stock.load_state_dict(fast.state_dict())
    results = []
    for net in (fast, stock):
        inputs = x.clone().requires_grad_()
        torch.manual_seed(0)
        (grad,) = torch.autograd.grad(output(net, inputs).square().sum(), inputs, create_graph=True)
        (grad.square().sum((1, 2, 3)).sqrt() - 1).square().mean().backward()
        results.append([grad.detach(), inputs.grad, *(p.grad for p in net.parameters())])
    for a, b in zip(*results, strict=True):
        assert (a is None) == (b is None) and (a is None or error(a, b) <= 1e-4)


class Invariants(nn.Module):
    """Images in, tensor out: what torch.export takes."""

    def __init__(self):
        super().__init__()
        self.body = accelerate(encoder()).train()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return output(self.body, images)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:No complete tensor found in the group")  # torch's own, while it loads the file
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("ran", [True, False])
def test_export(strict, ran):
    """The route to other runtimes: torch.export of a module that takes and returns tensors."""
    model, x, new = Invariants().eval(), torch.rand(2, 1, 16, 16), torch.rand(5, 1, 16, 16)
    if ran:
        model(x)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},), strict=strict)
    with torch.no_grad():
        found = program.module()(new)
        assert type(found) is torch.Tensor and error(found, model(new)) <= 1e-5
        assert type(model(new)) is torch.Tensor  # and the model itself goes on
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    assert error(torch.export.load(file).module()(new), found) <= 1e-6


def test_export_of_the_papers_encoder():
    encoder, x = sgvae(**SMALL).eval().encoder, torch.rand(3, 1, 28, 28)
    program = torch.export.export(encoder, (x,))
    with torch.no_grad():
        assert error(program.module()(x), encoder(x)) <= 1e-5


# ---- spaces without a plane, volumes, points ----------------------------------------------------


def spaces() -> list[tuple[enn.EquivariantModule, torch.Tensor, torch.Tensor | None]]:
    so2 = gspaces.rot2dOnR2(maximum_frequency=2).fibergroup
    plane, line, volume = (
        gspaces.rot2dOnR2(maximum_frequency=2),
        gspaces.no_base_space(so2),
        gspaces.rot2dOnR3(maximum_frequency=2),
    )
    rows = []  # of a layer and the shape behind its channels
    for gspace, shape in ((line, ()), (plane, ()), (volume, (4, 3, 5)), (volume, ())):
        for layer in (enn.FourierELU, enn.FourierPointwise):
            rows.append((layer(gspace, 3, gspace.fibergroup.bl_irreps(2), N=8), shape))
        fields = rows[-1][0].in_type
        rows += [(enn.FieldDropout(fields, 0.5), shape), (enn.IIDBatchNorm2d(fields), shape)]
    rows += [(enn.MaskModule(fields, 4), (4, 4, 4))]
    cases = []
    for module, shape in rows:
        x, dimension = torch.randn(6, module.in_type.size, *shape), module.in_type.gspace.dimensionality
        coordinates = torch.randn(6, dimension) if not shape and dimension else None
        cases.append((module, x, coordinates))
    return cases


@pytest.mark.parametrize("path", PATHS)
def test_other_spaces(path):
    for (fast, x, coordinates), (stock, *_) in zip(spaces(), spaces(), strict=True):
        accelerate(fast, path)
        results = []
        for net in (fast, stock):
            torch.manual_seed(0)
            inputs = x.clone().requires_grad_()
            y = net(enn.GeometricTensor(inputs, net.in_type, coordinates))
            y.tensor.square().sum().backward()
            results.append((y.tensor, inputs.grad))
            assert y.coords is coordinates
        assert all(error(a, b) <= 1e-5 for a, b in zip(*results)), (stock, x.shape)
        if stock.in_type.gspace.dimensionality != 2:
            (row,) = explain(fast)
            assert row.path == "escnn" and "dimensions" in row.note
