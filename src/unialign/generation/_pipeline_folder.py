"""Find or download the folder of a diffusers pipeline, and validate it before any component is loaded."""

import json
import os
import re
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

INDEX = "model_index.json"
STABLE_UNCLIP = "StableUnCLIPImg2ImgPipeline"
KANDINSKY, KANDINSKY_PRIOR = "KandinskyV22Pipeline", "KandinskyV22PriorPipeline"
COMPONENTS = {
    STABLE_UNCLIP: (
        *("image_encoder", "image_normalizer", "text_encoder", "unet", "vae"),
        *("feature_extractor", "image_noising_scheduler", "tokenizer", "scheduler"),
    ),
    KANDINSKY: ("unet", "movq", "scheduler"),
    KANDINSKY_PRIOR: ("image_encoder", "image_processor"),  # No other component is needed.
}
# Only these libraries are allowed, since others would require executing code from the folder.
_LIBRARIES = ("diffusers", "transformers", "stable_diffusion")
# Patterns of allowed classes by component; a general class such as DiffusionPipeline could load anything.
_MODELS = {
    "image_encoder": r"CLIPVisionModelWithProjection",
    "image_normalizer": r"StableUnCLIPImageNormalizer",
    "movq": r"VQModel",
    "text_encoder": r"CLIPTextModel",
    "unet": r"UNet2DConditionModel",
    "vae": r"Autoencoder\w+",
}
_OTHERS = {
    "feature_extractor": r"CLIPImageProcessor\w*|CLIPFeatureExtractor",
    "image_noising_scheduler": r"\w+Scheduler",
    "image_processor": r"CLIPImageProcessor\w*|CLIPFeatureExtractor",
    "scheduler": r"\w+Scheduler",
    "tokenizer": r"CLIPTokenizer(Fast)?",
}
# Configuration files of components without weights. Without these files, a tokenizer would load with an empty
# vocabulary.
_SETTINGS = ("scheduler_config.json", "tokenizer.json", "vocab.json", "preprocessor_config.json")
_MAX_JSON_BYTES = 1 << 26
# The fingerprint excludes these keys, which change whenever a model is saved.
_INCIDENTAL = ("_name_or_path", "transformers_version", "torch_dtype", "dtype")
_DEPRECATED = f"is deprecated in diffusers; use Stable unCLIP ({STABLE_UNCLIP}) or Kandinsky 2.2"
_UNSUPPORTED = {
    "UnCLIPPipeline": _DEPRECATED,
    "UnCLIPImageVariationPipeline": _DEPRECATED,
    "StableUnCLIPPipeline": f"has no image encoder; use the image-conditioned {STABLE_UNCLIP}",
    KANDINSKY_PRIOR: f"generates image embeddings, not images; pass the folder of a {KANDINSKY}, and this folder "
    "as `prior`",
}


def pipeline_class(source: str | os.PathLike[str], *, revision: str | None = None) -> str | None:
    folder = checked_path(source, "the folder of a decoder", error=CheckpointError)
    if not folder.exists() and is_hub_id(source):
        try:
            folder = _fetch(source, revision, [INDEX])
        except MissingDependencyError:  # The loader of flow decoders raises a clearer error.
            return None
    if not (folder / INDEX).exists():
        return None
    name = read_object(folder / INDEX).get("_class_name")
    if not isinstance(name, str):
        raise CheckpointError(
            f"{folder / INDEX} has the pipeline class {name!r}; expected a diffusers class, since code in the folder "
            f"is not executed"
        )
    return name


def open_folder(source: str | os.PathLike[str], pipeline: str, *, revision: str | None) -> Path:
    name = pipeline_class(source, revision=revision)
    if name is not None and name != pipeline:
        raise unsupported_error(source, name, expected=pipeline)
    folder = _fetch(source, revision, [INDEX, *(f"{part}/*" for part in COMPONENTS[pipeline])])
    if name is None:
        raise CheckpointError(f"{folder} is not a diffusers pipeline, since it has no {INDEX}")
    index = read_object(folder / INDEX)
    for part in COMPONENTS[pipeline]:
        _check_part(folder, index.get(part), part, pipeline)
    return folder


