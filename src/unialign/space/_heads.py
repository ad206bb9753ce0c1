"""Build the trained heads of a space."""

from typing import get_args

import torch
from torch import nn

from unialign._checks import check_choice
from unialign.config import Head
from unialign.errors import ConfigError

# Maximum size of a head in bytes, about 100 times the size of a large head (layers of 16,384, 8,192 and 4,096 units).
_MAX_BYTES = 64 * 10**9


def make_head(head: str, in_dim: int, *, dim: int, hidden: int, dropout: float) -> nn.Sequential:
    """Return a head. The first dropout acts on the features, which is most useful for small data sets. `linear` has no
    bias: on standardized features, it would only shift the mean.
    """
    check_choice("head", head, get_args(Head))
    numbers = in_dim * hidden + hidden * dim if head == "mlp" else in_dim * dim
    size = numbers * torch.get_default_dtype().itemsize
    # Check before allocation, since systems that overcommit memory fail only during initialization of the weights.
    if size > _MAX_BYTES:
        raise ConfigError(
            f"the {head} head from dim {in_dim:,} to dim {dim:,} needs {size / 1e9:,.0f} GB of memory, but at "
            f"most {_MAX_BYTES / 1e9:,.0f} GB are supported; choose a smaller dim or hidden"
        )
    if head != "mlp":
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(in_dim, dim, bias=False))
    return nn.Sequential(
        nn.Dropout(dropout), nn.Linear(in_dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
    )
