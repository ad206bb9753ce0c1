"""Save a table as a folder with `items.json` and `items.jsonl`, and load it."""

import gc
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

from unialign._checks import check_choice, one_line
from unialign.errors import ConfigError, DataError
from unialign.io import (
    CHUNK_BYTES,
    add_checksum,
    atomic_directory,
    checked_path,
    is_unchanged,
    open_regular,
    reject_links_out,
    write_durably,
)
from unialign.items._columns import build_columns
from unialign.items._lines import lines_of
from unialign.items._table import Table, absolute_roots, check_kinds

__all__ = ["DESCRIPTION_FILE", "LINES_FILE", "Overwrite", "is_saved", "load_table", "save_table"]

DESCRIPTION_FILE, LINES_FILE = "items.json", "items.jsonl"
SCHEMA = 1
Overwrite = Literal["never", "replace"]

_MAX_DESCRIPTION_BYTES = 1 << 24
_MAX_LINE_BYTES = 1 << 26
_REPAIR = "restore the file or save the table again"


def is_saved(folder: Path) -> bool:
    return (folder / DESCRIPTION_FILE).is_file()


def save_table(table: Table, path: str | os.PathLike[str], *, overwrite: Overwrite) -> tuple[Path, str]:
    """Return the path and the sha256 of the lines."""
    check_choice("overwrite", overwrite, ("never", "replace"))
    target = Path(os.path.abspath(checked_path(path, "the table", error=DataError)))

    def check_replaced(previous: Path) -> None:
        if target.is_symlink() or (any(previous.iterdir()) and not is_saved(previous)):
            raise DataError(f"{target} exists and is not an item table, so it is not replaced; choose another path")

    if target.exists() or target.is_symlink():
        if overwrite == "never" and not (target.is_dir() and not any(target.iterdir())):
            raise DataError(f"{target} already exists; choose another path or pass overwrite='replace'")
        if overwrite == "replace":
            check_replaced(target)
    try:
        with atomic_directory(target, check_replaced=check_replaced if overwrite == "replace" else None) as partial:
            sha256 = write_durably(partial / LINES_FILE, lines_of(table.columns))
            body = _description(table, target, sha256, (partial / LINES_FILE).stat().st_size)
            text = json.dumps(add_checksum(body, sort_keys=True), indent=1, allow_nan=False) + "\n"
            write_durably(partial / DESCRIPTION_FILE, text.encode("ascii"))
    except OSError as error:
        raise DataError(f"cannot write the table {target}: {error}; the path is unchanged") from error
    return target, sha256


def load_table(path: str | os.PathLike[str], *, roots: Sequence[str | os.PathLike[str]] | None) -> Table:
    folder = Path(os.path.abspath(checked_path(path, "the table", error=DataError)))
    if not folder.is_dir():
        raise DataError(f"{folder} is not an item table, since the folder does not exist; check the path")
    body = _read_description(folder)
    lines = folder / LINES_FILE
    try:
        kinds = {str(entry["name"]): entry["kind"] for entry in body["modalities"]}
        check_kinds(kinds)
        own = [os.path.join(folder, root) for root in body["roots"]]
        size, sha256, items = int(body["lines"]["bytes"]), str(body["lines"]["sha256"]), int(body["items"])
        name, license = str(body["name"]), str(body["license"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{folder / DESCRIPTION_FILE} is not the description of a table ({type(error).__name__}: {error}); "
            f"{_REPAIR}"
        ) from None
    if roots is not None and len(roots) != len(own):
        raise ConfigError(
            f"roots has {len(roots)} folders, but the table {folder} has {len(own)}: {', '.join(body['roots'])}"
        )

    def where(row: int) -> str:
        return f"{lines}, line {row + 1}"

    hasher = hashlib.sha256()
    with _opened(lines, folder) as file:
        found = os.fstat(file.fileno()).st_size
        if found != size:
            raise DataError(f"{lines} has {found:,} bytes, but {DESCRIPTION_FILE} describes {size:,}; {_REPAIR}")
        columns = build_columns(_records(file, hasher.update, where), kinds, where)
    if hasher.hexdigest() != sha256 or len(columns) != items:
        raise DataError(
            f"{lines} was altered: it has {len(columns):,} items and sha256 {hasher.hexdigest()}, but "
            f"{DESCRIPTION_FILE} describes {items:,} items and {sha256}; {_REPAIR}"
        )
    return Table(name, kinds, absolute_roots(own if roots is None else roots), license, columns, sha256)


def _description(table: Table, target: Path, sha256: str, size: int) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "name": table.name,
        "items": len(table.columns),
        "modalities": [
            {"name": name, "kind": kind, "present": int((table.columns.cells[name] != "").sum())}
            for name, kind in table.kinds.items()
        ],
        "roots": [_saved_root(root, target) for root in table.roots],
        "license": table.license,
        "lines": {"bytes": size, "sha256": sha256},
    }


def _saved_root(root: Path, target: Path) -> str:
    # Use relative paths for a table inside or next to its root, so that both can be moved together.
    if target.is_relative_to(root) or root.is_relative_to(target.parent):
        return Path(os.path.relpath(root, target)).as_posix()
    return root.as_posix()


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION_FILE
    with _opened(path, folder) as file:
        text = file.read(_MAX_DESCRIPTION_BYTES + 1)
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not readable JSON ({one_line(error)}); {_REPAIR}") from None
    if not isinstance(body, dict) or not is_unchanged(body, sort_keys=True):
        raise DataError(f"{path} is not the description of a table, or was altered after it was written; {_REPAIR}")
    if body.get("schema") != SCHEMA:
        raise DataError(
            f"{path} has schema {body.get('schema')!r}, but this version of unialign reads schema {SCHEMA}; update "
            "unialign or create the table again"
        )
    return body


def _opened(path: Path, folder: Path) -> BinaryIO:
    reject_links_out(path, folder, error=DataError)
    try:
        return open_regular(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); {_REPAIR}") from None


def _records(
    file: BinaryIO, update: Callable[[bytes], None], where: Callable[[int], str]
) -> Iterator[Mapping[str, Any]]:
    rest, row = b"", 0
    while chunk := file.read(CHUNK_BYTES):
        update(chunk)
        whole, end, rest = (rest + chunk).rpartition(b"\n")
        if end:
            records = _parsed(whole.split(b"\n"), where, row)
            yield from records
            row += len(records)
        if len(rest) > _MAX_LINE_BYTES:
            raise DataError(f"{where(row)} is longer than {_MAX_LINE_BYTES >> 20} MiB; {_REPAIR}")
    if rest:
        yield from _parsed([rest], where, row)


def _parsed(lines: Sequence[bytes], where: Callable[[int], str], start: int) -> Sequence[Mapping[str, Any]]:
    is_collecting = gc.isenabled()
    # JSON has no reference cycles; searching for them takes a third of the time of parsing.
    gc.disable()
    try:
        records = json.loads(f"[{b','.join(lines).decode()}]")
    except (ValueError, RecursionError):
        records = []
    finally:
        if is_collecting:
            gc.enable()
    if len(records) == len(lines):
        return records  # type: ignore[no-any-return]
    # Parse the lines one by one to find the first that is not one object.
    for row, line in enumerate(lines, start):
        try:
            json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where(row)} is not JSON ({one_line(error)}); {_REPAIR}") from None
    raise DataError(f"{where(start)} and later lines do not have one object per line; {_REPAIR}")
