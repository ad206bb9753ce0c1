"""Item tables: N items, each with one cell (a value, or a reference to a file) per modality."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
