"""Read embedding files of many formats: arrays are listed from headers, and rows are read in chunks."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
