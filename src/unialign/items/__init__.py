"""Item tables: N items, each with cells (values, or references to files) of several modalities."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
