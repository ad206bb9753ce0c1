"""Hubs: gallery rows that turn up among everybody's nearest neighbours, and rows that nobody finds.

Shapes: `Q` queries, `G` gallery rows, `D` width, `q` queries of one tile.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from unialign._checks import check_choice, check_integer
from unialign.errors import ConfigError, ShapeError
from unialign.metrics._ranks import TIE_TOLERANCE
from unialign.metrics._rows import unit_rows

__all__ = ["HubnessResult", "OwnRow", "hubness"]

OwnRow = Literal["kept", "left_out"]

# Most similarities in a tile (32 MiB of float64).
_TILE = 2**22


@dataclass(frozen=True, eq=False, repr=False)
class HubnessResult:
    """What `hubness` counted.

    Attributes:
        counts: (G,) float64, N_k: how many queries have the row among their k nearest. Rows that tie for the last
            places of a query share them, so that a count may be a fraction; they sum to Q k.
        k: neighbours of a query.
        queries: Q.
        skewness: mean of (N_k - mean)^3 over the cube of its standard deviation; 0 where all counts are equal.
        antihub_share: share of rows that are among no query's k nearest.
        largest: the largest count.
        largest_row: the row that has it.
    """

    counts: Tensor
    k: int
    queries: int
    skewness: float
    antihub_share: float
    largest: float
    largest_row: int

    def __repr__(self) -> str:
        return (
            f"HubnessResult(k={self.k}, queries={self.queries}, gallery={len(self.counts)}, "
            f"skewness={self.skewness:.3g} (by chance {self.chance_skewness:.3g}), "
            f"antihub_share={self.antihub_share:.3g} (by chance {self.chance_antihub_share:.3g}), "
            f"largest={self.largest:.4g} at row {self.largest_row})"
        )

    @property
    def chance_skewness(self) -> float:
        """Skewness if each query drew its k rows at random: that of a binomial count; 0 if k is the whole gallery."""
        p = self.k / len(self.counts)
        return (1 - 2 * p) / math.sqrt(self.queries * p * (1 - p)) if p < 1 else 0.0

    @property
    def chance_antihub_share(self) -> float:
        """Share of rows never found if each query drew its k rows at random."""
        return float((1 - self.k / len(self.counts)) ** self.queries)


@torch.no_grad()
def hubness(queries: Any, gallery: Any, *, k: int = 10, own_row: OwnRow = "kept") -> HubnessResult:
    """k-occurrences of the gallery rows among the queries' k nearest by cosine (Radovanović et al., JMLR 2010).

    Skewness well above `chance_skewness` means hubs: some rows answer many queries, and others none. High width,
    distance from the mean and a gap between modalities all feed it.

    Args:
        queries, gallery: floating (Q, D) and (G, D) tensors or arrays; rows are L2-normalised here, in float64.
        k: neighbours of a query, from 1 to the number of gallery rows.
        own_row: `left_out` when both are the same rows: query i does not find row i. `kept` otherwise.

    Returns:
        See `HubnessResult`. Memory is O(Q + G), bounded tiles of similarities apart.

    Raises:
        ShapeError, NonFiniteError: see `unialign.diagnostics.modality_gap`; ShapeError also if `left_out` meets unequal
            numbers of rows.
        ConfigError: k is no such number, or an unknown `own_row`.
    """
    check_integer("k", k, low=1)
    check_choice("own_row", own_row, get_args(OwnRow))
    queries_QD, gallery_GD = unit_rows(queries, "queries"), unit_rows(gallery, "gallery")
    gallery_GD = gallery_GD.to(queries_QD.device)
    if queries_QD.shape[1] != gallery_GD.shape[1]:
        raise ShapeError(
            f"'queries' is {queries_QD.shape[1]} wide, 'gallery' is {gallery_GD.shape[1]}; both must be embeddings in "
            f"one space"
        )
    if own_row == "left_out" and len(queries_QD) != len(gallery_GD):
        raise ShapeError(
            f"'queries' has {len(queries_QD)} rows, 'gallery' has {len(gallery_GD)}; own_row='left_out' needs the same "
            f"rows in both"
        )
    candidates = len(gallery_GD) - (own_row == "left_out")
    if k > candidates:
        raise ConfigError(f"k is {k}, but a query has only {candidates} candidates; expected k of at most {candidates}")

    counts_G = _occurrences(queries_QD, gallery_GD, k, own_row)
    centred_G = counts_G - counts_G.mean()
    deviation = float(centred_G.square().mean().sqrt())
    # Shares of tied places add up with rounding: what is left of equal counts is no spread.
    spread = deviation > 1e-9 * max(1.0, float(counts_G.mean()))
    return HubnessResult(
        counts=counts_G,
        k=k,
        queries=len(queries_QD),
        skewness=float((centred_G / deviation).pow(3).mean()) if spread else 0.0,
        antihub_share=float((counts_G == 0).double().mean()),
        largest=float(counts_G.max()),
        largest_row=int(counts_G.argmax()),
    )


def _occurrences(queries_QD: Tensor, gallery_GD: Tensor, k: int, own_row: OwnRow) -> Tensor:
    counts_G = gallery_GD.new_zeros(len(gallery_GD))
    step = max(1, _TILE // len(gallery_GD))
    for start in range(0, len(queries_QD), step):
        cosine_qG = queries_QD[start : start + step] @ gallery_GD.mT
        if own_row == "left_out":
            cosine_qG.diagonal(start).fill_(-torch.inf)
        last_q1 = cosine_qG.topk(k, dim=1).values[:, -1:]
        # By index, equal rows would make the first of them hubs and the others anti-hubs.
        above_qG = cosine_qG > last_q1 + TIE_TOLERANCE
        tied_qG = (cosine_qG >= last_q1 - TIE_TOLERANCE) & ~above_qG
        share_q = (k - above_qG.sum(1)).double() / tied_qG.sum(1)
        counts_G += above_qG.sum(0) + share_q @ tied_qG.double()
    return counts_G
