"""Search for the training settings with the best space for a data set, on its validation split."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
