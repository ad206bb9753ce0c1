"""Images from any modality: decoders of image embeddings, mixtures, and honest scores of what they make."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
