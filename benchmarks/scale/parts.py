"""Parts of a loss: matrix products, bytes passed to collectives, and bytes kept, derived from the algorithms in
`unialign.ops`.

The formulas hold for batches above 2,048 rows on one process, and for batches of any size on several: smaller ones on
one process are computed as whole blocks.

Shapes: `M` modalities, `B` items of all processes, `n` = B / P items of one of P processes, `D` dimension, `W` width of
the features that weight negatives.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = [
    "DOUBLE",
    "FLOAT",
    "SIDE",
    "Part",
    "Setting",
    "between",
    "contrast",
    "density",
    "features",
    "median",
    "sigmoid",
    "singular",
    "total",
    "tuples",
    "volumes",
    "weighted",
    "weighted_sigmoid",
    "within",
]

FLOAT, DOUBLE = 4, 8
# Side of square tiles, as in `unialign.ops`.
SIDE = 512

Device = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class Setting:
    """A batch; `width` is that of the features of weighted negatives. On `gpu`, sums of rows are computed by the Triton
    kernels.
    """

    modalities: int
    items: int
    dim: int
    processes: int = 1
    device: Device = "cpu"
    width: int = 0

    @property
    def own(self) -> int:
        return self.items // self.processes

    @property
    def pairs(self) -> int:
        return self.modalities * (self.modalities - 1) // 2

    @property
    def by_rows(self) -> bool:
        """Each process computes its own rows of the matrix of pairs; on one CPU process, tiles use the symmetry."""
        return self.processes > 1 or self.device == "gpu"


class Part(NamedTuple):
    """Multiply-adds of both passes, bytes passed to each collective, and bytes kept besides rows of width D."""

    forward: float
    backward: float
    sent: tuple[float, ...] = ()
    small: float = 0.0


def upper_triangle(items: int, side: int = SIDE) -> float:
    """Entries of the tiles on and above the diagonal."""
    whole, rest = divmod(items, side)
    diagonal = whole * side * side + rest * rest
    return (items * items + diagonal) / 2


def within(s: Setting) -> Part:
    """Mean over rows of log sums within a modality: uniformity, and the contrast of PMRL."""
    matrix, small = s.own * s.items * s.dim, (DOUBLE + 1) * s.items
    if s.by_rows:
        size = FLOAT if s.device == "gpu" else DOUBLE
        return Part(matrix, 2 * matrix, _gathers(s, size * s.own), small)
    triangle = upper_triangle(s.items) * s.dim
    return Part(triangle, triangle + matrix, (), small)


def total(s: Setting) -> Part:
    """Log of the sum over all pairs of a modality; one pass computes value and gradient."""
    if s.device == "gpu":
        return within(s)
    matrix = s.own * s.items * s.dim
    first = matrix if s.by_rows else upper_triangle(s.items) * s.dim
    return Part(first + matrix, 0, _gathers(s, DOUBLE))


def contrast(s: Setting, *, learnable: bool = False) -> Part:
    """Symmetric log sums between two modalities: InfoNCE, and the cross partition of UniAlign."""
    matrix = s.own * s.items * s.dim
    if s.by_rows:
        # Rows and columns are separate sums, so that no process needs the gradients of another one.
        columns = 5 if learnable else 3
        return Part(2 * matrix, 4 * matrix, _gathers(s, DOUBLE * columns * s.own), DOUBLE * columns * s.items)
    return Part(matrix, 3 * matrix, (), (2 * DOUBLE + FLOAT) * s.items)


def between(s: Setting) -> Part:
    """Log sums between two sets in one direction, for kernel densities."""
    matrix = s.own * s.items * s.dim
    return Part(matrix, (4 if s.processes > 1 else 3) * matrix, _gathers(s, DOUBLE * s.own), DOUBLE * s.items)


def density(s: Setting) -> Part:
    """Log sums within a set, self pairs included."""
    if s.by_rows:
        matrix = s.own * s.items * s.dim
        return Part(matrix, 2 * matrix, _gathers(s, FLOAT * s.own), FLOAT * s.items)
    return within(s)


def sigmoid(s: Setting) -> Part:
    """Softplus of all pairs; the forward pass computes the gradients."""
    matrix = s.own * s.items * s.dim
    return Part((4 if s.processes > 1 else 3) * matrix, 0, _gathers(s, 3 * DOUBLE), FLOAT * s.items)


def weighted(s: Setting, *, modalities: int, pairs: int) -> Part:
    """Log sums of weighted negatives within modalities and of pairs: a product of width W gives the weights of a tile
    for all pairs.
    """
    matrix, sums = s.own * s.items * s.dim, modalities + 2 * pairs
    features = s.modalities * s.width
    exchanged = (DOUBLE, FLOAT * s.own * s.width) * s.modalities if s.width and s.processes > 1 else ()
    sent = (*exchanged, *_gathers(s, DOUBLE * sums * s.own))
    small = (DOUBLE * sums + FLOAT * features * (1 + 1 / s.processes)) * s.items
    if s.processes > 1:
        bias = s.own * s.items * features
        products = (modalities + 2 * pairs) * matrix
        return Part(products + bias, 2 * products + bias, sent, small)
    triangle = upper_triangle(s.items)
    first = modalities * triangle * s.dim + pairs * matrix
    bias = triangle * features
    return Part(first + bias, first + (modalities + 2 * pairs) * matrix + bias, sent, small)


def features(s: Setting) -> Part:
    """Features of own items, which are inputs, and their exchange."""
    exchanged = (DOUBLE, FLOAT * s.own * s.width) * s.modalities if s.processes > 1 else ()
    return Part(0, 0, exchanged, FLOAT * s.modalities * s.width * s.own)


def weighted_sigmoid(s: Setting) -> Part:
    """Softplus of all pairs, where each pair of modalities computes the weights of both of them."""
    plain, bias = sigmoid(s), 2 * s.own * s.items * s.width
    return plain._replace(forward=plain.forward + bias * (2 if s.processes > 1 else 1))


def median(s: Setting) -> Part:
    """Cosines of at most 512 rows, for a bandwidth."""
    return Part(min(512, s.modalities * s.items) ** 2 * s.dim, 0)


def singular(s: Setting) -> Part:
    """Gram matrices of all tuples and their leading directions, on every process."""
    m = s.modalities
    return Part((m * m + m) * s.items * s.dim, (m * m + m) * s.items * s.dim)


def volumes(s: Setting) -> Part:
    """Gram matrices and orthonormal bases of all tuples, on every process."""
    others = s.modalities - 1
    each = s.modalities**2 + (4 * others**2 if others > 1 else 0)
    return Part(each * s.items * s.dim, each * s.items * s.dim)


def tuples(s: Setting, products: int) -> Part:
    """Contrast with logits of tuples: every process computes the whole matrix."""
    matrix = s.items * s.items * s.dim * products
    return Part(matrix, 3 * matrix)


def _gathers(s: Setting, size: float) -> tuple[float, ...]:
    return (size,) if s.processes > 1 else ()
