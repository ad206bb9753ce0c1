"""The mathematics as pure functions on tensors. Rows are normalised inside; shapes are in each docstring."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
