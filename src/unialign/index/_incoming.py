"""Turn stores and mappings of rows into blocks of items.

Shapes: `N` items, `B` items of a block, `D` dimension, `W` dimension of features.
"""

import numbers
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from unialign._checks import check_choice, suggestion
from unialign._invalid_rows import first_bad_row, usable_rows
from unialign.batch import as_dense, as_tensors, row_mask
from unialign.data import EmbeddingStore, unique_keys
from unialign.errors import ConfigError, DataError, NonFiniteError, ShapeError
from unialign.index._changes import Block
from unialign.index._previews import Preview, StorePreviews, check_previews
from unialign.space import Space

Rows = Literal["all", "train", "val", "test"]

# Number of items to embed at a time.
_BLOCK = 8192
_MOST_KEY = 1000
_MOST_FIELDS = 100
# Names of search targets, and keywords of filters.
_RESERVED = {"any", "best", "label", "key", "and", "or", "not", "in", "has", "missing", "true", "false"}
_MOST_TEXT = 1_000_000


def store_blocks(
    store: EmbeddingStore,
    space: Space | None,
    modalities: tuple[str, ...],
    dim: int,
    *,
    rows: str | Sequence[int] | NDArray[np.int64] = "all",
    keys: Sequence[str] | None = None,
    with_previews: bool = True,
) -> Iterator[Block]:
    """Yield the items of a store; those without any of the modalities are left out.

    Columns with the input dims of the space are features, which the space embeds; other columns are embeddings.

    Raises:
        ConfigError: the store has none of the modalities, or `rows` or `keys` are invalid.
        ShapeError, NonFiniteError: rows have another dim, or are not finite.
    """
    names = [name for name in modalities if name in store.columns]
    if not names:
        raise ConfigError(
            f"the store {store.name!r} has {', '.join(store.columns)}, but none of the modalities of the index, "
            f"{', '.join(modalities)}"
        )
    chosen_N = _chosen_rows(store, rows)
    all_keys = unique_keys(store) if keys is None else check_keys(keys, len(chosen_N))
    previews = StorePreviews(store) if with_previews else None
    shown = previews.modalities() & set(modalities) if previews is not None else set()
    labels_N, label_names = np.asarray(store.labels), store.label_names
    for start in range(0, len(chosen_N), _BLOCK):
        rows_B = chosen_N[start : start + _BLOCK]
        present = {name: np.asarray(store.present(name))[rows_B] for name in names}
        has_B = np.logical_or.reduce(list(present.values()))
        block_keys = [all_keys[row] for row in rows_B] if keys is None else list(all_keys[start : start + len(rows_B)])
        embedded = {name: _embedded(store, space, name, rows_B, present[name], dim, block_keys) for name in names}
        block = Block(
            block_keys,
            embedded,
            present,
            names=[store.item_name(int(row)) for row in rows_B] if store.has_names else None,
            labels=_labels(labels_N[rows_B], label_names),
            previews=None
            if previews is None or not shown
            else [_previews(previews, int(row), shown) for row in rows_B],
        )
        yield block.take(np.flatnonzero(has_B))


def item_rows(
    store: EmbeddingStore, modalities: Sequence[str], rows: str | Sequence[int] | NDArray[np.int64] = "all"
) -> NDArray[np.int64]:
    """Return the rows of the store that `store_blocks` yields as items."""
    chosen_N = _chosen_rows(store, rows)
    has_N = np.zeros(len(chosen_N), np.bool_)
    for name in modalities:
        if name in store.columns:
            has_N |= np.asarray(store.present(name))[chosen_N]
    return chosen_N[has_N]


