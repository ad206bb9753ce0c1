"""Encoders from raw media to the features of a store's column; each needs an extra, which its error names."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
