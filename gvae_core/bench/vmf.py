"""Throughput of the von Mises-Fisher law: sample + KL to the uniform law + backward.

Beside it, sampling alone (no KL, no gradient) by scipy.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
import torch._inductor.config
from scipy import stats
from torch.distributions import kl_divergence
from torch.nn.functional import normalize

from gvae_core.vmf import HypersphericalUniform, VonMisesFisher


def milliseconds(function: Callable[[], object], repeats: int) -> float:
    """Median wall time of a call, after two warm-up calls."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 1e3 * median(times[2:])


def loss(loc: torch.Tensor, kappa: torch.Tensor) -> torch.Tensor:
    """What a variational autoencoder does with its posterior."""
    law = VonMisesFisher(loc, kappa, validate_args=False)
    kl = kl_divergence(law, HypersphericalUniform(loc.shape[-1]))
    return law.rsample().square().sum() + kl.sum()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The table's rows, and how it is measured."""
    parser.add_argument("--dims", type=int, nargs="+", default=[3, 10, 50])
    parser.add_argument("--batches", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--kappa", type=float, default=20.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--compile", action="store_true", help="also compiled (a minute a row)")


def main(args: argparse.Namespace) -> None:
    """Print one row per dimension and batch size, in milliseconds."""
    torch.set_num_threads(args.threads)
    # Compiled code then draws torch's own normal numbers; the inductor's take ten times as long.
    torch._inductor.config.fallback_random = True
    rng = np.random.default_rng(0)
    print(f"torch {torch.__version__}, {args.device}, {args.threads} threads, float32, ms")
    print(f"{'d':>5} {'batch':>7} {'eager':>9} {'compiled':>9}", end="")
    print(f" | sampling only: {'scipy':>8}")
    for dim in args.dims:
        for batch in args.batches:
            loc = normalize(torch.randn(batch, dim, device=args.device), dim=-1).requires_grad_()
            kappa = torch.full((batch,), args.kappa, device=args.device, requires_grad=True)
            steps = [loss, torch.compile(loss, fullgraph=True)] if args.compile else [loss]
            ours = [f"{milliseconds(lambda s=step: s(loc, kappa).backward(), args.repeats):9.2f}" for step in steps]
            mu = loc[0].detach().cpu().double().numpy()
            mu /= np.linalg.norm(mu)
            scipy_law = stats.vonmises_fisher(mu, args.kappa)
            rvs = milliseconds(lambda: scipy_law.rvs(batch, random_state=rng), args.repeats)
            compiled = ours[1] if args.compile else f"{'-':>9}"
            print(f"{dim:5} {batch:7} {ours[0]} {compiled} |                {rvs:8.2f}")
