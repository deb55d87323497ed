"""The two classifiers of the report's Table 1: a plain CNN and an SO(2)-steerable G-CNN."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .encoders import SteerableEncoder, check_images, standardise


class CNNClassifier(nn.Sequential):
    """The CNN of Table 1 (42,730 parameters): images [N, 1, 28, 28] -> logits [N, 10].

    Three convolutions without padding, 28 -> 26 -> (pool) 13 -> 11 -> 5, batch norm before the final
    linear layer.
    """

    def __init__(self, channels: Sequence[int] = (16, 32, 64), *, dropout: float = 0.1):
        blocks, width = [], 1
        for index, (count, stride) in enumerate(zip(channels, (1, 1, 2), strict=True)):
            blocks += [nn.Conv2d(width, count, 3, stride=stride), nn.BatchNorm2d(count), nn.ReLU()]
            blocks += [nn.AvgPool2d(2)] if index == 0 else []
            blocks += [nn.Dropout(dropout)]
            width = count
        flat = width * 5 * 5
        super().__init__(*blocks, nn.Flatten(), nn.BatchNorm1d(flat), nn.Linear(flat, 10))

    def forward(self, images: Tensor) -> Tensor:
        check_images(images)
        return super().forward(standardise(images))


class GCNNClassifier(nn.Module):
    """The G-CNN of Table 1 (38,454 parameters): images [N, 1, 28, 28] -> logits [N, 10].

    The three steerable blocks have the table's 37,904 parameters with kernel size 4; 12 invariant
    features are what fits beside them into 38 k. The other arguments are those of `SteerableEncoder`,
    ``mask`` for the input and the features alike.
    """

    def __init__(
        self,
        fields: Sequence[int] = (16, 16, 32),
        frequency: int = 5,
        *,
        kernel_size: int | Sequence[int] = 4,
        padding: int | Sequence[int] = 0,
        strides: Sequence[int] = (1, 1, 2),
        blur_strides: Sequence[int] | None = None,
        grid_size: int = 28,
        mask: bool = False,
        invariants: int = 12,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.encoder = SteerableEncoder(
            fields,
            frequency,
            kernel_size=kernel_size,
            padding=padding,
            strides=strides,
            blur_strides=blur_strides,
            grid_size=grid_size,
            mask=mask,
            mask_features=mask,
            invariants=invariants,
            dropout=dropout,
        )
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(invariants, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images))
