"""The newest value wins: slow work in a thread that never falls behind a burst of events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_NOTHING = object()
_THREAD = ThreadPoolExecutor(1, "explorer")  # one for all explorers: they share the processor anyway


class Worker:
    """Calls ``show(work(value))`` for the newest submitted value; those overtaken meanwhile are skipped.

    A kernel delivers queued messages one by one. Were each answered with its own picture, a fast drag
    would build a backlog; here an event only stores its value. In an event loop (a notebook) ``work``
    runs in a thread and everything else in the loop; without one (a plain script) all of it happens
    before `submit` returns.

    Parameters
    ----------
    work : value -> result; slow, and touches no widget
    show : called with each result
    fail : called with the exception of ``work`` or ``show``
    rest : work for when nothing is waiting, a small part per call; returns whether there is more
    rested : called when there is no more
    """

    def __init__(
        self,
        work: Callable[[object], object],
        show: Callable[[object], None],
        fail: Callable[[Exception], None],
        rest: Callable[[], bool],
        rested: Callable[[], None],
    ):
        self._work, self._show, self._fail, self._rest, self._rested = work, show, fail, rest, rested
        self._newest: object = _NOTHING
        self._task: asyncio.Task | None = None

    def submit(self, value: object) -> None:
        """Ask for ``value``; a value that waits unanswered is dropped."""
        self._newest = value
        if not self.start():
            self._newest = _NOTHING
            try:
                self._show(self._work(value))
            except Exception as error:  # a widget's callback would swallow it
                self._fail(error)

    def start(self) -> bool:
        """Let the loop work on what waits, then on ``rest``; False where there is no loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._answer(loop))
        return True

    async def _answer(self, loop: asyncio.AbstractEventLoop) -> None:
        more = True
        while more or self._newest is not _NOTHING:
            try:
                if self._newest is not _NOTHING:
                    value, self._newest = self._newest, _NOTHING
                    self._show(await loop.run_in_executor(_THREAD, self._work, value))
                    more = True
                else:
                    more = await loop.run_in_executor(_THREAD, self._rest)
                    if not more:
                        self._rested()
            except Exception as error:  # nobody awaits this task
                more = False
                self._fail(error)