def mapping_block(
    data: Mapping[str, Any],
    modalities: tuple[str, ...],
    dim: int,
    *,
    present: Mapping[str, Any] | None = None,
    keys: Sequence[str] | None = None,
    labels: Sequence[Any] | None = None,
    metadata: Sequence[Mapping[str, Any] | None] | None = None,
    previews: Sequence[Mapping[str, Preview] | None] | None = None,
    first: int = 0,
) -> Block:
    """Return the items of a mapping of embeddings, modality -> (B, D).

    Raises:
        ConfigError: a modality is unknown, or keys, labels, metadata or previews are invalid.
        ShapeError: rows have another shape.
        NonFiniteError: a present row is not finite or has norm zero.
    """
    tensors = as_tensors(data)
    if not isinstance(tensors, Mapping) or not tensors:
        raise ShapeError(
            f"items must be a store or a mapping of modalities to (B, {dim}) rows, got {type(data).__name__}"
        )
    masks = dict(present or {})
    for name in (*tensors, *masks):
        if name not in modalities:
            raise ConfigError(
                f"unknown modality {name!r}; the index has {', '.join(map(repr, modalities))}"
                f"{suggestion(name, modalities)}"
            )
    count = len(next(iter(tensors.values())))
    checked = check_keys(keys, count) if keys is not None else [str(first + row) for row in range(count)]
    rows: dict[str, NDArray[np.float32]] = {}
    has: dict[str, NDArray[np.bool_]] = {}
    for name, value in tensors.items():
        z_BD = as_dense(value, repr(name), f"a floating-point tensor of shape (B, {dim})").detach().cpu()
        if z_BD.shape != (count, dim) or not z_BD.is_floating_point():
            raise ShapeError(
                f"{name!r} has shape {tuple(z_BD.shape)} and dtype {z_BD.dtype}; expected floating-point rows of shape "
                f"({count}, {dim})"
            )
        mask_B = (
            row_mask(masks[name], f"present[{name!r}]", count).cpu().numpy() if name in masks else np.ones(count, bool)
        )
        rows[name], has[name] = unit_rows(name, z_BD, mask_B, checked), mask_B
    return Block(
        checked,
        rows,
        has,
        labels=None if labels is None else check_labels(labels, count),
        metadata=None if metadata is None else [check_metadata(each, key) for each, key in _zipped(metadata, checked)],
        previews=None
        if previews is None
        else [check_previews(each, modalities, key) for each, key in _zipped(previews, checked)],
    )


def unit_rows(name: str, z_BD: torch.Tensor, present_B: NDArray[np.bool_], keys: Sequence[str]) -> NDArray[np.float32]:
    """Return (B, D) float32 unit rows; absent rows are 0.

    Raises:
        NonFiniteError: a present row is not finite or has norm zero; the message has its key.
    """
    mask_B = torch.from_numpy(present_B)
    wide_BD = torch.where(mask_B[:, None], z_BD.double(), 1.0)
    bad = first_bad_row(wide_BD, ~usable_rows(wide_BD))
    if bad is not None:
        raise NonFiniteError(
            f"{name!r} row {bad.row} (item {keys[bad.row]!r}) {bad.what}{bad.more}; mark absent rows with `present=`"
        )
    scaled_BD = wide_BD / wide_BD.abs().amax(1, keepdim=True)
    unit_BD = scaled_BD / torch.linalg.vector_norm(scaled_BD, dim=1, keepdim=True)
    return cast("NDArray[np.float32]", torch.where(mask_B[:, None], unit_BD, 0.0).float().numpy())


def check_keys(keys: Sequence[str], count: int) -> list[str]:
    """Return the keys; raise ConfigError unless they are `count` unique, non-empty strings."""
    if isinstance(keys, str) or len(keys) != count:
        got = "a string" if isinstance(keys, str) else f"{len(keys)} keys"
        raise ConfigError(f"keys must be a list of {count} strings, got {got}")
    seen: set[str] = set()
    for key in keys:
        if not isinstance(key, str) or not key or len(key) > _MOST_KEY or "\0" in key:
            raise ConfigError(
                f"keys must be non-empty strings of at most {_MOST_KEY} characters, got {str(key)[:60]!r}"
            )
        if key in seen:
            raise ConfigError(f"the key {key!r} occurs twice; keys must be unique")
        _check_text(key, "the key")
        seen.add(key)
    return [str(key) for key in keys]


def check_labels(labels: Sequence[Any], count: int) -> list[str | None]:
    """Return labels as strings; None means unlabeled."""
    if isinstance(labels, str) or len(labels) != count:
        raise ConfigError(f"labels must be a list of {count} strings or None")
    return [None if label is None else _check_text(str(label), "the label") for label in labels]


def check_metadata(metadata: Mapping[str, Any] | None, key: str) -> dict[str, Any] | None:
    """Return the metadata of an item; raise ConfigError unless it maps names to strings, numbers, booleans or None."""
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping) or len(metadata) > _MOST_FIELDS:
        raise ConfigError(f"the metadata of {key!r} must be a mapping with at most {_MOST_FIELDS} fields")
    found: dict[str, Any] = {}
    for name, value in metadata.items():
        if not isinstance(name, str) or not name or "`" in name or name in ("label", "key"):
            raise ConfigError(f"the metadata of {key!r} has the field {name!r}; `label` and `key` are not metadata")
        if isinstance(value, np.generic):
            value = value.item()
        _check_text(name, f"the metadata of {key!r} has the field")
        if isinstance(value, str):
            value = _check_text(value, f"the field {name!r} of {key!r} is")
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if is_number and not abs(value) < float("inf"):
            raise ConfigError(f"the field {name!r} of {key!r} is {value!r}; numbers must be finite")
        if not (value is None or is_number or isinstance(value, str | bool)):
            raise ConfigError(
                f"the field {name!r} of {key!r} has type {type(value).__name__}; expected a string, number or boolean"
            )
        if is_number and not isinstance(value, int):
            value = float(value)
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            raise ConfigError(f"the field {name!r} of {key!r} is {value}; integers must fit into 64 bits")
        found[name] = value
    return found


