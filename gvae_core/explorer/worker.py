"""Views in threads: what the slider asks for first, then all the others, the nearest first."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from .turn import Turn, View

CHECK_EVERY = 0.3  # seconds between two looks at the models' weights in a drag; one more follows the last event
PAUSE = 0.2  # seconds after which a drag is over; while it lasts, at least one picture in each
LEAD = 0.2  # seconds from a batch's start to its end, and some; measured beside two busy processes on two cores
FARTHEST = 30  # degrees ahead of the slider

Request = tuple[tuple[str, ...], Mapping[str, Tensor], int]  # names of models, digits, angle


@functools.cache
def _threads() -> int:
    """One more than cores: on a busy machine the cores are shared by thread."""
    return torch.get_num_threads() + 1


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """The threads that fill, and one that prepares; all explorers share them.

    Each has one torch thread of its own: threads that share one operation wait for each other at its end,
    which takes several times as long where other processes take their cores away.
    """
    cores, count = torch.get_num_threads(), _threads() + 1
    pool = ThreadPoolExecutor(count, "explorer", initializer=lambda: torch.set_num_threads(1))
    started = threading.Barrier(count + 1)
    for _ in range(count):
        pool.submit(started.wait)
    started.wait()
    torch.set_num_threads(cores)  # a thread's setting is also that of threads yet to come: not theirs
    return pool


class Worker:
    """Shows the view of the newest request; views that were overtaken meanwhile are skipped.

    A kernel delivers queued messages one by one. Were each answered with its own picture, a fast drag
    would build a backlog; here an event shows what is there, or makes its angle the next to be computed.
    In an event loop (a notebook) threads compute, and all else happens in the loop: a view that is there
    is shown at once, and the models' weights are compared right behind it. Without a loop (a plain
    script) they are compared first, and all of it happens before `submit` returns.

    Parameters
    ----------
    prepare : request -> the `Turn` that shows it: the one before while models, their weights and the
        digits are the same; slow, and touches no widget
    show : called with a turn and one of its views
    send : called with a turn and angles whose views are there now
    complete : called with a turn once all that its plots need is there
    fail : called with the exception of any of these
    """

    def __init__(
        self,
        prepare: Callable[[Request], Turn],
        show: Callable[[Turn, View], None],
        send: Callable[[Turn, list[int]], None],
        complete: Callable[[Turn], None],
        fail: Callable[[Exception], None],
    ):
        self._prepare, self._show, self._send, self._complete, self._fail = prepare, show, send, complete, fail
        self.turn: Turn | None = None
        self._request: Request | None = None
        self._speed, self._moved = 0.0, 0.0  # of the drag in degrees a second, and when it last moved
        self._shown = 0.0  # when a view was shown last
        self._attended = 0.0  # the same, or when the slider's own angle was last given to a thread
        self._waiting = False  # the newest request has no answer yet
        self._completed: Turn | None = None
        self._looking: asyncio.Task | None = None
        self._look_now: asyncio.Event | None = None
        self._filling: set[asyncio.Task] = set()

    def submit(self, request: Request) -> None:
        """Ask for a view; an older request that still waits is dropped."""
        if self._request is not None:
            self._measure_speed(request[2] - self._request[2])
        self._request, self._waiting = request, True
        if not in_loop():
            try:
                self.answer(request)
            except Exception as error:  # a widget's callback would swallow it
                self._fail(error)
            return
        if self.turn and not self.turn.is_of(*request[:2]):
            self._use(None)
        self._show_seen()
        self.start()

    def answer(self, request: Request) -> None:
        """Prepare, compute and show here and now."""
        self._request, self._waiting = request, False
        self._use(self._prepare(request))
        self._show(self.turn, self.turn.view(request[2]))

    def start(self) -> None:
        """In a loop: compare the weights, compute what waits, and fill the turn. Elsewhere nothing happens."""
        if not in_loop():
            return
        if self._looking is None or self._looking.done():
            self._look_now = asyncio.Event()
            self._looking = asyncio.create_task(self._look())
        self._fill()

    # --- in the loop --------------------------------------------------------------------------------

    def _use(self, turn: Turn | None) -> None:
        """Go on with this turn; the threads stop working on another one."""
        if self.turn is not None and turn is not self.turn:
            self.turn.stop()
        if turn is None and self._look_now:
            self._look_now.set()
        self.turn = turn

    def _measure_speed(self, change: int) -> None:
        now = time.monotonic()
        still = not change or now - self._moved > PAUSE
        self._speed = 0.0 if still else (self._speed + change / max(now - self._moved, 0.01)) / 2
        self._moved = now

    def _next_batch(self, turn: Turn) -> list[int]:
        """In a drag what the slider will reach meanwhile, now and then where it is; otherwise what is near it."""
        now = time.monotonic()
        ahead = round(max(-FARTHEST, min(FARTHEST, self._speed * LEAD))) if now - self._moved < PAUSE / 2 else 0
        if now - self._attended > PAUSE:
            ahead, self._attended = 0, now
        return turn.next_batch(self._request[2], ahead, one=self._waiting)

    def _show_seen(self, overtaken: int | None = None) -> None:
        """Show the view that is asked for if it is there; else, now and then, one that was asked for before."""
        if not (self.turn and self._waiting):
            return
        now, view = time.monotonic(), self.turn.seen(self._request[2])
        self._waiting = view is None
        if view is None and overtaken is not None and now - self._shown > PAUSE:
            view = self.turn.seen(overtaken)
        if view:
            self._attended = self._shown = now
            self._show(self.turn, view)

    def _stop(self, error: Exception) -> None:
        """Nothing goes on by itself after an error; the next request tries anew."""
        self._waiting = False
        self._use(None)
        self._fail(error)

    async def _look(self) -> None:
        """Keep the turn that of the newest request and of the weights as they are now."""
        seen = None
        while seen is not self._request:
            seen = self._request
            self._look_now.clear()
            try:
                turn = await asyncio.get_running_loop().run_in_executor(_pool(), self._prepare, seen)
                if turn is not self.turn and turn.is_of(*self._request[:2]):
                    self._use(turn)
                    self._waiting = True
                    self._fill()
            except Exception as error:  # nobody awaits this task
                self._stop(error)
            if self.turn:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._look_now.wait(), CHECK_EVERY)

    def _fill(self) -> None:
        self._filling = {task for task in self._filling if not task.done()}
        while self.turn and len(self._filling) < _threads():
            self._filling.add(asyncio.create_task(self._fill_on()))

    async def _fill_on(self) -> None:
        """One thread's work: batch after batch of whatever turn is shown, until all is there."""
        loop = asyncio.get_running_loop()
        try:
            while (turn := self.turn) and (batch := self._next_batch(turn)):
                asked = self._request[2] if self._request[2] in batch else None
                await loop.run_in_executor(_pool(), turn.compute, batch)
                if turn is self.turn:
                    self._show_seen(asked)
                    self._send(turn, batch)
                    if turn is not self._completed and turn.complete:
                        self._completed = turn
                        self._complete(turn)
        except Exception as error:  # nobody awaits this task
            self._stop(error)


def in_loop() -> bool:
    """Whether an event loop runs here, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
