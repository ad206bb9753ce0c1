"""Low-rank adapters of encoders: matrices whose product is added to the weights of some layers (LoRA).

Source: Hu et al. 2022, equation 3. The layers are those of peft; names and files are defined here.

Shapes: `r` rank, `I` inputs and `O` outputs of a layer.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unialign._checks import check_integer, check_number, one_line
from unialign._optional import optional_module
from unialign.encoders._lora_targets import ADAPTER, adapter_layers, choose_targets, short_targets
from unialign.errors import CheckpointError, ConfigError, DataError
from unialign.io import read_tensors, write_tensors

__all__ = [
    "ADAPTER_FILE", "Adapter", "adapter_of", "adapter_tensors", "copy_tensors", "has_effect", "inject", "plain_name",
    "plain_state", "read_adapter", "remove", "set_dropout", "write_adapter",
]  # fmt: skip

ADAPTER_FILE = "adapter.safetensors"


@dataclass(frozen=True)
class Adapter:
    """Settings of an adapter.

    Attributes:
        r: rank.
        alpha: the product of the matrices is multiplied by alpha / r.
        targets: names of layers, or suffixes of names.
    """

    r: int
    alpha: float
    targets: tuple[str, ...]

    def to_json(self, sha256: str) -> dict[str, Any]:
        return {"r": self.r, "alpha": self.alpha, "targets": list(self.targets), "sha256": sha256}

    @classmethod
    def from_json(cls, entry: Any, what: str) -> "Adapter":
        try:
            check_integer("r", entry["r"], low=1)
            check_number("alpha", entry["alpha"], "a positive finite number", lambda x: 0 < x < float("inf"))
            if not all(isinstance(target, str) for target in entry["targets"]):
                raise ConfigError(f"targets must be strings, got {entry['targets']!r:.80}")
            return cls(entry["r"], float(entry["alpha"]), tuple(entry["targets"]))
        except (ConfigError, KeyError, TypeError) as error:
            raise DataError(f"the reference to {what} does not describe an adapter: {error}") from None


def inject(module: nn.Module, adapter: Adapter, what: str, *, seed: int = 0) -> None:
    """Add an adapter that does not change the outputs yet: A is uniform in ±1 / sqrt(I), and B is 0.

    Raises:
        ConfigError: a layer of the targets does not exist, or does not accept the rank.
        MissingDependencyError: peft is not installed.
    """
    names = choose_targets(module, adapter.targets, what)
    library = optional_module("peft", f"mode 'lora' of {what}", "lora")
    pattern = "|".join(map(re.escape, names))
    flags = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    settings = library.LoraConfig(r=adapter.r, lora_alpha=adapter.alpha, target_modules=f"(?:{pattern})", bias="none")
    try:
        with torch.random.fork_rng(devices=[]):
            library.inject_adapter_in_model(settings, module, adapter_name=ADAPTER)
        layers = adapter_layers(module)
        if set(layers) != set(names):
            raise ValueError(f"peft chose the layers {', '.join(layers)}, expected {', '.join(names)}")
    except Exception as error:  # peft raises many exceptions
        remove(module)
        raise ConfigError(f"no adapter can be added to {what}: {type(error).__name__}: {one_line(error)}") from error
    finally:
        for name, parameter in module.named_parameters():
            if plain_name(name) in flags:
                parameter.requires_grad_(flags[plain_name(name)])
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in sorted(layers):
            # Half precision is too coarse for the steps of an optimizer.
            layer = layers[name]
            first, second = layer.lora_A[ADAPTER].float().weight, layer.lora_B[ADAPTER].float().weight
            bound = first[0].numel() ** -0.5
            first.copy_((2 * torch.rand(first.shape, generator=generator) - 1) * bound)
            second.zero_()


def adapter_of(module: nn.Module) -> Adapter | None:
    """Return the settings of the adapter of a module, if it has one."""
    layers = adapter_layers(module)
    if not layers:
        return None
    first = next(iter(layers.values()))
    return Adapter(first.r[ADAPTER], float(first.lora_alpha[ADAPTER]), short_targets(module, list(layers)))


def set_dropout(module: nn.Module, probability: float) -> None:
    """Set the dropout of the inputs of the matrices."""
    for layer in adapter_layers(module).values():
        dropout = nn.Dropout(probability) if probability else nn.Identity()
        layer.lora_dropout[ADAPTER] = dropout.train(layer.training)


def remove(module: nn.Module) -> None:
    """Remove the adapter; the base weights are unchanged."""
    for name, layer in adapter_layers(module).items():
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, layer.base_layer)
    if hasattr(module, "peft_config"):
        del module.peft_config


def plain_name(name: str) -> str:
    """Return the name of a parameter without the parts that peft adds."""
    return re.sub(rf"\.(lora_[AB])\.{ADAPTER}\.weight$", r".\1", name.replace(".base_layer.", "."))


def adapter_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return `LAYER.lora_A` (r, I) and `LAYER.lora_B` (O, r) of each layer."""
    return {
        f"{name}.lora_{part}": getattr(layer, f"lora_{part}")[ADAPTER].weight
        for name, layer in adapter_layers(module).items()
        for part in "AB"
    }


