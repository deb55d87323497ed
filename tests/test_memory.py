"""Freed memory is used again while a model is trained, and goes back to the system afterwards."""

import ctypes
import platform

import pytest
import torch

from gvae_core.memory import blocks_kept

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


def page_faults() -> int:
    """Of four tensors of 64 MiB, one after the other."""
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@needs_glibc
def test_freed_memory_is_used_again():
    ctypes.CDLL(None).malloc_trim(0)  # what other tests have freed
    before = page_faults()
    with blocks_kept():
        page_faults()  # the process grows
        inside = page_faults()
    # afterwards the first of the four finds no page left; the others may use its block again
    assert inside < before / 8 and page_faults() > before / 8


def test_nothing_happens_without_glibc(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    with blocks_kept():
        pass


@needs_glibc
def test_an_error_passes_through():
    with pytest.raises(ArithmeticError), blocks_kept():
        raise ArithmeticError
