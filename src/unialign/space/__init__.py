"""Define `Space`, a model with one head per modality that maps features to a shared unit sphere."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
