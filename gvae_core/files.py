"""Where results and cached files go, and files that are whole or not there; imports nothing heavy."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # of the source checkout
COMMITTED = ROOT / "outputs" / "paper" / "runs"  # results that come with the project, wherever new ones go
PROFILES = ("smoke", "quick", "paper")  # figures, tables and executed notebooks have a folder each

_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EEXIST, errno.ENOTDIR)


def user_path(path: str | os.PathLike) -> Path:
    """A path that a person gave, absolute and with ``~`` as the home folder."""
    return Path(path).expanduser().absolute()


def in_checkout() -> bool:
    """Whether the package lies in its source checkout, beside the notebooks and the committed results."""
    return (ROOT / "pyproject.toml").is_file()


def outputs_directory() -> Path:
    """The folder of runs, figures, tables and executed notebooks.

    ``GVAE_OUTPUTS``, else ``outputs`` in the source checkout, else ``outputs`` in the working folder.
    """
    if os.environ.get("GVAE_OUTPUTS"):
        return user_path(os.environ["GVAE_OUTPUTS"]).resolve()
    return (ROOT if in_checkout() else Path.cwd()) / "outputs"


def data_directory() -> Path | None:
    """The folder of one's own copy of MNIST, named by ``GVAE_DATA``; None where it is not set, or set to nothing."""
    return user_path(os.environ["GVAE_DATA"]) if os.environ.get("GVAE_DATA") else None


def cache_folder() -> Path:
    """For downloads and compiled kernels: ``GVAE_CACHE``, else ``gvae`` in the user's cache folder."""
    import pooch

    return user_path(os.environ.get("GVAE_CACHE") or pooch.os_cache("gvae"))


def files_below(folder: Path) -> Iterator[str]:
    """Names of the files below a folder, hidden ones left out; links are followed, and no folder is read twice."""
    seen = set()  # a link may lead to a folder above it
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))  # on every disk the same comes first
        for name in files:
            if not name.startswith("."):
                yield Path(place, name).relative_to(folder).as_posix()


def stamp(file: Path) -> tuple[int, int]:
    """Size and time of change, which differ once a file has been written."""
    try:
        about = file.stat()
    except OSError:  # a link to nothing, say; whoever reads it says so
        return -1, 0
    return about.st_size, about.st_mtime_ns


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write(temporary)`` beside ``path`` and rename: a killed process leaves nothing half written.

    Raises
    ------
    OSError : the folder cannot be written, the disk is full; it names the folder
    """
    path = Path(path)
    with writing_into(path.parent) as folder:
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            temporary.chmod(0o666 & ~_umask())  # mkstemp makes files private
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing_into(folder: Path) -> Iterator[Path]:
    """The folder, made where it is not there; an error that only a person can mend, a full disk say, names it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        raise OSError(error.errno, f"expected to write into {folder}, found: {error.strerror}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
