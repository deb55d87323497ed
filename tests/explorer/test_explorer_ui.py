"""The rotation explorer in a real browser: JupyterLab, voila and the saved page, with the mouse and the keys."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from examples import TINY_SGVAE, TINY_SVAE
from own_images import own_images, own_model, pose_model
from PIL import Image
from playwright.sync_api import Page
from playwright.sync_api import TimeoutError as BrowserTimeout
from torch.nn import functional

from gvae_core import rotate, run
from gvae_core.explorer import RotationExplorer
from gvae_core.files import cache_folder
from gvae_core.report.profiles import sphere_and_plane

pytestmark = [pytest.mark.ui, pytest.mark.slow]

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "05_rotation_grid.ipynb"
BIN = Path(sys.executable).parent
PICTURE = ".gvae .gvae-picture"
OWN_HEAD = """import sys; sys.path.insert(0, {tests!r})
from own_images import *
from gvae_core.explorer import RotationExplorer
"""
OWN = {
    "drag.ipynb": """from gvae_core import sgvae, svae
models = {"S-GVAE": sgvae(6, fields=(2, 2, 4), frequency=2).eval(), "S-VAE": svae(6, channels=(8, 8, 8)).eval()}
test = load_splits("mnist5k").test
RotationExplorer(models, test.images, test.labels)""",
    "pose.ipynb": "test = load_splits('mnist5k').test\nRotationExplorer(pose_model(), test.images, test.labels)",
    "own.ipynb": "RotationExplorer(own_model(), own_images())",
}
# Errors that stock JupyterLab and voila write to the console themselves.
STOCK = (
    "favicon",
    "fontawesome",  # voila's template takes icons from the network, which a test must not need
    "labextensions/jupyterlab-jupytext",  # loaded by voila, which has none of the editor's modules that it needs
)


@pytest.fixture
def page(chromium):
    """A page of 1280 pixels with a touch screen; an error in its console fails the test at its end."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900}, has_touch=True)
    errors = []
    page.on("console", lambda message: message.type == "error" and errors.append(f"{message.text} {message.location}"))
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    unexpected = [error for error in errors if not any(stock in error for stock in STOCK)]
    assert not unexpected, "\n".join(unexpected)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """The notebook with the smoke profile, a model with d = 3 to pick, and folders for what would go into the home."""
    folder = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GVAE_OUTPUTS", str(folder / "outputs"))
        run(sphere_and_plane("smoke", "mnist5k")["sgvae"], progress=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    cell.source = cell.source.replace('profile = "quick"', 'profile = "smoke"').replace('"auto"', '"mnist5k"')
    nbformat.write(notebook, folder / "notebook.ipynb")
    for name, code in OWN.items():
        cell = nbformat.v4.new_code_cell(OWN_HEAD.format(tests=str(Path(__file__).parent)) + code)
        kernel = dict(notebook.metadata.kernelspec)
        nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel}), folder / name)
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    return folder


@pytest.fixture(scope="module")
def serve(workplace, sockets):
    """Start a Jupyter application on a free port; returns its address once it answers."""
    processes = []

    def start(command: str, *arguments: str) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        homes = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
        homes += ("XDG_STATE_HOME", "JUPYTERLAB_WORKSPACES_DIR")
        environment = {
            **os.environ,
            **{name: str(workplace / name.lower()) for name in homes},
            "JUPYTER_RUNTIME_DIR": sockets,
            "JUPYTERLAB_SETTINGS_DIR": str(workplace / "settings"),
            "GVAE_OUTPUTS": str(workplace / "outputs"),
            "GVAE_CACHE": str(cache_folder()),  # the compiled kernels
        }
        log = open(workplace / f"{port}.log", "wb")
        filled = [argument.format(port=port) for argument in (*arguments, "--KernelManager.transport=ipc")]
        process = subprocess.Popen(
            [BIN / command, *filled], env=environment, cwd=workplace, stdout=log, stderr=subprocess.STDOUT
        )
        processes.append((process, log))
        for _ in range(600):
            assert process.poll() is None, Path(log.name).read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/static/favicons/favicon.ico", timeout=60)
            except urllib.error.HTTPError:
                break  # it answers
            except OSError:
                time.sleep(0.1)
            else:
                break
        return f"http://127.0.0.1:{port}"

    yield start
    for process, log in processes:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


