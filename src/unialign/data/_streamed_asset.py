"""Assets whose content is made while it is written."""

from collections.abc import Callable, Iterable

__all__ = ["StreamedAsset"]


class StreamedAsset:
    """Content of an asset in chunks, which together may exceed memory.

    Args:
        chunks: function that returns the content in chunks, the same for each call.
    """

    def __init__(self, chunks: Callable[[], Iterable[bytes]]) -> None:
        self.chunks = chunks
