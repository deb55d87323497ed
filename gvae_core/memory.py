"""Large blocks stay with the process while it trains, where the C library is glibc; elsewhere nothing happens."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

# parameters of glibc's mallopt, see mallopt(3)
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4
KEEP = {MMAP_MAX: 0, TRIM_THRESHOLD: -1, TOP_PAD: 64 << 20}
# glibc's defaults; the thresholds are where its own adjustment ends in a process that frees large blocks
USUAL = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20, TOP_PAD: 128 << 10}


@contextlib.contextmanager
def blocks_kept() -> Iterator[None]:
    """Inside, freed memory is used again instead of being returned to the system and faulted in page by page.

    A training step allocates and frees the same large tensors over and over, and glibc maps the largest of them anew
    each time; at the papers' sizes page faults take a tenth of a step or more. The price: while this lasts the process
    keeps the largest size it had, and gaps between blocks may add to it. Afterwards what is free goes back.
    """
    try:
        library = ctypes.CDLL(None)
        change, trim, _ = library.mallopt, library.malloc_trim, library.gnu_get_libc_version
    except (OSError, TypeError, AttributeError):  # macOS, Windows, musl
        yield
        return
    for parameter, value in KEEP.items():
        change(parameter, value)
    try:
        yield
    finally:
        for parameter, value in USUAL.items():
            change(parameter, value)
        trim(0)
