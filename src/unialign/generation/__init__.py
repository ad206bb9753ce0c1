"""Generate images from any modality, with decoders of image embeddings, mixtures and scores."""

from unialign._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
