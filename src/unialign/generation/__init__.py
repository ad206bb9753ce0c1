"""Pictures from any modality: decoders of image embeddings, mixtures, and honest scores of what they make."""

from unialign.generation._benchmark import CONTROLS, GenerationBench, make_bench, scores_of
from unialign.generation._decode import Neighbours, decode, embed_items, find_anchor, nearest_training
from unialign.generation._decoder import Decoder, EmbeddingSpec
from unialign.generation._decoder_config import DecoderConfig
from unialign.generation._distances import frechet_distance, kernel_distance
from unialign.generation._extractors import Extractor, lite0, lite2, pixels
from unialign.generation._flow_decoder import FlowDecoder
from unialign.generation._generate import Condition, Made, conditions_of, make_pictures
from unialign.generation._images import grid, png_bytes, read_thumbnails, resize, strip, write_png
from unialign.generation._interpolation import barycentre, combine, interpolate, mean, slerp
from unialign.generation._kandinsky import Kandinsky22
from unialign.generation._reference import Reference
from unialign.generation._scores import SCORES, Scores, marks, score
from unialign.generation._shipped import load_decoder, load_space, shipped_decoders
from unialign.generation._stable_unclip import StableUnCLIP
from unialign.generation._train import DecoderFit, train_decoder

__all__ = [
    "CONTROLS",
    "SCORES",
    "Condition",
    "Decoder",
    "DecoderConfig",
    "DecoderFit",
    "EmbeddingSpec",
    "Extractor",
    "FlowDecoder",
    "GenerationBench",
    "Kandinsky22",
    "Made",
    "Neighbours",
    "Reference",
    "Scores",
    "StableUnCLIP",
    "barycentre",
    "combine",
    "conditions_of",
    "decode",
    "embed_items",
    "find_anchor",
    "frechet_distance",
    "grid",
    "interpolate",
    "kernel_distance",
    "lite0",
    "lite2",
    "load_decoder",
    "load_space",
    "make_bench",
    "make_pictures",
    "marks",
    "mean",
    "nearest_training",
    "pixels",
    "png_bytes",
    "read_thumbnails",
    "resize",
    "score",
    "scores_of",
    "shipped_decoders",
    "slerp",
    "strip",
    "train_decoder",
    "write_png",
]
