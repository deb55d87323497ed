"""The losses' units, and a loop that resumes, repeats and refuses NaN."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.distributions import kl_divergence

from gvae_core import CNNClassifier, svae, training
from gvae_core.training import NonFiniteLoss, Schedule, classifier_losses, evaluate, fit, fit_vae, vae_losses

SCHEDULE = Schedule(epochs=3, learning_rate=0.01, decay=0.5, batch_size=16)


def small_svae():
    torch.manual_seed(1)
    return svae(4, channels=(4, 4, 4), decoder_channels=(4, 4, 4))


def test_papers_classifier_loss_is_a_second_softmax(digits):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    x, y = digits.images[:20], digits.labels[:20]
    logits = model(x).detach().double().numpy()
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    again = np.exp(probabilities) / np.exp(probabilities).sum(1, keepdims=True)
    expected = -np.log(again[np.arange(20), y]).mean()
    assert classifier_losses(model, x, y)["loss"].item() == pytest.approx(expected, rel=1e-6)


def test_papers_classifier_loss_is_at_least_1_4612():
    certain = lambda x: 1e4 * torch.eye(10)  # noqa: E731
    losses = classifier_losses(certain, torch.zeros(10, 1, 28, 28), torch.arange(10))
    assert losses["loss"].item() == pytest.approx(-math.log(math.e / (math.e + 9)), rel=1e-6)
    assert losses["loss"].item() == pytest.approx(1.4612, abs=5e-5)


@pytest.mark.parametrize("count", [100, 40])
def test_papers_vae_loss_is_a_sum_over_100_images_plus_beta_times_the_mean_kl(digits, count):
    model, images, beta = small_svae().eval(), digits.images[:count], 150.0
    torch.manual_seed(5)
    losses = vae_losses(model, images, images, beta=beta)
    torch.manual_seed(5)
    posterior = model.encode(images)
    canvas = model.decode_canvas(posterior.rsample()).detach().double().numpy()
    target = (np.pad(images.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2))) - 0.1307) / 0.3081
    squares = ((canvas - target) ** 2).sum() * 100 / count
    kl = kl_divergence(posterior, model.prior).mean().item()
    assert losses["loss"].item() == pytest.approx(squares + beta * kl, rel=1e-5)


def test_a_seed_gives_the_same_numbers_and_another_seed_others(digits):
    def history(seed):
        return fit_vae(
            small_svae(), digits.images[:48], digits.images[48:64], SCHEDULE, beta=1.0, seed=seed, progress=False
        )

    assert history(0) == history(0) != history(1)


def test_training_lowers_the_loss_and_the_rate_decays(digits):
    schedule = Schedule(epochs=6, learning_rate=0.01, decay=0.5, batch_size=16)
    history = fit_vae(small_svae(), digits.images[:128], digits.images[128:160], schedule, beta=0.1, progress=False)
    assert history[-1]["train_loss"] < 0.8 * history[0]["train_loss"]
    assert [record["learning_rate"] for record in history[:3]] == [0.01, 0.005, 0.0025]
    assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5, 6]


class _Seen:
    """Losses of a linear model that note which rows they were given."""

    def __init__(self):
        self.model, self.rows = torch.nn.Linear(1, 1), []

    def __call__(self, rows):
        if self.model.training:
            self.rows.append(rows[:, 0].tolist())
        return {"loss": self.model(rows / 10).square().mean()}

    def fit(self, schedule, **more):
        rows = torch.arange(10.0)[:, None]
        return fit(self.model, self, (rows,), (rows,), schedule, progress=False, **more)


def test_an_epoch_of_so_many_images_sees_all_equally_often():
    seen = _Seen()
    seen.fit(Schedule(epochs=1, learning_rate=0.01, batch_size=5, epoch_images=25))
    assert [len(batch) for batch in seen.rows] == [5] * 5
    for first in (0, 2):
        assert sorted(seen.rows[first] + seen.rows[first + 1]) == list(range(10))
    few = _Seen()
    few.fit(Schedule(epochs=2, learning_rate=0.01, batch_size=3, epoch_images=6))
    assert [len(set(batch)) for batch in few.rows] == [3] * 4
    # also over epochs that are shorter than a pass, and not a whole part of one
    cut = _Seen()
    cut.fit(Schedule(epochs=5, learning_rate=0.01, batch_size=4, epoch_images=4))
    series = [*itertools.chain(*cut.rows)]
    assert sorted(series[:10]) == sorted(series[10:]) == list(range(10)) != series[:10] != series[10:]


def test_a_limit_of_seconds_ends_the_schedule_with_its_last_learning_rate(monkeypatch):
    """On a clock that goes on a little at each look, so that the limit also passes just before an epoch's first step."""
    for pause in (0.15, 0.3, 0.49, 0.7):
        clock = itertools.count(0.0, pause)
        monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda clock=clock: next(clock)))
        schedule = Schedule(epochs=10_000, learning_rate=1.0, decay=0.01 ** (1 / 10_000), batch_size=5, seconds=10.0)
        rates = [record["learning_rate"] for record in _Seen().fit(schedule)]
        assert 4 <= len(rates) <= 10.0 / pause
        assert rates == sorted(rates, reverse=True) and 0.01 * (1 - 1e-9) <= rates[-1] < 0.02


