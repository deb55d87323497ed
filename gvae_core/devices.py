"""The device by its name, and arithmetic on a GPU that repeats."""

from __future__ import annotations

import torch


def resolve_device(device: str) -> str:
    """``auto`` -> cuda where torch sees a GPU, else cpu; ValueError for a device that is not there."""
    gpus = torch.cuda.device_count()
    if device == "auto":
        return "cuda" if gpus else "cpu"
    if device not in ("cpu", "cuda", *(f"cuda:{index}" for index in range(gpus))) or (device == "cuda" and not gpus):
        raise ValueError(f"expected a device among auto, cpu, cuda, cuda:N; got {device!r}, and torch sees {gpus} GPUs")
    return device


def repeatable():
    """cuDNN without its faster algorithms whose sums come in a changing order, and without TF32.

    TF32 comes with ``torch.set_float32_matmul_precision("high")``, as it does for matrix products, or, for all processes
    of a command, with ``TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1`` in its environment.
    """
    tf32 = arithmetic() == "TF32"
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32)


def arithmetic() -> str:
    """Of matrix products and convolutions on a GPU."""
    return "float32" if torch.get_float32_matmul_precision() == "highest" else "TF32"
