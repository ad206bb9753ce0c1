"""Add modalities to a space, or replace their heads, without changing the other modalities."""

import copy
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from unialign.errors import ConfigError
from unialign.space._encoders import check_references
from unialign.space._stages import make_stage
from unialign.space._validation import check_sizes

if TYPE_CHECKING:
    from unialign.space._space import Space


def with_new_modalities(
    space: "Space",
    dims: Mapping[str, int],
    *,
    linear: Collection[str] = (),
    encoders: Mapping[str, Mapping[str, Any]] | None = None,
) -> "Space":
    """Return a copy in which the given modalities have new heads with random weights.

    The tensors of all other modalities are copied unchanged, so their embeddings are bitwise equal. A modality of the
    space loses its statistics, encoder and output affine map. The statistics of the given modalities must be fitted
    (see `fit_stages`).

    Args:
        dims: mapping of modality to the dim of its features.
        linear: those of the given modalities that have a linear head, whatever the head of the space is.
        encoders: references of the encoders of the given modalities.

    Raises:
        ConfigError: a dim is invalid, or differs from that of the encoder.
    """
    check_sizes({**space.dims, **dims}, space.dim, space.hidden, space.dropout)
    if unknown := [name for name in linear if name not in dims]:
        raise ConfigError(f"{unknown[0]!r} is in `linear`, but not in the new modalities {', '.join(dims)}")
    extended = copy.deepcopy(space)
    extended.dims = space.dims | dict(dims)
    extended.frozen = {name: mode for name, mode in space.frozen.items() if name not in dims}
    kept = [name for name in space.linear if name not in dims]
    extended.linear = tuple(name for name in extended.dims if name in kept or name in linear)
    extended.output_affine = tuple(name for name in space.output_affine if name not in dims)
    references = {name: found for name, found in space.encoders.items() if name not in dims}
    extended.encoders = check_references(references | dict(encoders or {}), extended.dims)
    for name, dim in dims.items():
        modules = (*make_stage(extended, name, dim, None), nn.Identity())
        for modules_of, module in zip((extended.features, extended.heads, extended.outputs), modules, strict=True):
            module = module.to(space._like()).train(space.training)
            if name in space.dims:
                modules_of[space.modalities.index(name)] = module
            else:
                modules_of.append(module)
    return extended
