"""Encoders of raw media whose features are those of a store's column; each needs its extra, and says so."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