# --- what is on the page --------------------------------------------------------------------------


def rows(page: Page) -> np.ndarray:
    """[input and models, height, width] of the picture that the browser shows, in grey."""
    picture = np.asarray(shown_picture(page).convert("L"), dtype=float)
    return picture.reshape(3, -1, picture.shape[1])


def shown_picture(page: Page) -> Image.Image:
    data = page.locator(PICTURE).evaluate(
        """async image => {
            const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
            return btoa(Array.from(bytes, byte => String.fromCharCode(byte)).join(""));
        }"""
    )
    return Image.open(io.BytesIO(base64.b64decode(data)))


def dial(page: Page, within: str = "") -> tuple[float, float, list[float]]:
    """Degrees of the dial's hand and needle, and of each image's mark."""
    marker = page.locator(f"{within} svg:has(.gvae-hand):has(.gvae-arc)").inner_html()

    def angles(pattern: str) -> list[float]:
        return [float(np.degrees(np.arctan2(-float(x), -float(y)))) for x, y in re.findall(pattern, marker)]

    hand, needle = angles(r'<line x2="([-.\d]+)" y2="([-.\d]+)"')
    return hand, needle, angles(r'<circle cx="([-.\d]+)" cy="([-.\d]+)"')


def apart(first, second) -> np.ndarray:
    """Degrees between directions."""
    return np.abs((np.subtract(first, second) + 180) % 360 - 180)


