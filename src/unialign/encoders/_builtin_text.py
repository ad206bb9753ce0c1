"""Built-in text encoders.

Shapes: `n` texts, `K` buckets, `D` length of the features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unialign.encoders._built import Batch
from unialign.encoders._encoder import Prepared
from unialign.encoders._seeded import seeded_signs


class BucketProjection(nn.Module):
    """Multiply counts of buckets (n, K) by a matrix (K, D) whose initial entries are random signs."""

    def __init__(self, buckets: int, dim: int, seed: int) -> None:
        super().__init__()
        self.weight_KD = nn.Parameter(torch.from_numpy(seeded_signs((buckets, dim), seed=seed)) / dim**0.5)

    def forward(self, counts: Tensor) -> Tensor:
        return counts.to(self.weight_KD.dtype) @ self.weight_KD


def dense_counts(prepared: Sequence[Prepared], buckets: int) -> Batch:
    counts = torch.zeros(len(prepared), buckets)
    for row, item in enumerate(prepared):
        counts[row, torch.from_numpy(item["buckets"])] = torch.from_numpy(item["weights"])
    return {"counts": counts}
