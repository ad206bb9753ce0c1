"""Open, write and verify embedding stores, load data sets, and create splits without leakage."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
