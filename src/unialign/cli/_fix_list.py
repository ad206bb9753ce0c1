"""Write and read lists of items to check or remove.

Shapes: `N` items, `c` rows of a block, `D` dimension.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unialign.config import DiagnoseConfig
from unialign.data import EmbeddingStore, list_datasets, load_dataset, open_collection, unique_keys
from unialign.diagnostics import SuspiciousItem, items_compared, suspicious_items
from unialign.errors import ConfigError, DataError
from unialign.index import Index
from unialign.io import replace_file
from unialign.serve import corrected

Action = Literal["check", "remove"]
_SUFFIXES = (".csv", ".json", ".jsonl")
# First characters of texts that a spreadsheet interprets as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_BLOCK = 65_536


@dataclass(frozen=True)
class Fix:
    """A row of the list.

    Attributes:
        row: row number of the item in the files.
        key: key of the item.
        modality: affected modalities, separated by spaces.
        finding: `nan`, `infinite`, `zero`, `mispaired`, `copy`, `hub` or `outlier`.
        value: strength, by finding: fraction of nearer items, number of equal modalities, multiple of the average, or
            z-value.
        action: `remove` for unusable rows and for all but the first copy of whole items, else `check`.
        partner: key of another item that is involved.
        reason: the finding in words.
    """

    row: int
    key: str
    modality: str
    finding: str
    value: float
    action: Action
    partner: str
    reason: str


def check_fix_list(path: Path) -> None:
    """Raise ConfigError unless the suffix is .csv, .json or .jsonl."""
    if path.suffix not in _SUFFIXES:
        raise ConfigError(f"--fix-list {path} must end in .csv, .json or .jsonl")


def find_fixes(config: DiagnoseConfig) -> tuple[list[Fix], int, int]:
    """Return the items to check or remove, the number of items that were compared, and the number of all items."""
    data = open_collection(list(config.files), modalities=config.modalities, id=config.id)
    keys = _keys(config.files, data.values, data.items)
    fixes: list[Fix] = []
    usable: dict[str, NDArray[np.bool_]] = {}
    by_dim: dict[int, list[str]] = {}
    for name, modality in data.modalities.items():
        usable[name] = modality.present_N.copy()
        by_dim.setdefault(modality.rows.shape[1], []).append(name)
        array_ND = modality.load()
        for start in range(0, data.items, _BLOCK):
            rows_cD = np.asarray(array_ND[start : start + _BLOCK])
            for finding, bad_c in _invalid(rows_cD).items():
                for row in start + np.flatnonzero(bad_c & modality.present_N[start : start + _BLOCK]):
                    usable[name][row] = False
                    reason = f"{name}: the row of this item is {finding}"
                    fixes.append(Fix(int(row), keys[row], name, finding, 1.0, "remove", "", reason))
    compared = data.items
    for dim, names in by_dim.items():
        number = items_compared(data.items, len(names), dim)
        compared = min(compared, number)
        chosen = np.sort(np.random.default_rng(config.seed).permutation(data.items)[:number])
        chosen = chosen[np.any([usable[name][chosen] for name in names], axis=0)]
        names = [name for name in names if usable[name][chosen].any()]
        if names and len(chosen):
            rows = {name: np.asarray(data.modalities[name].load()[chosen], np.float32) for name in names}
            found = _faults(rows, {name: usable[name][chosen] for name in names}, [keys[row] for row in chosen])
            fixes += _fixes(found, keys, data.ids_N, {key: row for row, key in enumerate(keys)}, usable)
    return fixes, compared, data.items


def write_fix_list(path: Path, fixes: Sequence[Fix]) -> None:
    """Write a list as CSV, JSON or JSON lines, by the suffix of the file."""
    rows = [asdict(fix) for fix in fixes]
    if path.suffix == ".json":
        content = json.dumps({"items": rows}, indent=1, ensure_ascii=False) + "\n"
    elif path.suffix == ".jsonl":
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        out = io.StringIO()
        writer = csv.DictWriter(out, list(Fix.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _quoted(value) for name, value in row.items()} for row in rows)
        content = out.getvalue()
    replace_file(path, content, error=DataError)


def read_removed(path: Path) -> list[str]:
    """Return the keys of a list whose action is `remove`, or all keys of a list without actions, such as an export.

    Raises:
        DataError: the file cannot be read, or has no keys.
    """
    try:
        text = path.read_text("utf-8")
        rows: list[Any]
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
            rows = [row if isinstance(row, dict) else {"key": row} for row in rows]
        elif path.suffix == ".json":
            given = json.loads(text)
            rows = given["items"] if isinstance(given, dict) else given
            rows = [row if isinstance(row, dict) else {"key": row} for row in rows]
        else:
            rows = list(csv.DictReader(io.StringIO(text)))
            rows = [row | {"key": _unquoted(row["key"])} for row in rows]
        keys = [str(row["key"]) for row in rows if row.get("action") in (None, "remove")]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read as a list of items ({type(error).__name__}: {error}); expected CSV with a column "
            "`key`, JSON or JSON lines, as written by `unialign diagnose --fix-list` or by the page's Export"
        ) from None
    return list(dict.fromkeys(keys))


def _quoted(value: object) -> object:
    """Put an apostrophe before texts that a spreadsheet would read as a formula, and before apostrophes."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("'", *_FORMULA)) else value


