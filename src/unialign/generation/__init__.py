"""Pictures from any modality: decoders of image embeddings, mixtures, and honest scores of what they make."""

from unialign.generation._bridge import Neighbours, decode, embed_items, find_anchor, nearest_training
from unialign.generation._decoder import Decoder, EmbeddingSpec
from unialign.generation._decoder_config import DecoderConfig
from unialign.generation._flow_decoder import FlowDecoder
from unialign.generation._mix import barycentre, combine, interpolate, mean, slerp
from unialign.generation._pictures import grid, png_bytes, read_thumbnails, strip, write_png
from unialign.generation._train import DecoderFit, train_decoder

__all__ = [
    "Decoder",
    "DecoderConfig",
    "DecoderFit",
    "EmbeddingSpec",
    "FlowDecoder",
    "Neighbours",
    "barycentre",
    "combine",
    "decode",
    "embed_items",
    "find_anchor",
    "grid",
    "interpolate",
    "mean",
    "nearest_training",
    "png_bytes",
    "read_thumbnails",
    "slerp",
    "strip",
    "train_decoder",
    "write_png",
]
