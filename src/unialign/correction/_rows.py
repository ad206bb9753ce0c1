"""Read the rows on which a repair is fitted and chosen.

Shapes: `N` items, `n` sampled items, `W` dimension of features, `D` dimension of the space.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign._invalid_rows import first_bad_row, usable_rows
from unialign.batch import make_batch
from unialign.errors import DataError, NonFiniteError, ShapeError
from unialign.readers import Collection, first_appearance_codes
from unialign.space import Space

# Limits of the items to fit the layers: their number, and the bytes of their rows in float64.
_FIT_ITEMS, _FIT_BYTES = 8192, 2**29
# Limits of the held-out items: their number, and the number of cosines over all directions.
_HELD_ITEMS, _HELD_COSINES = 1024, 2**22
_TEST = {"test", "2"}
_VALIDATION = {"val", "validation", "valid", "dev", "1"}


@dataclass(frozen=True)
class ItemRows:
    """Unit rows of some items: modality -> (n, D), 0 where absent. Labels are -1 for unlabeled items."""

    items_n: NDArray[np.int64]
    z: dict[str, Tensor]
    present: dict[str, Tensor]
    ids_n: Tensor
    labels_n: NDArray[np.int64] | None
    groups_n: NDArray[np.int64] | None = None

    def rows(self) -> dict[str, Tensor]:
        return {name: z_nD[self.present[name]] for name, z_nD in self.z.items()}


def split_items(
    data: Collection, groups_N: NDArray[np.int64], holdout: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the items to fit and the held-out items, without the test split. Without a validation split, random groups
    are held out.
    """
    rng = np.random.default_rng(seed)
    present_MN = np.stack([modality.present_N for modality in data.modalities.values()])
    has_row_N, has_pair_N = present_MN.any(0), present_MN.sum(0) >= 2
    split_N = data.values.get("split")
    held_N = np.zeros(data.items, np.bool_)
    if split_N is not None:
        text_N = split_N.astype(str)
        has_row_N &= ~np.isin(text_N, list(_TEST))
        held_N = np.isin(text_N, list(_VALIDATION)) & has_row_N
    usable = np.unique(groups_N[has_row_N & has_pair_N])
    drawn = (held_N & has_pair_N).sum() < 2
    if drawn:
        # A bootstrap needs at least two groups, and the fit needs two items, which may be in one group.
        size = max(1, min(max(2, round(holdout * len(usable))), len(usable) - (2 if len(usable) > 3 else 1)))
        chosen = rng.permutation(usable)[:size]
        held_N = np.isin(groups_N, chosen) & has_row_N
    held = np.flatnonzero(held_N & has_pair_N)
    fit = np.flatnonzero(has_row_N & ~held_N)
    directions = max(1, len(data.modalities) * (len(data.modalities) - 1))
    most = min(_HELD_ITEMS, int((_HELD_COSINES / directions) ** 0.5))
    if len(held) < 2 or len(fit) < 2:
        raise DataError(_too_few(int((has_row_N & has_pair_N).sum()), len(usable), len(fit), len(held), drawn=drawn))
    row_bytes = 8 * sum(modality.rows.shape[1] for modality in data.modalities.values())
    most_fit = max(2, min(_FIT_ITEMS, _FIT_BYTES // row_bytes))
    return _some(rng, fit, most_fit), _some(rng, held, min(most, most_fit))


def _too_few(items: int, groups: int, fit: int, held: int, *, drawn: bool) -> str:
    if items < 4:
        return (
            f"a repair needs at least four items with two modalities outside the test split, got {items}; "
            "pass more items, or check the presence masks and ids"
        )
    if not drawn:
        return (
            f"a repair needs at least two items outside the splits `val` and `test`, got {fit}; "
            "check the array `split`, or omit it"
        )
    number = "the same id or group" if groups == 1 else f"only {groups} different ids or groups"
    return (
        f"a repair needs at least two items to fit and two held-out items, got {fit} and {held}, because items with "
        f"the same id or group stay together, and the {items} items with two modalities have {number}; "
        "pass items with more ids and groups, or omit `ids` and `groups`"
    )


def read_rows(
    data: Collection, groups_N: NDArray[np.int64], items_n: NDArray[np.int64], space: Space | None
) -> ItemRows:
    z: dict[str, Tensor] = {}
    present: dict[str, Tensor] = {}
    for name, modality in data.modalities.items():
        present_n = modality.present_N[items_n]
        present[name] = torch.from_numpy(present_n)
        raw_nW = torch.zeros(len(items_n), modality.rows.shape[1], dtype=torch.float64)
        rows_nW = as_floats(modality.rows.take(items_n[present_n].tolist()))
        check_rows(name, rows_nW, items_n[present_n])
        raw_nW[present[name]] = rows_nW.double()
        if space is not None:
            raw_nW = space.encode({name: raw_nW}, present={name: present[name]})[name].cpu().double()
        z[name] = make_batch({name: raw_nW}, present={name: present[name]}, minimum=1).z_MBD[0]
    dims = {name: z_nD.shape[1] for name, z_nD in z.items()}
    if len(set(dims.values())) > 1:
        listed = ", ".join(f"{name!r} {dim}" for name, dim in dims.items())
        raise ShapeError(
            f"the modalities have different dims ({listed}), so they are not in a shared space; train a space with "
            "`ua.fit`, or pass a space and its features"
        )
    ids_n = items_n if data.ids_N is None else data.ids_N[items_n]
    labels_n = None if data.labels_N is None else data.labels_N[items_n]
    return ItemRows(items_n, z, present, torch.from_numpy(ids_n), labels_n, groups_N[items_n])


def merged_rows(one: ItemRows, other: ItemRows) -> dict[str, Tensor]:
    rows, more = one.rows(), other.rows()
    return {name: torch.cat([z_nD, more[name]]) for name, z_nD in rows.items()}


def groups_of(data: Collection) -> NDArray[np.int64]:
    """Return equal codes for items of the same group or id, directly or through other items."""
    if "groups" not in data.values:
        return np.arange(data.items) if data.ids_N is None else data.ids_N
    group_N = first_appearance_codes(data.values["groups"])
    if data.ids_N is None:
        return group_N
    # Groups that share an id are joined.
    first_of_id = np.unique(data.ids_N, return_index=True)[1]
    first_N = group_N[first_of_id[data.ids_N]]
    joined = np.unique(np.stack([first_N, group_N], 1)[first_N != group_N], axis=0)
    if not len(joined):
        return group_N
    root = list(range(int(group_N.max()) + 1))
    for one, other in joined.tolist():
        root[_root(root, other)] = _root(root, one)
    return np.array([_root(root, code) for code in range(len(root))], np.int64)[group_N]


def _root(root: list[int], code: int) -> int:
    while root[code] != code:
        root[code] = root[root[code]]
        code = root[code]
    return code


def as_floats(rows_nW: NDArray[Any]) -> Tensor:
    return torch.from_numpy(rows_nW.astype(np.promote_types(rows_nW.dtype, np.float32), copy=False))


def check_rows(
    name: str, rows_nW: Tensor, items_n: NDArray[np.int64], present_n: NDArray[np.bool_] | None = None
) -> None:
    bad_n = ~usable_rows(rows_nW)
    bad = first_bad_row(rows_nW, bad_n if present_n is None else bad_n & torch.from_numpy(present_n))
    if bad is not None:
        raise NonFiniteError(
            f"{name!r} row {items_n[bad.row]} {bad.what}; mark items without {name!r} as absent with `present=` or an "
            f"array `present.{name}`"
        )


def _some(rng: np.random.Generator, items: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    return np.sort(rng.permutation(items)[:most]) if len(items) > most else items


def present_counts(rows: Mapping[str, Tensor]) -> dict[str, int]:
    return {name: len(z_nD) for name, z_nD in rows.items()}