def encoder_weights_fingerprint(folder: Path) -> str:
    """Exclude the image processor."""
    part = folder / "image_encoder"
    config = {key: value for key, value in read_object(part / "config.json").items() if key not in _INCIDENTAL}
    weights = {}
    for path in _list_weight_files(part):
        with open_regular(path) as file:
            weights[path.name] = digest(file_chunks(file))
    return digest(canonical_json({"config": config, "weights": weights}))


def unsupported_error(source: str | os.PathLike[str], name: str, *, expected: str | None = None) -> ConfigError:
    """Return the error for an unsupported pipeline; `expected` is None for any supported one."""
    loader = {STABLE_UNCLIP: "StableUnCLIP", KANDINSKY: "Kandinsky22"}.get(name)
    if expected == KANDINSKY_PRIOR or (expected and loader):
        hint = f"; load it with {loader}, or with load_decoder" if loader else ""
        return ConfigError(f"{source} contains a {name}; expected a {expected}{hint}")
    reason = _UNSUPPORTED.get(
        name,
        f"is not conditioned on image embeddings alone; supported pipelines are {STABLE_UNCLIP} (Stable unCLIP) and "
        f"{KANDINSKY} (Kandinsky 2.2)",
    )
    return ConfigError(f"{source} contains a {name}, which {reason}")


def _fetch(source: str | os.PathLike[str], revision: str | None, patterns: list[str]) -> Path:
    # Half-precision copies would increase the download, and pickles are never read.
    ignored = ["*.fp16.*", "*.non_ema.*", "*.bin", "*.ckpt", "*.pt", "*.msgpack", "*.onnx", "*.py"]
    return local_folder(
        source, "a pipeline of diffusers", revision=revision, allow_patterns=patterns, ignore_patterns=ignored
    )


def _check_part(folder: Path, entry: object, part: str, pipeline: str) -> None:
    path, lacks = folder / part, f"{folder} lacks the component {part} of a {pipeline}"
    if not isinstance(entry, list) or len(entry) != 2 or not all(isinstance(word, str) for word in entry):
        raise CheckpointError(f"{lacks}: {INDEX} has {entry!r}, expected [library, class]; save the whole pipeline")
    if entry[0] not in _LIBRARIES:
        raise CheckpointError(
            f"{folder / INDEX} loads the component {part} from {entry[0]!r}, but code in the folder is not executed; "
            f"expected one of {', '.join(_LIBRARIES)}"
        )
    if not re.fullmatch((_MODELS | _OTHERS)[part], entry[1]):
        raise CheckpointError(f"{folder / INDEX} has {entry[1]!r} as {part}, which a {pipeline} does not accept")
    if not path.is_dir():
        raise CheckpointError(f"{lacks}: there is no folder {part}; save the whole pipeline, or download it again")
    if part in _OTHERS:
        if not any((path / name).is_file() for name in _SETTINGS):
            raise CheckpointError(f"{lacks}: {part} has none of the files {', '.join(_SETTINGS)}; download it again")
        return
    files = _list_weight_files(path)
    if not files:
        reject_pickles(path, "weights as safetensors")
        raise CheckpointError(f"{lacks}: {part} has no safetensors weights, and other formats are not supported")
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{lacks}: {part} has no {file.name}, which its weight index lists")


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of at most 64 MB."""
    try:
        with open_regular(path) as file:
            body = json.loads(file.read(_MAX_JSON_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error}); download the pipeline again") from None
    if not isinstance(body, dict):
        raise CheckpointError(f"{path} contains a {type(body).__name__}; expected a JSON object")
    return body


def import_extra(module: str) -> Any:
    """Import a module that the extra `generate` installs."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"diffusers pipelines need more packages ({error}): pip install 'unialign[generate]'"
        ) from None


def _list_weight_files(part: Path) -> list[Path]:
    """Return the files that diffusers would load: a single file, the shards of an index, or none."""
    for stem in ("model", "diffusion_pytorch_model"):
        one, several = part / f"{stem}.safetensors", part / f"{stem}.safetensors.index.json"
        if one.is_file():
            return [one]
        if several.is_file():
            files = read_object(several).get("weight_map")
            if not isinstance(files, dict) or not files:
                raise CheckpointError(f"{several} lists no weight files; download the pipeline again")
            # Use base names only, since an index must not point outside its folder.
            return [part / name for name in sorted({Path(str(file)).name for file in files.values()})]
    return []
