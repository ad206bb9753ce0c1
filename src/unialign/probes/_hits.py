"""Find the classes with the highest scores, and compare them with the labels.

Shapes: `n` items, `C` classes, `k` places.
"""

import torch
from torch import Tensor

from unialign.ops import TIE_TOLERANCE


def predicted(scores_nC: Tensor, places: int) -> Tensor:
    """Return the (n, k) classes with the highest scores, best first. Scores that differ by at most 1e-12 from the best
    remaining score are tied, and the first of the tied classes comes first.
    """
    left_nC = scores_nC.clone()
    found_kn = []
    for _ in range(min(places, scores_nC.shape[1])):
        best_n1 = left_nC.amax(1, keepdim=True)
        # argmax of equal values is not defined, so the first class is found by its number.
        class_n = (left_nC >= best_n1 - TIE_TOLERANCE).to(torch.uint8).cumsum(1).eq(0).sum(1)
        found_kn.append(class_n)
        left_nC.scatter_(1, class_n[:, None], -torch.inf)
    return torch.stack(found_kn, 1)


def hits(scores_nC: Tensor, labels_n: Tensor, k: int) -> Tensor:
    """Return the (n,) float64 probability that the class of the label is among the k classes with the highest scores,
    if tied classes are in random order. Labels outside 0..C-1 are never hit.
    """
    known_n = (labels_n >= 0) & (labels_n < scores_nC.shape[1])
    own_n1 = scores_nC.gather(1, labels_n.where(known_n, 0)[:, None])
    above_n = (scores_nC > own_n1 + TIE_TOLERANCE).sum(1)
    tied_n = (scores_nC >= own_n1 - TIE_TOLERANCE).sum(1) - above_n
    return ((k - above_n).double() / tied_n).clamp(0, 1).where(known_n, 0.0)
