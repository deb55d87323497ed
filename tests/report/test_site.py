"""The report's folder as a web site, looked at as a stranger would, in Chromium; and the links of the README's pages."""

from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import statistics
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import jupytext
import pytest
import yaml
from playwright.sync_api import Page

from gvae_core.report import findings
from gvae_core.report.site import write_index

ROOT = Path(__file__).parents[2]
EXPLORERS = ("05_rotation_grid", "07_pose", "08_no_upright")
WIDTHS, SCHEMES = (400, 1280), ("light", "dark")


class Links(HTMLParser):
    """Of an HTML page: the ids in it, where its links lead, and what it loads."""

    def __init__(self, text: str):
        super().__init__()
        self.ids, self.links, self.loads, self.captions, self._caption = set(), [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        found = dict(attributes)
        self.ids.add(found.get("id"))
        self.links += [found["href"]] if tag == "a" and "href" in found else []
        self.loads += [found[name] for name in ("src", "href") if tag != "a" and name in found]
        if tag == "figcaption":
            self._caption = True
            self.captions.append("")

    def handle_data(self, data: str) -> None:
        if self._caption:
            self.captions[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._caption &= tag != "figcaption"


@pytest.fixture(scope="module")
def pages(smoke_report) -> dict[str, Links]:
    assert smoke_report.done.returncode == 0, smoke_report.done.stdout
    return {path.name: Links(path.read_text()) for path in smoke_report.folder.glob("*.html")}


@pytest.mark.slow
def test_all_links_and_anchors_lead_somewhere_inside_the_folder(pages, smoke_report):
    assert len(pages["index.html"].links) > 30
    for name, page in pages.items():
        for link in page.links + page.loads:
            url = urlsplit(link)
            if url.scheme == "data" or (url.scheme in ("http", "https") and link in page.links):
                continue
            assert not url.scheme and not link.startswith(("/", "..")), f"{name}: {link}"
            file = unquote(url.path) or name
            assert (smoke_report.folder / file).is_file(), f"{name}: {link}"
            # a browser looks for the fragment as it is written first, and nbconvert's ids are written like its links
            assert not url.fragment or {url.fragment, unquote(url.fragment)} & pages[file].ids, f"{name}: {link}"


@pytest.mark.slow
def test_figures_have_captions_from_the_notebooks(pages, smoke_report):
    names = [path.stem for path in (smoke_report.outputs / "figures").rglob("*.png")]
    for name, page in pages.items():
        if name != "index.html":
            text = "".join(
                cell.source for cell in jupytext.read(ROOT / "notebooks" / name.replace(".html", ".py")).cells
            )
            first_words = [" ".join(caption.split()[:3]) for caption in page.captions]
            assert page.captions and all(words in " ".join(text.split()) for words in first_words)
            assert not set(map(str.strip, page.captions)) & set(names)


@pytest.fixture(scope="module")
def address(smoke_report):
    """The folder, and nothing around it, served as any static host would."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=smoke_report.folder)
    handler.func.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def watched(chromium, width: int, scheme: str) -> tuple[Page, list[str], list[str]]:
    """A page, the addresses that it asks for, and what it complains about."""
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    requests, problems = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.route("**/favicon.ico", lambda route: route.fulfill(status=204))  # Chromium's own
    return page, requests, problems


@pytest.mark.ui
@pytest.mark.slow
@pytest.mark.parametrize("name", EXPLORERS)
@pytest.mark.parametrize("from_disk", [False, True], ids=["served", "from disk"])
def test_the_slider_moves_inside_the_notebooks_page(chromium, address, smoke_report, name, from_disk):
    page, requests, problems = watched(chromium, 1280, "light")
    place = smoke_report.folder.as_uri() + "/" if from_disk else address
    page.goto(f"{place}index.html")
    page.locator(f"a[href^='{name}.html#']").first.click()
    page.wait_for_url(f"**/{name}.html#*")
    frame = page.frame_locator("iframe.live")
    frame.locator("#numbers", has_text="turned by").wait_for()
    page.wait_for_function(
        "document.querySelector('iframe.live').contentWindow.eval('pictures.every(p => p.complete)')"
    )

    def shown() -> tuple[str, str]:
        page.wait_for_timeout(60)
        return frame.locator("canvas").evaluate("canvas => canvas.toDataURL()"), frame.locator("#numbers").inner_text()

    frame.locator("#angle").scroll_into_view_if_needed()
    box, seen = frame.locator("#angle").bounding_box(), [shown()]
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(1, 6):
        page.mouse.move(x + 30 * step, y)
        seen.append(shown())
    page.mouse.up()
    assert len({picture for picture, _ in seen}) == len({numbers for _, numbers in seen}) == 6
    size = "([frame]) => [frame.clientHeight, frame.contentDocument.documentElement.offsetHeight]"
    inner, outer = page.eval_on_selector_all("iframe.live", size)
    assert abs(inner - outer) <= 1  # nothing scrolls in it
    page.close()
    assert problems == [] and all(url.startswith((place, "data:", "about:srcdoc")) for url in requests)


@pytest.mark.ui
@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_is_readable_without_scrolling_sideways(chromium, address, pages, width, scheme):
    page, requests, problems = watched(chromium, width, scheme)
    for name in sorted(pages):
        page.goto(address + name)
        wide = "[document, ...Array.from(frames, frame => frame.document)].map(d => d.documentElement.scrollWidth)"
        assert max(page.evaluate(wide)) <= width, name
        code = "blocks => blocks.filter(block => block.scrollWidth > block.clientWidth + 1).map(block => block.textContent)"
        assert page.eval_on_selector_all(".input pre", code) == []  # long lines wrap
        style = "getComputedStyle(document.body)"
        paper, ink = (
            sum(map(int, re.findall(r"\d+", page.evaluate(f"{style}.{of}"))[:3])) / 3
            for of in ("backgroundColor", "color")
        )
        assert (paper < 60 and ink > 180) if scheme == "dark" else (paper > 230 and ink < 80), name
    page.close()
    assert problems == [] and all(url.startswith((address, "data:", "about:srcdoc")) for url in requests)


# --- without a browser ----------------------------------------------------------------------------


def records(profile: str) -> list[dict]:
    """The committed JSONs, read without the package."""
    return [json.loads(path.read_text()) for path in (ROOT / "outputs" / profile / "runs").glob("*.json")]


def expected(profile: str, table: Path) -> list[str]:
    """The numbers of the findings, from the JSONs alone."""
    found = records(profile)
    accuracy: dict[tuple[str, str], list[float]] = {}
    for spec, record in ((record["spec"], record) for record in found):
        # three epochs are those of the table of groups, which is no finding
        upright = spec["model"] in ("gcnn", "cnn") and spec["protocol"] == "upright" and spec["epochs"] > 3
        if upright and spec["epochs"] == len(record["history"]):
            cell = spec["model"], json.dumps(spec | {"seed": 0}, sort_keys=True)
            accuracy.setdefault(cell, []).append(record["metrics"]["test_rotated_accuracy"])
    best = [max(statistics.mean(accuracy[cell]) for cell in accuracy if cell[0] == model) for model in ("gcnn", "cnn")]
    shares = json.loads(table.read_text())["shares"]
    read = [max(v["rotated"] for key, v in shares.items() if key.startswith(model)) for model in ("sgvae-", "svae-")]
    pose = [r["metrics"] for r in found if r["spec"]["sizes"].get("pose")]  # all seeds
    error = statistics.mean(numbers["angle_errors"]["mean"] for numbers in pose)
    right = statistics.mean(numbers["codes"]["kmeans_hungarian"] for numbers in pose)
    numbers = [f"{share:.1%}" for share in (*best, *read)]
    return [*numbers, f"{error:.1f}°", f"{right:.0%}"]


def test_findings_are_the_numbers_of_the_results(tmp_path):
    outputs, folder = tmp_path / "outputs", tmp_path / "site"
    shutil.copytree(ROOT / "outputs" / "quick" / "runs", outputs / "runs")
    (outputs / "runs" / "damaged.json").write_text("{")
    (outputs / "tables" / "quick").mkdir(parents=True)
    table = ROOT / "outputs" / "quick" / "reconstructions.json"
    shutil.copy(table, outputs / "tables" / "quick")
    full = expected("paper", ROOT / "outputs" / "paper" / "reconstructions_full_size.json")
    index = write_index(folder, [], "quick", outputs).read_text()
    here = re.findall(r"This batch.*?</p>", index, re.DOTALL)
    assert [number for number in full if number not in re.sub(r"This batch.*?</p>", "", index, flags=re.DOTALL)] == []
    assert [number for number in expected("quick", table) if not any(number in text for text in here)] == []
    assert [load for load in Links(index).loads if not (folder / load).is_file()] == []
    assert len(Links(index).captions) == 5 == index.count('class="number"')


def test_a_finding_without_all_its_runs_is_left_out(tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(ROOT / "outputs" / "quick" / "runs", runs)
    pose, *_ = (path for path in runs.glob("sgvae-*.json") if json.loads(path.read_text())["spec"]["sizes"].get("pose"))
    record = json.loads(pose.read_text())
    assert "pose" in findings.numbers(runs, "quick", tmp_path / "none.json")
    del record["metrics"]["codes"]  # as it was measured before there were any
    pose.write_text(json.dumps(record))
    assert "pose" not in findings.numbers(runs, "quick", tmp_path / "none.json")


def test_a_smoke_number_is_no_finding(tmp_path):
    index = write_index(tmp_path, [], "smoke", tmp_path).read_text()
    assert "it has no results of its own" in index and "This batch," in index and "This batch:" not in index


@pytest.mark.parametrize("name", ["README.md", "outputs/README.md", "CONTRIBUTING.md"])
def test_links_of_the_pages_on_a_code_host_resolve(name):
    def anchors(text: str) -> set[str]:
        headings = re.findall(r"^#+ +(.+?)\s*$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
        return {
            re.sub(r"[^\w\- ]", "", re.sub(r"\]\(.*?\)", "", heading)).lower().replace(" ", "-") for heading in headings
        }

    text = (ROOT / name).read_text()
    links = re.findall(r"\]\(([^)\s]+)[^)]*\)", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    for link in links:
        url = urlsplit(link)
        if not url.scheme:
            target = (ROOT / name).parent / unquote(url.path) if url.path else ROOT / name
            assert target.exists(), link
            assert not url.fragment or url.fragment in anchors(target.read_text()), link


def test_the_workflow_publishes_what_the_readmes_command_writes():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "pages.yml").read_text())
    (job,) = workflow["jobs"].values()
    steps = job["steps"]
    (command,) = [step["run"] for step in steps if "run" in step]
    assert command in (ROOT / "README.md").read_text().splitlines()
    upload = next(step for step in steps if "upload-pages-artifact" in step.get("uses", ""))
    assert upload["with"]["path"] == "outputs/executed/quick" and command.endswith("gvae report")
    assert workflow["permissions"]["pages"] == workflow["permissions"]["id-token"] == "write"
