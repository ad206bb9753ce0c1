"""Draw the inputs of all cases: seeded unit rows.

Shapes: `M` modalities, `B` items, `D` dimension.
"""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["draw"]


def draw(modalities: int, items: int, dim: int, *, device: str = "cpu") -> list[Tensor]:
    """True pairs have cosine 2/3 and other pairs 1/3, so the rows form a cone, as in real embeddings."""
    generator = torch.Generator().manual_seed(0)
    shared_D = torch.randn(dim, generator=generator)
    latent_BD = shared_D + torch.randn(items, dim, generator=generator)
    rows = []
    for _ in range(modalities):
        z_BD = functional.normalize(latent_BD + torch.randn(items, dim, generator=generator), dim=-1)
        rows.append(z_BD.to(device).requires_grad_())
    return rows
