"""Build the modules of a SentenceTransformer from the encoders of a space."""

import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unialign.encoders import Encoder, encode_media, quiet_loading, save
from unialign.errors import CheckpointError, ConfigError, DataError, MissingDependencyError
from unialign.media import as_media
from unialign.space._reloaded import TOWER_TOLERANCE, encoded_probes, probes
from unialign.space._towers import KINDS, Tower, library, tower_of

if TYPE_CHECKING:
    from unialign.space._space import Space

Reference = Mapping[str, Any]

_MODELS = ("transformers", "sentence_transformers", "sentence-transformers")
_POOLINGS = ("mean", "cls")


def own_towers(space: "Space") -> list[Tower]:
    """Return a tower for each encoder of the space that modules of sentence-transformers can express.

    Raises:
        ConfigError: no encoder can be expressed; the message has the reasons.
    """
    library()
    towers: dict[str, Tower] = {}
    reasons: dict[str, str] = {}
    models: dict[tuple[Any, ...], Any] = {}
    for name, reference in space.encoders.items():
        try:
            same = [other for other in towers.values() if other.kind == reference["media"]]
            if same:
                raise ConfigError(f"{same[0].name!r} is also {same[0].kind}, and a kind can have only one encoder")
            towers[name] = _tower(space, name, reference, models)
        except (CheckpointError, ConfigError, DataError, MissingDependencyError) as error:
            reasons[name] = str(error)
    listed = "; ".join(f"{name!r}: {reason}" for name, reason in reasons.items())
    if not towers:
        raise ConfigError(
            "format 'sentence-transformers' needs encoders of transformers or sentence-transformers, "
            f"or encoders=, a mapping of modality to its SentenceTransformer; {listed or 'the space has no encoders'}"
        )
    if reasons:
        warnings.warn(f"these modalities have no encoder in the SentenceTransformer folder: {listed}", stacklevel=4)
    return list(towers.values())


def _tower(space: "Space", name: str, reference: Reference, models: dict[tuple[Any, ...], Any]) -> Tower:
    is_model = reference["kind"] in _MODELS or (reference["kind"], reference["name"]) == ("package", "minilm-l6")
    if not is_model:
        raise ConfigError(f"{reference['kind']}:{reference['name']} is not a model of transformers")
    if reference["media"] not in KINDS or reference.get("options", {}).get("prefix"):
        raise ConfigError("sentence-transformers cannot express its media or prefix")
    if "adapter" in reference:
        raise ConfigError("it has an adapter, which modules of sentence-transformers cannot express")
    # The text and the image encoder of one model share their weights, which are stored once.
    key = _model_key(reference)
    if key not in models:
        parts = [other for other, found in space.encoders.items() if _model_key(found) == key]
        models[key] = _model([_encoder(space, other) for other in parts], reference)
    encoder = _encoder(space, name)
    tower = tower_of(name, models[key], str(reference["media"]), _license(reference))
    _check_features(encoder, tower)
    return tower


def _model_key(reference: Reference) -> tuple[Any, ...]:
    architecture = reference.get("architecture", {})
    return (reference["kind"], str(reference["weights"]), architecture.get("model_type"), architecture.get("pooling"))


def _encoder(space: "Space", name: str) -> Encoder:
    return space._loaded_encoders.get(name, space.encoders[name], torch.device("cpu"))


def _model(encoders: Sequence[Encoder], reference: Reference) -> Any:
    """Return the model that the given encoders are parts of."""
    architecture = reference["architecture"]
    with tempfile.TemporaryDirectory() as temporary, quiet_loading():
        folder = Path(temporary, "model")
        for place, encoder in enumerate(encoders):
            part = Path(temporary, str(place))
            part.mkdir()
            save(encoder, part)
            # The settings of the tokenizer and of the image processor are in the files of one encoder each.
            shutil.copytree(part, folder, dirs_exist_ok=True)
        try:
            if "modules" in architecture:
                return library().SentenceTransformer(str(folder), device="cpu", local_files_only=True)
            return _from_files(str(folder), architecture, reference.get("options", {}))
        except Exception as error:  # transformers raises many exceptions
            raise ConfigError(
                f"sentence-transformers cannot load {reference['kind']}:{reference['name']}: {type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error


def _from_files(folder: str, architecture: Reference, options: Reference) -> Any:
    modules = import_module("sentence_transformers.sentence_transformer.modules")
    transformer = modules.Transformer(folder)
    if "max_length" in options:
        transformer.max_seq_length = options["max_length"]
    parts = [transformer]
    if architecture["pooling"] in _POOLINGS:
        parts.append(modules.Pooling(transformer.get_embedding_dimension(), architecture["pooling"]))
    if architecture.get("unit_length"):
        parts.append(modules.Normalize())
    return library().SentenceTransformer(modules=parts, device="cpu")


def _check_features(encoder: Encoder, tower: Tower) -> None:
    try:
        found_BW = encoded_probes(tower)
    except Exception as error:  # processors and models raise many exceptions
        raise ConfigError(f"sentence-transformers cannot use the encoder: {type(error).__name__}: {error}") from error
    values = [value.get(tower.kind, value) if isinstance(value, Mapping) else value for value in probes(tower)]
    media = [as_media(value, encoder.media, decoding=encoder.decoding) for value in values]
    expected_BW = encode_media(encoder, media)
    if found_BW.shape != expected_BW.shape:
        raise ConfigError(f"sentence-transformers computes features of dim {found_BW.shape[-1]}, not {encoder.dim}")
    fraction = float((found_BW - expected_BW).norm() / expected_BW.norm().clamp_min(1e-12))
    if not fraction <= TOWER_TOLERANCE:
        raise ConfigError(f"sentence-transformers computes features that differ by a fraction of {fraction:.2g}")


def _license(reference: Reference) -> str | None:
    found = str(reference.get("license") or "unknown").lower()
    return None if found == "unknown" else found
