"""Save a space with its encoders as a folder that sentence-transformers loads without code of this package."""

import copy
import json
import os
import shutil
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from unialign._version import __version__
from unialign.encoders import quiet_loading
from unialign.errors import CheckpointError
from unialign.io import atomic_directory, replace_file
from unialign.space._dense_layers import DenseLayer, dense_head
from unialign.space._reloaded import check_reloaded
from unialign.space._towers import Tower, library

if TYPE_CHECKING:
    from unialign.space._space import Space

MODULES, SETTINGS, ROUTER, NORMALIZE = "modules.json", "config_sentence_transformers.json", "0_Router", "1_Normalize"
# Patterns of the files of the modules.
MODULE_FILES = (MODULES, SETTINGS, f"{ROUTER}/*", f"{NORMALIZE}/*")


def write_modules(space: "Space", towers: Sequence[Tower], folder: Path, save_space: Callable[[], None]) -> None:
    """Write the modules of sentence-transformers; `save_space` is called after the check."""
    with quiet_loading():
        router = _router(space, towers)
    normalize = _modules().Normalize()
    settings = _settings(towers)
    try:
        with atomic_directory(folder / ROUTER, check_replaced=lambda _: None) as partial:
            with quiet_loading():
                router.save(str(partial))
                check_reloaded(space, towers, partial, settings)
            _sync_files(partial)
            save_space()
            # Without this file, the modules of an earlier space are not loaded together with the new space.
            (folder / MODULES).unlink(missing_ok=True)
        with atomic_directory(folder / NORMALIZE, check_replaced=lambda _: None) as partial:
            normalize.save(str(partial))
            _sync_files(partial)
    except OSError as error:
        raise CheckpointError(f"cannot save the encoders in {folder}: {error.strerror or error}") from error
    listed = [
        {"idx": place, "name": str(place), "path": path, "type": f"{type(module).__module__}.{type(module).__name__}"}
        for place, (path, module) in enumerate(((ROUTER, router), (NORMALIZE, normalize)))
    ]
    replace_file(folder / SETTINGS, json.dumps(settings, indent=2), error=CheckpointError)
    # Write this file last, since loading starts from it.
    replace_file(folder / MODULES, json.dumps(listed, indent=2), error=CheckpointError)


def discard_modules(folder: Path) -> None:
    """Delete the modules, which compute the embeddings of an earlier space."""
    if _wrote_modules(folder):
        for name in (MODULES, SETTINGS):
            (folder / name).unlink(missing_ok=True)
        for name in (ROUTER, NORMALIZE):
            shutil.rmtree(folder / name, ignore_errors=True)


def _wrote_modules(folder: Path) -> bool:
    """Return whether the modules in a folder were written by `write_modules`."""
    try:
        entry = json.loads((folder / SETTINGS).read_text("utf-8"))["unialign"]
        return isinstance(entry["version"], str)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _router(space: "Space", towers: Sequence[Tower]) -> Any:
    used: dict[int, set[str]] = {}
    for tower in towers:
        used.setdefault(id(tower.modules[0]), set()).add(tower.kind)
    first = {id(tower.modules[0]): _restricted(tower.modules[0], used[id(tower.modules[0])]) for tower in towers}
    routes = {
        tower.kind: [first[id(tower.modules[0])], *tower.modules[1:], *_dense_modules(space, tower.name)]
        for tower in towers
    }
    return _modules().Router(routes, allow_empty_key=False, route_mappings={(None, kind): kind for kind in routes})


def _restricted(module: Any, kinds: set[str]) -> Any:
    """Return an encoder of the given kinds that shares the weights of the given one."""
    declared = getattr(module, "modality_config", None)
    kept = {key: value for key, value in (declared or {}).items() if key in kinds or key == "message"}
    if not declared or len(kept) == len(declared):
        return module
    narrowed = copy.copy(module)
    narrowed.modality_config = kept
    return narrowed


def _dense_modules(space: "Space", name: str) -> list[nn.Module]:
    modules = _modules()
    head = dense_head(space, name)
    normalized: list[nn.Module] = [modules.Normalize()] if head.unit_input else []
    output = [] if head.output is None else [modules.Normalize(), _dense_module(head.output)]
    return [*normalized, *map(_dense_module, head.layers), *output]


def _dense_module(layer: DenseLayer) -> nn.Module:
    out_dim, in_dim = layer.weight.shape
    dense: nn.Module = _modules().Dense(
        in_dim,
        out_dim,
        # When sentence-transformers loads a folder, it replaces activations of other packages by Tanh.
        activation_function=nn.GELU() if layer.gelu else nn.Identity(),
        init_weight=layer.weight.float(),
        init_bias=layer.bias.float(),
    )
    return dense


def _settings(towers: Sequence[Tower]) -> dict[str, Any]:
    text = next((tower.model for tower in towers if tower.kind == "text"), None)
    return {
        "model_type": "SentenceTransformer",
        "__version__": {
            "sentence_transformers": library().__version__,
            "transformers": import_module("transformers").__version__,
            "pytorch": str(torch.__version__),
        },
        "prompts": {} if text is None else dict(text.prompts),
        "default_prompt_name": None if text is None else text.default_prompt_name,
        "similarity_fn_name": "cosine",
        # With this entry, a later call recognizes the modules of an earlier space.
        "unialign": {"version": __version__},
    }


def _sync_files(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _modules() -> Any:
    return import_module("sentence_transformers.sentence_transformer.modules")
