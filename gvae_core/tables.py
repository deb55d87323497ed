"""Results -> Markdown tables, the papers' numbers beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from . import papers
from .atomic import write_text
from .experiments import Result
from .figures import NAMES, label
from .outputs import outputs_directory

SMOKE_NOTE = "\n\n**Profile smoke: these numbers only prove that every cell ran. They are no result.**"


def table1(results: Sequence[Result]) -> str:
    """Table 1 of the report: losses and accuracy on rotated test digits, CNN and G-CNN."""
    rows = []
    for result in results:
        last, numbers, paper = result.history[-1], result.metrics, papers.TABLE1[result.spec.model]
        if result.spec.paper_loss:
            rows.append(
                [
                    f"{NAMES[result.spec.model]}, paper",
                    f"{paper['train_loss']}",
                    f"{paper['validation_loss']}",
                    f"{paper['test_loss']}",
                    "–",
                    f"{paper['test_accuracy']:.2%}",
                    "–",
                    paper["parameters"],
                ]
            )
        rows.append(
            [
                f"**{label(result)}, ours**",
                f"{last['train_paper_loss']:.3f}",
                f"{last['validation_paper_loss']:.3f}",
                f"{numbers['test_rotated_paper_loss']:.3f}",
                f"{numbers['test_rotated_cross_entropy']:.3f}",
                f"**{numbers['test_rotated_accuracy']:.2%}**",
                f"{numbers['test_upright_accuracy']:.2%}",
                f"{result.parameters:,}",
            ]
        )
    return _markdown(
        ["Model", "Train loss", "Valid. loss", "Test loss", "Test cross-entropy", "Acc. rotated", "Acc. upright", "Params"],
        rows,
    )


def table2(results: Sequence[Result]) -> str:
    """Table 2: the validation loss in the papers' unit, with its two terms per image."""
    rows = []
    for result in results:
        spec, last = result.spec, result.history[-1]
        paper = papers.TABLE2[spec.model][papers.LATENT_DIMS.index(spec.latent_dim)][papers.BETAS.index(spec.beta)]
        rows.append(
            [
                NAMES[spec.model],
                f"{spec.latent_dim}",
                f"{spec.beta:g}",
                f"{paper:.2f}k",
                f"{last['validation_loss'] / 1000:.2f}k",
                f"{last['validation_squared_error']:.1f}",
                f"{last['validation_kl']:.2f}",
                f"{spec.epochs}",
            ]
        )
    return _markdown(["Model", "d", "β", "Paper", "Ours", "Squared error / image", "KL / image (nats)", "Epochs"], rows)


def reconstructions(accuracies: Mapping[str, Mapping[str, float]]) -> str:
    """Tiny paper, Table 1: a classifier's accuracy on reconstructions; accuracies[model][input]."""
    rows = []
    for model, ours in accuracies.items():
        paper = papers.RECONSTRUCTION_ACCURACY[model]
        rows.append([f"{NAMES[model]}, paper", *(f"{paper[name]:.0%}" for name in ours)])
        rows.append([f"**{NAMES[model]}, ours**", *(f"**{value:.1%}**" for value in ours.values())])
    return _markdown(["Reconstructions of", *next(iter(accuracies.values()))], rows)


def save(text: str, name: str, *, profile: str, source: str) -> str:
    """Write OUTPUTS/tables/PROFILE/NAME.md; returns the text with profile and source under it."""
    text += f"\n\nProfile {profile}, source {source}."
    text += SMOKE_NOTE if profile == "smoke" else ""
    write_text(outputs_directory() / "tables" / profile / f"{name}.md", text + "\n")
    return text


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
