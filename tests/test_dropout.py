"""`models.dropout`: torch's dropout in less time."""

import pytest
import torch
from torch import nn

from gvae_core.models.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.999999])
def test_so_many_values_are_dropped_and_the_mean_stays(p):
    torch.manual_seed(0)
    values = torch.ones(401, 101, 25)  # not a multiple of four
    dropped = Dropout(p)(values)
    share = (dropped == 0).double().mean().item()
    deviation = (p * (1 - p) / values.numel()) ** 0.5
    assert abs(share - p) < 4 * deviation + 2**-16
    assert dropped[dropped != 0].unique().numel() == (1 if p < 0.9999 else dropped.count_nonzero().clamp(max=1))
    if p < 0.9:
        assert abs(dropped.double().mean() - 1) < 4 * deviation / (1 - p)
        every_fourth = (dropped.flatten()[:1_000_000].view(-1, 4) == 0).double()  # which share their random bits
        assert (every_fourth.mean(0) - p).abs().max() < 5 * (p * (1 - p) / len(every_fourth)) ** 0.5
        correlation = torch.corrcoef(every_fourth.T) - torch.eye(4)
        assert correlation.abs().max() < 5 / len(every_fourth) ** 0.5


def test_the_gradient_passes_where_the_values_did():
    torch.manual_seed(1)
    values = torch.randn(50, 7, 3, 3, requires_grad=True)
    dropped = Dropout(0.25)(values)
    (gradient,) = torch.autograd.grad(dropped.sum(), values)
    torch.testing.assert_close(gradient * values, dropped)
    assert 0 < (gradient == 0).double().mean() < 0.5


def test_it_follows_the_seed_and_differs_from_call_to_call():
    def draw() -> torch.Tensor:
        return Dropout(0.5)(torch.ones(1000))

    torch.manual_seed(3)
    first, second = draw(), draw()
    torch.manual_seed(3)
    assert torch.equal(first, draw()) and not torch.equal(first, second)


@pytest.mark.parametrize("layer", [Dropout(0.5).eval(), Dropout(0.0)])
def test_outside_of_training_nothing_is_drawn(layer):
    values, before = torch.randn(10), torch.get_rng_state()
    assert torch.equal(layer(values), values) and torch.equal(torch.get_rng_state(), before)


def test_other_layouts_and_empty_batches():
    strided = torch.randn(8, 5, 6, 6).contiguous(memory_format=torch.channels_last)
    kept = (dropped := Dropout(0.5)(strided)) != 0
    torch.testing.assert_close(dropped[kept], 2 * strided[kept])
    assert Dropout(0.5)(torch.ones(0, 3)).shape == (0, 3)
    assert isinstance(Dropout(0.5), nn.Dropout) and not Dropout(0.5).state_dict()
