"""Trained heads of a space, which map the features of a modality to the shared dimension."""

from typing import get_args

import torch
from torch import nn

from unialign._checks import check_choice
from unialign.config import Head
from unialign.errors import ConfigError

# Size limit of a single head: 100 times that of a large one (layers of 16,384, 8,192 and 4,096 units).
_MAX_BYTES = 64 * 10**9


def make_head(head: str, in_dim: int, *, dim: int, hidden: int, dropout: float) -> nn.Sequential:
    """Build a head by name.

    `linear`: dropout, linear without bias (on standardized features a bias would only shift the mean).
    `mlp`: dropout, linear, GELU, dropout, linear. The first dropout acts on the features, which helps small data most.
    """
    check_choice("head", head, get_args(Head))
    numbers = in_dim * dim if head == "linear" else in_dim * hidden + hidden * dim
    size = numbers * torch.get_default_dtype().itemsize
    # Check before allocating, since systems that overcommit memory fail only when the weights are initialized.
    if size > _MAX_BYTES:
        raise ConfigError(
            f"the {head} head from dim {in_dim:,} to dim {dim:,} needs {size / 1e9:,.0f} GB of memory, at most "
            f"{_MAX_BYTES / 1e9:,.0f} GB are supported; choose a smaller dim or hidden"
        )
    if head == "linear":
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(in_dim, dim, bias=False))
    return nn.Sequential(
        nn.Dropout(dropout), nn.Linear(in_dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
    )
