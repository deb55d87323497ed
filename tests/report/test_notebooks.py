"""The notebooks as files (pairs, parameters, size) and as a report: every cell executes."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import papermill
import pytest
from PIL import Image

from gvae_core import RotationAgnosticEmbedding, load_images

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
NAMES = sorted({path.stem for path in FOLDER.glob("*.*") if path.suffix in (".py", ".ipynb")})
BIN = Path(sys.executable).parent


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture
def notebook(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def test_there_are_eight_notebooks():
    assert len(NAMES) == 8


def contents(notebook) -> list[tuple]:
    return [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]


def test_pair_has_equal_cells(name, notebook):
    # compared, never synchronised: jupytext trusts the newer file, and may drop the newer text
    assert contents(jupytext.read(FOLDER / f"{name}.py")) == contents(notebook)


def test_no_outputs_are_committed(name, notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    assert "widgets" not in notebook.metadata
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 100_000


def test_kernel_is_python3(notebook):
    assert notebook.metadata.kernelspec.name == "python3"


def test_one_parameters_cell_that_papermill_understands(name, notebook):
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assigned = [ast.unparse(line.targets[0]) for line in ast.parse(cell.source).body]
    inspected = papermill.inspect_notebook(str(FOLDER / f"{name}.ipynb"))
    # papermill passes over a line with a second "=" in it, in a comment for instance
    assert list(inspected) == assigned
    defaults = {key: ast.literal_eval(value["default"]) for key, value in inspected.items()}
    source = {} if name == "08_no_upright" else {"source": "auto"}  # the one without digits
    assert ({"profile": "quick", "seed": 0} | source).items() <= defaults.items()


def test_notebook_tells_the_story_and_the_package_computes(notebook):
    assert len(notebook.cells) < 25
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    for source in code:
        assert not re.search(r"^\s*[!%]\s*pip|sys\.path", source, re.MULTILINE)
        plain = re.sub(r"^(\s*)%.*", r"\1pass", source, flags=re.MULTILINE)
        for node in ast.walk(ast.parse(plain)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 12, f"{node.name} belongs in the package"


@pytest.mark.slow
def test_smoke_report_of_all_notebooks(smoke_report):
    assert smoke_report.done.returncode == 0, smoke_report.done.stdout + smoke_report.done.stderr
    # four minutes of two cores; not by the clock, which counts a slow disk and the neighbours' work, too
    assert smoke_report.seconds <= 2 * 240, smoke_report.done.stdout
    assert {path.stem for path in smoke_report.folder.glob("*.html")} == {*NAMES, "index"}
    index = (smoke_report.folder / "index.html").read_text()
    assert all(f'<a href="{name}.html">' in index for name in NAMES)
    assert index.count("<td>ok</td>") == len(NAMES)


@pytest.mark.slow
def test_plain_papermill_runs_a_notebook_on_a_folder_of_images_and_a_model(smoke_report, digits, tmp_path):
    for label in range(3):
        (tmp_path / "images" / f"a {label}").mkdir(parents=True)
        for number, image in enumerate(digits.images[digits.labels == label][:20]):
            pixels = Image.fromarray((255 * image[0]).byte().numpy())
            pixels.save(tmp_path / "images" / f"a {label}" / f"{number}.png")
    network = dict(fields=(2, 2, 4), frequency=2, invariants=8, decoder_channels=(4, 4, 4))
    embedding = RotationAgnosticEmbedding(3, epochs=1, network=network, device="cpu", progress=False)
    embedding.fit(load_images(tmp_path / "images", 28, 1), save_to=tmp_path / "own.safetensors")
    named = ["-p", "folder", tmp_path / "images", "-p", "model", tmp_path / "own.safetensors"]
    parameters = ["-p", "profile", "smoke", *named]
    result = subprocess.run(
        [BIN / "papermill", "notebooks/08_no_upright.ipynb", tmp_path / "out.ipynb", *parameters],
        cwd=ROOT, env={**os.environ, "GVAE_OUTPUTS": str(smoke_report.outputs)}, capture_output=True, text=True,
        timeout=240,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    said = "".join(output.get("text", "") for cell in executed.cells for output in cell.get("outputs", []))
    assert "60 images of 28 pixels" in said
    assert re.search(r"^codes: [\d.]+% named right, [\d.]+% after another turn\npixels: ", said, re.MULTILINE)
