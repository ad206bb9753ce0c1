"""Find or download the folder of a diffusers pipeline, and validate it before any component is loaded."""

import json
import os
import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from unialign.errors import CheckpointError, ConfigError, MissingDependencyError
from unialign.io import (
    canonical_json,
    checked_path,
    digest,
    file_chunks,
    is_hub_id,
    local_folder,
    open_regular,
    reject_pickles,
)

__all__ = [
    "INDEX",
    "KANDINSKY",
    "KANDINSKY_PRIOR",
    "STABLE_UNCLIP",
    "PipelineSpec",
    "class_name",
    "encoder_weights_fingerprint",
    "fetch",
    "import_extra",
    "is_pipeline",
    "open_folder",
    "read_object",
    "unsupported_error",
]

INDEX = "model_index.json"
# Any other library would mean running code from the folder itself.
_LIBRARIES = ("diffusers", "transformers", "stable_diffusion")
# Configuration files of components without weights: schedulers, tokenizers, image processors.
_SETTINGS = ("scheduler_config.json", "tokenizer.json", "vocab.json", "preprocessor_config.json")
# Allowed classes by component (full match): a general class such as DiffusionPipeline could load anything.
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
# Keys that change whenever a model is saved; not part of its fingerprint.
_INCIDENTAL = ("_name_or_path", "transformers_version", "torch_dtype", "dtype")


@dataclass(frozen=True)
class PipelineSpec:
    """Class name of a pipeline and its components with and without weights."""

    pipeline: str
    models: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def components(self) -> tuple[str, ...]:
        return self.models + self.others


STABLE_UNCLIP = PipelineSpec(
    "StableUnCLIPImg2ImgPipeline",
    ("image_encoder", "image_normalizer", "text_encoder", "unet", "vae"),
    ("feature_extractor", "image_noising_scheduler", "tokenizer", "scheduler"),
)
KANDINSKY = PipelineSpec("KandinskyV22Pipeline", ("unet", "movq"), ("scheduler",))
KANDINSKY_PRIOR = PipelineSpec(
    "KandinskyV22PriorPipeline",
    ("image_encoder", "text_encoder", "prior"),
    ("image_processor", "tokenizer", "scheduler"),
)
_SUPPORTED = "StableUnCLIPImg2ImgPipeline (Stable unCLIP) and KandinskyV22Pipeline (Kandinsky 2.2)"
_DEPRECATED = "is deprecated in diffusers; use Stable unCLIP (StableUnCLIPImg2ImgPipeline) or Kandinsky 2.2"
_UNSUPPORTED = {
    "UnCLIPPipeline": _DEPRECATED,
    "UnCLIPImageVariationPipeline": _DEPRECATED,
    "StableUnCLIPPipeline": "computes image embeddings from text and has no image encoder, so that the origin of the "
    "embeddings that it reads is unknown; use the image-conditioned StableUnCLIPImg2ImgPipeline",
    "KandinskyV22PriorPipeline": "generates image embeddings, not images; pass the folder of a KandinskyV22Pipeline, "
    "and this one as `prior`",
}


def open_folder(
    source: str | os.PathLike[str], spec: PipelineSpec, *, revision: str | None, parts: tuple[str, ...] | None = None
) -> Path:
    """Return the local folder of a pipeline after checking its components, all or only `parts`.

    Raises:
        ConfigError: the folder holds another pipeline.
        CheckpointError: the folder or a component is missing, or weights are stored as a pickle.
    """
    parts = spec.components if parts is None else parts
    folder = fetch(source, revision, [INDEX])
    if (name := class_name(folder)) != spec.pipeline:
        raise unsupported_error(folder, name, wanted=spec.pipeline)
    folder = fetch(source, revision, [INDEX, *(f"{part}/*" for part in parts)])
    index = read_object(folder / INDEX)
    for part in parts:
        _check_part(folder, index.get(part), part, spec)
    return folder


def is_pipeline(source: str | os.PathLike[str], *, revision: str | None = None) -> bool:
    """Return whether a folder or Hub repository holds a diffusers pipeline; False if neither exists."""
    folder = checked_path(source, "the folder of a decoder", error=CheckpointError)
    if folder.exists() or not is_hub_id(source):
        return (folder / INDEX).exists()
    try:
        return (fetch(source, revision, [INDEX]) / INDEX).exists()
    except MissingDependencyError:  # the loader of other decoders raises a better message
        return False


def encoder_weights_fingerprint(folder: Path) -> str:
    """sha256 of the image encoder's weights and configuration; the image processor is not included."""
    part = folder / "image_encoder"
    config = {key: value for key, value in read_object(part / "config.json").items() if key not in _INCIDENTAL}
    weights = {}
    for path in _weights(part):
        with open_regular(path) as file:
            weights[path.name] = digest(file_chunks(file))
    return digest(canonical_json({"config": config, "weights": weights}))


