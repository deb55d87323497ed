"""Encoders: images [N, 1, 28, 28] -> features; the steerable one does not see how its input is turned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import escnn.nn as enn
import torch
import torch.nn.functional as F
from escnn.gspaces import rot2dOnR2
from torch import Tensor, nn

from ..rotation import rotate
from ..steerable import accelerate

MNIST_MEAN, MNIST_STD = 0.1307, 0.3081
IMAGE_SIZE = 28
CANVAS_SIZE = 32


def fit_to_grid(images: Tensor, size: int) -> Tensor:
    """Zero-pad images [N, C, H, H] to [N, C, size, size] without moving their centre.

    Where ``size - H`` is odd no integer padding keeps the centre, so the images first go to the grid
    of size H + 1 through means over 2 x 2 pixels (a shift by half a pixel in both directions, which
    commutes exactly with quarter turns).
    """
    height = images.shape[-1]
    if size < height:
        raise ValueError(f"expected a grid of at least {height} pixels, the images' size; got {size}")
    if (size - height) % 2:
        images = F.avg_pool2d(images, 2, stride=1, padding=1)
        height += 1
    return F.pad(images, [(size - height) // 2] * 4)


def standardise(images: Tensor) -> Tensor:
    """(x - 0.1307) / 0.3081, the mean and standard deviation of MNIST's training pixels."""
    return (images - MNIST_MEAN) / MNIST_STD


def check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1:] != (1, IMAGE_SIZE, IMAGE_SIZE):
        raise ValueError(f"expected images [N, 1, {IMAGE_SIZE}, {IMAGE_SIZE}], got {list(images.shape)}")


def _disc(field_type: enn.FieldType, size: int) -> enn.MaskModule:
    """1 up to 1.5 pixels from the border of [size, size] feature maps, where e^-4 is left."""
    if size < 2:
        raise ValueError(f"expected feature maps of at least 2 x 2 for a disc around them, got {size} x {size}")
    border = (size - 1) / 2
    radius = max(border - 1.5, 0.0)
    return enn.MaskModule(
        field_type, size, margin=100 * (1 - radius / border), sigma=((border**2 - radius**2) / 4) ** 0.5
    )


