"""The two classifiers of the report's Table 1: a plain CNN and a steerable G-CNN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from .arguments import check_dropout, check_series, check_whole, recorded
from .dropout import Dropout
from .encoders import EncoderLayout, SteerableEncoder
from .inputs import MNIST_FORMAT, ImageFormat, doublings, image_format


class CNNClassifier(nn.Sequential):
    """The CNN of Table 1 (42,730 parameters): images [N, 1, 28, 28] -> logits [N, 10].

    Three convolutions without padding, 28 -> 26 -> (pool) 13 -> 11 -> 5, batch norm before the final linear layer.
    ``classes`` and ``images``, their format, are for others than digits; from 64 pixels one stride more a doubling.
    """

    @recorded
    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 64),
        *,
        dropout: float = 0.1,
        classes: int = 10,
        images: ImageFormat | Mapping = MNIST_FORMAT,
    ):
        check_series(3, channels=channels)
        check_whole(classes=classes)
        check_dropout(dropout)
        images = image_format(images)
        strides = ((1, 1, 2), (2, 1, 2), (2, 2, 2))[doublings(images.size)]
        blocks, width, size = [], images.channels, images.size
        for index, (count, stride) in enumerate(zip(channels, strides, strict=True)):
            blocks += [nn.Conv2d(width, count, 3, stride=stride), nn.BatchNorm2d(count), nn.ReLU()]
            blocks += [nn.AvgPool2d(2)] if index == 0 else []
            blocks += [Dropout(dropout)]
            width, size = count, ((size - 3) // stride + 1) // (2 if index == 0 else 1)
        flat = width * size**2
        super().__init__(*blocks, nn.Flatten(), nn.BatchNorm1d(flat), nn.Linear(flat, classes))
        self.images = images

    def forward(self, images: Tensor) -> Tensor:
        images = self.images.checked(images, self[0].weight, self.training)
        return super().forward(self.images.on_grid(images, self.images.size))


class GCNNClassifier(nn.Module):
    """The G-CNN of Table 1 (38,454 parameters): images [N, 1, 28, 28] -> logits [N, 10].

    The three steerable blocks have the table's 37,904 parameters with kernel size 4; 12 invariant
    features are what fits beside them into 38 k. The arguments are those of `SteerableEncoder`;
    ``dropout`` also stands before the last layer. ``classes`` and ``images``, their format, are for others than digits.
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
        classes: int = 10,
        group: str = "SO(2)",
        images: ImageFormat | Mapping = MNIST_FORMAT,
    ):
        super().__init__()
        check_whole(classes=classes)
        sizes = dict(layout=layout, invariants=invariants, dropout=dropout, group=group, images=images)
        self.encoder = SteerableEncoder(fields, frequency, **sizes)
        self.head = nn.Sequential(Dropout(dropout), nn.Linear(invariants, classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images))
