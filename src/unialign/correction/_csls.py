"""Cross-domain similarity local scaling (CSLS, Conneau et al., ICLR 2018, equation 3) between modalities.

The score of a query q of modality a and a row g of modality m is 2 cos(q, g) - r_m(q) - r_a(g), where r_m(x) is the
mean cosine of x with its nearest reference rows of modality m. CSLS lowers the scores of hubs and of modalities with
high cosines.

Shapes: `B` rows, `R` reference rows, `D` dimension, `k` neighbors.
"""

import torch
from torch import Tensor

# Maximum number of reference rows of a modality.
MOST_REFERENCES = 2048
_MOST_NEIGHBORS, _BLOCK = 10, 1024
# A reference row with a larger cosine is the row itself, rounded.
_EQUAL = 1 - 1e-6


def neighbors(references: int) -> int:
    """Return the number of neighbors: 10, or a tenth of the reference rows if there are fewer than 100."""
    return min(_MOST_NEIGHBORS, max(1, references // 10))


def local_similarity(z_BD: Tensor, reference_RD: Tensor, *, same_modality: bool) -> Tensor:
    """Return the mean cosine with the nearest reference rows, without the row itself if it is a reference row."""
    k = neighbors(len(reference_RD))
    out_B = z_BD.new_zeros(len(z_BD))
    for start in range(0, len(z_BD), _BLOCK):
        cosine_BR = z_BD[start : start + _BLOCK] @ reference_RD.mT
        if same_modality and len(reference_RD) > k:
            nearest_B = cosine_BR.argmax(1, keepdim=True)
            is_self_B1 = cosine_BR.gather(1, nearest_B) > _EQUAL
            cosine_BR.scatter_(1, nearest_B, torch.where(is_self_B1, -2.0, cosine_BR.gather(1, nearest_B)))
        out_B[start : start + _BLOCK] = cosine_BR.topk(k, dim=1).values.mean(1)
    return out_B


def csls(queries_QD: Tensor, rows_GD: Tensor, query_local_Q: Tensor, row_local_G: Tensor) -> Tensor:
    return 2 * queries_QD @ rows_GD.mT - query_local_Q[:, None] - row_local_G
