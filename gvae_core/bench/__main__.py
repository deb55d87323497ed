"""`python -m gvae_core.bench NAME`: each benchmark is a module here with add_arguments and main."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from ..devices import resolve_device

COUNTS = {"batch", "batches", "digits", "dims", "events", "repeats", "threads"}  # options that count something
BENCHMARKS = {
    "vmf": "von Mises-Fisher: sample + KL + backward",
    "steerable": "steerable layers against escnn's",
    "step": "a training step of the papers' models",
    "explorer": "one redraw of the rotation explorer",
}


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run one benchmark; its module alone is imported."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m gvae_core.bench", description=__doc__)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    for name, summary in BENCHMARKS.items():
        command = commands.add_parser(name, help=summary)
        if name in arguments[:1]:
            import_module(f"gvae_core.bench.{name}").add_arguments(command)
    args = parser.parse_args(arguments)
    for name in COUNTS & vars(args).keys():
        values = getattr(args, name)
        if min(values if isinstance(values, list) else [values]) < 1:
            parser.error(f"expected --{name} of at least 1, got {values}")
    try:
        args.device = resolve_device(getattr(args, "device", "cpu"))
    except ValueError as error:
        parser.error(str(error))
    import_module(f"gvae_core.bench.{args.benchmark}").main(args)


if __name__ == "__main__":
    main()
