"""Classes and functions for use with other libraries, which are imported on first use."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
