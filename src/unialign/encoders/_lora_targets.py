"""Choose the layers that get matrices of low rank."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from unialign.errors import ConfigError

__all__ = ["ADAPTER", "LAYERS", "adapter_layers", "choose_targets", "short_targets"]

# The layers that can have an adapter, and the name of the adapter in peft. Subclasses of convolutions are excluded,
# since they may pad their inputs in their own way.
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
ADAPTER = "unialign"
# Largest number of layers in a message.
_LISTED = 20
# These read the weights of their layers without calling them.
_FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)


def choose_targets(module: nn.Module, targets: Sequence[str] | None, what: str) -> tuple[str, ...]:
    """Return the names of the layers that get matrices.

    Without `targets`, select the linear layers of attention. `nn.MultiheadAttention` (open_clip) does not support
    adapters; if a module has no other attention, select the other linear layers of the same blocks.

    Raises:
        ConfigError: no layer has one of the names, or the module has no attention.
    """
    if any("lora_A" in inner._modules for inner in module.modules()) and not adapter_layers(module):
        raise ConfigError(
            f"{what} has an adapter of peft already; merge it into the weights (merge_and_unload), or choose mode 'all'"
        )
    known = _candidates(module)
    if targets is not None:
        return _matched(module, known, targets, what)
    found = [name for name, layer in known.items() if isinstance(layer, nn.Linear) and _ATTENTION.search(name)]
    if not found:
        found = _beside_attention(module, known)
    if not found:
        if not known:
            raise ConfigError(
                f"{what} has no linear or convolutional layers of torch, so mode 'lora' cannot be used; choose mode "
                f"'all'"
            )
        raise ConfigError(
            f"{what} has no linear layers of attention, so mode 'lora' needs `targets`, a list of layers (its linear "
            f"and convolutional layers are {_listed(known)}); or choose mode 'all' or 'last'"
        )
    return tuple(found)


def _candidates(module: nn.Module) -> dict[str, nn.Module]:
    fused = [f"{name}." if name else "" for name, inner in module.named_modules() if isinstance(inner, _FUSED)]
    adapted = adapter_layers(module)
    found: dict[str, nn.Module] = {}
    for name, inner in module.named_modules():
        layer = adapted[name].base_layer if name in adapted else inner
        inside = any(name.startswith(f"{other}.") for other in adapted)
        can_have = isinstance(layer, nn.Linear) or type(layer) in LAYERS
        if name and not inside and can_have and not any(name.startswith(start) for start in fused):
            found[name] = layer
    return found


def _beside_attention(module: nn.Module, known: Mapping[str, nn.Module]) -> list[str]:
    parts = [name for name, inner in module.named_modules() if isinstance(inner, nn.MultiheadAttention)]
    blocks = [f"{name.rpartition('.')[0]}." for name in parts if "." in name]
    return [name for name, layer in known.items() if isinstance(layer, nn.Linear) and name.startswith(tuple(blocks))]


def _matched(module: nn.Module, known: Mapping[str, nn.Module], targets: Sequence[str], what: str) -> tuple[str, ...]:
    found = set[str]()
    for target in targets:
        matching = {name for name in known if _ends_with(name, target)}
        if not matching:
            others = [name for name, _ in module.named_modules() if name and _ends_with(name, target)]
            reason = (
                f"{others[0]!r} is a {type(module.get_submodule(others[0])).__name__}, or part of a layer that reads "
                f"its weights directly; expected a Linear, Conv1d or Conv2d"
                if others
                else f"its linear and convolutional layers are {_listed(known)}"
            )
            raise ConfigError(f"{what} has no layer {target!r} for mode 'lora': {reason}")
        found |= matching
    return tuple(name for name in known if name in found)


def _listed(known: Iterable[str]) -> str:
    """Name layers by the last part of their names, unless it is a number."""
    parts = [name.rpartition(".") for name in known]
    ends = list(dict.fromkeys(end if not end.isdigit() else f"{head}.{end}" if head else end for head, _, end in parts))
    return ", ".join(ends[:_LISTED]) + (", ..." if len(ends) > _LISTED else "") or "none"


def _ends_with(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def short_targets(module: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """Return the shortest suffixes of names that only the given layers have."""
    known, chosen = _candidates(module), set(names)
    ends: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        for start in reversed(range(len(parts))):
            end = ".".join(parts[start:])
            if all(other in chosen for other in known if _ends_with(other, end)):
                ends[end] = None
                break
    # A suffix of a longer name may match a shorter name.
    return tuple(sorted(ends))


def adapter_layers(module: nn.Module) -> dict[str, Any]:
    """Return the layers with an adapter of this package by name, without importing peft."""
    found = {}
    for name, inner in module.named_modules():
        parts = inner._modules
        if isinstance(parts.get("base_layer"), LAYERS) and ADAPTER in getattr(parts.get("lora_A"), "_modules", {}):
            found[name] = inner
    return found
