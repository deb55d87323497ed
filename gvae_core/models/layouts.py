"""Layouts of the steerable encoder: on which grid, with which kernels, strides and discs; the named ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .arguments import check_series, check_whole
from .inputs import IMAGE_SIZE


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
        check_whole(IMAGE_SIZE, grid_size=self.grid_size)
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


LAYOUTS = {
    # the tiny paper's S-GVAE: kernel 4 on 32 x 32
    "paper": EncoderLayout(32, (2, 1, 2), pool=2, mask_input=True),
    # odd kernels on an odd grid, padding that keeps every layer centred, 33 -> 17 -> 17 -> 9: quarter turns are exact
    "aligned": EncoderLayout(33, (2, 1, 2), kernel_size=5, padding=2, pool=3, mask_input=True),
    # 33 -> 17 -> 17 -> 9 -> 9, close between quarter turns, too: a wide first kernel, discs, a blur before subsampling
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
