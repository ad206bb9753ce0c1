"""Generate images from rows of a space, embed items of a store, and find the nearest training items of rows.

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
    """Return the frozen modality of a space whose features come from the decoder's encoder.

    Args:
        anchor: name of the modality; required if several match.

    Raises:
        ConfigError: no modality is frozen, or none or several frozen modalities match the decoder's encoder.
        ShapeError: the dim of the anchor's features differs from that of the decoder's input.
    """
    if not space.frozen:
        raise ConfigError(
            f"this space cannot be decoded: every modality ({', '.join(space.modalities)}) has a trained head, which "
            f"cannot be inverted to the image embeddings that the decoder expects; train a space with "
            f"frozen={{'image': 'whiten'}}, where 'image' contains embeddings of the decoder's encoder"
        )
    if anchor is not None and anchor not in space.frozen:
        raise ConfigError(f"anchor must be a frozen modality ({', '.join(space.frozen)}), got {anchor!r}")
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
            f"the decoder does not match this space: it expects embeddings of {spec.encoder} (fingerprint "
            f"{str(spec.fingerprint)[:12]}), but the space has {known}; use a decoder trained on one of these"
        )
    if len(matches) > 1:
        raise ConfigError(f"several modalities match this decoder ({', '.join(matches)}); choose one with anchor=")
    (name,) = matches
    if space.dims[name] != spec.dim:
        raise ShapeError(
            f"the decoder does not match this anchor: {name!r} has dim {space.dims[name]}, but the decoder expects "
            f"embeddings of {spec.encoder} of dim {spec.dim}"
        )
    directions = getattr(getattr(decoder, "config", None), "directions", 0)
    if space.dim < directions:  # Missing directions would always have the mean value.
        raise ConfigError(
            f"the space has dim {space.dim}, but the decoder uses {directions} directions; train the space with "
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
    """Generate images from rows of the space that replace the anchor's embeddings (arXiv 2602.09507, section 5).

    Args:
        space: a space with a frozen anchor.
        decoder: a decoder of the anchor's embeddings.
        z: rows (N, D) of any modality, or mixtures (`unialign.generation.mean`, `slerp`, ...). Unit rows map to
            features of typical norm; shorter rows, such as unnormalized means, map to features closer to the mean.
        anchor: as in `resolve_anchor`.
        seed, steps, guidance: as in `Decoder.generate`.

    Returns:
        Images of shape (N, 3, S, S), as from `Decoder.generate`.
    """
    anchor = resolve_anchor(space, decoder, anchor)
    z_ND = _check_rows(z, space.dim)
    with torch.no_grad(), torch.autocast(z_ND.device.type, enabled=False):
        features_NW = space.inverse_transform(anchor, z_ND)
    return decoder.generate(features_NW, seed=seed, steps=steps, guidance=guidance)


def embed_items(
    space: Space, store: EmbeddingStore, rows: Sequence[int] | NDArray[np.int64], modalities: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Embed items of a store; return (N, D) unit rows, 0 where absent, and (N,) presence, each by modality."""
    if isinstance(modalities, str):
        raise ConfigError(f"modalities must be a list, got the single name {modalities!r}; pass [{modalities!r}]")
    rows_N = check_rows(rows)
    if len(rows_N) and not 0 <= rows_N.min() <= rows_N.max() < store.items:
        raise ConfigError(f"rows must be from 0 to {store.items - 1}, got {rows_N.min()} to {rows_N.max()}")
    for name in modalities:
        if name not in space.dims:
            raise ConfigError(f"the space has no modality {name!r}; it has {', '.join(space.modalities)}")
    present = {name: torch.from_numpy(store.present(name)[rows_N].copy()) for name in modalities}
    return space.encode({name: store.array(name)[rows_N] for name in modalities}, present=present), present


@dataclass(frozen=True)
class Neighbors:
    """Store rows and cosines of the nearest training items, nearest first, both of shape (N, k)."""

    rows: Tensor
    cosines: Tensor


def nearest_training(space: Space, store: EmbeddingStore, z: Tensor, *, anchor: str, k: int = 1) -> Neighbors:
    """Find the training items whose anchor embeddings are nearest to the rows z (N, D) of a space.

    Raises:
        DataError: no training item of the store has the anchor.
        ConfigError: k is not an integer of at least 1.
        ShapeError: z is not a float tensor of shape (N, D).
        NonFiniteError: a row is not finite, or all its entries are 0.
    """
    z = _check_rows(z, space.dim)
    check_integer("k", k, low=1)
    rows = store.rows("train")
    rows = rows[store.present(anchor)[rows]]
    if len(rows) == 0:
        raise DataError(f"{store.name!r} has no training rows with {anchor!r}")
    z_TD = space.encode({anchor: store.array(anchor)[rows]})[anchor]
    # Divide by the largest entry first, since squares of tiny entries underflow and squares of huge entries overflow.
    z_ND = z.double()
    unit_ND = torch.nn.functional.normalize(z_ND / z_ND.abs().amax(1, keepdim=True), dim=1).to(z_TD)
    found = (unit_ND @ z_TD.mT).topk(min(k, len(rows)), dim=1)
    return Neighbors(torch.from_numpy(rows)[found.indices], found.values)


def _check_rows(z: Any, dim: int) -> Tensor:
    z_ND = as_dense(z, "z", f"(N, {dim})")
    if z_ND.ndim != 2 or z_ND.shape[1] != dim or not z_ND.is_floating_point():
        raise ShapeError(f"z is {z_ND.dtype} of shape {tuple(z_ND.shape)}; expected floats of shape (N, {dim})")
    if bad := first_bad_row(z_ND, ~torch.isfinite(z_ND).all(1) | ~z_ND.any(1)):
        raise NonFiniteError(
            f"z, row {bad.row}, {bad.what}{bad.more}; omit absent items, whose rows are 0 (`embed_items` returns "
            f"the presence)"
        )
    return z_ND


def _find_fingerprint(space: Space, name: str) -> str | None:
    found: Any = space.metadata
    for key in ("data", "columns", name):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) else None
