"""The `gvae` command. Subcommands import what they need, so that `gvae --help` is instant."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version

from gvae_core.files import PROFILES, ROOT, in_checkout, outputs_directory, user_path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `gvae` command and return its exit status; wrong arguments exit with 2."""
    args = build_parser().parse_args(argv)
    with suppress(AttributeError):  # not every stream can
        sys.stdout.reconfigure(errors="replace")  # titles have a β, which not every terminal has
    try:
        return args.command(args)
    except KeyboardInterrupt:
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands; each sets `command`, a function of the parsed arguments."""
    parser = argparse.ArgumentParser(prog="gvae", description="Group-equivariant VAE: an interactive research report.")
    parser.add_argument("--version", action="version", version=f"gvae {version('gvae-core')}")
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(command: Callable, name: str, help: str, description: str) -> argparse.ArgumentParser:
        parser = commands.add_parser(name, help=help, description=description)
        parser.set_defaults(command=command, error=parser.error)
        return parser

    report = add(
        _report, "report", "execute the notebooks headless and write their pages",
        "Execute the notebooks headless and write OUTPUTS/executed/PROFILE/index.html.",
    )  # fmt: skip
    report.add_argument("--profile", choices=PROFILES, default="quick", help="default: quick")
    report.add_argument("--only", nargs="+", action="extend", default=[], metavar="NAME", help="such as 02_table1")
    report.add_argument(
        "-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE", type=_pair,
        help="a notebook parameter, such as seed=1; may be repeated",
    )  # fmt: skip
    report.add_argument(
        "--notebooks", type=user_path, default=ROOT / "notebooks", metavar="DIR", help="default: notebooks"
    )
    report.add_argument(
        "--outputs", type=user_path, default=outputs_directory(),
        metavar="DIR", help="default: the environment variable GVAE_OUTPUTS, or else outputs",
    )  # fmt: skip
    report.add_argument(
        "--workers", type=_count, default=min(os.cpu_count() or 1, 4), metavar="N",
        help="notebooks at a time, each with its share of the cores; default: as many as cores, at most 4",
    )  # fmt: skip
    report.add_argument("--fresh", action="store_true", help="execute also notebooks that have not changed since")

    run = add(
        _run, "run", "compute the runs of a table",
        "Compute the runs of tables, each into OUTPUTS/runs. What exists is not computed again, and what was interrupted, "
        "by Ctrl-C, a kill or a crash, always goes on from its last epoch. Give the same command several times at once, "
        "on machines that share OUTPUTS, and they share the runs.",
    )  # fmt: skip
    run.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto (default): a GPU if there is one")
    run.add_argument(
        "--stop-after", type=_count, metavar="K",
        help="stop each training after epoch K, measure the model as it is; run again to go on",
    )  # fmt: skip
    run.add_argument(
        "--measure", action="store_true", help="train nothing: measure anew what is trained, as metrics grow"
    )
    where = run.add_mutually_exclusive_group()
    where.add_argument(
        "--workers", type=_count, default=1, metavar="N",
        help="compute N runs at a time, on as many processes of this machine",
    )  # fmt: skip
    where.add_argument("--scheduler", metavar="tcp://HOST:PORT", help="compute on the dask cluster of this scheduler")

    listing = add(
        _list, "list", "what is done, running, interrupted or missing of the tables",
        "Say of each run what is there: done, running, interrupted or missing.",
    )  # fmt: skip
    publishing = add(
        _publish, "publish", "copy results into the folder that is committed",
        "Copy a profile's results, tables and figures into outputs/PROFILE of the checkout, and write outputs/README.md.",
    )  # fmt: skip
    fitting = add(
        _fit, "fit", "learn codes of one's own images",
        "Learn codes that do not see how an image is turned from a folder of images, or an .npy or .npz file. The same "
        "command goes on where it was interrupted, by Ctrl-C or a kill.",
    )  # fmt: skip
    fitting.add_argument("--out", type=user_path, required=True, metavar="MODEL.safetensors", help="the model")
    fitting.add_argument(
        "--size",
        type=_count,
        metavar="PIXELS",
        help="of a side, 28 to 128; default: the median of the images' longer sides",
    )
    fitting.add_argument("--channels", type=_count, metavar="C", help="1 makes colour grey; default: as the images")
    fitting.add_argument("--latent-dim", type=_count, default=32, metavar="D", help="of the codes; default: 32")
    fitting.add_argument(
        "--epochs", type=_positive, metavar="E", help="how often an image is seen; default: 60,000 views in all"
    )
    fitting.add_argument("--minutes", type=_positive, metavar="M", help="end within these; default: no limit")
    fitting.add_argument(
        "--reflections", action="store_true", help="a mirror image is the same figure; takes 1.7 times as long"
    )
    fitting.add_argument("--seed", type=int, default=0, metavar="S", help="of everything random; default: 0")
    embedding = add(
        _embed, "embed", "write the codes and angles of images",
        "Write name, label, angle, spread and code of every image to a CSV file, by a model of gvae fit; after "
        "--reflections the handedness, 1 or -1, too.",
    )  # fmt: skip
    embedding.add_argument("--model", type=user_path, required=True, metavar="MODEL.safetensors", help="by gvae fit")
    embedding.add_argument("--out", type=user_path, required=True, metavar="CODES.csv", help="the table")
    embedding.add_argument(
        "--frames", type=_count, metavar="K",
        help="turned copies of an image that are averaged: 3 leave less of its angle, in three times the time; "
        "default: the model's, 1 after gvae fit",
    )  # fmt: skip
    embedding.add_argument(
        "--scheduler", metavar="tcp://HOST:PORT", help="compute on the dask cluster of this scheduler"
    )
    for own in (fitting, embedding):
        own.add_argument("images", type=user_path, metavar="IMAGES", help="a folder, or an .npy or .npz file")
        own.add_argument("--array", metavar="NAME", help="of the images in an .npz file that holds several")
        own.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto (default): a GPU if there is one")
    tables = "table1, table2, two_frames, retrain, reconstructions, sphere_and_gaussian, born_rotated, groups"
    run.add_argument("tables", nargs="+", metavar="TABLE", help=tables)
    listing.add_argument("tables", nargs="*", metavar="TABLE", help=f"{tables}; all if none is named")
    for parser_of_runs in (run, listing, publishing):
        parser_of_runs.add_argument("--profile", choices=PROFILES, default="quick", help="default: quick")
        parser_of_runs.add_argument(
            "--seeds", type=_seeds, default=[0], metavar="SEEDS", help="such as 0-4 or 0,2,5; default: 0"
        )
        parser_of_runs.add_argument(
            "--source", choices=("auto", "mnist", "mnist5k"), default="auto",
            help="of the digits; auto (default): the full MNIST where it needs no download",
        )  # fmt: skip
    return parser


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name.isidentifier() or not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    if name == "profile":
        raise argparse.ArgumentTypeError(f"expected --profile {value}, got -p {text}")
    return name, value


def _report(args: argparse.Namespace) -> int:
    if args.notebooks == ROOT / "notebooks":
        _expect_checkout(args, "the report's notebooks")
    from gvae_core.report.batch import plan, report

    _end_like_ctrl_c()
    try:
        jobs = plan(args.notebooks, args.profile, args.only, dict(args.parameters))
        return report(jobs, args.outputs, args.profile, fresh=args.fresh, workers=args.workers)
    except (ValueError, OSError) as error:  # an OSError: the outputs folder cannot be written
        args.error(str(error))


def _expect_checkout(args: argparse.Namespace, what: str) -> None:
    if not in_checkout():
        args.error(
            f"expected {what} beside the package, found an installed package at {ROOT}: they come with the source "
            "checkout only (uv run gvae, in it). The library, gvae run and gvae list work without"
        )


def _end_like_ctrl_c() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return number


def _seeds(text: str) -> list[int]:
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise argparse.ArgumentTypeError(f"expected seeds such as 0-4 or 0,2,5, got {text!r}")
        seeds += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(seeds))


def _specs(args: argparse.Namespace) -> list:
    """The specs of the selected tables and seeds, each once."""
    from gvae_core.report.profiles import TABLES, resolve_source

    for table in args.tables:
        if table not in TABLES:
            args.error(f"expected a table among {', '.join(TABLES)}; got {table!r}")
    try:
        source = resolve_source(args.source)  # once: it reads the digits
        specs = [
            spec
            for table in args.tables or TABLES
            for seed in args.seeds
            for spec in TABLES[table](args.profile, source, seed)
        ]
    except (ValueError, OSError) as error:  # the data
        args.error(str(error))
    return list({spec.key: spec for spec in specs}.values())


def _run(args: argparse.Namespace) -> int:
    _end_like_ctrl_c()
    from gvae_core.runs.many import run_many
    from gvae_core.runs.results import status

    specs = _specs(args)
    if args.measure:
        return _measure(specs, args)
    print(f"{len(specs)} runs, profile {args.profile}, into {outputs_directory() / 'runs'}", flush=True)
    try:
        failures = run_many(
            specs, device=args.device, stop_after=args.stop_after, workers=args.workers, scheduler=args.scheduler
        )
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here:")
        print("\n".join(f"  {spec.title} {spec.key}: {status(spec)}" for spec in specs))
        return 130
    except (ValueError, OSError) as error:
        args.error(str(error))
    for key, error in failures.items():
        print(f"FAILED {key}: {error}")
    return 1 if failures else 0


def _measure(specs: list, args: argparse.Namespace) -> int:
    from gvae_core.runs.results import find
    from gvae_core.runs.run import measure_again

    results = [result for spec in specs if (result := find(spec, incomplete=True)) and result.checkpoint.is_file()]
    try:
        for result in results:
            measure_again(result, device=args.device)
            print(f"{result.spec.title} {result.spec.key}: {result.path}", flush=True)
    except (ValueError, OSError) as error:
        args.error(str(error))
    print(f"{len(results)} of {len(specs)} runs have a trained model, and were measured anew")
    return 0


def _list(args: argparse.Namespace) -> int:
    from gvae_core.runs.results import status

    specs = _specs(args)
    try:
        found = [status(spec) for spec in specs]
    except OSError as error:  # a file that this user may not read
        args.error(str(error))
    rows = [("run", "key", "state", "epochs", "seconds", "file")]
    for run in found:
        seconds = "" if run.seconds is None else f"{run.seconds:.0f}"
        epochs = f"{run.epochs}/{run.spec.epochs}"
        rows.append((run.spec.title, run.spec.key, run.state, epochs, seconds, str(run.path or "")))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip())
    for run in found:
        if run.problem:
            print(run.problem)
    states = [run.state for run in found]
    print(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))
    return 0


def _publish(args: argparse.Namespace) -> int:
    _expect_checkout(args, "outputs/PROFILE, the folder that is committed,")
    from gvae_core.report.profiles import resolve_source
    from gvae_core.report.publish import publish

    try:
        written = publish(args.profile, resolve_source(args.source), args.seeds)
    except (ValueError, OSError) as error:
        args.error(str(error))
    print(f"{len(written)} files into {ROOT / 'outputs' / args.profile}")
    return 0


def _fit(args: argparse.Namespace) -> int:
    _end_like_ctrl_c()
    from gvae_core.embedding import RotationAgnosticEmbedding

    embedding = RotationAgnosticEmbedding(
        args.latent_dim,
        epochs=args.epochs,
        minutes=args.minutes,
        reflections=args.reflections,
        seed=args.seed,
        device=args.device,
    )
    try:
        _expect_writable(args.out, args.images)
        images = _own_images(args, size=args.size, channels=args.channels)
        if embedding.stored(args.out, images):
            print(f"{args.out} is this model already")
            return 0
        embedding.fit(images, save_to=args.out)
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here.")
        return 130
    except (ValueError, ArithmeticError, OSError) as error:
        args.error(str(error))
    print(f"{len(images)} images, {len(embedding.history_)} rounds: {args.out}")
    return 0


def _embed(args: argparse.Namespace) -> int:
    _end_like_ctrl_c()
    import csv

    from tqdm import tqdm

    from gvae_core.embedding import RotationAgnosticEmbedding, numbers_on_cluster
    from gvae_core.files import write_atomically

    try:
        _expect_writable(args.out, args.model, args.images)
        model = RotationAgnosticEmbedding.load(args.model, args.device)
        model.frames = args.frames or model.frames
        form = model.model_.images
        images = _own_images(args, size=form.size, channels=form.channels, scale=model.scale_)
        on_cluster = (args.model, images, args.scheduler, model.frames)
        parts = numbers_on_cluster(*on_cluster) if args.scheduler else model.numbers(images)

        def write(temporary):
            rows = (row for part in parts for row in zip(*(numbers.tolist() for numbers in part)))
            # surrogateescape: a name on a disk may be no UTF-8
            with open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                table = csv.writer(file)
                said = ["angle", "spread", "handedness"][: 2 + model.model_.handed]
                table.writerow(["name", "label", *said, *(f"z{i + 1}" for i in range(model.model_.latent_dim))])
                for index, (code, *others) in enumerate(tqdm(rows, "embed", len(images), mininterval=1.0)):
                    numbers = (f"{number:.6g}" for number in (*others, *code))
                    table.writerow([images.names[index], images.class_of(index), *numbers])

        write_atomically(args.out, write)
    except (ValueError, OSError) as error:
        args.error(str(error))
    print(f"{len(images)} images: {args.out}")
    return 0


def _own_images(args: argparse.Namespace, **sizes):
    """The images of `gvae fit` and `gvae embed`; those that cannot be used are named."""
    import warnings

    from gvae_core.images import load_images

    with warnings.catch_warnings(action="ignore", category=UserWarning):
        images = load_images(args.images, array=args.array, progress=True, **sizes)
    for name, reason in images.unreadable:
        print(f"not used: {name}: {reason}")
    print(f"{len(images)} images of {images.shape[2]} pixels, channels: {images.shape[1]}", flush=True)
    return images


def _expect_writable(path, *read) -> None:
    """OSError or ValueError now, and not after an hour: a file that can be written, and is none of those that are read."""
    import tempfile

    from gvae_core.files import writing_into

    if path.is_dir():
        raise ValueError(f"expected a file to write to, got the folder {path}")
    if path.exists() and any(other.exists() and path.samefile(other) for other in read):
        raise ValueError(f"expected another file to write to than those that are read, got {path} for both")
    with writing_into(path.parent) as folder, tempfile.TemporaryFile(dir=folder):
        pass


if __name__ == "__main__":
    raise SystemExit(main())
