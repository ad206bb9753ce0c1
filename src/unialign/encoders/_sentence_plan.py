"""Read the modules of a folder of sentence-transformers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from unialign.encoders._model_files import has_file, read_object, reject_remote_code
from unialign.encoders._towers import TOWERS
from unialign.errors import ConfigError, DataError

__all__ = ["SentencePlan", "plan_sentence"]

MODULES, SETTINGS, MODULE_SETTINGS = "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"
_LIBRARY = "sentence_transformers."
_LEGACY_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True)
class SentencePlan:
    """Settings that determine how the modules are computed.

    Attributes:
        pooling: `mean` or `cls`, if the modules are a model with this pooling; None: the library is needed.
        unit_length: whether features are divided by their norm.
        max_length: maximum number of tokens, or None.
        lowercase: whether texts are converted to lower case.
        prompts: prefixes of texts, by name.
        prompt: name of the default prompt, or None.
        files: the files that were read.
    """

    pooling: str | None
    unit_length: bool
    max_length: int | None
    lowercase: bool
    prompts: Mapping[str, str]
    prompt: str | None
    files: tuple[str, ...]


def plan_sentence(folder: Path) -> SentencePlan:
    modules = _modules(folder)
    names = [kind.rpartition(".")[2] for kind, _ in modules]
    first = modules[0][1]
    settings = read_object(folder, SETTINGS) if has_file(folder, SETTINGS) else {}
    own_name = f"{first}/{MODULE_SETTINGS}" if first else MODULE_SETTINGS
    own = read_object(folder, own_name) if has_file(folder, own_name) else {}
    config_name = f"{first}/config.json" if first else "config.json"
    config = read_object(folder, config_name) if has_file(folder, config_name) else {}
    reject_remote_code(config, str(folder / config_name))
    files = [MODULES, *(name for name in (SETTINGS, own_name) if has_file(folder, name))]
    pooling = None
    plain = names in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
    if plain and not first and _is_text(config):
        pooling_name = f"{modules[1][1]}/config.json"
        pooling = _pooling(read_object(folder, pooling_name))
        files.append(pooling_name)
    length = own.get("max_seq_length")
    prompts = settings.get("prompts") or {}
    return SentencePlan(
        pooling=pooling,
        unit_length=names[-1] == "Normalize",
        max_length=int(length) if isinstance(length, int) else None,
        lowercase=bool(own.get("do_lower_case", False)),
        prompts={str(name): str(text) for name, text in prompts.items()},
        prompt=settings.get("default_prompt_name"),
        files=tuple(files),
    )


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Return the class and the subfolder of each module."""
    path = folder / MODULES
    if not has_file(folder, MODULES):
        raise DataError(f"{folder} has no {MODULES}; expected a folder of sentence-transformers")
    try:
        listed = json.loads(path.read_text("utf-8"))
        modules = [(str(entry["type"]), str(entry["path"])) for entry in listed]
        if not modules:
            raise ValueError("it lists no module")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {error}") from None
    for kind, place in modules:
        if not kind.startswith(_LIBRARY):
            raise ConfigError(
                f"{path} names the class {kind!r}, which is not part of sentence-transformers and is never imported; "
                f"load the model yourself and pass it to unialign.encoders.wrap"
            )
        if PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts:
            raise DataError(f"{path} names the folder {place!r}, which is outside {folder}")
        inner = folder / place
        pickles = sorted(file.name for file in inner.glob("*") if file.suffix in _PICKLES)
        if pickles and not any(inner.glob("*.safetensors")):
            raise DataError(f"{inner / pickles[0]} is a pickle, which can run code and is never read; save safetensors")
    return modules


def _is_text(config: Mapping[str, Any]) -> bool:
    towers = TOWERS.get(str(config.get("model_type")), ())
    return len(towers) == 1 and towers[0].media == "text" and "mean" in towers[0].poolings


def _pooling(config: Mapping[str, Any]) -> str | None:
    """Return None for a pooling other than `mean` and `cls`."""
    if not config.get("include_prompt", True):
        return None
    mode = config.get("pooling_mode")
    if mode is None:
        active = [name for name, value in config.items() if name.startswith("pooling_mode_") and value is True]
        mode = _LEGACY_POOLINGS.get(active[0]) if len(active) == 1 else None
    return mode if mode in _LEGACY_POOLINGS.values() else None
