"""Stock escnn against the fast steerable layers: training step, memory, error, and sweeps.

The variants take turns in one process, so they share the allocator's and the machine's state; the
best of all repetitions is shown. CPU seconds are shown beside wall seconds, because they still mean
something on a machine that others use too.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import platform
import resource
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import escnn.nn as enn
import torch
from escnn.gspaces import rot2dOnR2
from torch import nn

from ..steerable import accelerate, path_in_use

# fields, frequency, strides, input size, pooling window of the papers' two steerable encoders
NETWORKS = {
    "S-GVAE": ((64, 64, 128), 6, (2, 1, 2), 32, 2),
    "Table 1": ((16, 16, 32), 5, (1, 1, 2), 28, 1),
}
VARIANTS = ("escnn", "torch", "native")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``bench steerable``."""
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--padding", type=int, default=0, help="of the encoders' convolutions")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--sweeps",
        action="store_true",
        help="also fields, frequency, kernel and batch, layer by layer",
    )
    parser.add_argument(
        "--no-memory",
        dest="memory",
        action="store_false",
        help="skip the peak memory, which takes new processes",
    )


def main(args: argparse.Namespace) -> None:
    """Run the benchmark and print its tables."""
    for name in ("batch", "repeats", "threads"):
        if getattr(args, name) < 1:
            raise ValueError(f"expected --{name} to be at least 1, got {getattr(args, name)}")
    torch.set_num_threads(args.threads)
    print(f"{processor()}, {args.threads} threads, torch {torch.__version__}, float32, batch {args.batch}")
    for network in args.networks:
        models, x = (
            variants(encoder(network, args.padding), args.variants),
            images(network, args.batch),
        )
        rows = []
        times, errors = measure(models, x, args.repeats), compare(models, x)
        for name, model in models.items():
            wall, cpu, forward, backward = times[name]
            reference = times[args.variants[0]]
            row = [
                name,
                path_in_use(model),
                f"{wall:.3f}",
                f"{forward:.3f}",
                f"{backward:.3f}",
                f"{cpu:.3f}",
            ]
            row += [
                f"{reference[0] / wall:.1f}x",
                f"{reference[1] / cpu:.1f}x",
                *(f"{e:.1e}" for e in errors[name]),
            ]
            if args.memory:
                row.append(f"{peak_memory(network, name, args):.0f}")
            rows.append(row)
        header = [
            "variant",
            "path",
            "step s",
            "forward s",
            "backward s",
            "step CPU s",
            "speed-up",
            "CPU speed-up",
        ]
        header += ["output error", "gradient error"] + ["peak MiB"] * args.memory
        table(f"Training step of the {network} encoder", header, rows)
    if args.sweeps:
        sweep(args)


def encoder(network: str, padding: int = 0) -> enn.SequentialModule:
    """One of the papers' steerable encoders, images [N, 1, H, H] to invariant maps."""
    fields, frequency, strides, _, pool = NETWORKS[network]
    gspace = rot2dOnR2(maximum_frequency=frequency)
    irreps = gspace.fibergroup.bl_irreps(frequency)
    field_type, layers = enn.FieldType(gspace, [gspace.trivial_repr]), []
    for count, stride in zip(fields, strides, strict=True):
        elu = enn.FourierELU(gspace, count, irreps, N=4 * frequency)
        layers += [enn.R2Conv(field_type, elu.in_type, 4, stride=stride, padding=padding)]
        layers += [enn.IIDBatchNorm2d(elu.in_type), elu, enn.FieldDropout(elu.out_type, 0.1)]
        field_type = elu.out_type
    if pool > 1:
        layers.append(enn.PointwiseAvgPool2D(field_type, pool, stride=1))
    invariants = enn.FieldType(gspace, 64 * [gspace.trivial_repr])
    return enn.SequentialModule(*layers, enn.R2Conv(field_type, invariants, 1))


def images(network: str, batch: int) -> torch.Tensor:
    """Random images of a network's size."""
    size = NETWORKS[network][3]
    return torch.randn(batch, 1, size, size, generator=torch.Generator().manual_seed(0))


