"""`Space`: one head per modality into a shared unit sphere, with saving and loading that never executes code."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
