"""Assets whose content is generated while it is written."""

from collections.abc import Callable, Iterable

__all__ = ["StreamedAsset"]


class StreamedAsset:
    """Content of an asset in chunks, whose total size may exceed memory. `chunks` must return the same content in each
    call.
    """

    def __init__(self, chunks: Callable[[], Iterable[bytes]]) -> None:
        self.chunks = chunks
