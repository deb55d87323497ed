"""One training step of the papers' models: seconds, page faults, and the operations that take most of it.

With memory that goes back to the system, as glibc has it, and with blocks that are kept, as `fit` has it; the two take
turns in one process. CPU seconds still mean something on a machine that others use too.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import statistics
import time

import torch

from ..memory import blocks_kept
from ..models import GCNNClassifier, sgvae, svae
from ..training import classifier_losses, vae_losses
from .steerable import now, table

MODELS = {"S-GVAE": sgvae, "S-VAE": svae, "G-CNN": GCNNClassifier}
LEAST_SHARE = 0.05  # of a step, for an operation to be listed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``bench step``."""
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())


def main(args: argparse.Namespace) -> None:
    """Run the benchmark and print its tables."""
    torch.set_num_threads(args.threads)
    print(f"{args.threads} threads, torch {torch.__version__}, float32, batch {args.batch}")
    rows, shares = [], []
    for name in args.models:
        step = training_step(name, args.batch, args.device)
        times = measure(step, args.repeats)
        for memory, (wall, cpu, faults) in times.items():
            ratio = times["returned"][1] / cpu
            rows.append([name, memory, f"{wall:.3f}", f"{cpu:.3f}", f"{faults:.0f}", f"{ratio:.2f}x"])
        shares += [[name, operation, f"{share:.0%}"] for operation, share in operations(step)]
    table("A training step", ["model", "memory", "step s", "step CPU s", "page faults", "CPU speed-up"], rows)
    table(f"Operations above {LEAST_SHARE:.0%} of it", ["model", "operation", "share"], shares)


def training_step(name: str, batch: int, device: str):
    """A function that takes one step of Adam on random images, and returns them."""
    torch.manual_seed(0)
    model = MODELS[name]().to(device).train()
    optimiser = torch.optim.Adam(model.parameters(), fused=True)  # as in `training.fit`
    images, labels = torch.rand(batch, 1, 28, 28, device=device), torch.randint(10, (batch,), device=device)

    def step() -> torch.Tensor:
        losses = (
            classifier_losses(model, images, labels) if name == "G-CNN" else vae_losses(model, *[images] * 2, beta=1)
        )
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
        return images

    return step


def measure(step, repeats: int) -> dict[str, tuple[float, ...]]:
    """(seconds, CPU seconds, page faults) of a step, medians of interleaved repeats, by what is done with memory."""
    found: dict[str, list[tuple[float, ...]]] = {"returned": [], "kept": []}
    for _ in range(repeats):
        for memory, keep in (("returned", contextlib.nullcontext), ("kept", blocks_kept)):
            with keep():
                x = step()  # warms up
                before, start, cpu = _faults(), now(x), time.process_time()
                step()
                found[memory].append((now(x) - start, time.process_time() - cpu, _faults() - before))
    return {memory: tuple(map(statistics.median, zip(*rows))) for memory, rows in found.items()}


def operations(step) -> list[tuple[str, float]]:
    """The operations with the largest shares of a step's time on the CPU, without what they call."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    events = sorted(profile.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(e.self_cpu_time_total for e in events)
    return [(e.key, e.self_cpu_time_total / total) for e in events if e.self_cpu_time_total > LEAST_SHARE * total]


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