def variants(module: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """Copies of a module, one for each variant; "escnn" is left as it is."""
    copies = {name: copy.deepcopy(module) for name in names}
    return {name: m if name == "escnn" else accelerate(m, name) for name, m in copies.items()}


def measure(models: dict[str, nn.Module], x: torch.Tensor, repeats: int) -> dict[str, tuple[float, ...]]:
    """(step, step in CPU seconds, forward, backward) of each, the best of interleaved repeats."""
    optimisers = {name: torch.optim.Adam(m.parameters()) for name, m in models.items()}
    best: dict[str, tuple[float, ...]] = {}
    for _ in range(repeats + 1):  # the first one warms up and is usually beaten
        for name, model in models.items():
            start, cpu = time.perf_counter(), time.process_time()
            y = model(model.in_type(x)).tensor
            forward = time.perf_counter()
            y.square().mean().backward()
            backward = time.perf_counter()
            optimisers[name].step()
            optimisers[name].zero_grad()
            end = time.perf_counter()
            new = end - start, time.process_time() - cpu, forward - start, backward - forward
            best[name] = tuple(map(min, best.get(name, new), new))
    return best


def compare(models: dict[str, nn.Module], x: torch.Tensor) -> dict[str, tuple[float, float]]:
    """Largest relative error of the output and of any gradient, against stock escnn in float32.

    Each model starts from the first one's state, so that dropout and statistics are the same too.
    """
    x, state = x[:20], copy.deepcopy(next(iter(models.values())).state_dict())
    results = {}
    for name, model in models.items():
        model.load_state_dict(state)
        model.zero_grad()
        torch.manual_seed(0)
        inputs = x.clone().requires_grad_()
        y = model(model.in_type(inputs)).tensor
        (y * torch.randn(y.shape)).sum().backward()
        results[name] = y.detach(), [inputs.grad, *(p.grad for p in model.parameters())]
    expected_output, expected = next(iter(results.values()))

    def error(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a - b).abs().max() / b.abs().max())

    return {
        name: (error(y, expected_output), max(map(error, gradients, expected)))
        for name, (y, gradients) in results.items()
    }


def peak_memory(network: str, variant: str, args: argparse.Namespace) -> float:
    """MiB that two training steps need above the loaded model, measured in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak_memory, (network, variant, args.batch, args.padding, args.threads))


def _peak_memory(network: str, variant: str, batch: int, padding: int, threads: int) -> float:
    torch.set_num_threads(threads)
    models, x = variants(encoder(network, padding), [variant]), images(network, batch)
    measure(models, x[:1].repeat(2, 1, 1, 1), 1)  # build the kernels, start the threads
    before = _memory("VmRSS")
    measure(models, x, 1)
    return _memory("VmHWM") - before


def _memory(field: str) -> float:
    """MiB of this process: "VmRSS" now, "VmHWM" at most so far (the latter for both off Linux)."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(x.split()[1]) for x in status.read_text().splitlines() if x.startswith(field)) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def sweep(args: argparse.Namespace) -> None:
    """One convolution, forward and backward, by fields, frequency, kernel and batch."""
    default = dict(fields=32, frequency=6, kernel=4, batch=20)
    values = dict(fields=(8, 16, 32, 64), frequency=(2, 4, 6, 8), kernel=(3, 4, 5, 7), batch=(1, 8, 20, 50))
    rows = []
    for name, settings in values.items():
        for value in settings:
            rows.append([f"{name} {value}", *_sweep_row({**default, name: value}, args)])
    defaults = ", ".join(f"{k} {v}" for k, v in default.items())
    header = ["", *(f"{v} ms" for v in args.variants), *(f"{v}" for v in args.variants[1:])]
    table(
        f"One convolution on 15 x 15, forward and backward; unless said otherwise {defaults}",
        header,
        rows,
    )


def _sweep_row(setting: dict[str, int], args: argparse.Namespace) -> Iterable[str]:
    gspace = rot2dOnR2(maximum_frequency=setting["frequency"])
    group = gspace.fibergroup
    representation = group.spectral_regular_representation(*group.bl_irreps(setting["frequency"]))
    fields = enn.FieldType(gspace, setting["fields"] * [representation])
    models = variants(enn.R2Conv(fields, fields, setting["kernel"]), args.variants)
    times = measure(models, torch.randn(setting["batch"], fields.size, 15, 15), args.repeats)
    milliseconds = [1e3 * sum(times[v][2:]) for v in args.variants]
    return [f"{ms:.1f}" for ms in milliseconds] + [f"{milliseconds[0] / ms:.1f}x" for ms in milliseconds[1:]]


def processor() -> str:
    """The processor's name, and its widest vectors that matter here."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = values.get("model name") or platform.processor() or platform.machine()
    flags = values.get("flags", "").split()
    return name + next((f" ({f})" for f in ("avx512f", "avx2") if f in flags), "")


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table with aligned columns."""
    widths = [max(len(str(r[i])) for r in (header, *rows)) for i in range(len(header))]
    print(f"\n{title}")
    for row in (header, *rows):
        print("  ".join(str(cell).rjust(width) for cell, width in zip(row, widths)))
