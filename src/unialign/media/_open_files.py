"""Keep array and table files open between cells."""

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

from unialign.errors import MediaError
from unialign.media._byte_range import ByteRange
from unialign.media._files import FileMark, broken_file, check_unchanged, mark_of, open_file

__all__ = ["OpenFiles", "kept_open"]

_MAX_OPEN = 8


class _Opened(NamedTuple):
    stack: ExitStack
    handle: int
    mark: FileMark
    raw: ByteRange
    reader: Any


class OpenFiles:
    """Array and table files that stay open between calls of `load_cell`, so that a file is not opened again for each
    row.

    Use it as a context manager, in one thread. Rows in ascending order are fastest.
    """

    def __init__(self) -> None:
        self._opened: dict[tuple[str, ...], _Opened] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all files; a later call opens them again."""
        while self._opened:
            self._opened.popitem()[1].stack.close()


@contextmanager
def kept_open(
    files: OpenFiles, path: str, part: str, build: Callable[[BinaryIO, int, int], Any], where: str
) -> Iterator[Any]:
    """Yield the reader that `build(stream, handle, size)` returns for a file. After a failed read or a change of the
    file, this error replaces the error of the reader.
    """
    key = (path, part)
    opened = files._opened.get(key)
    if opened is None or _mark(path, where) != opened.mark:
        _close(files, key)
        opened = _open(path, build, where)
        while len(files._opened) >= _MAX_OPEN:
            _close(files, next(iter(files._opened)))
    # Move the file to the end of the dictionary, so that the least recently used file is closed first.
    files._opened.pop(key, None)
    files._opened[key] = opened
    try:
        yield opened.reader
    except Exception:
        _close_if_changed(files, key, where)
        raise
    _close_if_changed(files, key, where)


def _open(path: str, build: Callable[[BinaryIO, int, int], Any], where: str) -> _Opened:
    with ExitStack() as stack:
        handle, mark = stack.enter_context(open_file(path, where))
        if not mark.size:
            raise MediaError("empty", "the file has no content", where)
        raw = ByteRange(handle, 0, mark.size)
        try:
            reader = build(io.BufferedReader(raw), handle, mark.size)
        except Exception:
            if raw.failure is not None:
                raise broken_file(raw.failure, where) from None
            raise
        return _Opened(stack.pop_all(), handle, mark, raw, reader)


def _mark(path: str, where: str) -> FileMark:
    try:
        return mark_of(path)
    except OSError as error:
        raise broken_file(error, where) from None


def _close(files: OpenFiles, key: tuple[str, ...]) -> None:
    opened = files._opened.pop(key, None)
    if opened is not None:
        opened.stack.close()


def _close_if_changed(files: OpenFiles, key: tuple[str, ...], where: str) -> None:
    opened = files._opened[key]
    try:
        check_unchanged(opened.raw, opened.handle, opened.mark, where)
    except Exception:
        _close(files, key)
        raise
