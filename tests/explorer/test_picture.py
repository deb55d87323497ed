"""What the explorer sends ahead to a browser, seen from the kernel's side; a real browser: test_explorer_ui.py."""

from __future__ import annotations

import asyncio

import ipywidgets as widgets
import pytest

from gvae_core import svae
from gvae_core.explorer import RotationExplorer
from gvae_core.explorer.picture import AT_A_TIME, Picture
from gvae_core.explorer.worker import PAUSE


class Line:
    """Stands for the line to a browser: keeps what was sent."""

    def __init__(self, picture: Picture, monkeypatch):
        self.picture, self.messages = picture, []
        monkeypatch.setattr(picture, "send", lambda content, buffers=None: self.messages.append((content, buffers)))

    def say(self, **content) -> None:
        self.picture._handle_custom_msg(content, [])

    def take(self) -> None:
        """The browser has the last message."""
        content, _ = self.messages[-1]
        self.say(turn=content["turn"], taken=[view["angle"] for view in content["views"]])

    def views(self) -> list[tuple[int, bytes | None]]:
        """Angle and PNG of the views of the last message."""
        content, buffers = self.messages[-1]
        return [(v["angle"], None if v["buffer"] is None else buffers[v["buffer"]]) for v in content["views"]]


@pytest.fixture
def line(monkeypatch) -> Line:
    part = widgets.HTML()
    attached = []
    picture = Picture(
        widgets.IntSlider(40, -180, 180),
        {"numbers": part},
        lambda angle: (b"%d" % angle, {"numbers": f"<b>{angle}</b>"}),
        lambda: attached.append(True),
    )
    picture.attached_calls = attached
    return Line(picture, monkeypatch)


def test_nothing_is_sent_until_a_browser_answers(line):
    line.picture.begin()
    line.picture.add(range(10))
    line.picture.show(3)
    assert line.messages == [] and not line.picture.attached
    line.say(ready=True)
    assert line.picture.attached and line.picture.attached_calls == [True]


def test_views_go_nearest_first_and_only_as_fast_as_they_are_taken(line):
    line.say(ready=True)
    line.picture.add(range(-180, 181))
    assert len(line.messages) == 1
    assert line.views() == [(a, b"%d" % a) for a in sorted(range(36, 45), key=lambda a: abs(a - 40))[:AT_A_TIME]]
    line.picture.slider.value = -100
    line.take()
    assert {angle for angle, _ in line.views()} <= set(range(-105, -95)) and len(line.messages) == 2
    while len(line.messages) < 100:
        before = len(line.messages)
        line.take()
        if len(line.messages) == before:
            break
    sent = [view["angle"] for content, _ in line.messages for view in content["views"]]
    assert sorted(sent) == list(range(-180, 181))


def test_what_the_kernel_shows_goes_at_once_and_no_picture_goes_twice(line):
    line.say(ready=True)
    line.picture.add(range(30, 50))
    line.picture.show(100)  # though the browser has not taken the message before
    assert line.views() == [(100, b"100")] and line.messages[-1][0]["now"]
    line.take()
    assert line.views() != [(100, b"100")]
    count = len(line.messages)
    line.picture.show(100)
    assert len(line.messages) == count
    line.picture.add([100])  # its HTML has changed
    while len(line.messages) == count or line.picture._waiting:
        line.take()
    assert (100, None) in line.views()


def test_what_was_lost_on_the_way_is_sent_when_the_slider_comes_there(line, monkeypatch):
    line.say(ready=True)
    line.picture.add(range(100))
    lost = [angle for angle, _ in line.views()]
    line.picture.add(range(100, 120))
    assert len(line.messages) == 1
    monkeypatch.setattr("gvae_core.explorer.picture.time.monotonic", lambda: 1e12)  # nobody waits for ever
    line.picture.show(lost[0])
    assert [view["angle"] for view in line.messages[1][0]["views"]] == [lost[0]]
    assert len(line.messages) == 3 and not set(lost) & {angle for angle, _ in line.views()}


def test_another_turn_or_another_page_begins_anew(line):
    line.say(ready=True)
    line.picture.add([1, 2, 3])
    first = line.messages[-1][0]["turn"]
    line.picture.begin()  # without waiting for what the old page may never take
    line.say(turn=first, taken=[2])
    line.picture.add([2])
    assert line.views() == [(2, b"2")] and line.messages[-1][0]["turn"] > first
    line.say(ready=True)
    line.picture.add([2])
    assert line.views() == [(2, b"2")] and len(line.picture.attached_calls) == 2


def test_an_explorer_with_a_browser_sends_the_whole_turn_and_writes_when_a_drag_is_over(digits, monkeypatch):
    model = svae(3, channels=(4, 4, 4), decoder_channels=(4, 4, 4)).eval()

    async def use():
        explorer = RotationExplorer(model, digits.images[:4])
        line = Line(explorer.image, monkeypatch)
        line.say(ready=True)
        explorer._worker.start()
        html: dict[int, dict] = {}
        for _ in range(500):
            await asyncio.sleep(0.02)
            if line.messages:
                line.take()
            html = {view["angle"]: view["html"] for content, _ in line.messages for view in content["views"]}
            if len(html) == 361 and all(parts["polar"] for parts in html.values()):
                break
        pictures = [
            view["angle"] for content, _ in line.messages for view in content["views"] if view["buffer"] is not None
        ]
        count, before = len(line.messages), explorer.image.value
        explorer.slider.value = 77
        in_the_drag = explorer.image.value
        await asyncio.sleep(2 * PAUSE)
        return html, pictures, len(line.messages) - count, before, in_the_drag, explorer

    html, pictures, more, before, in_the_drag, explorer = asyncio.run(use())
    assert sorted(html) == sorted(pictures) == list(range(-180, 181))
    assert all(f"turned by <b>{angle}°" in parts["numbers"] and parts["polar"] for angle, parts in html.items())
    assert more == 0 and in_the_drag == before  # the browser has shown it by itself
    assert explorer.image.value == explorer.turn.view(77).png and "turned by <b>77°" in explorer.numbers.value
