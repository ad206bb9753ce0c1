"""The trained part of a space: one head per modality, from its features to the shared width."""

from typing import Literal, get_args

from torch import nn

from unialign.errors import ConfigError

__all__ = ["Head", "make_head"]

Head = Literal["linear", "mlp"]


def make_head(head: str, width: int, *, dim: int, hidden: int, dropout: float) -> nn.Sequential:
    """A head by name.

    `linear`: dropout, linear without bias (on standardised features a bias would only move the cloud off the centre).
    `mlp`: dropout, linear, GELU, dropout, linear. The first dropout acts on features, where small data needs it most.
    """
    if head == "linear":
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, dim, bias=False))
    if head == "mlp":
        return nn.Sequential(
            nn.Dropout(dropout), nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
        )
    raise ConfigError(f"unknown head {head!r}; expected one of {', '.join(get_args(Head))}")
