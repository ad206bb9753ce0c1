"""Check the rows, labels and split of a trained probe.

Shapes: `N` items, `D` dimension of the rows, `t` training, `v` validation and `n` test items.
"""

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from unialign._invalid_rows import first_bad_row
from unialign._plain_text import count
from unialign.batch import as_dense, check_dense
from unialign.config import Split
from unialign.errors import ConfigError, DataError, NonFiniteError, ShapeError
from unialign.metrics import codes
from unialign.probes._labels import numbered

_SPLITS = get_args(Split)


@dataclass(frozen=True, eq=False)
class ProbeData:
    """Rows and class numbers by split. Unlabeled items and items outside the split are left out.

    Attributes:
        z: split -> (rows, D), in the type of the input.
        labels: split -> (rows,) class numbers.
        rows: split -> (rows,) input rows.
        classes: the classes by number.
        known: C, number of classes with a training item, which have the numbers 0..C-1.
        groups: (n,) group of each test item, or None.
    """

    z: dict[str, Tensor]
    labels: dict[str, Tensor]
    rows: dict[str, Tensor]
    classes: tuple[Any, ...]
    known: int
    groups: Tensor | None

    @property
    def counts(self) -> dict[str, int]:
        unknown = int((self.labels["test"] >= self.known).sum())
        sizes = {name: len(rows) for name, rows in self.rows.items()}
        return sizes | ({"test_of_unknown_class": unknown} if unknown else {})


def probe_data(z: Any, y: Any, split: Any, *, groups: Any, needs_val: str) -> ProbeData:
    """Check the data of a probe; `needs_val` names the settings to choose on the validation items; empty if there is
    nothing to choose.
    """
    z_ND = _matrix(z)
    items = len(z_ND)
    split_N = _split_codes(split, items)
    label_N, classes, known = numbered(y, split_N == 0, rows=items)
    rows = {name: ((split_N == code) & (label_N >= 0)).nonzero().flatten() for code, name in enumerate(_SPLITS)}
    for name in ("train", "test", *(("val",) if needs_val else ())):
        if not len(rows[name]):
            raise DataError(_empty(name, int((split_N == _SPLITS.index(name)).sum()), needs_val))
    if known < 2:
        raise DataError(
            f"the training items have {count(known, 'class', 'classes')} ({', '.join(map(repr, classes[:1]))}); at "
            f"least 2 are needed to train a probe"
        )
    for name in _SPLITS:
        _check_finite(z_ND, rows[name])
    group_n = None if groups is None else codes(groups, "groups", rows=items)[rows["test"]]
    return ProbeData(
        z={name: z_ND[rows[name].to(z_ND.device)] for name in _SPLITS},
        labels={name: label_N[rows[name]] for name in _SPLITS},
        rows=rows,
        classes=classes,
        known=known,
        groups=group_n,
    )


def _empty(name: str, items: int, needs_val: str) -> str:
    found = "has no items" if not items else f"has {count(items, 'item')}, all without a label"
    if name == "val":
        return (
            f"the split 'val' {found}, so {needs_val} cannot be chosen; mark items as 'val', or give one value of "
            f"{needs_val}"
        )
    return f"the split {name!r} {found}; a probe needs labeled items in 'train' and 'test'"


def _matrix(z: Any) -> Tensor:
    z_ND = as_dense(z, "z", "floating-point rows (N, D)")
    if z_ND.ndim != 2 or not z_ND.is_floating_point() or 0 in z_ND.shape:
        raise ShapeError(f"z is {z_ND.dtype} of shape {tuple(z_ND.shape)}; expected floating-point rows (N, D)")
    return z_ND.detach()


def _split_codes(split: Any, items: int) -> Tensor:
    """Return (N,) codes 0 = train, 1 = val, 2 = test, -1 = not used."""
    expected = f"(N,) names 'train', 'val', 'test' or codes 0, 1, 2, for {items} items"
    if isinstance(split, Tensor):
        check_dense(split, "split", expected)
        split = split.detach().cpu().numpy()
    values_N = np.asarray(split)
    if values_N.shape != (items,) or values_N.dtype.kind not in "iuUS":
        raise ShapeError(f"split is {values_N.dtype} of shape {values_N.shape}; expected {expected}")
    if values_N.dtype.kind in "iu":
        code_N = np.where(values_N < 0, -1, values_N.astype(np.int64))
        unknown = np.flatnonzero(code_N > 2)
    else:
        texts_N = values_N.astype(str)
        code_N = np.full(items, -2, np.int64)
        for code, name in [(-1, ""), *enumerate(_SPLITS)]:
            code_N[texts_N == name] = code
        unknown = np.flatnonzero(code_N == -2)
    if len(unknown):
        raise ConfigError(
            f"the split of row {unknown[0]} is {values_N[unknown[0]].item()!r}; expected 'train', 'val', 'test' or "
            f"'' (codes 0, 1, 2 or a negative number) for items that are not used"
        )
    return torch.from_numpy(code_N)


def _check_finite(z_ND: Tensor, rows_n: Tensor) -> None:
    rows_n = rows_n.to(z_ND.device)
    bad_n = ~torch.isfinite(z_ND[rows_n]).all(1)
    if bool(bad_n.any()):
        bad_N = torch.zeros(len(z_ND), dtype=torch.bool, device=z_ND.device)
        bad_N[rows_n] = bad_n
        bad = first_bad_row(z_ND, bad_N)
        assert bad is not None
        raise NonFiniteError(
            f"z row {bad.row} {bad.what}{bad.more}; leave items without an embedding out with the split '' or -1"
        )
