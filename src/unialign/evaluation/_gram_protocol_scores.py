"""Compute scores between captions and clips, in tiles, and rescore the best candidates in a second stage.

If a score is undefined for a clip, since its modalities are absent, then the clip ties with all others as the query or
the correct answer, so the expected rank is that of a random order. As an incorrect candidate, the clip is ranked last.

Shapes: `G` clips, `T` captions, `K` modalities of a clip, `D` dimension; `g` clips and `t` captions of a tile; `q`
queries of a tile, `C` candidates of a query.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign.errors import NonFiniteError, ShapeError
from unialign.evaluation._gram_protocol_clips import Clips
from unialign.evaluation._joint import joint_scores, tuple_bases
from unialign.functional import unit_or_zero
from unialign.ops import row_tiles

__all__ = ["Rerank", "Score", "from_captions", "from_clips", "rescored", "scores_of"]

# Function of row numbers of queries (q,) and of their candidates (q, C), which returns (q, C) scores.
Rerank = Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], Any]

_BLOCK_ROWS = 4096
_PairScores = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Score:
    """A score of captions and clips; larger is better.

    Attributes:
        name: `centroid`, `volume` or a modality.
        defined_G: whether the clip has the modalities of the score.
        pairs: function of caption rows (t, D) in float64 and clips (g,) that returns (t, g).
    """

    name: str
    defined_G: Tensor
    pairs: _PairScores


def scores_of(clips: Clips) -> list[Score]:
    """Return the scores of all modalities of a clip, and then of each modality alone."""
    any_G = clips.present_KG.any(0)
    defined_G = torch.zeros_like(any_G)
    largest = torch.zeros((), dtype=torch.float64)
    for part in _parts(len(any_G)):
        z_KgD = clips.clip_rows(part)
        defined_G[part] = any_G[part] & unit_or_zero(z_KgD.sum(0))[1]
        if bool(any_G[part].any()):
            largest = torch.maximum(largest, tuple_bases(z_KgD, clips.present_KG[:, part])[any_G[part]].max())

    def centroid(t_tD: Tensor, g: Tensor) -> Tensor:
        return t_tD @ unit_or_zero(clips.clip_rows(g).sum(0))[0].mT

    def volume(t_tD: Tensor, g: Tensor) -> Tensor:
        z_KgD = clips.clip_rows(g)
        return joint_scores(z_KgD, clips.present_KG[:, g], z_KgD.sum(0), t_tD, "volume", largest_base=largest).mT

    def single(k: int) -> _PairScores:
        return lambda t_tD, g: t_tD @ clips.single_rows(k, g).mT

    joint = [Score("centroid", defined_G, centroid), Score("volume", any_G, volume)]
    # With a single modality, the cosine with this modality equals the centroid score.
    alone = [Score(name, clips.present_KG[k], single(k)) for k, name in enumerate(clips.names)]
    return [*joint, *alone] if len(clips.names) > 1 else [Score(clips.names[0], any_G, single(0)), joint[1]]


def from_captions(clips: Clips, score: Score) -> Callable[[Tensor], Tensor]:
    """Return the function of caption numbers (q,) that returns scores (q, G)."""

    def tile(rows_q: Tensor) -> Tensor:
        t_qD = clips.caption_rows(rows_q)
        s_qG = torch.empty(len(rows_q), len(score.defined_G), dtype=torch.float64)
        for part in _parts(len(score.defined_G)):
            s_qG[:, part] = score.pairs(t_qD, torch.arange(part.start, part.stop))
        s_qG[:, ~score.defined_G] = -torch.inf
        s_qG[~score.defined_G[clips.clip_T[rows_q]]] = 0.0
        return s_qG

    return tile


def from_clips(clips: Clips, score: Score) -> Callable[[Tensor], Tensor]:
    """Return the function of clip numbers (q,) that returns scores (q, T)."""

    def tile(rows_q: Tensor) -> Tensor:
        s_qT = torch.empty(len(rows_q), len(clips.z_TD), dtype=torch.float64)
        for part in _parts(len(clips.z_TD)):
            t_tD = clips.caption_rows(part)
            for queries in row_tiles(len(rows_q), part.stop - part.start, most=_BLOCK_ROWS):
                s_qT[queries, part] = score.pairs(t_tD, rows_q[queries]).mT
        s_qT[~score.defined_G[rows_q]] = 0.0
        return s_qT

    return tile


def rescored(
    tile: Callable[[Tensor], Tensor], rerank: Rerank, query_rows: Tensor, gallery_rows: Tensor, *, top: int
) -> Callable[[Tensor], Tensor]:
    """Return a score function that reorders the first `top` candidates of `tile` by the scores of `rerank`.

    If all candidates of a query tie, or the score of a candidate is undefined, the first-stage scores are kept.
    """
    # Equal scores at the cut-off must not depend on the order of the gallery.
    order_G = torch.randperm(len(gallery_rows), generator=torch.Generator().manual_seed(0))
    candidates = min(top, len(gallery_rows))

    def scores(rows_q: Tensor) -> Tensor:
        s_qG = tile(rows_q)
        open_q = (s_qG != s_qG[:, :1]).any(1).nonzero().flatten()
        if len(open_q) == 0:
            return s_qG
        first_qC, place_qC = s_qG[open_q][:, order_G].topk(candidates, 1)
        at_qC = order_G[place_qC]
        found_qC = _checked(rerank(query_rows[rows_q[open_q]].numpy(), gallery_rows[at_qC].numpy()), tuple(at_qC.shape))
        # First-stage scores are at most 1, so the new scores are larger; equal scores of `rerank` stay equal.
        better_qC = torch.stack([(found_qC > found_qC[:, c : c + 1]).sum(1) for c in range(candidates)], 1)
        new_qC = torch.where(first_qC == -torch.inf, first_qC, 2.0 + candidates - better_qC.double())
        s_qG[open_q] = s_qG[open_q].scatter(1, at_qC, new_qC)
        return s_qG

    return scores


def _checked(found: Any, shape: tuple[int, ...]) -> Tensor:
    found_qC = torch.as_tensor(found).detach().cpu().double()
    if tuple(found_qC.shape) != shape:
        raise ShapeError(f"rerank returned scores of shape {tuple(found_qC.shape)}; expected {shape}")
    if bool(found_qC.isnan().any()):
        raise NonFiniteError("rerank returned nan; expected a number for each candidate")
    return found_qC


def _parts(rows: int) -> Iterator[slice]:
    for start in range(0, rows, _BLOCK_ROWS):
        yield slice(start, min(start + _BLOCK_ROWS, rows))
