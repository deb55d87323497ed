"""Eval mode for the length of a measurement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module, *, training: bool = False) -> Iterator[None]:
    """``model`` in eval mode (or all of it in train mode), and afterwards every module in the mode it was in."""
    before = [(module, module.training) for module in model.modules()]
    if any(mode != training for _, mode in before):  # a change of mode costs escnn's layers milliseconds
        model.train(training)
    try:
        yield
    finally:
        for module, mode in before:  # parents come first, so a child's own mode stays
            if module.training != mode:
                module.train(mode)