def _check_text(text: str, what: str) -> str:
    """Raise ConfigError if a text cannot be stored as UTF-8, or has more than 1,000,000 characters."""
    if len(text) > _MOST_TEXT:
        raise ConfigError(f"{what} {text[:60]!r}... of {len(text)} characters; the limit is {_MOST_TEXT}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError(f"{what} {text[:60]!r}, which is not valid Unicode ({error.reason})") from None
    return text


def _zipped(values: Sequence[Any], keys: Sequence[str]) -> Iterator[tuple[Any, str]]:
    if len(values) != len(keys):
        raise ConfigError(f"expected one entry for each of the {len(keys)} items, got {len(values)}")
    return zip(values, keys, strict=True)


def _chosen_rows(store: EmbeddingStore, rows: str | Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    if isinstance(rows, str):
        check_choice("rows", rows, ("all", "train", "val", "test"))
        return np.arange(store.items) if rows == "all" else store.rows(rows)
    chosen = np.asarray(rows)
    if chosen.ndim != 1 or (len(chosen) and chosen.dtype.kind not in "iu"):
        raise ConfigError("rows must be the name of a split, or a list of row numbers")
    if len(chosen) and (chosen.min() < 0 or chosen.max() >= store.items):
        raise ConfigError(f"rows must be from 0 to {store.items - 1}, got {chosen.min()} to {chosen.max()}")
    if len(np.unique(chosen)) != len(chosen):
        raise ConfigError("rows has a row twice")
    return chosen.astype(np.int64)


def _labels(codes_B: NDArray[np.int64], names: tuple[str, ...]) -> list[str | None] | None:
    if not len(codes_B) or (codes_B < 0).all():
        return None
    return [(names[code] if code < len(names) else str(code)) if code >= 0 else None for code in codes_B.tolist()]


def _previews(previews: StorePreviews, row: int, modalities: set[str]) -> dict[str, Preview]:
    found = {name: previews.read(row, name) for name in sorted(modalities)}
    return {name: preview for name, preview in found.items() if preview is not None}


def _embedded(
    store: EmbeddingStore,
    space: Space | None,
    name: str,
    rows_B: NDArray[np.int64],
    present_B: NDArray[np.bool_],
    dim: int,
    keys: Sequence[str],
) -> NDArray[np.float32]:
    consecutive = len(rows_B) and rows_B[-1] - rows_B[0] == len(rows_B) - 1 and bool((np.diff(rows_B) == 1).all())
    array = store.array(name)
    raw_BW = np.array(array[rows_B[0] : rows_B[-1] + 1] if consecutive else array[rows_B], np.float32)
    if space is not None and raw_BW.shape[1] == space.dims.get(name):
        raw_BW[~present_B] = 0
        try:
            z_BD = space.encode({name: raw_BW}, present={name: present_B})[name].cpu()
        except NonFiniteError as error:
            raise NonFiniteError(f"store {store.name!r}, rows from {int(rows_B[0])}: {error}") from None
        return unit_rows(name, z_BD, present_B, keys)
    if raw_BW.shape[1] != dim:
        expected = f"{space.dims.get(name)} (features) or {dim} (embeddings)" if space is not None else str(dim)
        raise ShapeError(f"{name!r} of {store.name!r} has dim {raw_BW.shape[1]}; the index expects {expected}")
    return unit_rows(name, torch.from_numpy(raw_BW), present_B, keys)


def check_modalities(modalities: Sequence[str]) -> tuple[str, ...]:
    """Return the names; raise ConfigError unless they are 1 to 62 unique names that can be parts of file names."""
    from unialign._checks import unsafe_name

    if isinstance(modalities, str) or not 1 <= len(modalities) <= 62 or len(set(modalities)) != len(modalities):
        raise ConfigError(f"modalities must be a list of 1 to 62 different names, got {modalities!r}")
    for name in modalities:
        if str(name).lower() in _RESERVED:
            raise ConfigError(f"the modality name {name!r} is reserved for targets or filters; rename it")
        problem = unsafe_name(name)
        if problem is not None:
            raise DataError(f"the modality {name!r} cannot be stored: {problem}")
    return tuple(modalities)
