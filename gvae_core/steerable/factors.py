"""Few spatial filters and a mixing matrix instead of a dense kernel: exact, from escnn's own basis.

A steerable kernel between two fields is a sum of basis elements, K = sum_b w_b K_b with K_b of
shape [components out, components in, k, k]. For every irrep of the output field, the rows of all
K_b span only a few directions: with independent rows ("maps") Psi_1..Psi_R, every row is

    K_b[i] = sum_r T[b, i, r] Psi_r,   so   (K * x)_i = sum_r (sum_b w_b T[b, i, r]) (Psi_r * x).

The maps Psi_r * x are taken once per *input field*, the sums over fields are one matrix product per
irrep. For SO(2) (frequency 6, kernel 4) this is 59 maps and 113 multiply-adds per pair of fields
instead of 13 * 13 * 16 = 2704. The maps are actual rows of the basis, not singular vectors, which
would mix them: a row couples to the two components of a single irrep.

Sources: M. Weiler, G. Cesa, *General E(2)-equivariant steerable CNNs* (NeurIPS 2019) for the kernel
spaces; pivoted QR for the choice of rows (Golub, Van Loan, *Matrix computations*, 5.4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from escnn.nn import FieldType, R2Conv

RANK_TOLERANCE = 1e-4  # of unit-norm rows; escnn samples in float32, its rounding is 1e-7
RESIDUAL_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Block:
    """The maps of one irrep of the output field: components [start, start + size), R maps."""

    start: int
    size: int
    first_map: int
    maps: int


@dataclass(frozen=True, eq=False)
class Factors:
    """K_b[blocks] = T_b Psi, all in float64.

    Attributes
    ----------
    filters : Psi [maps, components in, k, k], the spatial filters
    mixing : [basis, entries], the T of all blocks side by side, each [size, its maps] flattened
    blocks : where the irreps of the output lie among components, maps and entries
    fields_in, fields_out, components_in, components_out : of the convolution
    trivial_components : of the output, among its irreps; where a bias can be
    residual : the largest absolute error of the factorisation
    basis_in, basis_out : change from irreps to the fields' own basis, or None where they are
        the same; ``filters`` already act on the input's own basis
    """

    filters: np.ndarray
    mixing: np.ndarray
    blocks: tuple[Block, ...]
    fields_in: int
    fields_out: int
    components_in: int
    components_out: int
    trivial_components: tuple[int, ...]
    residual: float
    basis_in: np.ndarray | None
    basis_out: np.ndarray | None

    @property
    def multiplications(self) -> int:
        """Multiply-adds of the mixing, per pixel and pair of fields."""
        return self.mixing.shape[1]


def costs(f: Factors, lanes: int = 8) -> dict[str, float]:
    """What each way to compute the layer takes per output pixel, counted in multiply-adds of a dense convolution.

    "dense" is escnn's convolution, near the speed limit of a processor. "torch" pays for the maps, a dense convolution
    on the components of a field, and for their way through memory; "native" takes the even and odd parts
    of every component's window (3 a tap), filters each by a quarter of the taps (in vectors of ``lanes`` fields), and
    combines the results. The constants are fits to measurements
    (`python -m gvae_core.bench steerable --sweeps`) with AVX-512 and are fixed, so that a layer takes the same way
    in every run; each includes a margin of a fifth in favour of the dense way.
    """
    maps, components, k, _ = f.filters.shape
    padded_in, padded_out = (-(-n // lanes) * lanes for n in (f.fields_in, f.fields_out))
    mixing = f.multiplications * f.fields_in
    flat = f.filters.reshape(maps, components, -1)
    terms = int((np.abs(flat).max(2) > 1e-12).sum())
    rank = int(np.linalg.matrix_rank(flat.reshape(-1, k * k), tol=RANK_TOLERANCE))  # scalar filters
    after = 0 if f.basis_out is None else f.components_out**2 * f.fields_out
    return {
        "dense": f.components_in * f.components_out * k * k * f.fields_in * f.fields_out,
        "torch": 1.2
        * (maps * components * k * k * f.fields_in + mixing * f.fields_out + 350 * maps * f.fields_in + after),
        "native": 1.3
        * ((rank / 4 + 3) * k * k * components * padded_in + mixing * padded_out + 8 * terms * padded_in + 3000),
    }


def uniform_representation(field_type: FieldType):
    """The one representation that all fields share, or None."""
    first = field_type.representations[0]
    return first if all(r == first for r in field_type.representations) else None


def factorise(convolution: R2Conv) -> Factors:
    """Factorise the basis of a convolution; ValueError, saying why, where that is not possible.

    Conditions: one representation for all input fields and one for all output fields, groups 1,
    dilation 1, zero padding, one stride, and a residual of at most 1e-6.
    """
    if not isinstance(convolution.stride, int) or convolution.stride < 1:
        raise ValueError(f"stride={convolution.stride!r} is not one positive number")
    padding = convolution.padding
    if any(not isinstance(p, int) or p < 0 for p in (padding if isinstance(padding, tuple) else (padding,))):
        raise ValueError(f"padding={padding!r} is not one or two numbers of at least 0")
    for name, supported in (("groups", 1), ("dilation", 1), ("padding_mode", "zeros")):
        value = getattr(convolution, name)
        if value != supported:
            raise ValueError(f"{name}={value!r} is not {supported!r}")
    input_repr = uniform_representation(convolution.in_type)
    output_repr = uniform_representation(convolution.out_type)
    if input_repr is None or output_repr is None:
        raise ValueError(f"the {'input' if input_repr is None else 'output'} fields differ in representation")

    (block_basis,) = convolution.basisexpansion.children()
    sampled = block_basis.sampled_basis.detach().double().cpu().numpy()  # [basis, out, in, taps]
    basis_in, basis_out = _change_of_basis(input_repr), _change_of_basis(output_repr)
    rows = sampled if basis_out is None else np.einsum("ij,bjkt->bikt", output_repr.change_of_basis_inv, sampled)

    filters, mixing, blocks, trivial, residual, start, first_map = [], [], [], [], 0.0, 0, 0
    for irrep in map(lambda identifier: output_repr.group.irrep(*identifier), output_repr.irreps):
        size = irrep.size
        trivial += [start] if irrep.is_trivial() else []
        block = rows[:, start : start + size]
        psi, coefficients, error = _independent_rows(block.reshape(len(rows) * size, -1))
        residual = max(residual, error)
        if len(psi):
            blocks.append(Block(start, size, first_map, len(psi)))
            filters.append(psi)
            mixing.append(coefficients.reshape(len(rows), -1))
            first_map += len(psi)
        start += size
    if residual > RESIDUAL_TOLERANCE:
        raise ValueError(f"the factorisation leaves a residual of {residual:.1e}, above {RESIDUAL_TOLERANCE:.0e}")
    k = convolution.kernel_size
    return Factors(
        filters=np.concatenate(filters).reshape(-1, input_repr.size, k, k),
        mixing=np.concatenate(mixing, axis=1),
        blocks=tuple(blocks),
        fields_in=len(convolution.in_type),
        fields_out=len(convolution.out_type),
        components_in=input_repr.size,
        components_out=output_repr.size,
        trivial_components=tuple(trivial),
        residual=residual,
        basis_in=basis_in,
        basis_out=basis_out,
    )


def _change_of_basis(representation) -> np.ndarray | None:
    change = np.asarray(representation.change_of_basis)
    return None if np.array_equal(change, np.eye(len(change))) else change


def _independent_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Rows [n, m] -> (independent rows [R, m], T [n, R] with rows = T @ independent, max error)."""
    _, r, order = scipy.linalg.qr(rows.T, mode="economic", pivoting=True)
    rank = int((np.abs(np.diag(r)) > RANK_TOLERANCE).sum())
    chosen = np.sort(order[:rank])
    coefficients = np.linalg.lstsq(rows[chosen].T, rows.T, rcond=None)[0].T
    coefficients[np.abs(coefficients) < 1e-14] = 0.0
    coefficients[chosen] = np.eye(rank)
    return (
        rows[chosen],
        coefficients,
        float(np.abs(coefficients @ rows[chosen] - rows).max(initial=0.0)),
    )
