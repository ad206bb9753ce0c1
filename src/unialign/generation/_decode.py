"""Decode rows of a space: find the anchor modality of a decoder, embed items of a store, generate their images.

Shapes: `N` rows, `D` dimension of the space, `W` dimension of the anchor's features, `S` x `S` pixels of an image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign._checks import check_integer
from unialign._invalid_rows import first_bad_row
from unialign.batch import as_dense
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError, NonFiniteError, ShapeError
from unialign.generation._decoder import Decoder
from unialign.generation._thumbnails import check_rows
from unialign.space import Space


def resolve_anchor(space: Space, decoder: Decoder, anchor: str | None = None) -> str:
    """Return the frozen modality of a space that was embedded by the decoder's encoder.

    Args:
        anchor: the modality, if several match.

    Raises:
        ConfigError: no modality is frozen, none has the decoder's embeddings, or several match.
        ShapeError: the dim of the anchor's features differs from that of the decoder's input.
    """
    if not space.frozen:
        raise ConfigError(
            f"no decoder for this space: every modality ({', '.join(space.modalities)}) has a trained head, which "
            f"cannot be inverted to the raw image embeddings that a decoder needs; train a space with "
            f"frozen={{'image': 'whiten'}}, where 'image' holds embeddings of the decoder's encoder"
        )
    if anchor is not None and anchor not in space.frozen:
        raise ConfigError(f"anchor {anchor!r} is not frozen in this space; frozen are {', '.join(space.frozen)}")
    spec = decoder.input_spec
    fingerprints = {name: _find_fingerprint(space, name) for name in (space.frozen if anchor is None else [anchor])}
    matches = [name for name, found in fingerprints.items() if found is not None and found == spec.fingerprint]
    if not matches:
        # Without a fingerprint on either side, only dims can be compared.
        unknown = [name for name, found in fingerprints.items() if spec.fingerprint is None or found is None]
        matches = [name for name in unknown if space.dims[name] == spec.dim] or unknown[:1]
    if not matches:
        known = ", ".join(f"{name!r} (fingerprint {str(found)[:12]})" for name, found in fingerprints.items())
        raise ConfigError(
            f"no decoder for this anchor: the decoder expects embeddings of {spec.encoder} (fingerprint "
            f"{str(spec.fingerprint)[:12]}), this space has {known}; use or train a decoder of that encoder"
        )
    if len(matches) > 1:
        raise ConfigError(f"{', '.join(matches)} could all be the anchor of this decoder; choose one with anchor=")
    (name,) = matches
    if space.dims[name] != spec.dim:
        raise ShapeError(
            f"no decoder for this anchor: {name!r} has dim {space.dims[name]}, the decoder expects {spec.dim} "
            f"numbers of {spec.encoder}"
        )
    directions = getattr(getattr(decoder, "config", None), "directions", 0)
    if space.dim < directions:  # the missing directions would always have their mean value
        raise ConfigError(
            f"the space has {space.dim} directions, the decoder uses {directions}; train the space with "
            f"dim={directions}, or a decoder with directions={space.dim}"
        )
    return name


def decode(
    space: Space,
    decoder: Decoder,
    z: Tensor,
    *,
    anchor: str | None = None,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
) -> Tensor:
    """Generate images from rows of the space, used in place of the anchor's embeddings (arXiv 2602.09507, section 5).

    Args:
        space: a space with a frozen anchor.
        decoder: a decoder of the anchor's embeddings.
        z: (N, D) rows of any modality, or mixtures (`unialign.generation.mean`, `slerp`, ...). Unit rows map to
            features of typical norm; shorter ones, such as unnormalized means, to features nearer to the mean.
        anchor, seed, steps, guidance: as in `resolve_anchor` and `Decoder.generate`. The result is that of
            `Decoder.generate`.
    """
    anchor = resolve_anchor(space, decoder, anchor)
    z_ND = _check_rows(z, space.dim)
    with torch.no_grad(), torch.autocast(z_ND.device.type, enabled=False):
        features_NW = space.inverse_transform(anchor, z_ND)
    return decoder.generate(features_NW, seed=seed, steps=steps, guidance=guidance)


def embed_items(
    space: Space, store: EmbeddingStore, rows: Sequence[int] | NDArray[np.int64], modalities: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Embed items of a store: modality -> (N, D) unit rows (0 where absent), and modality -> (N,) presence."""
    if isinstance(modalities, str):
        raise ConfigError(f"modalities is the single name {modalities!r}; pass a list, [{modalities!r}]")
    rows_N = check_rows(rows)
    if len(rows_N) and not 0 <= rows_N.min() <= rows_N.max() < store.items:
        raise ConfigError(f"rows go from {rows_N.min()} to {rows_N.max()}; {store.name!r} has 0 to {store.items - 1}")
    for name in modalities:
        if name not in space.dims:
            raise ConfigError(f"the space has no {name!r}; it has {', '.join(space.modalities)}")
    present = {name: torch.from_numpy(store.present(name)[rows_N].copy()) for name in modalities}
    return space.encode({name: store.array(name)[rows_N] for name in modalities}, present=present), present


@dataclass(frozen=True)
class Neighbors:
    """Nearest training items by anchor, best first: (N, k) store rows and cosines."""

    rows: Tensor
    cosines: Tensor


def nearest_training(space: Space, store: EmbeddingStore, z: Tensor, *, anchor: str, k: int = 1) -> Neighbors:
    """Find the training items whose anchor embeddings are nearest to (N, D) rows of the space.

    Raises:
        DataError: the store has no training items with the anchor.
        ConfigError, ShapeError, NonFiniteError: k is not at least 1; z is not (N, D) floats; a row has no direction.
    """
    z = _check_rows(z, space.dim)
    check_integer("k", k, low=1)
    rows = store.rows("train")
    rows = rows[store.present(anchor)[rows]]
    if len(rows) == 0:
        raise DataError(f"{store.name!r} has no training rows with {anchor!r}")
    z_TD = space.encode({anchor: store.array(anchor)[rows]})[anchor]
    # Divide by the largest number first, since squares of very short rows underflow and those of very long rows
    # overflow.
    z_ND = z.double()
    unit_ND = torch.nn.functional.normalize(z_ND / z_ND.abs().amax(1, keepdim=True), dim=1).to(z_TD)
    found = (unit_ND @ z_TD.mT).topk(min(k, len(rows)), dim=1)
    return Neighbors(torch.from_numpy(rows)[found.indices], found.values)


def _check_rows(z: Any, dim: int) -> Tensor:
    """Validate (N, D) rows, which must be finite and nonzero."""
    z_ND = as_dense(z, "z", f"(N, {dim})")
    if z_ND.ndim != 2 or z_ND.shape[1] != dim or not z_ND.is_floating_point():
        raise ShapeError(f"z is {z_ND.dtype} of shape {tuple(z_ND.shape)}; expected floats of shape (N, {dim})")
    if bad := first_bad_row(z_ND, ~torch.isfinite(z_ND).all(1) | ~z_ND.any(1)):
        raise NonFiniteError(
            f"z, row {bad.row}, {bad.what}{bad.more}; leave out absent items, whose rows are 0 (`embed_items` returns "
            f"which are present)"
        )
    return z_ND


def _find_fingerprint(space: Space, name: str) -> str | None:
    found: Any = space.metadata
    for key in ("data", "columns", name):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) else None
