"""The folder of a pipeline of diffusers: found or fetched, and checked before anything of it is loaded."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from unialign.errors import CheckpointError, ConfigError, MissingDependencyError
from unialign.io import canonical_json, checked_path, digest, open_regular, refuse_pickles

__all__ = [
    "INDEX",
    "KANDINSKY",
    "KANDINSKY_PRIOR",
    "STABLE_UNCLIP",
    "Layout",
    "class_name",
    "extra",
    "fetch",
    "is_pipeline",
    "open_folder",
    "read_object",
    "refusal",
    "tower_identity",
]

INDEX = "model_index.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
# Any other library of a component would be code that the folder brings.
_LIBRARIES = ("diffusers", "transformers", "stable_diffusion")
# What a component without weights is made of: a scheduler, a tokenizer, what prepares images.
_SETTINGS = ("scheduler_config.json", "tokenizer.json", "vocab.json", "preprocessor_config.json")
# What a component may be, whole names: classes of wider use load more than a folder should be able to ask for.
_CLASSES = {
    "image_encoder": r"CLIPVisionModelWithProjection",
    "text_encoder": r"CLIPTextModel(WithProjection)?",
    "tokenizer": r"CLIPTokenizer(Fast)?",
    "feature_extractor": r"CLIPImageProcessor\w*|CLIPFeatureExtractor",
    "image_processor": r"CLIPImageProcessor\w*|CLIPFeatureExtractor",
    "image_normalizer": r"StableUnCLIPImageNormalizer",
    "image_noising_scheduler": r"\w+Scheduler",
    "scheduler": r"\w+Scheduler",
    "unet": r"UNet2DConditionModel",
    "vae": r"Autoencoder\w+",
    "movq": r"VQModel",
    "prior": r"PriorTransformer",
}
_MAX_JSON_BYTES = 1 << 26
# What saving writes anew each time, though the weights stay: no part of an identity.
_INCIDENTAL = ("_name_or_path", "transformers_version", "torch_dtype", "dtype")


@dataclass(frozen=True)
class Layout:
    """A pipeline's class and components: those with weights, and the rest."""

    pipeline: str
    models: tuple[str, ...]
    rest: tuple[str, ...]


STABLE_UNCLIP = Layout(
    "StableUnCLIPImg2ImgPipeline",
    ("image_encoder", "image_normalizer", "text_encoder", "unet", "vae"),
    ("feature_extractor", "image_noising_scheduler", "tokenizer", "scheduler"),
)
KANDINSKY = Layout("KandinskyV22Pipeline", ("unet", "movq"), ("scheduler",))
KANDINSKY_PRIOR = Layout(
    "KandinskyV22PriorPipeline",
    ("image_encoder", "text_encoder", "prior"),
    ("image_processor", "tokenizer", "scheduler"),
)
_SUPPORTED = "StableUnCLIPImg2ImgPipeline (Stable unCLIP) and KandinskyV22Pipeline (Kandinsky 2.2)"
_DEPRECATED = "is deprecated in diffusers; use Stable unCLIP (StableUnCLIPImg2ImgPipeline) or Kandinsky 2.2"
_REFUSED = {
    "UnCLIPPipeline": _DEPRECATED,
    "UnCLIPImageVariationPipeline": _DEPRECATED,
    "StableUnCLIPPipeline": "makes its image embeddings from text and has no image encoder, so that nothing says which "
    "embeddings it reads; use the folder of its image-conditioned twin, StableUnCLIPImg2ImgPipeline",
    "KandinskyV22PriorPipeline": "makes image embeddings, not images; give the folder of a KandinskyV22Pipeline, and "
    "this one as `prior`",
}


def open_folder(
    source: str | os.PathLike[str], layout: Layout, *, revision: str | None, parts: tuple[str, ...] | None = None
) -> Path:
    """The folder of a pipeline with all that `layout` names, or the `parts` of it, fetched from the Hub if need be.

    Raises:
        ConfigError: the folder holds another pipeline.
        CheckpointError: no such folder, or it lacks a component, or a component's weights are a pickle.
    """
    parts = layout.models + layout.rest if parts is None else parts
    folder = fetch(source, revision, [INDEX])
    if (name := class_name(folder)) != layout.pipeline:
        raise refusal(folder, name, wanted=layout.pipeline)
    folder = fetch(source, revision, [INDEX, *(f"{part}/*" for part in parts)])
    index = read_object(folder / INDEX)
    for part in parts:
        _check_part(folder, index.get(part), part, layout)
    return folder


def is_pipeline(source: str | os.PathLike[str], *, revision: str | None = None) -> bool:
    """Whether a folder, or a repository on the Hub, is a pipeline of diffusers; False for what is neither."""
    folder = checked_path(source, "the folder of a decoder", error=CheckpointError)
    if folder.exists() or isinstance(source, os.PathLike) or not _HUB_ID.fullmatch(source):
        return (folder / INDEX).exists()
    try:
        return (fetch(source, revision, [INDEX]) / INDEX).exists()
    except MissingDependencyError:  # then nothing comes from the Hub, and whoever loads the other kinds says so
        return False


def tower_identity(folder: Path) -> str:
    """sha256 over the weights and the configuration of a pipeline's image encoder, not over what prepares images."""
    part = folder / "image_encoder"
    config = {key: value for key, value in read_object(part / "config.json").items() if key not in _INCIDENTAL}
    weights = {file.name: digest(_pieces(file)) for file in _weights(part)}
    return digest(canonical_json({"config": config, "weights": weights}))