def _unquoted(key: str) -> str:
    return key[1:] if key.startswith("'") and key[1:].startswith(("'", *_FORMULA)) else key


def _keys(files: Sequence[str], values: Mapping[str, NDArray[Any]], items: int) -> list[str]:
    """Return the keys of the items as in an index: unique names or text ids, else the row numbers."""
    if len(files) == 1 and (files[0] in list_datasets() or (Path(files[0]) / "store.json").is_file()):
        return unique_keys(load_dataset(files[0]))
    for name in ("ids", "names"):
        found = values.get(name)
        if found is not None and found.dtype.kind in "UO" and len(set(found.tolist())) == items:
            return [str(value) for value in found.tolist()]
    return [str(row) for row in range(items)]


def _invalid(rows_cD: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
    nan_c = np.isnan(rows_cD).any(1)
    infinite_c = ~nan_c & np.isinf(rows_cD).any(1)
    return {"nan": nan_c, "infinite": infinite_c, "zero": (rows_cD == 0).all(1)}


def _faults(
    rows: Mapping[str, NDArray[np.float32]], present: Mapping[str, NDArray[np.bool_]], keys: Sequence[str]
) -> tuple[SuspiciousItem, ...]:
    """Find suspicious items among corrected rows, since a modality gap is not a fault of single items."""
    cleaned = {name: np.where(present[name][:, None], value, 0) for name, value in rows.items()}
    store = EmbeddingStore.from_arrays(cleaned, present=dict(present), names=list(keys))
    index = Index.from_store(store)
    drawn = index.embeddings()
    return suspicious_items(corrected(index, drawn.z), keys=drawn.keys, present=drawn.present).found


def _fixes(
    faults: Sequence[SuspiciousItem],
    keys: Sequence[str],
    ids_N: NDArray[np.int64] | None,
    row_of: Mapping[str, int],
    usable: Mapping[str, NDArray[np.bool_]],
) -> list[Fix]:
    fixes = []
    for fault in faults:
        row = row_of[fault.key]
        action: Action = "check"
        if fault.kind == "copy" and fault.partner is not None:
            other = row_of[fault.partner]
            if ids_N is not None and ids_N[row] == ids_N[other]:
                continue  # items of one id may share rows
            if {name for name in usable if usable[name][row]} <= set(fault.modalities):
                if other > row:
                    continue  # the first of equal items is kept
                action = "remove"
        fixes.append(
            Fix(
                row,
                fault.key,
                " ".join(fault.modalities),
                fault.kind,
                fault.value,
                action,
                fault.partner or "",
                fault.text,
            )
        )
    return fixes
