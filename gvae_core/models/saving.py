"""Models of the package in files: `save_model`, `load_model`. Tensors and what builds the model; no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from torch import Tensor, nn

from ..checkpoints import load_tensors, save_tensors
from ..files import user_path
from .arguments import plain
from .autoencoders import sgvae, svae
from .classifiers import CNNClassifier, GCNNClassifier
from .encoders import ConvolutionalEncoder, SteerableEncoder
from .modes import evaluating

FORMAT = 1  # raised by hand when a file, or a network in it, changes its meaning (see also runs.spec.MODEL_VERSION)
BUILDERS = {
    builder.__name__: builder
    for builder in (CNNClassifier, GCNNClassifier, sgvae, svae, SteerableEncoder, ConvolutionalEncoder)
}


def save_model(model: nn.Module, path: str | Path, **more: object) -> None:
    """Write a model of this package to a ``.safetensors`` file, whole or not at all.

    The file holds the weights, the builder's name, its arguments and the versions it was written with, and ``more`` that
    JSON can say. ValueError for a model that none of the package's builders built.
    """
    name, arguments = getattr(model, "built_by", (type(model).__name__, {}))
    if name not in BUILDERS or not hasattr(model, "built_by"):
        raise ValueError(f"expected a model built by {', '.join(BUILDERS)}; got a {name}")
    with evaluating(model, training=True):  # escnn's buffers of eval mode are not needed
        tensors = model.state_dict()
    metadata = {
        "model": name,
        "arguments": json.loads(json.dumps(arguments, default=plain)),
        "format": FORMAT,
        "versions": {package: version(package) for package in ("gvae-core", "torch", "escnn")},
        **more,
    }
    save_tensors(user_path(path), tensors, metadata)


def load_model(path: str | Path) -> nn.Module:
    """The model of a file by `save_model`, in eval mode, on the CPU, in the dtype it was saved in.

    FileNotFoundError where there is none; ValueError where it is no such file, is damaged, or holds a model of another
    version of this package.
    """
    path = user_path(path)
    tensors, metadata = load_tensors(path)
    if str(metadata.get("model")) not in BUILDERS:
        found = sorted(metadata)
        raise ValueError(f"{path}: expected a model written by gvae_core.save_model, found a file with {found}")
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path}: expected a model in format {FORMAT}, found format {metadata.get('format')}"
            f" (written with {metadata.get('versions')}; this is gvae-core {version('gvae-core')})"
        )
    try:
        model = BUILDERS[metadata["model"]](**metadata["arguments"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected arguments of {metadata['model']}, found others ({error})") from error
    return with_weights(model, tensors, path)


def with_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
    """``model`` with the weights read from ``path``, in their dtype and in eval mode; ValueError if they do not fit."""
    first = next(name for name, _ in model.named_parameters())
    try:
        model.to(tensors[first].dtype).load_state_dict(tensors)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{path}: expected the weights of a {type(model).__name__}, found others ({error})") from error
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{path}: expected finite weights, found others in {name}: the file is damaged")
    return model.eval()
