"""Named arrays of many items: open a store, write one, load a shipped data set, split without leaks."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
