"""Read the media of items: locate the bytes of a cell, decode them to NumPy arrays, and report broken cells by code."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
