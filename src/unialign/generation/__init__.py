"""Pictures from any modality: decoders of image embeddings, mixtures, and honest scores of what they make."""

from unialign.generation._decoder import Decoder, EmbeddingSpec
from unialign.generation._decoder_config import DecoderConfig
from unialign.generation._flow_decoder import FlowDecoder
from unialign.generation._train import DecoderFit, train_decoder

__all__ = ["Decoder", "DecoderConfig", "DecoderFit", "EmbeddingSpec", "FlowDecoder", "train_decoder"]