class _StopAt:
    """Losses that raise at a given call, as Ctrl-C or a crash would."""

    def __init__(self, model, call, error):
        self.model, self.call, self.error = model, call, error

    def __call__(self, images):
        self.call -= 1
        if self.call == 0:
            raise self.error
        return vae_losses(self.model, images, images, beta=1.0)


def test_an_interrupted_fit_resumes_with_the_numbers_of_an_uninterrupted_one(digits, tmp_path):
    data = (digits.images[:48],), (digits.images[48:64],)
    whole = small_svae()
    expected = fit(whole, _StopAt(whole, 0, None), *data, SCHEDULE, progress=False)

    state = tmp_path / "state.safetensors"
    first = small_svae()
    with pytest.raises(KeyboardInterrupt):  # in the second step of the second epoch
        fit(first, _StopAt(first, 3 + 1 + 2, KeyboardInterrupt), *data, SCHEDULE, state_file=state, progress=False)
    second = small_svae()
    resumed = fit(second, _StopAt(second, 0, None), *data, SCHEDULE, state_file=state, progress=False)

    assert resumed == expected
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_fit_leaves_the_global_random_state_alone(digits):
    model = small_svae()
    state = torch.get_rng_state()
    fit_vae(model, digits.images[:32], digits.images[:16], SCHEDULE, beta=1.0, progress=False)
    assert torch.equal(state, torch.get_rng_state())


def test_nan_stops_the_run_and_names_the_step(digits):
    model, images = small_svae(), digits.images[:48]
    torch.nn.init.constant_(model.decoder[0].bias, float("nan"))
    with pytest.raises(NonFiniteLoss, match=r"svae: loss is nan in epoch 1 of 3, step 1 of 3"):
        fit_vae(model, images, images, SCHEDULE, beta=1.0, progress=False, title="svae")


def test_a_broken_image_stops_the_run_and_is_named(digits):
    images = digits.images[:48].clone()
    images[20] = float("nan")
    with pytest.raises(ValueError, match=r"expected images of finite values in \[0, 1\], got values from nan"):
        fit_vae(small_svae(), images, images, SCHEDULE, beta=1.0, progress=False)


def test_weights_that_break_in_the_last_step_stop_the_run_and_are_not_kept(digits, tmp_path):
    images, state = digits.images[:32], tmp_path / "state.safetensors"
    schedule = Schedule(epochs=2, learning_rate=1e30, batch_size=32)
    with pytest.raises(NonFiniteLoss, match="svae: validation loss is (nan|inf) in epoch 1 of 2, after its last step"):
        fit_vae(small_svae(), images, images, schedule, beta=1.0, progress=False, title="svae", state_file=state)
    assert not state.exists()


def test_evaluate_weights_batches_by_their_size(digits):
    model = CNNClassifier((2, 2, 2)).eval()
    data = digits.images[:50], digits.labels[:50]

    def losses(images, labels):
        return classifier_losses(model, images, labels)

    one = evaluate(model, losses, data, 50).named("x")
    three = evaluate(model, losses, data, 20).named("x")
    assert one == pytest.approx(three, rel=1e-5)


def test_evaluate_leaves_every_module_in_its_mode_and_fit_leaves_eval_mode(digits):
    model = small_svae()
    model.encoder.eval()
    modes = [module.training for module in model.modules()]
    evaluate(model, lambda images: vae_losses(model, images, images, beta=1.0), (digits.images[:20],), 10)
    assert [module.training for module in model.modules()] == modes
    fit_vae(model, digits.images[:32], digits.images[:16], SCHEDULE, beta=1.0, progress=False)
    assert not any(module.training for module in model.modules())


def test_rotated_protocol_turns_every_image(digits, monkeypatch):
    seen = []
    monkeypatch.setattr("gvae_core.training.rotate", lambda images, angles: seen.append(angles) or images)
    fit_vae(small_svae(), digits.images[:32], digits.images[:16], SCHEDULE, beta=1.0, rotated=True, progress=False)
    angles = torch.cat(seen)
    assert len(angles) == 3 * 48 and angles.min() < -90 and angles.max() > 90 and (angles.abs() <= 180).all()


def test_progress_bar_finishes(digits, capsys):
    fit_vae(small_svae(), digits.images[:32], digits.images[:16], SCHEDULE, beta=1.0, title="bar")
    shown = capsys.readouterr().out
    assert "bar 100%" in shown.replace("\r", "\n").splitlines()[-1]
