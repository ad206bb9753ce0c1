from unialign.config import DecoderConfig as DecoderConfig
from unialign.generation._conditions import Condition as Condition, build_conditions as build_conditions
from unialign.generation._decode import (
    Neighbors as Neighbors,
    decode as decode,
    embed_items as embed_items,
    nearest_training as nearest_training,
    resolve_anchor as resolve_anchor,
)
from unialign.generation._decoder import Decoder as Decoder, EmbeddingSpec as EmbeddingSpec
from unialign.generation._distances import frechet_distance as frechet_distance, kernel_distance as kernel_distance
from unialign.generation._extractors import Extractor as Extractor, lite0 as lite0, lite2 as lite2, pixels as pixels
from unialign.generation._flow_decoder import FlowDecoder as FlowDecoder
from unialign.generation._generate import (
    GenerationResult as GenerationResult,
    generate_images as generate_images,
)
from unialign.generation._images import (
    grid as grid,
    png_bytes as png_bytes,
    resize as resize,
    write_png as write_png,
)
from unialign.generation._interpolation import (
    frechet_mean as frechet_mean,
    interpolate as interpolate,
    linear_combination as linear_combination,
    mean as mean,
    slerp as slerp,
)
from unialign.generation._kandinsky import Kandinsky22 as Kandinsky22
from unialign.generation._load import (
    check_shipped as check_shipped,
    load_decoder as load_decoder,
    load_space as load_space,
)
from unialign.generation._scores import (
    SCORES as SCORES,
    GenerationScores as GenerationScores,
    Reference as Reference,
    score as score,
)
from unialign.generation._stable_unclip import StableUnCLIP as StableUnCLIP
from unialign.generation._thumbnails import read_thumbnails as read_thumbnails
from unialign.generation._train import DecoderFit as DecoderFit, train_decoder as train_decoder

__all__ = [
    "SCORES",
    "Condition",
    "Decoder",
    "DecoderConfig",
    "DecoderFit",
    "EmbeddingSpec",
    "Extractor",
    "FlowDecoder",
    "GenerationResult",
    "GenerationScores",
    "Kandinsky22",
    "Neighbors",
    "Reference",
    "StableUnCLIP",
    "build_conditions",
    "decode",
    "embed_items",
    "frechet_distance",
    "frechet_mean",
    "generate_images",
    "grid",
    "interpolate",
    "kernel_distance",
    "linear_combination",
    "lite0",
    "lite2",
    "load_decoder",
    "load_space",
    "mean",
    "nearest_training",
    "pixels",
    "png_bytes",
    "read_thumbnails",
    "resize",
    "resolve_anchor",
    "score",
    "slerp",
    "train_decoder",
    "write_png",
]
