"""Rotation explorer: milliseconds from a slider event to new image bytes, one by one and in a drag."""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import torch

from ..explorer import RotationExplorer
from ..mnist import load_splits
from ..models import sgvae, svae
from ..steerable import path_in_use

TARGET = 33.0  # ms: thirty pictures a second


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--digits", type=int, default=8, help="digits side by side, at most 10 (default 8)")
    parser.add_argument("--events", type=int, default=100, help="slider events (default 100)")
    parser.add_argument("--seconds", type=float, default=6, help="of a drag across the whole range (default 6)")
    parser.add_argument("--busy", type=int, default=2, help="busy processes beside the second drag (default 2)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")


def main(args: argparse.Namespace) -> None:
    """Move the slider of explorers with paper-size models (untrained: the work is the same)."""
    torch.set_num_threads(args.threads)
    images = load_splits("mnist5k").test.images[: args.digits]
    models = {"S-GVAE": sgvae().eval(), "S-VAE": svae().eval()}
    print(f"{args.digits} digits, {args.threads} threads, steerable path {path_in_use(models['S-GVAE'])}")
    print(f"target: {TARGET:g} ms. A new angle is computed; for one seen before only the weights are compared.")
    print(f"{'models':16s} {'angle':6s} {'median ms':>10s} {'95 % ms':>10s} {'KiB':>6s}")
    for chosen in (["S-GVAE"], ["S-GVAE", "S-VAE"]):
        explorer = RotationExplorer({name: models[name] for name in chosen}, images)
        angles = [1 + (37 * event) % 179 for event in range(min(args.events, 174) + 5)]
        for kind in ("new", "seen"):
            times = sorted([_milliseconds(explorer, angle) for angle in angles][5:])  # five warm up
            slow, size = times[int(0.95 * len(times))], len(explorer.image.value) / 1024
            name = " + ".join(chosen)
            print(f"{name:16s} {kind:6s} {statistics.median(times):10.1f} {slow:10.1f} {size:6.0f}")

    for busy in (0, args.busy):
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
        try:
            _, late = asyncio.run(drag(lambda: RotationExplorer(models, images), args.seconds))
        finally:
            for other in others:
                other.kill()
                other.wait()
        share = 100 * sum(milliseconds <= TARGET for milliseconds in late) / len(late)
        print(f"drag of {args.seconds:g} s beside {busy} busy processes: {share:.1f} % of {len(late)} events in time")


async def drag(
    make: Callable[[], RotationExplorer], seconds: float = 6, angles: Sequence[int] = range(-180, 181), wait: float = 2
) -> tuple[RotationExplorer, list[float]]:
    """Make an explorer, and after ``wait`` seconds drag its slider evenly over the angles, as a kernel would see it.

    Returns the explorer and for each event the milliseconds until its own picture was shown: infinite where a
    later event overtook it.
    """
    explorer, shown = make(), {}

    def note(change: dict) -> None:
        angle = int(re.search(r"turned by <b>(-?\d+)°", change["new"])[1])
        shown.setdefault(angle, time.perf_counter())

    await asyncio.sleep(wait)
    explorer.numbers.observe(note, names="value")  # set right after the picture
    start, due = time.perf_counter(), {}
    for index, angle in enumerate(angles):
        due[angle] = start + index * seconds / len(angles)
        await asyncio.sleep(max(0, due[angle] - time.perf_counter()))
        explorer.slider.value = angle
    await asyncio.sleep(0.5)
    return explorer, [1e3 * (shown.get(angle, float("inf")) - due[angle]) for angle in angles]


def _milliseconds(explorer: RotationExplorer, angle: int) -> float:
    """Move the slider; the picture's bytes are there when the assignment returns."""
    start = time.perf_counter()
    explorer.slider.value = angle
    return 1e3 * (time.perf_counter() - start)