def has_effect(module: nn.Module) -> bool:
    """Return whether the module has an adapter that changes the outputs: a matrix B that is not 0."""
    return any(bool(tensor.any()) for name, tensor in adapter_tensors(module).items() if name.endswith(".lora_B"))


def plain_state(module: nn.Module) -> dict[str, Any]:
    """Return the state of a module without its adapter."""
    layers = adapter_layers(module)
    if not layers:
        return module.state_dict()
    state: dict[str, Any] = {}
    for name, tensor in module.state_dict().items():
        head, below, rest = name.partition(".base_layer.")
        if below and head in layers:
            state[f"{head}.{rest}"] = tensor
        elif name.partition(".lora_")[0] not in layers:
            state[name] = tensor
    return state


def write_adapter(module: nn.Module, folder: Path) -> dict[str, Any]:
    """Write the file of an adapter, and return the entry of a reference that describes it."""
    adapter = adapter_of(module)
    assert adapter is not None
    return adapter.to_json(write_tensors(folder / ADAPTER_FILE, adapter_tensors(module)))


def read_adapter(module: nn.Module, entry: Any, folder: Path, what: str) -> None:
    """Add the adapter that a file contains.

    Raises:
        DataError: the file or its description is damaged, or does not fit the module.
    """
    adapter = Adapter.from_json(entry, what)
    path = folder / ADAPTER_FILE
    try:
        tensors = read_tensors(path, sha256=str(entry.get("sha256")))
    except CheckpointError as error:
        raise DataError(str(error)) from None
    try:
        names = choose_targets(module, adapter.targets, what)
    except ConfigError as error:
        raise DataError(f"{path} does not fit {what}: {error}") from None
    shapes = {name: tuple(tensor.shape[:1]) for name, tensor in tensors.items() if name.endswith(".lora_A")}
    if shapes != {f"{name}.lora_A": (adapter.r,) for name in names}:
        raise DataError(f"{path} does not fit {what}: it has matrices for other layers, or of a rank other than r")
    inject(module, adapter, what)
    try:
        copy_tensors(adapter_tensors(module), tensors, str(path))
    except CheckpointError as error:
        remove(module)
        raise DataError(str(error)) from None


def copy_tensors(targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy values of equal names and shapes.

    Raises:
        CheckpointError: names or shapes differ; nothing was copied.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in targets.items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != found:
        name = min(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        raise CheckpointError(
            f"{name} has shape {found.get(name)} in {where}, expected {expected.get(name)}; the trained weights are "
            "of a different encoder"
        )
    with torch.no_grad():
        for name, tensor in targets.items():
            tensor.copy_(tensors[name])
