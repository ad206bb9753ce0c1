"""Inspect an item table before anything is encoded: counts, broken cells, duplicates, groups and a split."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
