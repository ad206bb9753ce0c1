"""Pictures from any modality: decoders of image embeddings, mixtures, and honest scores of what they make."""

from unialign.generation._benchmark import CONTROLS, GenerationBench, make_bench, scores_of
from unialign.generation._decode import Neighbours, decode, embed_items, nearest_training, resolve_anchor
from unialign.generation._decoder import Decoder, EmbeddingSpec
from unialign.generation._decoder_config import DecoderConfig
from unialign.generation._distances import frechet_distance, kernel_distance
from unialign.generation._extractors import Extractor, lite0, lite2, pixels
from unialign.generation._flow_decoder import FlowDecoder
from unialign.generation._generate import Condition, GenerationResult, build_conditions, generate_images
from unialign.generation._images import grid, image_row, png_bytes, read_thumbnails, resize, write_png
from unialign.generation._interpolation import frechet_mean, interpolate, linear_combination, mean, slerp
from unialign.generation._kandinsky import Kandinsky22
from unialign.generation._reference import Reference
from unialign.generation._scores import SCORES, Scores, annotate_controls, score
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
    "GenerationResult",
    "Kandinsky22",
    "Neighbours",
    "Reference",
    "Scores",
    "StableUnCLIP",
    "annotate_controls",
    "build_conditions",
    "decode",
    "embed_items",
    "frechet_distance",
    "frechet_mean",
    "generate_images",
    "grid",
    "image_row",
    "interpolate",
    "kernel_distance",
    "linear_combination",
    "lite0",
    "lite2",
    "load_decoder",
    "load_space",
    "make_bench",
    "mean",
    "nearest_training",
    "pixels",
    "png_bytes",
    "read_thumbnails",
    "resize",
    "resolve_anchor",
    "score",
    "scores_of",
    "shipped_decoders",
    "slerp",
    "train_decoder",
    "write_png",
]
