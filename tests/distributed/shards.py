"""Split batches into rows for each process, and compare tensors."""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["Batch", "assert_close", "cut", "fit_sizes"]

Batch = dict[str, Tensor]


def cut(values: Mapping[str, Tensor] | None, sizes: tuple[int, ...]) -> list[Batch | None]:
    """Split every tensor into the rows of each process; return None for each process if `values` is None."""
    if values is None:
        return [None for _ in sizes]
    parts = {name: x.split(list(sizes)) for name, x in values.items()}
    return [{name: parts[name][rank] for name in parts} for rank in range(len(sizes))]


def fit_sizes(sizes: tuple[int, ...], items: int) -> tuple[int, ...]:
    kept = []
    for size in sizes:
        kept.append(min(size, items - sum(kept)))
    return tuple(kept)


def assert_close(value: Tensor, expected: Tensor, tolerance: float) -> None:
    """Assert equality up to `tolerance` times the largest absolute expected value, or times 1 if that is smaller."""
    scale = max(1.0, expected.abs().max().item() if expected.numel() else 1.0)
    torch.testing.assert_close(value, expected, rtol=0.0, atol=tolerance * scale)
