"""Compute the forces of multimodal InfoNCE at the rows of one modality (paper Eq. 3).

Shapes: `M` modalities, `K` = M - 1 modalities other than the anchor, `B` items, `D` dimension, `c` items of one tile.

The gradient of sum_n w_an l_{a->n} at an anchor row z_i^a is -V + Phi (constant factors dropped, keys held fixed):

    V   = sum_n (w_an / tau) z_i^n                       attracts toward the item's other modalities
    Phi = sum_n (w_an / tau) sum_k p_ik^n z_k^n          repels from keys, weighted by the softmax p
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unialign.batch import Batch
from unialign.ops import row_tiles

Direction = Literal["forward", "symmetric"]


@dataclass(frozen=True, eq=False)
class Forces:
    """Forces at each anchor row; zero for items without the anchor or the modality.

    Attributes:
        pull_KBD: (weight / tau) z^n; the sum over n is V.
        push_KBD: Phi_n, including the positive.
        push_neg_KBD: Phi_n without the positive, without renormalizing the softmax.
        push_renorm_KBD: Phi_n of a softmax over the negatives only.
        mass_neg_KB, mass_renorm_KB: lengths of `push_neg_KBD` and `push_renorm_KBD` if all negatives had the same
            direction.
        pair_KB: whether item i has both anchor and modality n.
    """

    pull_KBD: Tensor
    push_KBD: Tensor
    push_neg_KBD: Tensor
    push_renorm_KBD: Tensor
    mass_neg_KB: Tensor
    mass_renorm_KB: Tensor
    pair_KB: Tensor


def forces(
    batch: Batch,
    a: int,
    others: list[int],
    *,
    temperature: float,
    direction: Direction,
    weights_MM: Tensor,
) -> Forces:
    """Compute V and Phi per modality at each row of modality `a`.

    Args:
        direction: `symmetric` adds the reverse terms (w_na / tau) sum_j q_ji z_j^n over the items j with both
            modalities, where q_ji is the softmax of query j of modality n over the anchor's rows.
        weights_MM: w_mn of query modality m and key modality n.
    """
    z_MBD, anchor_BD, has_B = batch.z_MBD, batch.z_MBD[a], batch.present_MB[a]
    pair_KB = batch.present_MB[others] & has_B
    there_K = weights_MM[a, others] / temperature
    back_K = weights_MM[others, a] / temperature if direction == "symmetric" else torch.zeros_like(there_K)
    pull_KBD = torch.where(pair_KB[..., None], (there_K + back_K)[:, None, None] * z_MBD[others], 0.0)
    push_neg_KBD, push_renorm_KBD = torch.zeros_like(pull_KBD), torch.zeros_like(pull_KBD)
    own_KB, mass_neg_KB, mass_renorm_KB = (torch.zeros_like(pull_KBD[..., 0]) for _ in range(3))
    for k, m in enumerate(others):
        key_BD = z_MBD[m]
        log_neg_B = negative_B = None
        if direction == "symmetric":
            log_neg_B, odds_B = _queries(key_BD, anchor_BD, has_B, temperature)
            negative_B = torch.where(pair_KB[k], torch.sigmoid(-odds_B), 0.0)
            own_KB[k] += torch.where(pair_KB[k], back_K[k] * torch.sigmoid(odds_B), 0.0)
        for tile in row_tiles(len(anchor_BD), len(anchor_BD)):
            start = tile.start
            rows_c = pair_KB[k, tile]
            logit_cB = anchor_BD[tile] @ key_BD.mT / temperature
            # An item without the modality has no positive, so the modality exerts no force on the item.
            p_cB, _, odds_c = _split(logit_cB, batch.present_MB[m], start)
            p_cB = torch.where(rows_c[:, None], p_cB, 0.0)
            own_KB[k, tile] += torch.where(rows_c, there_K[k] * torch.sigmoid(odds_c), 0.0)
            negative_c = torch.where(rows_c, there_K[k] * torch.sigmoid(-odds_c), 0.0)
            push_c = p_cB @ key_BD
            push_renorm_KBD[k, tile] = there_K[k] * push_c
            push_neg_KBD[k, tile] = negative_c[:, None] * push_c
            mass_renorm_KB[k, tile] = there_K[k] * p_cB.sum(1)
            mass_neg_KB[k, tile] = negative_c * p_cB.sum(1)
            if log_neg_B is not None and negative_B is not None:
                # The queries of all other items with both modalities repel the anchor rows.
                q_cB = torch.where(pair_KB[k] & rows_c[:, None], torch.exp(logit_cB - log_neg_B), 0.0)
                q_cB.diagonal(start).zero_()
                push_renorm_KBD[k, tile] += back_K[k] * (q_cB @ key_BD)
                push_neg_KBD[k, tile] += back_K[k] * (q_cB @ (negative_B[:, None] * key_BD))
                mass_renorm_KB[k, tile] += back_K[k] * q_cB.sum(1)
                mass_neg_KB[k, tile] += back_K[k] * (q_cB @ negative_B)
    push_KBD = push_neg_KBD + own_KB[..., None] * z_MBD[others]
    return Forces(pull_KBD, push_KBD, push_neg_KBD, push_renorm_KBD, mass_neg_KB, mass_renorm_KB, pair_KB)


def _split(logit_cB: Tensor, keys_B: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split a softmax into the positive and the negatives, for accuracy at small temperatures.

    Return the (c, B) softmax over the negatives, the (c,) logsumexp of their logits, and the (c,) log-odds of the
    positive against the negatives (NaN if neither exists).
    """
    masked_cB = torch.where(keys_B, logit_cB, -torch.inf)
    diagonal = masked_cB.diagonal(start)
    own_c = diagonal.clone()
    diagonal.fill_(-torch.inf)
    log_neg_c = torch.logsumexp(masked_cB, 1)
    p_cB = torch.exp(masked_cB - torch.where(log_neg_c > -torch.inf, log_neg_c, 0.0)[:, None])
    return p_cB, log_neg_c, own_c - log_neg_c


def _queries(query_BD: Tensor, key_BD: Tensor, keys_B: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return (B,) logsumexp of the negatives of each query (anchor rows), and (B,) log-odds of its positive."""
    parts = []
    for tile in row_tiles(len(query_BD), len(key_BD)):
        logit_cB = query_BD[tile] @ key_BD.mT / temperature
        parts.append(_split(logit_cB, keys_B, tile.start)[1:])
    log_neg_B, odds_B = (torch.cat(column) for column in zip(*parts, strict=True))
    return log_neg_B, odds_B