def fetch(source: str | os.PathLike[str], revision: str | None, patterns: list[str]) -> Path:
    folder = checked_path(source, "the folder of a pipeline", error=CheckpointError)
    if folder.is_dir():
        return folder
    if folder.exists() or isinstance(source, os.PathLike) or not _HUB_ID.fullmatch(source):
        raise CheckpointError(f"{source} is not a folder with a pipeline of diffusers; check the path")
    hub = extra("huggingface_hub")
    # Half-precision twins double the download; pickles are never read.
    ignored = ["*.fp16.*", "*.non_ema.*", "*.bin", "*.ckpt", "*.pt", "*.msgpack", "*.onnx", "*.py"]
    try:
        return Path(hub.snapshot_download(source, revision=revision, allow_patterns=patterns, ignore_patterns=ignored))
    except Exception as error:  # network, permission, no such repository: the hub's many exceptions
        raise CheckpointError(
            f"there is no folder {str(source)!r}, and the Hugging Face Hub does not give it ({error})"
        ) from error


def class_name(folder: Path) -> str:
    if not (folder / INDEX).exists():
        raise CheckpointError(f"{folder} is not a pipeline of diffusers: it has no {INDEX}")
    name = read_object(folder / INDEX).get("_class_name")
    if not isinstance(name, str):
        raise CheckpointError(
            f"{folder / INDEX} names {name!r} as the pipeline's class; code of the folder's own is not run, the class "
            f"must be one of diffusers"
        )
    return name


def refusal(folder: Path, name: str, *, wanted: str | None = None) -> ConfigError:
    known = {STABLE_UNCLIP.pipeline: "StableUnCLIP", KANDINSKY.pipeline: "Kandinsky22"}
    if wanted is not None and (name in known or wanted == KANDINSKY_PRIOR.pipeline):
        hint = f"; load it with {known[name]}, or with load_pipeline_decoder" if name in known else ""
        return ConfigError(f"{folder} holds a {name}, expected a {wanted}{hint}")
    reason = _REFUSED.get(name, f"is not conditioned on image embeddings alone; supported are {_SUPPORTED}")
    return ConfigError(f"{folder} holds a {name}, which {reason}")


def _check_part(folder: Path, entry: object, part: str, layout: Layout) -> None:
    place = folder / part
    lacks = f"{folder} lacks the component {part} of a {layout.pipeline}"
    if not isinstance(entry, list) or len(entry) != 2 or not all(isinstance(word, str) for word in entry):
        raise CheckpointError(
            f"{lacks}: {INDEX} has {entry!r} for it, expected [library, class]; save the pipeline whole"
        )
    if entry[0] not in _LIBRARIES:
        raise CheckpointError(
            f"{folder / INDEX} takes the component {part} from {entry[0]!r}: code of the folder's own is not run, "
            f"expected one of {', '.join(_LIBRARIES)}"
        )
    if not re.fullmatch(_CLASSES[part], entry[1]):
        raise CheckpointError(f"{folder / INDEX} has {entry[1]!r} as {part}, which a {layout.pipeline} does not take")
    if not place.is_dir():
        raise CheckpointError(f"{lacks}: there is no folder {part}; save the pipeline whole, or download it again")
    if part not in layout.models:
        if not any((place / name).is_file() for name in _SETTINGS):
            raise CheckpointError(f"{lacks}: {part} has none of the files {', '.join(_SETTINGS)}; download it again")
        return
    if not (place / "config.json").is_file():
        raise CheckpointError(f"{lacks}: {part} has no config.json; save the pipeline whole, or download it again")
    files = _weights(place)
    if not files:
        refuse_pickles(place, "weights as safetensors")
        raise CheckpointError(
            f"{lacks}: {part} has no weights as safetensors (model.safetensors or "
            f"diffusion_pytorch_model.safetensors), and others are not read"
        )
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{lacks}: {part} has no {file.name}, which its list of weights names")


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of a pipeline's folder."""
    try:
        with open_regular(path) as file:
            body = json.loads(file.read(_MAX_JSON_BYTES).decode("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error}); download the pipeline again") from None
    if not isinstance(body, dict):
        raise CheckpointError(f"{path} holds a {type(body).__name__}, expected a JSON object")
    return body


def extra(module: str) -> Any:
    """A module that the extra `generate` brings; `MissingDependencyError` without it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"pipelines of diffusers need the extra `generate`: pip install 'unialign[generate]' ({error})"
        ) from None


def _weights(part: Path) -> list[Path]:
    """The files of weights that are loaded: one, or those that a list beside them names. Empty if there is neither."""
    for stem in ("model", "diffusion_pytorch_model"):
        one, several = part / f"{stem}.safetensors", part / f"{stem}.safetensors.index.json"
        if one.is_file():
            return [one]
        if several.is_file():
            files = read_object(several).get("weight_map")
            if not isinstance(files, dict) or not files:
                raise CheckpointError(f"{several} lists no files of weights; download the pipeline again")
            # By their last name: a list cannot point out of its folder.
            return [part / name for name in sorted({Path(str(file)).name for file in files.values()})]
    return []


def _pieces(path: Path) -> Iterator[bytes]:
    with open_regular(path) as file:
        while piece := file.read(1 << 24):
            yield piece
