"""Pictures from any modality: decoders of image embeddings, mixtures, and honest scores of what they make."""

from unialign.generation._bridge import Neighbours, decode, embed_items, find_anchor, nearest_training
from unialign.generation._decoder import Decoder, EmbeddingSpec
from unialign.generation._decoder_config import DecoderConfig
from unialign.generation._flow_decoder import FlowDecoder
from unialign.generation._kandinsky import Kandinsky22
from unialign.generation._make import Made, conditions_of, make_pictures
from unialign.generation._mix import barycentre, combine, interpolate, mean, slerp
from unialign.generation._pictures import grid, png_bytes, read_thumbnails, resize, strip, write_png
from unialign.generation._shipped import load_decoder, load_space, shipped_decoders
from unialign.generation._stable_unclip import StableUnCLIP
from unialign.generation._train import DecoderFit, train_decoder

__all__ = [
    "Decoder",
    "DecoderConfig",
    "DecoderFit",
    "EmbeddingSpec",
    "FlowDecoder",
    "Kandinsky22",
    "Made",
    "Neighbours",
    "StableUnCLIP",
    "barycentre",
    "combine",
    "conditions_of",
    "decode",
    "embed_items",
    "find_anchor",
    "grid",
    "interpolate",
    "load_decoder",
    "load_space",
    "make_pictures",
    "mean",
    "nearest_training",
    "png_bytes",
    "read_thumbnails",
    "resize",
    "shipped_decoders",
    "slerp",
    "strip",
    "train_decoder",
    "write_png",
]