class SteerableEncoder(nn.Module):
    """SO(2)-steerable G-CNN whose output ignores rotations of its input.

    A block is a steerable convolution, a batch norm that is the same for all components of an irrep,
    a dropout of whole fields and an ELU in the Fourier domain. Every field carries the band-limited
    regular representation of SO(2), the irreps 0..frequency (2 * frequency + 1 channels). At the end
    a 1 x 1 convolution keeps the trivial irreps only; after batch norm and ELU their mean over *all*
    positions is taken: a flattened map of invariants would not be invariant, because positions turn.

    SO(2) acts on the plane, not on pixels. Quarter turns are exact when (size + 2 * padding -
    kernel_size) is divisible by the stride in every layer. Other angles are approximate, for two reasons.
    Zero padding shows the network a square frame that does not turn, and training learns to use it; a disc
    around the features hides it. And what strides and small kernels alias turns with the pixels, not with the
    image; a large first kernel and a blur before subsampling (R. Zhang, *Making convolutional networks
    shift-invariant again*, ICML 2019) keep that small.

    What remains repeats every quarter turn, so its slowest part is one wave per 90 degrees. With ``frames = K`` the
    encoder sees K copies of its input, 90 / K degrees apart, and averages their invariants, which cancels every wave
    but each K-th (averaging over a subgroup, as in O. Puny et al., *Frame averaging for invariant and equivariant
    network design*, ICLR 2022). The weights are shared; time and memory grow K-fold.

    Parameters
    ----------
    fields : channels of each block, counted in fields
    frequency : highest irrep of a field
    kernel_size, padding, strides : of the convolutions; one stride per block, the others one for all or one per block
    blur_strides : stride of a Gaussian blur of 1 pixel behind each block's ELU, 1 for no blur; none by default
    grid_size : the input is padded to grid_size x grid_size
    invariants : size of the output
    dropout : probability to drop a field
    mask : multiply the input by a smooth disc, so that the corners, which turn out of the image, never count
    mask_features : multiply every block's output by such a disc
    pool : window of an average pooling of stride 1 after the last block; 1 for none
    frames : number of turned copies of the input whose invariants are averaged

    Shapes
    ------
    forward : images [N, 1, 28, 28] -> [N, invariants]
    """

    def __init__(
        self,
        fields: Sequence[int],
        frequency: int,
        *,
        kernel_size: int | Sequence[int] = 4,
        padding: int | Sequence[int] = 0,
        strides: Sequence[int],
        blur_strides: Sequence[int] | None = None,
        grid_size: int,
        invariants: int,
        dropout: float = 0.1,
        mask: bool = False,
        mask_features: bool = False,
        pool: int = 1,
        frames: int = 1,
    ):
        super().__init__()
        per_block = [
            [value] * len(fields) if isinstance(value, int) else value
            for value in (fields, kernel_size, padding, strides, 1 if blur_strides is None else blur_strides)
        ]
        if {len(values) for values in per_block} != {len(fields)}:
            raise ValueError(
                f"expected as many strides, kernel sizes, paddings and blurs as blocks, {len(fields)}; got "
                f"{strides=}, {kernel_size=}, {padding=}, {blur_strides=}"
            )
        if frequency < 1:
            raise ValueError(f"expected a frequency of at least 1, got {frequency}")
        if frames < 1:
            raise ValueError(f"expected at least one frame, got {frames}")
        self.grid_size = grid_size
        # symmetric about 0, so that with two frames both are interpolated alike
        self.frame_angles = [90 / frames * (k - (frames - 1) / 2) for k in range(frames)]
        gspace = rot2dOnR2(maximum_frequency=frequency)
        irreps = gspace.fibergroup.bl_irreps(frequency)
        field_type = enn.FieldType(gspace, [gspace.trivial_repr])
        blocks = [enn.SequentialModule(enn.MaskModule(field_type, grid_size, margin=1))] if mask else []
        positions = grid_size
        for count, size, padding, stride, blur_stride in zip(*per_block):
            # 4 samples per frequency: the ELU widens the spectrum, and coarser sampling would alias it.
            elu = enn.FourierELU(gspace, count, irreps=irreps, N=4 * frequency, inplace=True)
            positions = (positions + 2 * padding - size) // stride + 1
            after = []
            if blur_stride > 1:
                after.append(enn.PointwiseAvgPoolAntialiased2D(elu.out_type, sigma=1.0, stride=blur_stride))
                positions = (positions - 1) // blur_stride + 1
            if mask_features:
                after.append(_disc(elu.out_type, positions))
            blocks.append(
                enn.SequentialModule(
                    enn.R2Conv(field_type, elu.in_type, size, stride=stride, padding=padding),
                    enn.IIDBatchNorm2d(elu.in_type),
                    elu,
                    *after,
                    enn.FieldDropout(elu.out_type, dropout),
                )
            )
            field_type = elu.out_type
        if pool > 1:
            blocks.append(enn.SequentialModule(enn.PointwiseAvgPool2D(field_type, pool, stride=1)))
        invariant_type = enn.FieldType(gspace, invariants * [gspace.trivial_repr])
        blocks.append(enn.SequentialModule(enn.R2Conv(field_type, invariant_type, 1)))
        # a fresh escnn layer has the buffers of eval mode; train() drops them, and state dicts fit
        self.blocks = accelerate(nn.ModuleList(blocks)).train()
        self.activation = nn.Sequential(nn.BatchNorm2d(invariants), nn.ELU())

    def input_field(self, images: Tensor, degrees: float = 0.0) -> enn.GeometricTensor:
        """Images [N, 1, 28, 28], turned by ``degrees``, as the first block's input, a scalar field on the grid."""
        check_images(images)
        on_grid = fit_to_grid(images, self.grid_size)
        return self.blocks[0].in_type(standardise(rotate(on_grid, degrees) if degrees else on_grid))

    def filters(self, block: int) -> Tensor:
        """The convolution kernels [C_out, C_in, k, k] that a block's weights expand to."""
        convolution = next(m for m in self.blocks[block].modules() if isinstance(m, enn.R2Conv))
        with torch.no_grad():
            return convolution.expand_parameters()[0]

    def feature_fields(self, images: Tensor) -> Iterator[enn.GeometricTensor]:
        """Yield the input and the output of every block as geometric tensors [N, C, H, W]; one frame, not turned."""
        field = self.input_field(images)
        yield field
        for block in self.blocks:
            field = block(field)
            yield field

    def forward(self, images: Tensor) -> Tensor:
        turned = [self.input_field(images, degrees) for degrees in self.frame_angles]
        field = enn.GeometricTensor(torch.cat([frame.tensor for frame in turned]), turned[0].type)
        for block in self.blocks:
            field = block(field)
        invariants = self.activation(field.tensor).mean((2, 3))
        return invariants.unflatten(0, (len(turned), len(images))).mean(0)


class ConvolutionalEncoder(nn.Sequential):
    """The S-VAE's encoder: plain convolutions; images [N, 1, 28, 28] -> features [N, C * 5 * 5]."""

    def __init__(self, channels: Sequence[int], *, dropout: float = 0.2):
        blocks, width = [], 1
        for count, stride in zip(channels, (2, 1, 2), strict=True):
            blocks += [
                nn.Conv2d(width, count, 4, stride=stride),
                nn.ReLU(),
                nn.BatchNorm2d(count),
                nn.Dropout(dropout),
            ]
            width = count
        super().__init__(*blocks, nn.Flatten())
        self.out_features = width * 5 * 5  # 32 -> 15 -> 12 -> 5

    def forward(self, images: Tensor) -> Tensor:
        check_images(images)
        return super().forward(standardise(fit_to_grid(images, CANVAS_SIZE)))


# The grids of the S-GVAE's encoder: `paper` is the papers' kernel 4 on 32 x 32; `aligned` has odd kernels on
# an odd grid and padding that keeps every layer centred, 33 -> 17 -> 17 -> 9: quarter turns are exact;
# `isotropic`, 33 -> 17 -> 17 -> 9 -> 9, is close at the angles between as well.
GRIDS = {
    "paper": dict(grid_size=32, kernel_size=4, strides=(2, 1, 2), pool=2),
    "aligned": dict(grid_size=33, kernel_size=5, padding=2, strides=(2, 1, 2), pool=3),
    "isotropic": dict(
        grid_size=33,
        kernel_size=(9, 5, 5),
        padding=(4, 2, 2),
        strides=(2, 1, 1),
        blur_strides=(1, 2, 1),
        mask_features=True,
    ),
}


def parameter_count(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