def change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each row, in grey levels; another width is another picture."""
    if before.shape != after.shape:
        return np.full(3, np.inf)
    return np.abs(before - after).mean((1, 2))


def after(page: Page, before: np.ndarray, least: float = 0.5) -> np.ndarray:
    """The picture once its first row differs from ``before``."""
    for _ in range(400):
        now = rows(page)
        if change(before, now)[0] > least:
            assert page.locator(".gvae .gvae-error").count() == 0, page.locator(".gvae .gvae-error").inner_text()
            return now
        page.wait_for_timeout(25)
    raise AssertionError("the picture did not change in 10 s")


def settled(page: Page) -> np.ndarray:
    """The picture once it has not changed for a second."""
    now, still = rows(page), 0
    for _ in range(80):
        page.wait_for_timeout(250)
        now, before = rows(page), now
        still = still + 1 if change(before, now)[0] == 0 else 0
        if still == 4:
            return now
    raise AssertionError("the picture did not come to rest in 20 s")


def handle(page: Page) -> tuple[float, float]:
    page.locator(".gvae .noUi-handle").scroll_into_view_if_needed()  # the mouse cannot reach below the page's edge
    box = page.locator(".gvae .noUi-handle").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def angle(page: Page) -> int:
    return int(page.locator(".gvae input[type=number]").first.input_value())


def drag(page: Page, distance: float, steps: int = 10) -> list[np.ndarray]:
    """Drag the slider with the mouse; the picture after each step."""
    x, y = handle(page)
    pictures = [rows(page)]
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(1, steps + 1):
        page.mouse.move(x + distance * step / steps, y)
        pictures.append(after(page, pictures[-1]))
    page.mouse.up()
    return pictures


def set_angle(page: Page, degrees: int) -> np.ndarray:
    box = page.locator(".gvae input[type=number]").first
    box.fill(str(degrees))
    box.press("Enter")
    page.wait_for_function(
        "degrees => document.querySelector('.gvae').textContent.includes(`turned by ${degrees}°`)", arg=degrees
    )
    return settled(page)


def play_all_controls(page: Page) -> None:
    """Slider by mouse and keys, number box, play, digits, models, drawing: the right pictures change each time."""
    page.locator(".gvae .gvae-heading").scroll_into_view_if_needed()
    upright = settled(page)
    pictures = drag(page, 130)
    assert angle(page) > 60 and change(upright, pictures[-1])[0] > 5

    before = settled(page)
    at = angle(page)
    page.keyboard.press("ArrowLeft")  # the handle still has the focus
    after(page, before, 0.1)
    assert angle(page) == at - 1
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(f"document.querySelector('.gvae input[type=number]').value == {at + 3}")

    quarter = change(upright, set_angle(page, 90))
    assert quarter[0] > 15 and quarter[1] < 1.0 and quarter[2] > 2 * quarter[1]  # exact for the steerable encoder
    assert change(upright, set_angle(page, 0)).max() == 0

    page.locator(".gvae .widget-play button").first.click()
    moving = after(page, after(page, upright, 0.1), 0.1)
    page.locator(".gvae .widget-play button").first.click()
    stopped = settled(page)
    page.wait_for_timeout(300)
    assert change(stopped, rows(page)).max() == 0 and change(moving, upright)[0] > 0
    set_angle(page, 0)

    page.get_by_role("button", name="another one").click()
    others = after(page, upright)
    page.locator(".gvae .gvae-pick", has_text="4").click()
    fewer = after(page, others)
    assert fewer.shape[2] < upright.shape[2]  # one digit less
    page.locator(".gvae .gvae-pick", has_text="4").click()
    models = page.locator(".gvae .widget-dropdown select").first
    before = after(page, fewer)
    assert before.shape == upright.shape
    before = settled(page)
    names = [name.replace("\xa0", " ") for name in models.locator("option").all_text_contents()]
    # the last is the profile's own; a committed one of the papers' size takes ten seconds
    models.select_option(index=max(index for index, name in enumerate(names) if "d = 3" in name))
    page.wait_for_selector(".gvae [aria-label^='codes on the latent sphere']", timeout=30_000)
    now = settled(page)
    assert change(before, now)[0] == 0 < change(before, now)[1]

    draw_seven(page, now)
    assert change(rows(page), set_angle(page, 90))[0] > 5
    before = rows(page)
    page.get_by_role("button", name="clear").click()
    assert after(page, before).shape == now.shape


def draw_seven(page: Page, before: np.ndarray) -> None:
    """Draw with the mouse: the ink is seen on the pad, and the digit alone in the picture."""
    pad = page.locator(".gvae canvas").first
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    corners = [(0.3, 0.2), (0.7, 0.2), (0.45, 0.85)]
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=12)
    page.mouse.up()
    drawn = after(page, before)
    assert drawn.shape[2] == 28 and drawn[0].mean() > 10
    ink = "pad => pad.getContext('2d').getImageData(0, 0, pad.width, pad.height).data.filter(v => v == 255).length"
    assert pad.evaluate(ink) > 1000


def draw_with_a_finger(page: Page, before: np.ndarray) -> None:
    """As `draw_seven`, but by touch; the page must not scroll under the finger."""
    pad = page.locator(".gvae canvas").first
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    corners = [(0.3, 0.2), (0.5, 0.2), (0.7, 0.2), (0.6, 0.4), (0.5, 0.6), (0.45, 0.85)]
    touches = [[{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]}] for x, y in corners]
    session = page.context.new_cdp_session(page)
    for kind, points in zip(("touchStart", *["touchMove"] * 5, "touchEnd"), (*touches, [])):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    drawn = after(page, before)
    assert drawn.shape[2] == 28 and drawn[0].mean() > 10
    assert pad.bounding_box() == box


def latency(page: Page) -> list[float]:
    """Milliseconds from a mouse move on the slider to the new picture being loaded, of 20 moves."""
    page.evaluate(
        f"""() => {{
            window.times = []; window.moved = null;
            document.addEventListener("mousemove", () => {{ window.moved = performance.now(); }}, true);
            document.addEventListener("pointermove", () => {{ window.moved = performance.now(); }}, true);
            document.querySelector("{PICTURE}").addEventListener("load", () => {{
                if (window.moved !== null) window.times.push(performance.now() - window.moved);
                window.moved = null;
            }});
        }}"""
    )
    x, y = handle(page)
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(1, 21):
        page.mouse.move(x + 5 * step, y)
        with contextlib.suppress(BrowserTimeout):  # a move that changes no degree loads no picture
            page.wait_for_function("window.moved === null", timeout=2000)
    page.mouse.up()
    return page.evaluate("window.times")


# Each angle of the slider: when the event came that moved it there, and when the frame began that has its picture.
WATCH = """() => {
    const root = document.querySelector(".gvae"), image = root.querySelector("img.gvae-picture");
    const handle = root.querySelector(".noUi-handle");
    let last = 0, seen = null;
    const moved = new Map(), shown = new Map();
    window.dragged = {moved, shown};
    document.addEventListener("pointermove", event => { last = event.timeStamp; }, true);
    new MutationObserver(() => {
        const angle = Math.round(handle.getAttribute("aria-valuenow"));
        if (!moved.has(angle)) moved.set(angle, last);
    }).observe(handle, {attributes: true, attributeFilter: ["aria-valuenow"]});
    new MutationObserver(() => {
        const angle = root.textContent.match(/turned by (-?\\d+)°/)?.[1];
        if (!angle || angle === seen) return;
        seen = angle;
        const frame = () => requestAnimationFrame(() => { if (!shown.has(+angle)) shown.set(+angle, performance.now()); });
        if (image.complete) frame(); else image.addEventListener("load", frame, {once: true});
    }).observe(root, {childList: true, subtree: true});
}"""


def drag_across(page: Page, seconds: float = 6) -> list[float]:
    """Drag the slider evenly over its whole range; of each angle the milliseconds from the event to its picture."""
    x, y = handle(page)
    track = page.locator(".gvae .noUi-target").bounding_box()
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(track["x"], y)
    settled(page)
    page.evaluate(WATCH)
    start = time.monotonic()
    for step in range(362):
        time.sleep(max(0, start + step * seconds / 361 - time.monotonic()))
        page.mouse.move(track["x"] + track["width"] * step / 361, y)
    page.mouse.up()
    page.wait_for_timeout(500)
    moved, shown = page.evaluate("[[...dragged.moved], [...dragged.shown]]")
    return [dict(shown).get(angle, float("inf")) - event for angle, event in moved]


# --- the tests ------------------------------------------------------------------------------------


CELLS = "window.jupyterapp.shell.currentWidget.content.model.cells"


def run_all(page: Page, command: str) -> None:
    """Run all cells and wait for the last; none may show an error or print to stderr."""
    page.evaluate(f"window.jupyterapp.commands.execute('{command}') && null")
    if "restart" in command:
        page.locator(".jp-Dialog .jp-mod-accept").click()
    count = f"Array.from({CELLS}).filter(cell => cell.type == 'code').map(cell => cell.executionCount)"
    if "restart" in command:
        page.wait_for_function(f"{count}.some(count => count === null)", timeout=60_000)
    page.wait_for_function(f"{count}.every(count => count !== null)", timeout=180_000)
    outputs = f"Array.from({CELLS}).filter(c => c.type == 'code').flatMap(c => c.sharedModel.toJSON().outputs)"
    bad = [out for out in page.evaluate(outputs) if out["output_type"] == "error" or out.get("name") == "stderr"]
    assert bad == []
    page.locator(PICTURE).wait_for(timeout=60_000)


def test_in_jupyterlab_with_mouse_and_keys_and_again_after_a_restart(page, serve, workplace):
    address = serve(
        "jupyter", "lab", "--no-browser", "--allow-root", "--ServerApp.port={port}", "--ServerApp.port_retries=0",
        "--IdentityProvider.token=test", f"--ServerApp.root_dir={workplace}", "--LabApp.expose_app_in_browser=True",
    )  # fmt: skip
    page.goto(f"{address}/lab/tree/notebook.ipynb?token=test")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    page.wait_for_function("window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status == 'idle'")
    run_all(page, "runmenu:run-all")
    box = page.locator(".gvae").first.bounding_box()
    assert box["x"] + box["width"] <= 1280 and box["height"] < 760
    overflow = "box => box.scrollWidth - box.clientWidth"
    assert page.locator(".gvae").first.evaluate(overflow) <= 1
    play_all_controls(page)
    times = latency(page)
    print(f"\nevent to new picture in the browser: median {statistics.median(times):.0f} ms of {len(times)}")
    assert len(times) >= 15 and statistics.median(times) < 1000
    run_all(page, "runmenu:restart-and-run-all")
    set_angle(page, 0)
    drag(page, -130)
    assert angle(page) < -60


def test_as_a_web_page_with_voila(page, serve, workplace):
    address = serve(
        "voila", "notebook.ipynb", "--no-browser", "--port={port}", "--ExtensionApp.open_browser=False",
        "--ServerApp.ip=127.0.0.1",
    )  # fmt: skip
    page.goto(address, timeout=120_000)
    page.locator(PICTURE).wait_for(timeout=120_000)
    settled(page)  # the slider moves while what stands above it is drawn
    drag(page, 100, steps=3)
    assert angle(page) > 45
    before = settled(page)
    draw_seven(page, before)
    page.get_by_role("button", name="clear").click()
    draw_with_a_finger(page, after(page, rows(page)))


@pytest.fixture(scope="module")
def render(serve):
    """The addresses of notebooks as web pages."""
    address = serve(
        "voila", "--no-browser", "--port={port}", "--ExtensionApp.open_browser=False", "--ServerApp.ip=127.0.0.1"
    )
    return lambda notebook: f"{address}/voila/render/{notebook}"


def test_a_drag_beside_two_busy_processes_does_not_wait_for_the_kernel(page, render):
    """By itself on two cores 98 to 99.7 % of the pictures come within 33 ms (no one did when each was asked for); here
    the rest of the suite takes its part of the cores, too."""
    page.goto(render("drag.ipynb"), timeout=120_000)
    page.locator(PICTURE).wait_for(timeout=120_000)
    page.wait_for_timeout(2000)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    shares = []
    try:
        while len(shares) < 4 and max(shares, default=0) < 0.95:
            late = drag_across(page)
            shares.append(sum(milliseconds <= 33 for milliseconds in late) / len(late))
    finally:
        for process in busy:
            process.kill()
            process.wait()
    print(f"\nthe right picture within 33 ms, of {len(late)}:", *(f"{share:.1%}" for share in shares))
    assert len(late) > 150 and max(shares) >= 0.7
    assert angle(page) == 180
    shown = settled(page)
    assert change(shown, set_angle(page, -180)).max() == 0 < change(shown, set_angle(page, 0))[0]


def test_a_dial_shows_the_angle_found_while_the_reconstruction_turns_along(page, render, digits):
    page.goto(render("pose.ipynb"), timeout=120_000)
    page.locator(PICTURE).wait_for(timeout=120_000)
    ten = rows(page)
    page.locator(".gvae .gvae-pick", has_text="0").click()
    after(page, ten)
    start, model = settled(page), pose_model()
    images = torch.stack([digits.images[digits.labels == digit][0] for digit in range(1, 10)])
    with torch.no_grad():
        at_zero = model.poses(images)[0]
        for degrees in (60, -110):
            moved = change(start, set_angle(page, degrees))
            assert moved[2] < moved[0] / 3 and moved[1] > moved[0] / 3  # the canonical view stands still
            hand, needle, marks = dial(page)
            found = (model.poses(rotate(images, degrees))[0] - at_zero).numpy()
            assert apart(hand, degrees) < 0.2 and apart(marks, found).max() < 0.5
            assert apart(needle, degrees) < 4
    set_angle(page, 0)
    hands = [dial(page)[:2]]
    drag(page, 100, steps=4)
    settled(page)
    hands.append(dial(page)[:2])
    assert apart(hands[1][0], angle(page)) < 0.2 and apart(hands[1][0], hands[1][1]) < 4
    times = latency(page)
    print(f"\nwith a pose, event to new picture: median {statistics.median(times):.0f} ms of {len(times)}")


def test_own_colour_images_are_picked_from_pages(page, render):
    page.goto(render("own.ipynb"), timeout=120_000)
    page.locator(PICTURE).wait_for(timeout=120_000)
    images = own_images()
    picks = page.locator(".gvae .gvae-pick:visible")
    assert picks.count() == 20 and picks.first.inner_text() == "#1"
    before = settled(page)
    page.get_by_role("button", name="›").click()
    page.locator(".gvae .gvae-pick", has_text="#27").wait_for()
    for name in ("#27", "#33"):
        page.locator(".gvae .gvae-pick", has_text=name).click()
        before = after(page, before)
    picture = np.asarray(shown_picture(page), dtype=float)
    tile = picture.shape[1] / (12 + 11 / 7)
    assert picture.shape[2] == 4
    for number, column in ((26, 10), (32, 11)):
        side = round(tile)
        left = round(column * tile * 8 / 7)
        height = picture.shape[0] // 3
        shown = picture[(height - side) // 2 :][:side, left : left + side, :3]
        expected = functional.interpolate(images[number : number + 1], size=side, mode="bilinear", antialias=True)
        inner = slice(side // 4, -side // 4)
        difference = np.abs(shown / 254 - expected[0].permute(1, 2, 0).numpy())[inner, inner]
        assert difference.mean() < 0.08, difference.mean()
    assert change(before, set_angle(page, 50))[0] > 2


def test_saved_page_with_a_pose_works_from_disk(page, tmp_path):
    explorer = RotationExplorer({"mine": own_model()}, own_images())
    explorer.digits.select(["#27"])
    page.goto(explorer.save_html(tmp_path / "own.html").as_uri())
    page.wait_for_function("pictures.every(picture => picture.complete)")
    pictures = []
    for degrees in (0, 60):
        page.evaluate(f"() => {{ slider.value = {degrees}; slider.dispatchEvent(new Event('input')); }}")
        page.wait_for_timeout(100)
        hand, needle, (mark,) = dial(page, "#dial")
        found = explorer.turn.view(degrees).found["mine"].mean
        assert apart(hand, degrees) < 0.2 and apart(needle, mark) < 0.2 and apart(mark, found) < 0.2
        data = page.evaluate("document.querySelector('canvas').toDataURL()").partition("base64,")[2]
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), dtype=float)
        pictures.append(picture.reshape(3, -1, *picture.shape[1:]))
    moved = np.abs(pictures[1] - pictures[0]).mean((1, 2, 3))
    assert moved[2] < moved[0] / 3 and moved[1] > moved[0] / 3
    side, gap = explorer.turn.tiles.drawn, explorer.turn.tiles.row_gap // 2
    tile = pictures[0][0][gap : gap + side]
    inner = slice(side // 4, -side // 4)
    expected = own_images()[26].permute(1, 2, 0).numpy()
    assert np.abs(tile[..., :3] / 254 - expected)[inner, inner].mean() < 0.05 and tile[0, 0, 3] == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_saved_page_works_from_disk(chromium, digits, tmp_path, scheme):
    models = {"S-GVAE": TINY_SGVAE.build().eval(), "S-VAE": TINY_SVAE.build().eval()}
    file = RotationExplorer(models, digits.images[:40], digits.labels[:40]).save_html(tmp_path / "explorer.html")
    page = chromium.new_page(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
    problems, requests = [], []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())

    def shown() -> tuple[str, str, str, str]:
        page.wait_for_timeout(60)
        picture = page.evaluate("document.querySelector('canvas').toDataURL()")
        return picture, *(page.locator(f"#{name}").inner_html() for name in ("numbers", "polar", "sphere"))

    def turned() -> int:
        return int(re.search(r"turned by <b>(-?\d+)°", page.locator("#numbers").inner_html())[1])

    page.wait_for_function("pictures.every(picture => picture.complete)")
    start = shown()
    slider = page.locator("#angle").bounding_box()
    middle = slider["x"] + slider["width"] / 2, slider["y"] + slider["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    seen = [start]
    for step in range(1, 11):
        page.mouse.move(middle[0] + 20 * step, middle[1])
        seen.append(shown())
    page.mouse.up()
    for part, least in enumerate((11, 11, 9, 9)):  # picture, numbers, markers (of a tenth of a pixel)
        assert len({values[part] for values in seen}) >= least
    at = turned()
    page.keyboard.press("ArrowLeft")
    assert turned() == at - 5
    page.mouse.click(5, 5)  # the focus is elsewhere now
    page.keyboard.press("ArrowRight")
    assert turned() == at and page.locator("#degrees").inner_text() == f"{at}°"
    page.locator("#play").click()
    page.wait_for_function(f"document.querySelector('#degrees').textContent != '{at}°'")
    assert page.locator("#play").inner_text() == "pause"
    page.locator("#play").click()
    stopped = shown()
    page.wait_for_timeout(250)
    assert shown() == stopped and stopped[0] != seen[-1][0]
    level = {name: _level(page, name) for name in ("background-color", "color")}
    assert (level["background-color"] < 60 < 180 < level["color"]) == (scheme == "dark")
    assert abs(level["background-color"] - level["color"]) > 180
    page.close()
    assert problems == [] and all(url.startswith(("file:", "data:")) for url in requests)


def _level(page: Page, name: str) -> float:
    style = f"getComputedStyle(document.querySelector('{'body' if 'background' in name else 'h1'}'))"
    return float(
        np.mean([int(part) for part in re.findall(r"\d+", page.evaluate(f"{style}.getPropertyValue('{name}')"))[:3]])
    )
