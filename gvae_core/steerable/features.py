"""Geometric tensors between fast layers: what the next layer can apply itself stays pending."""

from __future__ import annotations

from typing import NamedTuple

import torch
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor

from . import native


class Affine(NamedTuple):
    """A batch norm that waits to be applied: (x - mean) * scale + shift.

    mean, shift : [fields, components]; scale : [fields, 1]
    """

    mean: Tensor
    scale: Tensor
    shift: Tensor


class Features(GeometricTensor):
    """A geometric tensor of values ``keep * affine(raw)``, which ``tensor`` computes when asked.

    Layers of escnn and the reader's code see an ordinary geometric tensor, [N, C, H, W] contiguous.

    Attributes
    ----------
    raw : [N, C, H, W], or packed pixel by pixel: [N, H, W, components, padded fields]
    packed : which of the two
    affine : a pending batch norm, or None
    keep : a pending dropout's factor for each field, [N, fields, 1, H, W], or None
    """

    def __init__(
        self,
        raw: Tensor,
        field_type: FieldType,
        *,
        packed: bool = False,
        affine: Affine | None = None,
        keep: Tensor | None = None,
    ):
        self._raw, self.type, self.packed, self.affine, self.keep = (
            raw,
            field_type,
            packed,
            affine,
            keep,
        )
        self.coords = None
        self._tensor: Tensor | None = None
        traced = torch.compiler.is_compiling() or raw.is_inference()
        self._version = None if traced else raw._version

    @property
    def pending(self) -> bool:
        """Whether a batch norm or a dropout waits to be applied."""
        return self.affine is not None or self.keep is not None

    def applied(self) -> Features:
        """The same values with nothing pending."""
        return Features(self.tensor, self.type) if self.pending else self

    @property
    def raw(self) -> Tensor:
        if self.pending and self._version is not None and self._raw._version != self._version:
            raise RuntimeError("a layer's input was changed in place while the layer's output waited for its use")
        return self._raw

    @property
    def grid(self) -> tuple[int, int, int]:
        """(N, H, W), without computing the values."""
        n, *rest = self.raw.shape
        return (n, *rest[:2]) if self.packed else (n, *rest[1:])

    @property
    def planes(self) -> Tensor:
        """``raw`` as [N, C, H, W] contiguous."""
        if not self.packed:
            return self.raw
        kernels = native.takes(self.raw)
        return (native.Unpack.apply if kernels else native.unpack)(self.raw, len(self.type))

    def packed_with_keep(self) -> tuple[Tensor, Tensor | None]:
        """For the compiled convolution: packed values, and the dropout still to be applied."""
        x = self if self.affine is None else Features(self.tensor, self.type)
        raw = x.raw if x.packed else native.Pack.apply(x.raw, len(self.type))
        return raw, None if x.keep is None else x.keep.contiguous()

    def kept(self) -> Tensor:
        """Packed values with the pending dropout applied."""
        if self.keep is None:
            return self.raw
        return self.raw * native.pad_fields(self.keep.permute(0, 3, 4, 2, 1)).contiguous()

    @property
    def tensor(self) -> Tensor:
        if self._tensor is None:
            values = self.planes
            if self.pending:
                values = values.unflatten(1, (len(self.type), -1))
                if self.affine is not None:
                    mean, scale, shift = (a[..., None, None] for a in self.affine)
                    values = torch.addcmul(shift, values - mean, scale)
                if self.keep is not None:
                    values = values * self.keep
                values = values.flatten(1, 2)
            self._tensor = values
        return self._tensor

    @tensor.setter
    def tensor(self, values: Tensor) -> None:  # escnn's in-place operators assign it
        self._raw, self.packed, self.affine, self.keep, self._tensor = (
            values,
            False,
            None,
            None,
            values,
        )


def as_features(x: GeometricTensor) -> Features:
    """Any geometric tensor as `Features`, without a copy."""
    return x if isinstance(x, Features) else Features(x.tensor, x.type)
