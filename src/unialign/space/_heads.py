"""Heads: the trained part of a space, from the features of a modality to the shared dimension."""

from typing import get_args

from torch import nn

from unialign._checks import check_choice
from unialign.config import Head

__all__ = ["make_head"]


def make_head(head: str, in_dim: int, *, dim: int, hidden: int, dropout: float) -> nn.Sequential:
    """A head by name.

    `linear`: dropout, linear without bias (on standardized features a bias would only shift the mean).
    `mlp`: dropout, linear, GELU, dropout, linear. The first dropout acts on features, where small data need it most.
    """
    check_choice("head", head, get_args(Head))
    if head == "linear":
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(in_dim, dim, bias=False))
    return nn.Sequential(
        nn.Dropout(dropout), nn.Linear(in_dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
    )
