"""Compare the saved modules of a SentenceTransformer with the encoders and the space, on a few inputs.

Shapes: `B` test inputs, `W` dimension of the features, `D` dimension of the space.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unialign.errors import CheckpointError, ConfigError
from unialign.space._evaluating import evaluating
from unialign.space._towers import Tower, library

if TYPE_CHECKING:
    from unialign.space._space import Space

# Maximum difference of a coordinate of unit vectors between the space and the saved modules.
_TOLERANCE = 1e-5
# Maximum relative difference between the features of the given encoder and of its saved copy.
TOWER_TOLERANCE = 1e-3


def check_reloaded(space: "Space", towers: Sequence[Tower], router: Path, settings: dict[str, Any]) -> None:
    features = {tower.name: _features(space, tower) for tower in towers}
    prompts = {name: settings[name] for name in ("prompts", "default_prompt_name")}
    try:
        modules = import_module("sentence_transformers.sentence_transformer.modules")
        saved = modules.Router.load(str(router), local_files_only=True)
        loaded = _model([saved, modules.Normalize()], prompts)
        for tower in towers:
            parts = list(saved.sub_modules[tower.kind])[: len(tower.modules)]
            copied_BW = _encode(_model(parts, prompts), probes(tower))
            _check_features(tower, copied_BW, features[tower.name])
            _check_embeddings(space, tower, copied_BW, _encode(loaded, probes(tower)))
    except CheckpointError:
        raise
    except Exception as error:  # transformers raises many exceptions
        raise CheckpointError(f"the saved modules cannot be used: {type(error).__name__}: {error}") from error


def _features(space: "Space", tower: Tower) -> Tensor:
    try:
        with evaluating(tower.model):
            features_BW = _encode(tower.model, probes(tower))
    except Exception as error:  # processors and models raise many exceptions
        raise ConfigError(
            f"the encoder of {tower.name!r} failed on a test input of type {tower.kind}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if features_BW.shape[1] != space.dims[tower.name]:
        raise ConfigError(
            f"the encoder of {tower.name!r} returns features of dim {features_BW.shape[1]}, but the space expects "
            f"dim {space.dims[tower.name]}; pass the encoder that computed the features of the space"
        )
    return features_BW


def _check_features(tower: Tower, found_BW: Tensor, expected_BW: Tensor) -> None:
    error = float((found_BW - expected_BW).norm() / expected_BW.norm().clamp_min(1e-12))
    if not error <= TOWER_TOLERANCE:
        raise CheckpointError(
            f"the saved encoder of {tower.name!r} computes features that differ by a fraction of {error:.2g} from "
            f"those of the given encoder; load the encoder in float32 on the CPU, and save again"
        )


def _check_embeddings(space: "Space", tower: Tower, features_BW: Tensor, found_BD: Tensor) -> None:
    expected_BD = space.encode({tower.name: features_BW})[tower.name].double().cpu()
    difference = float((found_BD.double() - expected_BD).abs().max())
    if not difference <= _TOLERANCE:
        raise CheckpointError(
            f"the saved modules of {tower.name!r} compute embeddings that differ by {difference:.2g} from those of "
            f"the space, more than {_TOLERANCE:g}; the means of its features may be far above their standard "
            f"deviations"
        )


def encoded_probes(tower: Tower) -> Tensor:
    """Return the features (B, W) of the test inputs."""
    with evaluating(tower.model):
        return _encode(_model(tower.modules, {}), probes(tower))


def _model(modules: list[Any], prompts: dict[str, Any]) -> Any:
    return library().SentenceTransformer(modules=modules, device="cpu", **prompts)


def _encode(model: Any, inputs: list[Any]) -> Tensor:
    with torch.no_grad():
        return torch.from_numpy(model.encode(inputs, convert_to_numpy=True, show_progress_bar=False)).float()


def probes(tower: Tower) -> list[Any]:
    rng = np.random.default_rng(0)
    if tower.kind == "text":
        return ["a photo of a cat", "Two dogs run over the grass, and a third one sleeps."]
    if tower.kind == "image":
        image = import_module("PIL.Image")
        return [image.fromarray(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)) for _ in range(2)]
    if tower.kind == "audio":
        processor = getattr(tower.modules[0], "processor", None)
        rate = int(getattr(getattr(processor, "feature_extractor", processor), "sampling_rate", 16000))
        sounds = [{"array": rng.normal(size=rate).astype(np.float32), "sampling_rate": rate} for _ in range(2)]
        # A Router accepts a mapping with an array and a sampling rate only as the value of the key "audio".
        return [{"audio": sound} for sound in sounds]
    return [{"video": rng.integers(0, 256, (16, 96, 96, 3), dtype=np.uint8)}]
