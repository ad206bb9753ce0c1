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
    """Unit rows of some items.

    Attributes:
        items_n: row numbers of the items in the data.
        z: modality -> (n, D) float64 unit rows; 0 where absent.
        present: modality -> (n,) bool.
        ids_n, labels_n: ids, and labels with -1 = unlabeled; labels are None if there are none.
    """

    items_n: NDArray[np.int64]
    z: dict[str, Tensor]
    present: dict[str, Tensor]
    ids_n: Tensor
    labels_n: NDArray[np.int64] | None

    def rows(self) -> dict[str, Tensor]:
        """Return the present rows of each modality."""
        return {name: z_nD[self.present[name]] for name, z_nD in self.z.items()}


def split_items(data: Collection, holdout: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ascending row numbers of the items to fit on and of the held-out items.

    Items of the test split are used for neither. The validation split is held out if there is one; otherwise, a random
    fraction is held out, with items of the same id or group on the same side.
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
    if (held_N & has_pair_N).sum() < 2:
        together_N = data.values.get("groups", data.values.get("ids"))
        code_N = np.arange(data.items) if together_N is None else first_appearance_codes(together_N)
        usable = np.unique(code_N[has_row_N & has_pair_N])
        chosen = rng.permutation(usable)[: max(1, round(holdout * len(usable)))]
        held_N = np.isin(code_N, chosen) & has_row_N
    held = np.flatnonzero(held_N & has_pair_N)
    fit = np.flatnonzero(has_row_N & ~held_N)
    directions = max(1, len(data.modalities) * (len(data.modalities) - 1))
    most = min(_HELD_ITEMS, int((_HELD_COSINES / directions) ** 0.5))
    if len(held) < 2 or len(fit) < 2:
        usable_items = int((has_row_N & has_pair_N).sum())
        raise DataError(
            f"a repair needs at least four items with two modalities outside of the test split, got {usable_items}; "
            "pass more items, or check the presence masks and ids"
        )
    row_bytes = 8 * sum(modality.rows.shape[1] for modality in data.modalities.values())
    most_fit = max(2, min(_FIT_ITEMS, _FIT_BYTES // row_bytes))
    return _some(rng, fit, most_fit), _some(rng, held, min(most, most_fit))


def read_rows(data: Collection, items_n: NDArray[np.int64], space: Space | None) -> ItemRows:
    """Read the rows of the given items as unit rows; with a space, embed their features.

    Raises:
        NonFiniteError: a present row is not finite or has no direction.
        ShapeError: the modalities have different dims.
    """
    z: dict[str, Tensor] = {}
    present: dict[str, Tensor] = {}
    for name, modality in data.modalities.items():
        present_n = modality.present_N[items_n]
        rows_nW = np.zeros((len(items_n), modality.rows.shape[1]), np.float64)
        rows_nW[present_n] = modality.rows.take(items_n[present_n].tolist())
        _check_rows(name, rows_nW, present_n, items_n)
        present[name] = torch.from_numpy(present_n)
        raw_nW = torch.from_numpy(rows_nW)
        if space is not None:
            raw_nW = space.encode({name: raw_nW}, present={name: present[name]})[name].cpu().double()
        z[name] = torch.nn.functional.normalize(raw_nW, dim=1, eps=1e-300)
    dims = {name: z_nD.shape[1] for name, z_nD in z.items()}
    if len(set(dims.values())) > 1:
        listed = ", ".join(f"{name!r} {dim}" for name, dim in dims.items())
        raise ShapeError(
            f"the modalities have different dims ({listed}), so they are not in a shared space; train a space with "
            "`ua.fit`, or pass a space and its features"
        )
    ids_N, labels_N = data.values.get("ids"), data.values.get("labels")
    ids_n = items_n if ids_N is None else first_appearance_codes(ids_N)[items_n]
    return ItemRows(
        items_n, z, present, torch.from_numpy(ids_n), None if labels_N is None else _labels(labels_N)[items_n]
    )


def merged(one: ItemRows, other: ItemRows) -> ItemRows:
    """Return the rows of both."""
    labels_n = None if one.labels_n is None or other.labels_n is None else np.append(one.labels_n, other.labels_n)
    return ItemRows(
        np.append(one.items_n, other.items_n),
        {name: torch.cat([z_nD, other.z[name]]) for name, z_nD in one.z.items()},
        {name: torch.cat([mask_n, other.present[name]]) for name, mask_n in one.present.items()},
        torch.cat([one.ids_n, other.ids_n]),
        labels_n,
    )


def _labels(labels_N: NDArray[Any]) -> NDArray[np.int64]:
    if labels_N.dtype.kind in "iu":
        return np.where(labels_N < 0, -1, labels_N).astype(np.int64)
    return np.where(labels_N.astype(str) == "", -1, first_appearance_codes(labels_N))


def _some(rng: np.random.Generator, items: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    return np.sort(rng.permutation(items)[:most]) if len(items) > most else items


def _check_rows(
    name: str, rows_nW: NDArray[np.float64], present_n: NDArray[np.bool_], items_n: NDArray[np.int64]
) -> None:
    finite_n = np.asarray(np.isfinite(rows_nW).all(1))
    bad_n = present_n & ~(finite_n & (np.abs(rows_nW).max(1, initial=0.0) > 1e-150))
    if bad_n.any():
        place = int(bad_n.argmax())
        found = "contains only zeros" if finite_n[place] else "contains NaN or infinity"
        raise NonFiniteError(
            f"{name!r} row {items_n[place]} {found}; mark items without {name!r} as absent with `present=` or an array "
            f"`present.{name}`"
        )


def present_counts(rows: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the number of rows of each modality."""
    return {name: len(z_nD) for name, z_nD in rows.items()}
