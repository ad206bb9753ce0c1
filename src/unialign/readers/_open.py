"""Open a file with the reader that matches its content, regardless of the suffix."""

from collections.abc import Callable, Iterator
from pathlib import Path

from unialign import registry
from unialign._checks import one_line, suggestion, warn_skipped
from unialign.errors import ConfigError, DataError
from unialign.io import open_regular
from unialign.readers._entry import EmbeddingFile, Reader
from unialign.readers._foreign import foreign_folder, foreign_format
from unialign.readers._item_records import kind_of_name
from unialign.readers._no_arrays import items_of_folder

__all__ = ["find_reader", "load_reader", "open_file", "recognized"]

_HEAD_BYTES = 16
_LISTED_FILES = 10_000


def open_file(path: Path, *, reader: str | Reader | None = None) -> EmbeddingFile:
    """List the arrays of a file or folder from headers, without unpickling.

    Args:
        reader: a name in `registry.names("readers")` or an instance. None: the first reader that recognizes the
            content, with built-in readers first; broken readers from packages are skipped with a warning.

    Raises:
        DataError: the file is missing, is damaged, is a pickle, or has an unknown format.
        ConfigError: the reader is unknown.
    """
    head = b"" if path.is_dir() else _head(path)
    if reader is not None:
        return load_reader(reader).open(path)
    found = _find_reader(path, head)
    if found is None:
        raise _unreadable(path, head)
    return found.open(path)


def recognized(path: Path) -> bool:
    return _find_reader(path, b"" if path.is_dir() else _head(path)) is not None


def find_reader(path: Path) -> Reader:
    """Return the first reader of items that recognizes a file or folder."""
    head = b"" if path.is_dir() else _head(path, _expected_items)
    found = next((found for found in _readers() if _reads_items(found) and _recognizes(found, path, head)), None)
    if found is not None:
        return found
    other = _find_reader(path, head)
    if other is None:
        raise _unreadable(path, head, _expected_items)
    raise DataError(
        f"{path} has the format {other.name}, which is read as embeddings and not as items; write the rows to "
        "a .npy or Parquet file to list them as items"
    )


def _find_reader(path: Path, head: bytes) -> Reader | None:
    return next((found for found in _readers() if _reads_arrays(found) and _recognizes(found, path, head)), None)


def _reads_items(reader: Reader) -> bool:
    return hasattr(reader, "read_items")


def _reads_arrays(reader: Reader) -> bool:
    return not getattr(reader, "items_only", False)


def _head(path: Path, expected: Callable[[], str] | None = None) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read(_HEAD_BYTES)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; {_similar(path) or 'check the path'}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; {(expected or _expected)()}") from None


def _similar(path: Path) -> str:
    names = [entry.name for entry in sorted(path.parent.iterdir())] if path.parent.is_dir() else []
    return suggestion(path.name, names[:_LISTED_FILES]).removeprefix("; ")


def load_reader(reader: str | Reader) -> Reader:
    """Return the reader of a name, or the instance; raise ConfigError if it is unknown or incomplete."""
    found = registry.load("readers", reader) if isinstance(reader, str) else reader
    try:
        found = found() if isinstance(found, type) else found
    except Exception as error:  # third-party classes may raise any exception
        raise ConfigError(f"reader {reader!r} cannot be created: {one_line(error)}") from error
    if not isinstance(found, Reader):
        raise ConfigError(f"reader {reader!r} lacks name, suffixes, can_read or open; see unialign.readers.Reader")
    return found


def _readers() -> Iterator[Reader]:
    for name in registry.names("readers"):
        try:
            yield load_reader(name)
        except ConfigError as error:
            warn_skipped(str(error))


def _recognizes(reader: Reader, path: Path, head: bytes) -> bool:
    try:
        return reader.can_read(path, head)
    except Exception as error:  # third-party readers may raise any exception
        if registry.is_built_in("readers", reader.name):
            raise
        warn_skipped(f"reader {reader.name!r} raises {type(error).__name__}: {one_line(error)}")
        return False


def _unreadable(path: Path, head: bytes, expected: Callable[[], str] | None = None) -> DataError:
    expected = expected or _expected
    if path.is_dir():
        other = (
            foreign_folder(path)
            or items_of_folder(path)
            or f"a folder without store.json and without files that can be read; {expected()}"
        )
        return DataError(f"{path} is {other}")
    if not head:
        return DataError(f"{path} is empty; {expected()}")
    if expected is _expected_items and (kind := kind_of_name(path.name)):
        return DataError(
            f"{path} is a single {kind} file; pass its folder {path.parent}, whose files are grouped into items, "
            "instead of single files or a pattern"
        )
    what = foreign_format(path, head)
    if what is not None:
        return DataError(f"{path} is {what}")
    if path.suffix in (*_suffixes(_reads_arrays), *_suffixes(_reads_items)):
        return DataError(f"{path} is damaged: its first bytes do not match the {path.suffix} format; write it again")
    return DataError(f"{path} has an unknown format; {expected()}")


def _suffixes(accepted: Callable[[Reader], bool]) -> list[str]:
    return [suffix for reader in _readers() if accepted(reader) for suffix in reader.suffixes]


def _expected() -> str:
    return f"expected {', '.join(_suffixes(_reads_arrays))} or the folder of an EmbeddingStore"


def _expected_items() -> str:
    suffixes = ", ".join(dict.fromkeys(_suffixes(_reads_items)))
    return f"expected {suffixes}, a folder of media files, or the folder of an item table"
