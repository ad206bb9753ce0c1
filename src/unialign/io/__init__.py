"""File I/O: atomic writes, checksums verified before use, and locks against concurrent writers."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
