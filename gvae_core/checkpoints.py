"""Tensors with JSON metadata in safetensors files that are whole or not there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .files import write_atomically


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping) -> None:
    """Write tensors and JSON-able metadata to a ``.safetensors`` file, atomically; ValueError for a path not in UTF-8."""
    _check_name(path)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"gvae": json.dumps(metadata)}
    # not save_file, whose own temporary file beside this one would stay after a kill, under a name that nobody knows
    write_atomically(path, lambda temporary: temporary.write_bytes(save(tensors, metadata=header)))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Read what `save_tensors` wrote: (tensors, metadata).

    Raises
    ------
    FileNotFoundError : there is no such file
    ValueError : the file is not a safetensors file, or not one of ours
    """
    with _opened(path) as (file, metadata):
        return {name: file.get_tensor(name) for name in file.keys()}, metadata


def load_metadata(path: Path) -> dict:
    """The metadata alone, whatever the size of the file; raises what `load_tensors` does."""
    with _opened(path) as (_, metadata):
        return metadata


def _check_name(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:  # safetensors could write the file, but not open it
        raise ValueError(f"expected a path in UTF-8, got {str(path)!r}") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[safe_open, dict]]:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    _check_name(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if "gvae" not in metadata:
                raise ValueError(f"{path}: expected a checkpoint with 'gvae' metadata, found {sorted(metadata)}")
            try:
                ours = json.loads(metadata["gvae"])
            except ValueError as error:
                raise ValueError(f"{path}: expected metadata in JSON, found something else ({error})") from error
            if not isinstance(ours, dict):
                raise ValueError(f"{path}: expected metadata by name, found {ours!r}")
            yield file, ours
    except RuntimeError as error:  # how a file ends that was deleted after the look at it, by a run that finished
        if path.is_file():
            raise
        raise FileNotFoundError(f"no checkpoint at {path}") from error
    except SafetensorError as error:
        raise ValueError(f"{path}: expected a safetensors file, found something else ({error})") from error
