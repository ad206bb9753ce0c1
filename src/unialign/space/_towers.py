"""Convert the given encoders of the modalities of a space to modules of sentence-transformers."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from unialign.encoders import quiet_loading
from unialign.errors import ConfigError, MissingDependencyError

KINDS = ("text", "image", "audio", "video")
# Values of `license` in a model card that reserve all rights.
CLOSED = ("proprietary", "unlicensed", "all-rights-reserved", "no-redistribution")


@dataclass(frozen=True, eq=False)
class Tower:
    """Encoder of one modality; `kind` is `text`, `image`, `audio` or `video`."""

    name: str
    kind: str
    modules: list[Any]
    model: Any
    license: str | None


def library() -> Any:
    try:
        found = import_module("sentence_transformers")
        import_module("sentence_transformers.base.modules.router")
    except ImportError as error:
        raise MissingDependencyError(
            f"this function needs sentence-transformers 6 or newer, which cannot be imported ({error}): "
            f"pip install 'unialign[sentence-transformers]'"
        ) from None
    return found


def towers_of(encoders: Any, dims: Mapping[str, int], metadata: Mapping[str, Any]) -> list[Tower]:
    if not isinstance(encoders, Mapping) or not encoders:
        raise ConfigError(
            "format 'sentence-transformers' needs encoders, a mapping of modality to its SentenceTransformer, such as "
            f"encoders={{{next(iter(dims))!r}: model}}; got {encoders!r}"
        )
    if unknown := [name for name in encoders if name not in dims]:
        raise ConfigError(f"encoders has {unknown[0]!r}, but the space has the modalities {', '.join(dims)}")
    library()
    loaded: dict[Any, Any] = {}
    with quiet_loading():
        towers = [_tower(name, encoder, metadata, loaded) for name, encoder in encoders.items()]
    for place, tower in enumerate(towers):
        for other in towers[:place]:
            if tower.kind == other.kind:
                raise ConfigError(
                    f"{other.name!r} and {tower.name!r} are both {tower.kind}, but a SentenceTransformer selects the "
                    f"encoder by the type of its input; leave one of them out of encoders"
                )
    return towers


def _tower(name: str, encoder: Any, metadata: Mapping[str, Any], loaded: dict[Any, Any]) -> Tower:
    parts = encoder if isinstance(encoder, tuple) else (encoder,)
    # Equal encoders of several modalities are stored once.
    key = tuple(str(part) if isinstance(part, str | os.PathLike) else id(part) for part in parts)
    if key not in loaded:
        loaded[key] = _load(name, encoder)
    model = loaded[key]
    kind = _kind(name, model)
    modules = _modules(model, kind, name)
    _check_modules(modules, name)
    return Tower(name, kind, modules, model, _license(name, model, metadata))


def tower_of(name: str, model: Any, kind: str, license: str | None) -> Tower:
    """Return the tower of a SentenceTransformer for a kind of media."""
    if kind not in model.modalities:
        raise ConfigError(f"the SentenceTransformer accepts {', '.join(model.modalities)}, not {kind}")
    modules = _modules(model, kind, name)
    _check_modules(modules, name)
    if license in CLOSED:
        raise ConfigError(f"its license ({license}) does not permit copies of its weights")
    return Tower(name, kind, modules, model, license)


def _load(name: str, encoder: Any) -> Any:
    sentence_transformers = library()
    if isinstance(encoder, sentence_transformers.SentenceTransformer):
        if encoder.truncate_dim is not None:
            raise ConfigError(
                f"the encoder of {name!r} truncates its vectors to {encoder.truncate_dim} dimensions, which a folder "
                f"does not store; set its truncate_dim to None, and train the space on whole vectors"
            )
        return encoder
    if isinstance(encoder, str | os.PathLike):
        folder = Path(encoder)
        if folder.is_dir() and not (folder / "modules.json").is_file():
            raise ConfigError(
                f"the folder {folder} of the encoder of {name!r} has no modules.json, so its pooling is unknown; load "
                f"it with transformers and pass (model, processor, pooling), such as (model, processor, 'mean')"
            )
        try:
            return sentence_transformers.SentenceTransformer(str(encoder), device="cpu")
        except Exception as error:  # sentence-transformers raises many exceptions
            raise ConfigError(
                f"the encoder {str(encoder)!r} of {name!r} cannot be loaded: {type(error).__name__}: {error}"
            ) from error
    if isinstance(encoder, tuple) and len(encoder) in (2, 3) and hasattr(encoder[0], "save_pretrained"):
        return _from_transformers(name, *encoder)
    raise ConfigError(f"the encoder of {name!r} cannot be stored in a SentenceTransformer folder: {_reason(encoder)}")


def _from_transformers(name: str, model: Any, processor: Any, pooling: str | None = None) -> Any:
    modules = import_module("sentence_transformers.sentence_transformer.modules")
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        try:
            transformer = modules.Transformer(folder)
        except Exception as error:  # transformers raises many exceptions
            raise ConfigError(
                f"sentence-transformers cannot load the encoder of {name!r}, a {type(model).__name__} with "
                f"{type(processor).__name__}: {type(error).__name__}: {error}"
            ) from error
    if type(transformer.model) is not type(model):
        raise ConfigError(
            f"the encoder of {name!r} is a {type(model).__name__}, but its saved folder is loaded as "
            f"{type(transformer.model).__name__}, which computes different features; pass a model that AutoModel loads"
        )
    transformer.model = model
    needs_pooling = transformer.module_output_name == "token_embeddings"
    if needs_pooling != (pooling is not None):
        state = "one vector per token, so pass the pooling of your features" if needs_pooling else "one vector per item"
        raise ConfigError(
            f"the encoder of {name!r} returns {state}: "
            + ("(model, processor, 'mean') or 'cls'" if needs_pooling else "pass (model, processor) without pooling")
        )
    parts = [transformer]
    if pooling is not None:
        try:
            parts.append(modules.Pooling(transformer.get_embedding_dimension(), pooling))
        except ValueError as error:
            raise ConfigError(f"pooling of the encoder of {name!r}: {error}") from None
    device = next(model.parameters()).device
    return library().SentenceTransformer(modules=parts, device=str(device))


def _kind(name: str, model: Any) -> str:
    """Return the media type of a modality, which is the name of the modality, or the only type that the encoder
    accepts.
    """
    accepted = [kind for kind in KINDS if kind in model.modalities]
    if name in accepted:
        return name
    if len(accepted) == 1 and name not in KINDS:
        return accepted[0]
    raise ConfigError(
        f"the encoder of {name!r} accepts {', '.join(accepted) or 'no media'}, so the media type of {name!r} is "
        f"unknown; name the modality {' or '.join(accepted) or 'after its media'}, or pass another encoder"
    )


def _modules(model: Any, kind: str, name: str) -> list[Any]:
    router_class = import_module("sentence_transformers.base.modules.router").Router
    first, *rest = model.children()
    if not isinstance(first, router_class):
        return [first, *rest]
    mapped = first.route_mappings
    fallback = kind if kind in first.sub_modules else first.default_route
    route = mapped.get((None, kind)) or mapped.get((None, None)) or fallback
    if route is None:
        raise ConfigError(
            f"the encoder of {name!r} has no route for {kind} without a task, so its features depend on the task"
        )
    return [*first.sub_modules[route], *rest]


def _check_modules(modules: list[Any], name: str) -> None:
    half = {parameter.dtype for module in modules for parameter in module.parameters()} - {torch.float32}
    if half:
        raise ConfigError(
            f"the encoder of {name!r} has weights of dtype {half.pop()}, but the dense layers of a head need float32; "
            f"convert it with model.float()"
        )
    for module in modules:
        inner = getattr(module, "model", None)
        if backend := {getattr(module, "backend", "torch")} - {"torch"}:
            raise ConfigError(f"the encoder of {name!r} uses the backend {backend.pop()}; load it with backend='torch'")
        for part in (module, inner):
            home = type(part).__module__
            if home.startswith("transformers_modules.") or (
                part is module and not home.startswith("sentence_transformers.")
            ):
                raise ConfigError(
                    f"the encoder of {name!r} contains {type(part).__name__} from {home}, and SentenceTransformer "
                    f"loads classes of other packages only with trust_remote_code=True"
                )


def _license(name: str, model: Any, metadata: Mapping[str, Any]) -> str | None:
    entries = metadata.get("encoders")
    entry = entries.get(name) if isinstance(entries, Mapping) else None
    entry = entry if isinstance(entry, Mapping) else {}
    found = entry.get("license") or getattr(model.model_card_data, "license", None)
    if entry.get("redistribution") is False or str(found).lower() in CLOSED:
        raise ConfigError(
            f"the license of the encoder of {name!r} ({found or 'redistribution: false'}) does not permit copies of "
            f"its weights, and a SentenceTransformer folder contains them; leave {name!r} out of encoders"
        )
    return None if found is None else str(found)


def _reason(encoder: Any) -> str:
    home = type(encoder).__module__.partition(".")[0]
    reasons = {
        "numpy": "it is an array of features, not an encoder",
        "torch": "it is a tensor or module of PyTorch without a processor of raw media",
        "timm": "timm models are not modules of sentence-transformers; pass the same model of transformers",
        "open_clip": "open_clip models are not modules of sentence-transformers; pass the same model of transformers",
        "onnxruntime": "an ONNX session is not a module of sentence-transformers; pass the PyTorch model",
        "unialign": "the built-in encoders are not modules of sentence-transformers",
        "transformers": "a model of transformers needs its processor; pass (model, processor) or (model, processor, "
        "pooling)",
        "sentence_transformers": f"a {type(encoder).__name__} does not return one dense vector per item",
    }
    expected = "expected a SentenceTransformer, its folder or Hub name, or (model, processor, pooling) of transformers"
    return reasons.get(home, f"it is a {type(encoder).__module__}.{type(encoder).__name__}") + f"; {expected}"
