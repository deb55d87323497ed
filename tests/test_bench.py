"""The benchmark of a training step, with a small model."""

import argparse

import torch

from gvae_core.bench import step as bench
from gvae_core.models import svae


def test_a_training_step(monkeypatch, capsys):
    small = dict(channels=(4, 4, 4), decoder_channels=(4, 4, 4))
    monkeypatch.setattr(bench, "MODELS", {"S-VAE": lambda: svae(3, **small)})
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    threads = str(torch.get_num_threads())
    bench.main(parser.parse_args(["--models", "S-VAE", "--batch", "4", "--repeats", "1", "--threads", threads]))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    returned, kept = (line for line in lines if line[:1] == ["S-VAE"] and line[-1].endswith("x"))
    assert (returned[1], kept[1]) == ("returned", "kept") and returned[-1] == "1.00x" and float(kept[2]) > 0
    shares = [float(line[-1].rstrip("%")) for line in lines if line[:1] == ["S-VAE"] and line[-1].endswith("%")]
    assert shares == sorted(shares, reverse=True) and 5 <= sum(shares) <= 100
