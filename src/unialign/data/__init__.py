"""Embedding stores: open, write and verify named arrays of items, load built-in data sets, split without leakage."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
