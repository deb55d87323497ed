"""The `gvae` command. Subcommands import what they need, so that `gvae --help` is instant."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from pathlib import Path

from gvae_core.outputs import PROFILES, ROOT, outputs_directory


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `gvae` command and return its exit status; wrong arguments exit with 2."""
    args = build_parser().parse_args(argv)
    try:
        return args.command(args)
    except KeyboardInterrupt:
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands; each sets `command`, a function of the parsed arguments."""
    parser = argparse.ArgumentParser(
        prog="gvae", description="Group-equivariant VAE: an interactive research report."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_report(commands)
    return parser


def _add_report(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "report",
        help="execute the notebooks headless and write their pages",
        description="Execute the notebooks headless and write OUTPUTS/executed/PROFILE/index.html.",
    )
    parser.add_argument("--profile", choices=PROFILES, default="quick", help="default: quick")
    parser.add_argument(
        "--only", nargs="+", action="extend", default=[], metavar="NAME", help="such as 02_table1"
    )
    parser.add_argument(
        "-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE", type=_pair,
        help="a notebook parameter, such as seed=1; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--notebooks",
        type=Path,
        default=ROOT / "notebooks",
        metavar="DIR",
        help="default: notebooks",
    )
    parser.add_argument(
        "--outputs", type=Path, default=outputs_directory(),
        metavar="DIR", help="default: the environment variable GVAE_OUTPUTS, or else outputs",
    )  # fmt: skip
    parser.add_argument(
        "--fresh", action="store_true", help="execute also notebooks that have not changed since"
    )
    parser.set_defaults(command=_report, error=parser.error)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name.isidentifier() or not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    if name == "profile":
        raise argparse.ArgumentTypeError(f"expected --profile {value}, got -p {text}")
    return name, value


def _report(args: argparse.Namespace) -> int:
    from gvae_core.report import plan, report

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a kill ends like Ctrl-C
    try:
        jobs = plan(args.notebooks, args.profile, args.only, dict(args.parameters))
    except ValueError as error:
        args.error(str(error))
    return report(jobs, args.outputs, args.profile, fresh=args.fresh)


if __name__ == "__main__":
    raise SystemExit(main())
