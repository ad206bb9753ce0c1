"""Choose the encoders of the modalities, and check their licenses."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from unialign.encoders import Encoder, check_unchanged, default, resolve
from unialign.errors import ConfigError, MediaError
from unialign.items import Items
from unialign.media import load_cell, with_retries

if TYPE_CHECKING:
    import torch

__all__ = ["check_licenses", "chosen_encoders"]

# Parts of SPDX identifiers of licenses that restrict the use of the weights.
_RESTRICTED = re.compile(r"(?:^|[-+ (])(NC|ND)(?:$|[-+ )])", re.IGNORECASE)

# Number of vectors from which the length is determined.
_COMPARED = 64


def chosen_encoders(
    items: Items,
    choices: Mapping[str, str | Encoder] | None,
    *,
    device: "str | torch.device",
    offline: bool | None,
) -> dict[str, Encoder]:
    kinds = items.kinds
    if choices is None:
        choices = {name: default(kind) for name, kind in kinds.items()}
    dims = {name: dim for name in items.modalities if kinds[name] == "array" and (dim := _dim(items, name))}
    encoders = resolve(choices, kinds, device=device, offline=offline, dims=dims)
    for given in choices.values():
        if not isinstance(given, str):
            check_unchanged(given)
    return encoders


def check_licenses(encoders: Mapping[str, Encoder], accepted: Collection[str]) -> None:
    if isinstance(accepted, str):
        raise ConfigError(f"accept_licenses is the string {accepted!r}, expected a list such as [{accepted!r}]")
    for name, encoder in encoders.items():
        license = str(encoder.reference.get("license", "unknown"))
        if _RESTRICTED.search(license) and license not in accepted:
            raise ConfigError(
                f"the weights of the encoder of {name!r} have the license {license}, which restricts their use; if you "
                f"accept it, pass accept_licenses=[{license!r}] (--accept-license {license})"
            )


def _dim(items: Items, name: str) -> int | None:
    """Return the most frequent length of the first vectors that can be read; None if there is none."""
    cells, _ = items.column(name)
    lengths: Counter[int] = Counter()
    for cell in cells:
        try:
            vector = with_retries(partial(load_cell, cell, "array", roots=items.roots), cell.where)
        except MediaError:
            continue
        if vector is not None:  # an empty cell of a table
            lengths[len(np.asarray(vector))] += 1
        if lengths.total() == _COMPARED:
            break
    return lengths.most_common(1)[0][0] if lengths else None
