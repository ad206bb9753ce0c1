"""File I/O with atomic writes, verified checksums, and locks against concurrent writers."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
