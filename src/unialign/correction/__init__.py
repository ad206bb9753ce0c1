"""Correction of the modality gap in existing embeddings, without training."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
