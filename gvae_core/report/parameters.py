"""The notebooks' parameters: what makes no sense is refused in the first cell."""

from __future__ import annotations

from ..files import PROFILES
from .profiles import resolve_source


def check_parameters(profile: str, source: str, seed: int, **whole: tuple[int, int, int]) -> str:
    """Refuse senseless parameters; returns the source that ``auto`` stands for.

    Parameters
    ----------
    profile, seed : every notebook's
    source : of the digits; a notebook without digits gives mnist5k, which is always there
    whole : each further parameter as (value, least, most), all whole numbers

    Raises
    ------
    ValueError : naming the parameter, what was expected and what came
    """
    for name, value, known in (("profile", profile, PROFILES), ("source", source, ("auto", "mnist", "mnist5k"))):
        if value not in known:
            raise ValueError(f"parameter {name}: expected one of {', '.join(known)}, got {value!r}")
    for name, (value, least, most) in {"seed": (seed, 0, 2**32 - 1), **whole}.items():
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"parameter {name}: expected a whole number from {least:,} to {most:,}, got {value!r}")
    return resolve_source(source)
