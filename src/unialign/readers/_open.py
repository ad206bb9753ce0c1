"""Open a file with the reader of its content; the suffix does not matter."""

from pathlib import Path

from unialign import registry
from unialign.errors import ConfigError, DataError
from unialign.io import open_regular
from unialign.readers._entry import EmbeddingFile, Reader

__all__ = ["open_file"]

_HEAD_BYTES = 16


def open_file(path: Path, *, reader: str | Reader | None = None) -> EmbeddingFile:
    """List the arrays of a file or folder, known by their headers. Nothing is unpickled.

    Args:
        reader: a name of `registry.names("readers")` or an instance; None: the first one that recognizes the content.

    Raises:
        DataError: the file is missing, damaged, a pickle, or of an unknown format.
        ConfigError: an unknown reader.
    """
    head = b"" if path.is_dir() else _head(path)
    if reader is not None:
        return _reader(reader).open(path)
    for name in registry.names("readers"):
        found = _reader(name)
        if found.can_read(path, head):
            return found.open(path)
    raise _unreadable(path, head)


def _head(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read(_HEAD_BYTES)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; {_expected()}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; {_expected()}") from None


def _reader(reader: str | Reader) -> Reader:
    found = registry.load("readers", reader) if isinstance(reader, str) else reader
    found = found() if isinstance(found, type) else found
    if not isinstance(found, Reader):
        raise ConfigError(f"reader {reader!r} lacks name, suffixes, can_read or open; see unialign.readers.Reader")
    return found


def _unreadable(path: Path, head: bytes) -> DataError:
    if path.is_dir():
        return DataError(f"{path} is a folder without store.json, so it is no EmbeddingStore; {_expected()}")
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return DataError(f"{path} is a pickle, which can run code and is never read; save the arrays with numpy.savez")
    if not head:
        return DataError(f"{path} is empty; {_expected()}")
    if path.suffix in _suffixes():
        return DataError(f"{path} is damaged: it does not begin like a {path.suffix} file; write it again")
    return DataError(f"{path} is of an unknown format; {_expected()}")


def _suffixes() -> list[str]:
    return [suffix for name in registry.names("readers") for suffix in _reader(name).suffixes]


def _expected() -> str:
    return f"expected {', '.join(_suffixes())} or the folder of an EmbeddingStore"
