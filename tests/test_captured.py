"""On a GPU: a captured step gives the numbers of the same step without."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gvae_core import training
from gvae_core.captured import WARM_UP, CapturedStep
from gvae_core.devices import repeatable
from gvae_core.models import svae
from gvae_core.training import Schedule, fit_vae

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")


@pytest.mark.parametrize("rotated", [False, True])
def test_fit_gives_the_same_history_with_and_without(digits, rotated, monkeypatch):
    images = digits.images[:230]  # the last batch is a smaller one
    histories = []
    for wrap in (CapturedStep, lambda step: step):
        monkeypatch.setattr(training, "CapturedStep", wrap)
        torch.manual_seed(0)
        model = svae(latent_dim=3, channels=(8, 8, 8), decoder_channels=(8, 8, 8)).cuda()
        with repeatable():
            schedule = Schedule(3, 0.005, decay=0.5, batch_size=25)
            histories.append(fit_vae(model, images, images[:50], schedule, beta=1.0, rotated=rotated, progress=False))
    assert histories[0] == histories[1]


def test_it_is_recorded_after_the_warm_up_and_another_shape_runs_as_it_is():
    layer, shapes = nn.Linear(3, 1).cuda(), []

    def step(x):
        shapes.append(len(x))
        return {"sum": layer(x).sum().detach()}

    captured = CapturedStep(step)
    for count in [2] * WARM_UP + [5] + [2] * 3 + [5, 2]:  # the first other one comes where it would be recorded
        x = torch.rand(count, 3, device="cuda")
        torch.testing.assert_close(captured(x)["sum"], layer(x).sum())
    assert shapes == [2] * WARM_UP + [5, 2, 5]
