"""Draw modalities with a shared part, for tests of divergences."""

import torch
from torch import Tensor


def draw(modalities: int, items: int, dim: int, seed: int, spread: float = 1.0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    common = torch.randn(items, dim, generator=g, dtype=torch.float64)
    return {
        f"m{m}": common + spread * torch.randn(items, dim, generator=g, dtype=torch.float64) for m in range(modalities)
    }
