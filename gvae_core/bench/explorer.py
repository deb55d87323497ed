"""Rotation explorer: milliseconds from a slider event to new image bytes."""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from ..experiments import load_splits
from ..explorer import RotationExplorer
from ..models import sgvae, svae
from ..steerable import path_in_use


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--digits", type=int, default=8, help="digits side by side (default 8)")
    parser.add_argument("--events", type=int, default=100, help="slider events (default 100)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")


def main(args: argparse.Namespace) -> None:
    """Move the slider of explorers with paper-size models (untrained: the work is the same)."""
    torch.set_num_threads(args.threads)
    images = load_splits("mnist5k").test.images[: args.digits]
    models = {"S-GVAE": sgvae().eval(), "S-VAE": svae().eval()}
    print(f"{args.digits} digits, {args.threads} threads, steerable path {path_in_use(models['S-GVAE'])}")
    print(f"{'models':16s} {'median ms':>10s} {'95 % ms':>10s} {'KiB':>6s}")
    for chosen in (["S-GVAE"], ["S-GVAE", "S-VAE"]):
        explorer = RotationExplorer({name: models[name] for name in chosen}, images)
        times = []
        for event in range(args.events + 5):  # the first five warm up
            start = time.perf_counter()
            explorer.slider.value = (37 * event) % 360 - 180
            times.append(1e3 * (time.perf_counter() - start))
        times = sorted(times[5:])
        size = len(explorer.image.value) / 1024
        slow = times[int(0.95 * len(times))]
        print(f"{' + '.join(chosen):16s} {statistics.median(times):10.1f} {slow:10.1f} {size:6.0f}")
