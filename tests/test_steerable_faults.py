"""What careless or unusual use does to the fast layers.

Odd sizes and dtypes, weights written behind their back, other models in the process, state dicts of either mode,
pickling, transforms, export, groups and spaces of all kinds.
"""

from __future__ import annotations

import copy
import io
import itertools
import pickle
import random
import subprocess
import sys
from pathlib import Path

import escnn.nn as enn
import pytest
import torch
from escnn import gspaces
from test_steerable import CHOOSE, PATHS, encoder, error, factored, kernel_cache, so2_fields  # noqa: F401
from torch import nn
from torch.nn.utils import parametrize

from gvae_core.models import sgvae
from gvae_core.steerable import accelerate, explain, layers

SMALL = dict(fields=(2, 3, 2), frequency=2, invariants=8, decoder_channels=(4, 4, 4))


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
        layers.FastR2Conv._way = CHOOSE if seed % 2 else lambda self, path, packed: path
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
from test_steerable_faults import compare
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


@pytest.mark.parametrize("path", [*PATHS, "escnn", "dense"])
@pytest.mark.parametrize("write", WRITERS)
def test_every_way_to_write_weights_is_seen(monkeypatch, path, write):
    if path == "dense":
        monkeypatch.setattr(layers.FastR2Conv, "_way", lambda self, path, packed: "dense")
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
