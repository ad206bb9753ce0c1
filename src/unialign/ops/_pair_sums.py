"""Pairs of modalities whose weighted kernel values are summed (see `_weighted_log_sums`).

Shapes: `N` selected items, `W` features of a modality, `P` pairs of modalities.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from unialign.ops._kernel_functions import KernelFunction
from unialign.ops._row_selection import RowSelection


@dataclass(frozen=True, eq=False)
class PairSums:
    """Pairs of modalities to sum over.

    Attributes:
        pairs: two modalities, or a modality twice for a sum within it.
        kernels: the kernel of each pair.
        features: (N, W) unit rows of each modality times sqrt(s / 2), so that half of log w is minus their inner
            product if that is positive; None for weights of 1.
        valid_PN: items with both modalities of each pair; None if all items have all modalities.
        selection: the N items.
    """

    pairs: tuple[tuple[int, int], ...]
    kernels: tuple[KernelFunction, ...]
    features: tuple[Tensor | None, ...]
    valid_PN: Tensor | None
    selection: RowSelection

    @property
    def directions(self) -> list[tuple[int, int, int]]:
        """Pair, modality of the queries, and modality of the keys of each direction."""
        return [
            (p, *direction)
            for p, (m, n) in enumerate(self.pairs)
            for direction in ([(m, m)] if m == n else [(m, n), (n, m)])
        ]

    def lowest(self, p: int) -> float:
        """Lower bound of log(w kappa)."""
        # Rows have the length sqrt(s / 2), or 0.
        longest = [float((x_NW * x_NW).sum(1).max()) for x_NW in self.features_of(*self.pairs[p]) if len(x_NW)]
        return self.kernels[p].lowest - sum(longest)

    def features_of(self, *modalities: int) -> Iterator[Tensor]:
        """Yield the features of the modalities that have weights."""
        for m in modalities:
            x_NW = self.features[m]
            if x_NW is not None:
                yield x_NW
