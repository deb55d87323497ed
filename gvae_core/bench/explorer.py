"""Rotation explorer: milliseconds from a slider event to new image bytes."""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from ..explorer import RotationExplorer
from ..images import load_splits
from ..models import sgvae, svae
from ..steerable import path_in_use

TARGET = 33.0  # ms: thirty pictures a second


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--digits", type=int, default=8, help="digits side by side, at most 10 (default 8)")
    parser.add_argument("--events", type=int, default=100, help="slider events (default 100)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")


def main(args: argparse.Namespace) -> None:
    """Move the slider of explorers with paper-size models (untrained: the work is the same)."""
    torch.set_num_threads(args.threads)
    images = load_splits("mnist5k").test.images[: args.digits]
    models = {"S-GVAE": sgvae().eval(), "S-VAE": svae().eval()}
    print(f"{args.digits} digits, {args.threads} threads, steerable path {path_in_use(models['S-GVAE'])}")
    print(f"target: {TARGET:g} ms. A new angle is computed, one seen before is only looked up.")
    print(f"{'models':16s} {'angle':6s} {'median ms':>10s} {'95 % ms':>10s} {'KiB':>6s}")
    for chosen in (["S-GVAE"], ["S-GVAE", "S-VAE"]):
        explorer = RotationExplorer({name: models[name] for name in chosen}, images)
        angles = [1 + (37 * event) % 179 for event in range(min(args.events, 174) + 5)]
        for kind in ("new", "seen"):
            times = sorted([_milliseconds(explorer, angle) for angle in angles][5:])  # five warm up
            slow, size = times[int(0.95 * len(times))], len(explorer.image.value) / 1024
            name = " + ".join(chosen)
            print(f"{name:16s} {kind:6s} {statistics.median(times):10.1f} {slow:10.1f} {size:6.0f}")


def _milliseconds(explorer: RotationExplorer, angle: int) -> float:
    """Move the slider; the picture's bytes are there when the assignment returns."""
    start = time.perf_counter()
    explorer.slider.value = angle
    return 1e3 * (time.perf_counter() - start)
