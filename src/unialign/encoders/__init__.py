"""Encoders that map raw media to the features of a store column; each encoder requires an optional dependency."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
