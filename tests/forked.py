"""Processes that a test kills or runs side by side: forks of one that has imported the package, but run nothing."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.process import BaseProcess

import torch

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["gvae_core.runs.many", "torch._dynamo"])  # the latter is loaded with any optimiser


def start(function, *arguments: object) -> BaseProcess:
    """Call a module's function in a process of its own, on one thread and in this moment's environment."""
    process = _CONTEXT.Process(target=_call, args=(dict(os.environ), function, *arguments))
    process.start()
    return process


def _call(environment: dict[str, str], function, *arguments: object) -> None:
    os.environ.clear()  # the first test's, in which the process that forks was started
    os.environ.update(environment)
    torch.set_num_threads(1)
    function(*arguments)


def finish(process: BaseProcess) -> None:
    """Wait for its end; an exception in it has been printed."""
    process.join()
    assert process.exitcode == 0
