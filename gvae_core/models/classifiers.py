"""The two classifiers of the report's Table 1: a plain CNN and an SO(2)-steerable G-CNN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from .arguments import check_dropout, check_series, recorded
from .encoders import EncoderLayout, SteerableEncoder
from .inputs import as_input, standardise


class CNNClassifier(nn.Sequential):
    """The CNN of Table 1 (42,730 parameters): images [N, 1, 28, 28] -> logits [N, 10].

    Three convolutions without padding, 28 -> 26 -> (pool) 13 -> 11 -> 5, batch norm before the final linear layer.
    """

    @recorded
    def __init__(self, channels: Sequence[int] = (16, 32, 64), *, dropout: float = 0.1):
        check_series(3, channels=channels)
        check_dropout(dropout)
        blocks, width = [], 1
        for index, (count, stride) in enumerate(zip(channels, (1, 1, 2), strict=True)):
            blocks += [nn.Conv2d(width, count, 3, stride=stride), nn.BatchNorm2d(count), nn.ReLU()]
            blocks += [nn.AvgPool2d(2)] if index == 0 else []
            blocks += [nn.Dropout(dropout)]
            width = count
        flat = width * 5 * 5
        super().__init__(*blocks, nn.Flatten(), nn.BatchNorm1d(flat), nn.Linear(flat, 10))

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(standardise(as_input(images, self[0].weight, self.training)))


class GCNNClassifier(nn.Module):
    """The G-CNN of Table 1 (38,454 parameters): images [N, 1, 28, 28] -> logits [N, 10].

    The three steerable blocks have the table's 37,904 parameters with kernel size 4; 12 invariant
    features are what fits beside them into 38 k. The arguments are those of `SteerableEncoder`;
    ``dropout`` also stands before the last layer.
    """

    @recorded
    def __init__(
        self,
        fields: Sequence[int] = (16, 16, 32),
        frequency: int = 5,
        *,
        layout: str | EncoderLayout | Mapping = "table1",
        invariants: int = 12,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.encoder = SteerableEncoder(fields, frequency, layout=layout, invariants=invariants, dropout=dropout)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(invariants, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images))