def fetch(source: str | os.PathLike[str], revision: str | None, patterns: list[str]) -> Path:
    """Return the local folder, or download the files that match `patterns`."""
    # Half-precision copies would double the download; pickles are never read.
    ignored = ["*.fp16.*", "*.non_ema.*", "*.bin", "*.ckpt", "*.pt", "*.msgpack", "*.onnx", "*.py"]
    return local_folder(
        source, "a pipeline of diffusers", revision=revision, allow_patterns=patterns, ignore_patterns=ignored
    )


def class_name(folder: Path) -> str:
    if not (folder / INDEX).exists():
        raise CheckpointError(f"{folder} is not a pipeline of diffusers: it has no {INDEX}")
    name = read_object(folder / INDEX).get("_class_name")
    if not isinstance(name, str):
        raise CheckpointError(
            f"{folder / INDEX} has the pipeline class {name!r}; expected a class of diffusers, since code in the "
            f"folder is not run"
        )
    return name


def unsupported_error(folder: Path, name: str, *, wanted: str | None = None) -> ConfigError:
    """Return the error for a folder with pipeline class `name` instead of `wanted` or any supported class."""
    loaders = {STABLE_UNCLIP.pipeline: "StableUnCLIP", KANDINSKY.pipeline: "Kandinsky22"}
    if wanted is not None and (name in loaders or wanted == KANDINSKY_PRIOR.pipeline):
        hint = f"; load it with {loaders[name]}, or with load_decoder" if name in loaders else ""
        return ConfigError(f"{folder} holds a {name}, expected a {wanted}{hint}")
    reason = _UNSUPPORTED.get(name, f"is not conditioned on image embeddings alone; supported are {_SUPPORTED}")
    return ConfigError(f"{folder} holds a {name}, which {reason}")


def _check_part(folder: Path, entry: object, part: str, spec: PipelineSpec) -> None:
    path = folder / part
    lacks = f"{folder} lacks the component {part} of a {spec.pipeline}"
    if not isinstance(entry, list) or len(entry) != 2 or not all(isinstance(word, str) for word in entry):
        raise CheckpointError(
            f"{lacks}: {INDEX} has {entry!r} for it, expected [library, class]; save the whole pipeline"
        )
    if entry[0] not in _LIBRARIES:
        raise CheckpointError(
            f"{folder / INDEX} takes the component {part} from {entry[0]!r}: code in the folder is not run, "
            f"expected one of {', '.join(_LIBRARIES)}"
        )
    if not re.fullmatch(_CLASSES[part], entry[1]):
        raise CheckpointError(f"{folder / INDEX} has {entry[1]!r} as {part}, which a {spec.pipeline} does not accept")
    if not path.is_dir():
        raise CheckpointError(f"{lacks}: there is no folder {part}; save the whole pipeline, or download it again")
    if part not in spec.models:
        if not any((path / name).is_file() for name in _SETTINGS):
            raise CheckpointError(f"{lacks}: {part} has none of the files {', '.join(_SETTINGS)}; download it again")
        return
    if not (path / "config.json").is_file():
        raise CheckpointError(f"{lacks}: {part} has no config.json; save the whole pipeline, or download it again")
    files = _weights(path)
    if not files:
        reject_pickles(path, "weights as safetensors")
        raise CheckpointError(
            f"{lacks}: {part} has no weights as safetensors (model.safetensors or "
            f"diffusion_pytorch_model.safetensors); other formats are not read"
        )
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{lacks}: {part} has no {file.name}, which its weight index lists")


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object of at most 64 MB."""
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


def import_extra(module: str) -> Any:
    """Import a module of the extra `generate`, or raise MissingDependencyError."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependencyError(f"diffusers pipelines need: pip install 'unialign[generate]' ({error})") from None


def _weights(part: Path) -> list[Path]:
    """Return the safetensors files that diffusers would load: one file, or the shards of an index; possibly empty."""
    for stem in ("model", "diffusion_pytorch_model"):
        one, several = part / f"{stem}.safetensors", part / f"{stem}.safetensors.index.json"
        if one.is_file():
            return [one]
        if several.is_file():
            files = read_object(several).get("weight_map")
            if not isinstance(files, dict) or not files:
                raise CheckpointError(f"{several} lists no weight files; download the pipeline again")
            # Use base names only: an index must not point outside its folder.
            return [part / name for name in sorted({Path(str(file)).name for file in files.values()})]
    return []
