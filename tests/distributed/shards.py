"""Split batches into the rows of each process."""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["Batch", "assert_close", "cut", "fit_sizes"]

Batch = dict[str, Tensor]


def cut(values: Mapping[str, Tensor] | None, sizes: tuple[int, ...]) -> list[Batch | None]:
    """Return the rows of each process; None if there are no values."""
    if values is None:
        return [None for _ in sizes]
    parts = {name: x.split(list(sizes)) for name, x in values.items()}
    return [{name: parts[name][rank] for name in parts} for rank in range(len(sizes))]


def fit_sizes(sizes: tuple[int, ...], items: int) -> tuple[int, ...]:
    """Reduce row counts to a total of at most `items`, beginning with the last process."""
    kept = []
    for size in sizes:
        kept.append(min(size, items - sum(kept)))
    return tuple(kept)


def assert_close(value: Tensor, expected: Tensor, tolerance: float) -> None:
    """Assert equality up to a tolerance relative to the largest expected value, at least 1."""
    scale = max(1.0, expected.abs().max().item() if expected.numel() else 1.0)
    torch.testing.assert_close(value, expected, rtol=0.0, atol=tolerance * scale)
