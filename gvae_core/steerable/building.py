"""The kernels in the folder `kernels`, built at first use and cached.

Without a compiler, or if the build fails, `load` says so once and returns None; the layers then
take the torch path. The library is kept in the user's cache directory under a digest of the sources,
the compiler and its flags (which contain the processor's instruction set), and put there atomically
(``GVAE_CACHE`` names another directory).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import filelock

from ..files import cache_folder

SOURCES = sorted(Path(__file__).with_name("kernels").glob("*.[ch]*"))
FLAGS = ("-O3", "-std=gnu++17", "-shared", "-fPIC", "-pthread", "-Wno-psabi")


def build(directory: Path, extra_flags: tuple[str, ...] | None = None) -> Path:
    """Compile the kernels into ``directory`` unless they are there.

    ``extra_flags`` choose the instruction set; None takes this machine's. Raises OSError or
    RuntimeError where the compiler is missing or fails.
    """
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "c++", "clang++")), None)
    if compiler is None:
        raise RuntimeError("no C++ compiler found (g++, c++ or clang++, or the variable CXX)")
    if extra_flags is None:
        extra_flags = next(
            (flags for flags in (("-march=native",), ("-mcpu=native",)) if _macros(compiler, flags)),
            (),
        )
    flags = (*FLAGS, *extra_flags)
    parts = (
        *(source.read_bytes() for source in SOURCES),
        " ".join((compiler, *flags)).encode(),
        _macros(compiler, extra_flags),
    )
    library = directory / f"steerable-{hashlib.sha256(b'|'.join(parts)).hexdigest()[:20]}.so"
    if library.exists():
        return library
    directory.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{library}.lock", timeout=300):
        if not library.exists():
            with tempfile.TemporaryDirectory(dir=directory) as scratch:
                built = Path(scratch) / "kernels.so"
                units = [str(source) for source in SOURCES if source.suffix == ".cpp"]
                command = [compiler, *flags, *units, "-o", str(built)]
                result = subprocess.run(command, capture_output=True, text=True, timeout=300)
                if result.returncode:
                    raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr.strip()[-2000:]}")
                os.replace(built, library)
    return library


def _macros(compiler: str, flags: tuple[str, ...]) -> bytes:
    """What the compiler predefines with these flags (version, processor); empty if refused."""
    command = [compiler, *flags, "-E", "-dM", "-x", "c++", os.devnull]
    return subprocess.run(command, capture_output=True, timeout=60).stdout


@functools.lru_cache(maxsize=1)
def load() -> ctypes.CDLL | None:
    """The compiled kernels, or None, with a warning that says why and is given once."""
    try:
        cache = cache_folder()
        return ctypes.CDLL(str(build(cache / "steerable")))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        warnings.warn(
            f"the compiled steerable kernels are not available, the torch path is used instead: {error}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
