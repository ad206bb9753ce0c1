"""Classes and functions for other libraries; each module imports its library on first use."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
