"""Embed raw media: encode the cells of an item table into the columns of a store, in parts."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
