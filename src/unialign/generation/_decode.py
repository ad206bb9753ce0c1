"""From a space to a decoder: which modality is the anchor, and the images of rows of the space.

Shapes: `N` rows, `D` width of the space, `W` width of the anchor's features, `S` pixels a side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign._checks import check_integer
from unialign.batch import as_dense, first_bad_row
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError, NonFiniteError, ShapeError
from unialign.generation._decoder import Decoder
from unialign.space import Space

__all__ = ["Neighbours", "decode", "embed_items", "nearest_training", "resolve_anchor"]


def resolve_anchor(space: Space, decoder: Decoder, anchor: str | None = None) -> str:
    """The frozen modality of a space whose encoder is the decoder's.

    Args:
        anchor: which one, if several would do.

    Raises:
        ConfigError: no modality is frozen, its embeddings are not those that the decoder reads, or several would do.
        ShapeError: the anchor's features have another width than the decoder reads.
    """
    if not space.frozen:
        raise ConfigError(
            f"no decoder for this space: a decoder reads what an image encoder says, and every modality of this space "
            f"({', '.join(space.modalities)}) has a trained head, from which there is no way back; train one with "
            f"frozen={{'image': 'whiten'}}, the modality whose encoder the decoder has"
        )
    if anchor is not None and anchor not in space.frozen:
        raise ConfigError(f"anchor {anchor!r} is not frozen in this space; frozen are {', '.join(space.frozen)}")
    candidates = list(space.frozen) if anchor is None else [anchor]
    known = {name: _identity(space, name) for name in candidates}
    wanted = decoder.input_spec.identity
    fitting = [name for name in candidates if wanted is not None and known[name] == wanted]
    if not fitting:
        # A column or a decoder that does not say what made it can be told by its width only.
        unknown = [name for name in candidates if wanted is None or known[name] is None]
        fitting = [name for name in unknown if space.widths[name] == decoder.input_spec.width] or unknown[:1]
    if not fitting:
        made = ", ".join(f"{name!r} (identity {str(known[name])[:12]})" for name in candidates)
        raise ConfigError(
            f"no decoder for this anchor: the decoder reads embeddings of {decoder.input_spec.encoder} (identity "
            f"{wanted and wanted[:12]}), this space has {made}; use the decoder of that encoder, or train one with "
            f"`unialign decoder train`"
        )
    if len(fitting) > 1:
        raise ConfigError(f"{', '.join(fitting)} could all be the anchor of this decoder; name one with anchor=")
    width = space.widths[fitting[0]]
    if width != decoder.input_spec.width:
        raise ShapeError(
            f"no decoder for this anchor: {fitting[0]!r} is {width} wide, the decoder reads {decoder.input_spec.width} "
            f"numbers of {decoder.input_spec.encoder}"
        )
    directions = getattr(getattr(decoder, "config", None), "directions", 0)
    if space.dim < directions:
        raise ConfigError(
            f"the space has {space.dim} directions, the decoder reads {directions} and would see the mean image in "
            f"the others; train the space with dim={directions}, or a decoder with directions={space.dim}"
        )
    return fitting[0]


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
    """Images of rows of the space, as if the anchor's encoder had seen them (arXiv 2602.09507, section 5: no prior).

    Args:
        space: one with a frozen anchor.
        decoder: of the anchor's embeddings.
        z: (N, D) rows: of any modality, or a mixture (`unialign.generation.mean`, `slerp`, ...). Unit rows go to
            features of the typical length; shorter ones, such as plain means, to features nearer to the mean.
        anchor, seed, steps, guidance: as in `resolve_anchor` and `Decoder.generate`.

    Returns:
        (N, 3, S, S) float32 in [0, 1].
    """
    anchor = resolve_anchor(space, decoder, anchor)
    z_ND = _checked(z, space.dim)
    with torch.no_grad(), torch.autocast(z_ND.device.type, enabled=False):
        features_NW = space.inverse_transform(anchor, z_ND)
    return decoder.generate(features_NW, seed=seed, steps=steps, guidance=guidance)


def embed_items(
    space: Space, store: EmbeddingStore, rows: Sequence[int] | NDArray[np.int64], modalities: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Items of a store in the space: modality -> (N, D) unit rows (absent ones 0), and modality -> (N,) presence."""
    if isinstance(modalities, str):
        raise ConfigError(f"modalities is the single name {modalities!r}; give a list, [{modalities!r}]")
    rows_N = np.asarray(rows)
    if rows_N.ndim != 1 or (len(rows_N) and rows_N.dtype.kind not in "iu"):
        raise ShapeError(f"rows must be row numbers, got {rows!r}")
    rows_N = rows_N.astype(np.int64)
    if len(rows_N) and not 0 <= rows_N.min() <= rows_N.max() < store.items:
        raise ConfigError(f"rows go from {rows_N.min()} to {rows_N.max()}; {store.name!r} has 0 to {store.items - 1}")
    for name in modalities:
        if name not in space.widths:
            raise ConfigError(f"the space has no {name!r}; it has {', '.join(space.modalities)}")
    present = {name: torch.from_numpy(store.present(name)[rows_N].copy()) for name in modalities}
    return space.encode({name: store.array(name)[rows_N] for name in modalities}, present=present), present


@dataclass(frozen=True)
class Neighbours:
    """The training items whose anchor lies nearest: (N, k) row numbers of the store, and their cosines, best first."""

    rows: Tensor
    cosines: Tensor


def nearest_training(space: Space, store: EmbeddingStore, z: Tensor, *, anchor: str, k: int = 1) -> Neighbours:
    """The training images nearest to rows of the space: what a decoder might have copied.

    Args:
        z: (N, D) rows of the space.
    """
    z = _checked(z, space.dim)
    check_integer("k", k, low=1)
    rows = store.rows("train")
    rows = rows[store.present(anchor)[rows]]
    if len(rows) == 0:
        raise DataError(f"{store.name!r} has no training rows with {anchor!r}, so nothing lies nearest")
    z_TD = space.encode({anchor: store.array(anchor)[rows]})[anchor]
    # By the largest number first: the square of a very short or long row is 0 or infinite.
    z_ND = z.double()
    unit_ND = torch.nn.functional.normalize(z_ND / z_ND.abs().amax(1, keepdim=True), dim=1).to(z_TD)
    found = (unit_ND @ z_TD.mT).topk(min(k, len(rows)), dim=1)
    return Neighbours(torch.from_numpy(rows)[found.indices], found.values)


def _checked(z: Any, dim: int) -> Tensor:
    """(N, D) rows that have a direction, named by their place in what was given."""
    z_ND = as_dense(z, "z", f"(N, {dim})")
    if z_ND.ndim != 2 or z_ND.shape[1] != dim or not z_ND.is_floating_point():
        raise ShapeError(f"z is {z_ND.dtype} of shape {tuple(z_ND.shape)}; this space has rows of (N, {dim}) floats")
    bad = first_bad_row(z_ND, ~torch.isfinite(z_ND).all(1) | ~z_ND.any(1))
    if bad is not None:
        raise NonFiniteError(
            f"z, row {bad.row}, {bad.what}{bad.more}; only a direction can be decoded: leave out rows of absent "
            f"entries, which are zero, by the presence that came with them"
        )
    return z_ND


def _identity(space: Space, name: str) -> str | None:
    data: Any = space.metadata.get("data")
    columns = data.get("columns") if isinstance(data, Mapping) else None
    identity = columns.get(name) if isinstance(columns, Mapping) else None
    return identity if isinstance(identity, str) else None
