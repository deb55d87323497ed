"""Encoders: images [N, C, H, H] -> features. The steerable one, which does not see how its input is turned, has layouts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import escnn.nn as enn
import torch
from escnn.gspaces import GSpace2D, flipRot2dOnR2, rot2dOnR2
from torch import Tensor, nn

from ..steerable import accelerate
from .arguments import check_dropout, check_series, check_whole, recorded
from .dropout import Dropout
from .inputs import MNIST_FORMAT, SMALLEST, ImageFormat, doublings, image_format


@dataclass(frozen=True)
class EncoderLayout:
    """How a `SteerableEncoder` samples the plane; its widths and frequency are arguments of the encoder.

    Parameters
    ----------
    grid_size : the images are padded to grid_size x grid_size
    strides : of the convolutions, one per block
    kernel_size, padding : of the convolutions, one for all or one per block
    blur_strides : stride of a Gaussian blur of 1 pixel behind a block's ELU, 1 for none; one for all or one per block
    pool : window of an average pooling of stride 1 after the last block, 1 for none
    mask_input : multiply the input by a smooth disc, so that the corners, which turn out of the image, never count
    mask_features : multiply every block's output by such a disc, which hides the square frame of the zero padding

    ValueError where a size makes no sense, or there are not as many as blocks.
    """

    grid_size: int
    strides: Sequence[int]
    kernel_size: int | Sequence[int] = 4
    padding: int | Sequence[int] = 0
    blur_strides: int | Sequence[int] = 1
    pool: int = 1
    mask_input: bool = False
    mask_features: bool = False

    def __post_init__(self):
        check_whole(SMALLEST, grid_size=self.grid_size)
        check_whole(pool=self.pool)
        check_series(strides=self.strides)
        for name, least in (("strides", 1), ("kernel_size", 1), ("padding", 0), ("blur_strides", 1)):
            value = getattr(self, name)
            if isinstance(value, int):
                check_whole(least, **{name: value})
            else:
                check_series(len(self.strides), least, **{name: value})
                object.__setattr__(self, name, tuple(value))  # JSON has lists

    def blocks(self) -> Iterator[tuple[int, int, int, int]]:
        """Kernel size, padding, stride and blur stride of each block."""
        count = len(self.strides)
        sizes = (self.kernel_size, self.padding, self.strides, self.blur_strides)
        return zip(*((size,) * count if isinstance(size, int) else size for size in sizes), strict=True)

    def fitted(self, image_size: int) -> EncoderLayout:
        """This layout for images of a size that its grid has no room for; itself where it has.

        Every doubling of 32 pixels gives the first block without a blurred stride one of 2, so that later blocks see
        maps of the same size: "isotropic" is 65 -> 33 -> 17 -> 9 -> 9 for 64 pixels. The grid is the smallest with
        room on which quarter turns stay exact. ValueError where the layout has none up to twice the images' size.
        """
        if image_size <= self.grid_size:
            return self
        blurs, more = [], doublings(image_size)
        for *_, blur in self.blocks():
            blurs.append(2 if blur == 1 and more else blur)
            more -= blurs[-1] != blur
        for grid_size in range(image_size, 2 * image_size):
            layout = dataclasses.replace(self, grid_size=grid_size, blur_strides=blurs)
            if layout._turns_exactly():
                return layout
        raise ValueError(f"expected a layout that can be scaled to {image_size} pixels, got {self}")

    def _turns_exactly(self) -> bool:
        size = self.grid_size
        for kernel, padding, stride, blur in self.blocks():
            steps, left = divmod(size + 2 * padding - kernel, stride)
            if left or steps % blur:
                return False
            size = steps // blur + 1
        return size >= self.pool


LAYOUTS = {
    # the tiny paper's S-GVAE: kernel 4 on 32 x 32
    "paper": EncoderLayout(32, (2, 1, 2), pool=2, mask_input=True),
    # odd kernels on an odd grid, padding that keeps every layer centred, 33 -> 17 -> 17 -> 9: quarter turns are exact
    "aligned": EncoderLayout(33, (2, 1, 2), kernel_size=5, padding=2, pool=3, mask_input=True),
    # 33 -> 17 -> 17 -> 9 -> 9, close between quarter turns, too: a wide first kernel, discs, a blur before subsampling
    # (strides, kernel sizes, paddings, blur strides)
    "isotropic": EncoderLayout(33, (2, 1, 1), (9, 5, 5), (4, 2, 2), (1, 2, 1), mask_input=True, mask_features=True),
    # the report's G-CNN, Table 1: kernel 4 on 28 x 28
    "table1": EncoderLayout(28, (1, 1, 2)),
    # the same with a wide first kernel, which learns much better
    "table1_wide": EncoderLayout(28, (1, 1, 2), kernel_size=(9, 4, 4)),
    # the same with odd kernels on an odd grid
    "table1_odd": EncoderLayout(29, (1, 1, 2), kernel_size=5),
}


def encoder_layout(layout: str | EncoderLayout | Mapping) -> EncoderLayout:
    """A layout, an entry of `LAYOUTS` by its name, or one from its fields as a JSON file has them."""
    if isinstance(layout, EncoderLayout):
        return layout
    if isinstance(layout, Mapping):
        return EncoderLayout(**layout)
    if layout not in LAYOUTS:
        raise ValueError(f"expected an EncoderLayout or the name of one, {', '.join(LAYOUTS)}; got {layout!r}")
    return LAYOUTS[layout]


GROUPS = ("SO(2)", "O(2)", "C4", "C8")


def _plane(group: str, frequency: int) -> GSpace2D:
    """The plane, with a group of `GROUPS` that turns it; O(2) also mirrors it, at the horizontal axis."""
    if group not in GROUPS:
        raise ValueError(f"expected group to be one of {', '.join(GROUPS)}; got {group!r}")
    if group == "O(2)":
        return flipRot2dOnR2(maximum_frequency=frequency, axis=0.0)
    return rot2dOnR2(maximum_frequency=frequency) if group == "SO(2)" else rot2dOnR2(int(group[1:]))


def _elu(gspace: GSpace2D, fields: int, frequency: int) -> enn.EquivariantModule:
    """ELU of fields of the regular representation: value by value where it is finite, else in the Fourier domain."""
    if not gspace.fibergroup.continuous:
        return enn.ELU(enn.FieldType(gspace, fields * [gspace.regular_repr]), inplace=True)
    irreps = gspace.fibergroup.bl_irreps(frequency)
    # 4 samples per frequency: the ELU widens the spectrum, and coarser sampling would alias it.
    return enn.FourierELU(gspace, fields, irreps=irreps, N=4 * frequency, inplace=True)


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
    """Steerable G-CNN whose output ignores rotations of its input, with the fibre group O(2) mirror images as well.

    A block is a steerable convolution, a batch norm that is the same for all components of an irrep,
    a dropout of whole fields and an ELU in the Fourier domain. Every field carries the band-limited
    regular representation of SO(2), the irreps 0..frequency (2 * frequency + 1 channels). That of O(2), the turns and
    the reflections, has twice as many, and the cyclic group C4 or C8 the regular one of 4 or 8 channels, whose ELU is
    taken value by value (T. Cohen, M. Welling, *Group equivariant convolutional networks*, ICML 2016; M. Weiler,
    G. Cesa, *General E(2)-equivariant steerable CNNs*, NeurIPS 2019). At the end
    a 1 x 1 convolution keeps the trivial irreps only; after batch norm and ELU their mean over *all*
    positions is taken: a flattened map of invariants would not be invariant, because positions turn.

    SO(2) acts on the plane, not on pixels. Quarter turns are exact when (size + 2 * padding - kernel_size) is divisible
    by the stride in every layer. Other angles are approximate, for two reasons. Zero padding shows the network a square
    frame that does not turn, and training learns to use it; a disc around the features hides it. And what strides and
    small kernels alias turns with the pixels, not with the image; a large first kernel and a blur before subsampling
    (R. Zhang, *Making convolutional networks shift-invariant again*, ICML 2019) keep that small.

    What remains repeats every quarter turn, so its slowest part is one wave per 90 degrees. With ``frames = K`` the
    encoder sees K copies of its input, 90 / K degrees apart, and averages their invariants, which cancels every wave
    but each K-th (averaging over a subgroup, as in O. Puny et al., *Frame averaging for invariant and equivariant
    network design*, ICLR 2022). The weights are shared; time and memory grow K-fold.

    Parameters
    ----------
    fields : channels of each block, counted in fields
    frequency : highest irrep of a field; the cyclic groups have all of theirs, whatever it says
    layout : an `EncoderLayout` or its name in `LAYOUTS`: grid, kernels, strides, discs
    invariants : size of the output
    dropout : probability to drop a field
    frames : number of turned copies of the input whose invariants are averaged
    vectors : pooled vectors of frequency 1, which turn with the image, and with O(2) as many ``signs``, numbers whose sign a
        reflection changes; see `invariants_and_vectors`
    group : the fibre group, "SO(2)", "O(2)", "C4" or "C8"
    images : the format of the images; a layout that is too small for them is scaled, see `EncoderLayout.fitted`

    Maps images [N, C, H, H], of MNIST [N, 1, 28, 28], to [N, invariants]. ValueError where a size makes no sense, or a block's kernel is larger
    than the map it slides over.
    """

    @recorded
    def __init__(
        self,
        fields: Sequence[int],
        frequency: int,
        *,
        layout: str | EncoderLayout | Mapping,
        invariants: int,
        dropout: float = 0.1,
        frames: int = 1,
        vectors: int = 0,
        group: str = "SO(2)",
        images: ImageFormat | Mapping = MNIST_FORMAT,
    ):
        super().__init__()
        self.images = image_format(images)
        layout = encoder_layout(layout).fitted(self.images.size)
        check_series(len(layout.strides), fields=fields)
        check_whole(frequency=frequency, invariants=invariants, frames=frames)
        check_whole(0, vectors=vectors)
        check_dropout(dropout)
        self.invariants, self.vectors, self.signs = invariants, vectors, vectors if group == "O(2)" else 0
        self.grid_size = layout.grid_size
        self.frame_angles = _frame_angles(frames)
        gspace = _plane(group, frequency)
        field_type = enn.FieldType(gspace, self.images.channels * [gspace.trivial_repr])
        size = layout.grid_size
        blocks = [enn.SequentialModule(enn.MaskModule(field_type, size, margin=1))] if layout.mask_input else []
        for index, (count, (kernel, padding, stride, blur_stride)) in enumerate(zip(fields, layout.blocks()), start=1):
            if kernel > size + 2 * padding:
                raise ValueError(
                    f"expected a kernel in block {index} that is no larger than its padded map, got kernel {kernel}"
                    f" on a map of {size} x {size} with padding {padding}"
                )
            elu = _elu(gspace, count, frequency)
            size = (size + 2 * padding - kernel) // stride + 1
            after = []
            if blur_stride > 1:
                after.append(enn.PointwiseAvgPoolAntialiased2D(elu.out_type, sigma=1.0, stride=blur_stride))
                size = (size - 1) // blur_stride + 1
            if layout.mask_features:
                after.append(_disc(elu.out_type, size))
            blocks.append(
                enn.SequentialModule(
                    enn.R2Conv(field_type, elu.in_type, kernel, stride=stride, padding=padding),
                    enn.IIDBatchNorm2d(elu.in_type),
                    elu,
                    *after,
                    enn.FieldDropout(elu.out_type, dropout),
                )
            )
            field_type = elu.out_type
        if layout.pool > size:
            raise ValueError(
                f"expected a pool no larger than the last block's map, got pool {layout.pool} on {size} x {size}"
            )
        if layout.pool > 1:
            blocks.append(enn.SequentialModule(enn.PointwiseAvgPool2D(field_type, layout.pool, stride=1)))
        invariant_type = enn.FieldType(gspace, invariants * [gspace.trivial_repr])
        blocks.append(enn.SequentialModule(enn.R2Conv(field_type, invariant_type, 1)))
        # a fresh escnn layer has the buffers of eval mode; train() drops them, and state dicts fit
        self.blocks = accelerate(nn.ModuleList(blocks)).train()
        self.activation = nn.Sequential(nn.BatchNorm2d(invariants), nn.ELU())
        if vectors:
            irreps = [gspace.irrep(1, 1), gspace.irrep(1, 0)] if group == "O(2)" else [gspace.irrep(1)]
            vector_type = enn.FieldType(gspace, [irrep for irrep in irreps for _ in range(vectors)])
            self.to_vectors = accelerate(nn.ModuleList([enn.R2Conv(field_type, vector_type, 1)])).train()

    def input_field(self, images: Tensor, *degrees: float) -> enn.GeometricTensor:
        """Images [N, C, H, H] as the first block's input, scalar fields on the grid.

        Turned by each of the angles, one after the other along dimension 0; as they are where none is given.
        """
        images = self.images.checked(images, self.activation[0].weight, self.training)
        return self.blocks[0].in_type(self.images.on_grid(images, self.grid_size, degrees or (0.0,)))

    def filters(self, block: int) -> Tensor:
        """The convolution kernels [C_out, C_in, k, k] that a block's weights expand to."""
        convolution = next(m for m in self.blocks[block].modules() if isinstance(m, enn.R2Conv))
        with torch.no_grad():
            return convolution.expand_parameters()[0]

    def feature_fields(self, images: Tensor) -> Iterator[enn.GeometricTensor]:
        """The input and the output of every block as geometric tensors [N, C, H, W]; one frame, not turned."""
        field = self.input_field(images)
        yield field
        for block in self.blocks:
            field = block(field)
            yield field

    def forward(self, images: Tensor) -> Tensor:
        return self._invariants(self.blocks[-1](self._fields(images)))

    def invariants_and_vectors(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What does not see a turn of images [N, C, H, H], [N, invariants], what turns along, complex [N, vectors], and signs.

        A vector is x + iy, x to the right and y up, so that an image turned counter-clockwise by t has it times e^(it).
        It is an average over all positions, and over the frames, each turned back by its frame's angle. With the group
        O(2) an image mirrored at its horizontal axis has the vector's conjugate, and minus the signs [N, signs], which no turn
        changes; other groups have none.
        """
        fields = self._fields(images)
        pooled = self.to_vectors[0](fields).tensor.mean((2, 3)).unflatten(0, (len(self.frame_angles), -1))
        pooled, signs = pooled.split([2 * self.vectors, self.signs], -1)
        per_frame = torch.view_as_complex(pooled.unflatten(-1, (-1, 2)).contiguous())
        radians = torch.deg2rad(torch.cat([pooled.new_full((1,), angle) for angle in self.frame_angles]))
        back = torch.polar(torch.ones_like(radians), -radians)[:, None, None]
        return self._invariants(self.blocks[-1](fields)), (per_frame * back).mean(0), signs.mean(0)

    def _fields(self, images: Tensor) -> enn.GeometricTensor:
        """The last feature fields, all frames along dimension 0."""
        fields = self.input_field(images, *self.frame_angles)
        for block in self.blocks[:-1]:
            fields = block(fields)
        return fields

    def _invariants(self, scalars: enn.GeometricTensor) -> Tensor:
        pooled = self.activation(scalars.tensor).mean((2, 3))
        return pooled.unflatten(0, (len(self.frame_angles), -1)).mean(0)


class ConvolutionalEncoder(nn.Sequential):
    """The S-VAE's encoder: plain convolutions; images [N, 1, 28, 28] -> features [N, C * 5 * 5].

    From 64 pixels one stride more a doubling.
    """

    @recorded
    def __init__(self, channels: Sequence[int], *, dropout: float = 0.2, images: ImageFormat | Mapping = MNIST_FORMAT):
        check_series(3, channels=channels)
        check_dropout(dropout)
        images = image_format(images)
        blocks, width, size = [], images.channels, images.canvas_size
        for count, stride in zip(channels, ((2, 1, 2), (2, 2, 2), (4, 2, 2))[doublings(images.size)], strict=True):
            blocks += [nn.Conv2d(width, count, 4, stride=stride), nn.ReLU(), nn.BatchNorm2d(count), Dropout(dropout)]
            width, size = count, (size - 4) // stride + 1
        super().__init__(*blocks, nn.Flatten())
        self.images, self.out_features = images, width * size**2  # of MNIST 32 -> 15 -> 12 -> 5

    def forward(self, images: Tensor) -> Tensor:
        images = self.images.checked(images, self[0].weight, self.training)
        return super().forward(self.images.on_grid(images, self.images.canvas_size))


def _frame_angles(frames: int) -> list[float]:
    """Degrees, symmetric about 0, so that with two frames both are interpolated alike."""
    return [90 / frames * (k - (frames - 1) / 2) for k in range(frames)]


@contextmanager
def reading(model: nn.Module, frames: int) -> Iterator[None]:
    """Inside, the `SteerableEncoder` of an autoencoder averages over so many frames, whatever it was trained with.

    Its codes and poses then move less between quarter turns; training costs no more, reading grows ``frames``-fold.
    """
    check_whole(frames=frames)
    before, model.encoder.frame_angles = model.encoder.frame_angles, _frame_angles(frames)
    try:
        yield
    finally:
        model.encoder.frame_angles = before


def parameter_count(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
