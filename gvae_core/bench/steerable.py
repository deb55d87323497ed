"""Stock escnn against the fast steerable layers: training step, memory, error, and sweeps.

The variants take turns in one process, so they share the allocator's and the machine's state; medians are shown, and
the ratios are those of the medians. CPU seconds are shown beside wall seconds, because they still mean something on a
machine that others use too. Without a compiler, or with GVAE_STEERABLE=torch, the torch path is measured alone.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import escnn.nn as enn
import torch
from escnn.gspaces import rot2dOnR2
from torch import nn

from ..steerable import accelerate, path_in_use
from ..steerable.convolution import FastR2Conv
from ..steerable.features import as_features

# fields, frequency, strides, input size, pooling window of the papers' two steerable encoders
NETWORKS = {
    "S-GVAE": ((64, 64, 128), 6, (2, 1, 2), 32, 2),
    "Table 1": ((16, 16, 32), 5, (1, 1, 2), 28, 1),
}
VARIANTS = ("escnn", "torch", "native")
# fields in (0: an image), fields out, frequency, kernel, stride, padding, size, batch
LAYERS = {
    "quick S-GVAE 1": (0, 8, 2, 9, 2, 4, 33, 25),
    "quick S-GVAE 2": (8, 16, 2, 5, 1, 2, 17, 25),
    "quick S-GVAE 3": (16, 16, 2, 5, 1, 2, 9, 25),
    "frequency 4, image": (0, 8, 4, 5, 2, 2, 33, 50),
    "frequency 4, 8 fields": (8, 16, 4, 5, 1, 2, 17, 50),
    "frequency 4, 16 fields": (16, 16, 4, 5, 2, 2, 17, 50),
    "paper S-GVAE 1": (0, 64, 6, 4, 2, 0, 32, 100),
    "paper S-GVAE 2": (64, 64, 6, 4, 1, 0, 15, 100),
    "paper S-GVAE 3": (64, 128, 6, 4, 2, 0, 12, 100),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``bench steerable``."""
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    usable = VARIANTS[:2] if os.environ.get("GVAE_STEERABLE") == "torch" else VARIANTS
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(usable))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--padding", type=int, default=0, help="of the encoders' convolutions")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--sweeps",
        action="store_true",
        help="also single layers by fields, frequency, kernel and batch, with and without gradient",
    )
    parser.add_argument(
        "--no-memory",
        dest="memory",
        action="store_false",
        help="skip the peak memory, which takes new processes",
    )


def main(args: argparse.Namespace) -> None:
    """Run the benchmark and print its tables."""
    torch.set_num_threads(args.threads)
    print(f"{processor()}, {args.threads} threads, torch {torch.__version__}, float32, batch {args.batch}")
    for network in args.networks:
        models, x = (
            variants(encoder(network, args.padding).to(args.device), args.variants),
            images(network, args.batch).to(args.device),
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
        layer_table(args)
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
    """(step, step in CPU seconds, forward, backward) of each, medians of interleaved repeats."""
    optimisers = {name: torch.optim.Adam(m.parameters()) for name, m in models.items()}
    times: dict[str, list[tuple[float, ...]]] = {name: [] for name in models}
    for _ in range(repeats + 1):  # the first one warms up
        for name, model in models.items():
            start, cpu = now(x), time.process_time()
            y = model(model.in_type(x)).tensor
            forward = now(x)
            y.square().mean().backward()
            backward = now(x)
            optimisers[name].step()
            optimisers[name].zero_grad()
            end = now(x)
            times[name].append((end - start, time.process_time() - cpu, forward - start, backward - forward))
    return {name: tuple(map(statistics.median, zip(*rows[1:]))) for name, rows in times.items()}


def now(x: torch.Tensor) -> float:
    """Seconds, once the tensor's device has done what it was given."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter()


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
        (y * torch.randn(y.shape).to(y)).sum().backward()
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


def layer_table(args: argparse.Namespace) -> None:
    """The convolutions of two networks, forward and backward."""
    rows = []
    for name, (*layer, size, batch) in LAYERS.items():
        times, way = layer_times(layer, size, batch, True, args)
        rows.append([name, *times, *way])
    table("One convolution, forward and backward", layer_header(args), rows)


def sweep(args: argparse.Namespace) -> None:
    """One convolution on 13 x 13, with and without gradient, by fields, frequency, kernel and batch."""
    default = dict(fields=16, frequency=4, kernel=3, batch=10)
    values = dict(
        fields=(1, 2, 4, 8, 16, 32, 64, 128),
        frequency=(1, 2, 4, 6, 8),
        kernel=(1, 3, 5, 7, 9),
        batch=(1, 10, 50, 200),
    )
    for gradient in (True, False):
        rows = []
        for name, settings in values.items():
            for value in settings:
                o = {**default, name: value}
                layer = o["fields"], o["fields"], o["frequency"], o["kernel"], 1, 0
                times, way = layer_times(layer, 13, o["batch"], gradient, args)
                rows.append([f"{name} {value}", *times, *way])
        defaults = ", ".join(f"{k} {v}" for k, v in default.items())
        kind = "forward and backward" if gradient else "forward in eval mode without gradient"
        table(f"One convolution on 13 x 13, {kind}; unless said otherwise {defaults}", layer_header(args), rows)


def layer_header(args: argparse.Namespace) -> list[str]:
    names = args.variants[1:]
    return ["", *(f"{v} ms" for v in args.variants), *names, *(f"{v} way" for v in names)]


def layer_times(
    layer: Sequence[int], size: int, batch: int, gradient: bool, args: argparse.Namespace
) -> tuple[list[str], list[str]]:
    """Milliseconds of every variant and their ratios to the first, interleaved; and the ways taken."""
    models = variants(convolution(*layer).to(args.device), args.variants)
    first = next(iter(models.values()))
    x = torch.randn(batch, first.in_type.size, size, size, device=args.device)
    x.requires_grad_(gradient and layer[0] > 0)
    times: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        model.train(gradient)
    began = time.perf_counter()
    while len(times[args.variants[0]]) <= args.repeats or (
        time.perf_counter() - began < 1 and len(times[args.variants[0]]) < 200
    ):
        for name, model in models.items():
            with torch.set_grad_enabled(gradient):
                start = now(x)
                y = model(model.in_type(x)).tensor
                if gradient:
                    y.backward(torch.ones_like(y))
                times[name].append(now(x) - start)
    medians = [1e3 * statistics.median(times[v][1:]) for v in args.variants]
    ways = [
        layer._way_of(as_features(layer.in_type(x))) if isinstance(layer, FastR2Conv) else "escnn"
        for layer in map(models.get, args.variants[1:])
    ]
    return [f"{ms:.2f}" for ms in medians] + [f"{medians[0] / ms:.2f}x" for ms in medians[1:]], ways


def convolution(fields_in: int, fields_out: int, frequency: int, kernel: int, stride: int, padding: int) -> enn.R2Conv:
    """Between fields of the regular representation, or from a scalar field (``fields_in`` 0)."""
    gspace = rot2dOnR2(maximum_frequency=frequency)
    group = gspace.fibergroup
    regular = group.spectral_regular_representation(*group.bl_irreps(frequency))
    in_type = enn.FieldType(gspace, fields_in * [regular] or [gspace.trivial_repr])
    return enn.R2Conv(in_type, enn.FieldType(gspace, fields_out * [regular]), kernel, stride=stride, padding=padding)


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
