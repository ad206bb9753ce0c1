"""Pictures from any modality: decoders of image embeddings, mixtures, and honest scores of what they make."""

from unialign.generation._decoder import Decoder, EmbeddingSpec

__all__ = ["Decoder", "EmbeddingSpec"]
