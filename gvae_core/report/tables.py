"""Results -> Markdown tables, the papers' numbers beside ours."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from ..files import outputs_directory, write_text
from ..runs.results import Result, by_seed
from . import papers
from .figures import NAMES, label

SMOKE_NOTE = "\n\n**Profile smoke: these numbers only prove that every cell ran. They are no result.**"


def table1(results: Sequence[Result]) -> str:
    """Table 1 of the report: losses and accuracy on rotated test digits, CNN and G-CNN.

    Runs that differ in the seed alone share a row, mean ± standard deviation.
    """
    rows, shown = [], set()
    for group in by_seed(results):
        model, paper = group[0].spec.model, papers.TABLE1[group[0].spec.model]
        if model not in shown:
            losses = [f"{paper[f'{part}_loss']}" for part in ("train", "validation", "test")]
            rows.append(
                [
                    f"{NAMES[model]}, paper",
                    "1",
                    "50",
                    *losses,
                    "–",
                    f"{paper['test_accuracy']:.2%}",
                    "–",
                    paper["parameters"],
                ]
            )
            shown.add(model)
        last = [result.history[-1] for result in group]
        numbers = [result.metrics for result in group]
        rows.append(
            [
                f"**{label(group[0])}, ours**",
                f"{len(group)}",
                _epochs(group),
                _mean(last, "train_paper_loss"),
                _mean(last, "validation_paper_loss"),
                _mean(numbers, "test_rotated_paper_loss"),
                _mean(numbers, "test_rotated_cross_entropy"),
                f"**{_mean(numbers, 'test_rotated_accuracy', percent=True)}**",
                _mean(numbers, "test_upright_accuracy", percent=True),
                f"{group[0].parameters:,}",
            ]
        )
    losses = ["Train loss", "Valid. loss", "Test loss", "Test cross-entropy"]
    return _markdown(["Model", "Seeds", "Epochs", *losses, "Acc. rotated", "Acc. upright", "Params"], rows)


def table2(results: Sequence[Result]) -> str:
    """Table 2: the validation loss in the papers' unit, with its two terms per image; seeds as in `table1`."""
    rows = []
    for group in by_seed(results):
        spec, last = group[0].spec, [result.history[-1] for result in group]
        paper = papers.TABLE2[spec.model][papers.LATENT_DIMS.index(spec.latent_dim)][papers.BETAS.index(spec.beta)]
        rows.append(
            [
                NAMES[spec.model],
                f"{spec.latent_dim}",
                f"{spec.beta:g}",
                f"{paper:.2f}k",
                _mean([{"loss": record["validation_loss"] / 1000} for record in last], "loss", digits=2) + "k",
                _mean(last, "validation_squared_error", digits=1),
                _mean(last, "validation_kl", digits=2),
                _epochs(group),
                f"{len(group)}",
            ]
        )
    terms = ["Squared error / image", "KL / image (nats)"]
    return _markdown(["Model", "d", "β", "Paper", "Ours", *terms, "Epochs", "Seeds"], rows)


def reconstructions(read: Sequence[tuple[Result, Mapping[str, float]]]) -> str:
    """Tiny paper, Table 1: the share of reconstructions that a classifier reads right, by kind of input."""
    rows, inputs = [], list(read[0][1])
    for model in dict.fromkeys(result.spec.model for result, _ in read):
        paper = papers.RECONSTRUCTION_ACCURACY[model]
        rows.append([f"{NAMES[model]}, paper", *(f"{paper[name]:.0%}" for name in inputs)])
        for result, shares in read:
            if result.spec.model == model:
                rows.append(
                    [f"**{NAMES[model]}, ours** ({training(result)})", *(f"**{shares[name]:.1%}**" for name in inputs)]
                )
    return _markdown(["Reconstructions of", *inputs], rows)


def searches(found: Mapping[str, Mapping[str, float]]) -> str:
    """The share of codes whose nearest known codes have their label: found[model][kind of input]."""
    inputs = list(next(iter(found.values())))
    rows = [[name, *(f"{shares[kind]:.1%}" for kind in inputs)] for name, shares in found.items()]
    return _markdown(["Nearest codes of", *inputs], rows)


def save(text: str, name: str, *, profile: str, source: str) -> str:
    """Write OUTPUTS/tables/PROFILE/NAME.md; returns the text with profile and source under it."""
    text += f"\n\nProfile {profile}, source {source}."
    text += SMOKE_NOTE if profile == "smoke" else ""
    write_text(outputs_directory() / "tables" / profile / f"{name}.md", text + "\n")
    return text


def training(result: Result) -> str:
    """An autoencoder's training in words, such as ``d = 6, 15 epochs of 4,000 digits``."""
    spec = result.spec
    words = [f"d = {spec.latent_dim}"]
    words += [f"{spec.sizes['layout']} grid"] if "layout" in spec.sizes else []
    words += [f"{spec.sizes['frames']} frames"] if "frames" in spec.sizes else []
    words += ["trained on rotated digits"] if spec.protocol == "rotated" else []
    epochs = "epoch" if spec.epochs == 1 else "epochs"
    return ", ".join([*words, f"{_epochs([result])} {epochs} of {spec.training_digits:,} digits"])


def _epochs(group: Sequence[Result]) -> str:
    """The epochs reached, and of how many where a run was stopped before its end."""
    return ", ".join(
        dict.fromkeys(f"{r.spec.epochs}" if r.complete else f"{r.epochs_reached} of {r.spec.epochs}" for r in group)
    )


def _mean(records: Sequence[Mapping[str, float]], name: str, *, digits: int = 3, percent: bool = False) -> str:
    """Mean of one number over the seeds, ± the standard deviation where there are several."""
    scale, digits, unit = (100, 2, "%") if percent else (1, digits, "")
    values = [scale * record[name] for record in records]
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}{unit}"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
