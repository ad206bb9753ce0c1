"""Trained heads of a space, from the features of a modality to the shared dimension."""

from typing import get_args

import torch
from torch import nn

from unialign._checks import check_choice
from unialign.config import Head
from unialign.errors import ConfigError

__all__ = ["make_head"]


def make_head(head: str, in_dim: int, *, dim: int, hidden: int, dropout: float) -> nn.Sequential:
    """Build a head by name.

    `linear`: dropout, linear without bias (on standardized features a bias would only shift the mean).
    `mlp`: dropout, linear, GELU, dropout, linear. The first dropout acts on the features, which helps small data most.
    """
    check_choice("head", head, get_args(Head))
    try:
        if head == "linear":
            return nn.Sequential(nn.Dropout(dropout), nn.Linear(in_dim, dim, bias=False))
        return nn.Sequential(
            nn.Dropout(dropout), nn.Linear(in_dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
        )
    except RuntimeError:  # the memory cannot be allocated
        numbers = in_dim * dim if head == "linear" else in_dim * hidden + hidden * dim
        size = numbers * torch.get_default_dtype().itemsize / 1e9
        raise ConfigError(
            f"the {head} head from dim {in_dim:,} to dim {dim:,} needs {size:,.0f} GB of memory, which cannot be "
            "allocated; choose a smaller dim or hidden"
        ) from None
