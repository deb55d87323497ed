"""What builders do with their arguments: refuse senseless ones, and remember them with the model."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence


def check_whole(least: int = 1, **sizes: int | None) -> None:
    """ValueError for the first size that is not a whole number of at least ``least``."""
    for name, value in sizes.items():
        if not _is_whole(value, least):
            raise ValueError(f"expected {name} to be a whole number of at least {least}, got {value!r}")


def check_series(count: int | None = None, least: int = 1, **series: Sequence[int]) -> None:
    """The same for series of whole numbers, of a given length (none: any but 0)."""
    for name, values in series.items():
        fits = isinstance(values, Sequence) and len(values) > 0 and all(_is_whole(value, least) for value in values)
        if not fits or count not in (None, len(values)):
            many = "whole numbers" if count is None else f"{count} whole numbers"
            raise ValueError(f"expected {name} to be {many} of at least {least}, got {values!r}")


def check_number(positive: bool = False, **values: float) -> None:
    """The same for numbers: finite, and at least 0, or above it."""
    for name, value in values.items():
        number = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value < 0 or (positive and not value):
            rule = "above 0" if positive else "of at least 0"
            raise ValueError(f"expected {name} to be a number {rule}, got {value!r}")


def check_dropout(dropout: float) -> None:
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ValueError(f"expected dropout to be a probability, at least 0 and less than 1, got {dropout!r}")


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= least


def plain(value: object) -> object:
    """``default`` of `json.dumps` for arguments: layouts, mappings, series such as ranges, and numbers of numpy."""
    if dataclasses.is_dataclass(value):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Sequence) else value.item()


def recorded(build: Callable) -> Callable:
    """Decorator of a builder, a function or a class's ``__init__``: the model knows what builds its like.

    ``model.built_by`` is the builder's name and all its arguments; `saving.save_model` writes it.
    """
    signature = inspect.signature(build)

    @functools.wraps(build)
    def wrapped(*args, **kwargs):
        model = build(*args, **kwargs)
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        arguments, name = dict(call.arguments), build.__name__
        if name == "__init__":
            model = arguments.pop("self")
            name = type(model).__name__
        model.built_by = (name, copy.deepcopy(arguments))  # a list of the caller's may change later
        return None if build.__name__ == "__init__" else model

    return wrapped
