"""Find the last blocks of a module, and the parameters that its features depend on."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from unialign.encoders._encode import evaluating
from unialign.encoders._encoder import Encoder
from unialign.encoders._witness import example_inputs
from unialign.errors import ConfigError

__all__ = ["last_blocks", "reached"]

# Names of the blocks of transformers, open_clip, timm and EfficientNet-Lite, and of Sequential modules; the first
# pattern that matches applies. Stages are lists of blocks.
_PATTERNS = (
    r"(.*\.)?_?blocks\.\d+(\.\d+)?",
    r"(.*\.)?(resblocks|stages\.\d+\.layers)\.\d+",
    r"(.*\.)?(albert_layers|layers?|layer\d)\.\d+",
)


def last_blocks(module: nn.Module, count: int, what: str) -> list[nn.Module]:
    """Return the last blocks in the order in which they are computed.

    Raises:
        ConfigError: the module has no blocks, or fewer.
    """
    found = _blocks(module)
    if not found:
        raise ConfigError(
            f"{what} has no blocks of layers, so mode 'last' cannot be used; choose mode 'all', or wrap a module that "
            f"is an nn.Sequential or has an nn.ModuleList named `blocks` or `layers`"
        )
    if count > len(found):
        raise ConfigError(f"{what} has {len(found)} blocks, got blocks={count}; choose fewer, or mode 'all'")
    return found[-count:]


def _blocks(module: nn.Module) -> list[nn.Module]:
    # A norm in a Sequential belongs to the layer before it.
    named = {name: inner for name, inner in module.named_modules() if _has_matrices(inner)}
    for pattern in _PATTERNS:
        matched = [name for name in named if re.fullmatch(pattern, name)]
        inner = [name for name in matched if not any(other.startswith(f"{name}.") for other in matched)]
        if inner:
            return [named[name] for name in inner]
    chains = [inner for inner in named.values() if isinstance(inner, nn.Sequential | nn.ModuleList)]
    longest = max(chains, key=lambda chain: sum(1 for _ in chain.parameters()), default=None)
    return [] if longest is None else [inner for inner in longest if _has_matrices(inner)]


def _has_matrices(module: nn.Module) -> bool:
    return any(parameter.ndim > 1 for parameter in module.parameters())


def reached(
    encoder: Encoder, parameters: Mapping[str, nn.Parameter], what: str, *, blocks: Sequence[nn.Module] = ()
) -> set[str]:
    """Return the names of the parameters that the features of an example depend on.

    With `blocks`, a dependence through the inputs of these blocks does not count, so that the result is the parameters
    of the blocks and of everything that is computed after them.

    Raises:
        ConfigError: no gradient of the features can be computed.
    """
    module = encoder.module
    assert module is not None
    batch = encoder.collate([encoder.prepare(value) for value in example_inputs(encoder)])
    values = [parameters[name] for name in parameters]
    with evaluating(module), torch.enable_grad(), _cut(blocks) if blocks else nullcontext():
        features = encoder.encode(batch)
        if not features.requires_grad:
            raise ConfigError(
                f"the features of {what} have no gradient, so it cannot be trained; its forward pass must not use "
                f"torch.no_grad, torch.inference_mode or detach"
            )
        gradients = torch.autograd.grad(features.float().sum(), values, allow_unused=True)
    return {name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None}


@contextmanager
def _cut(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Detach the inputs of the first block, and the inputs of later blocks except the output of the previous block."""

    def first(_: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        return tree_map(_detached, args), tree_map(_detached, kwargs)

    def later(_: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        kept = len(args[:1])
        rest = {
            key: value if not kept and key == "hidden_states" else tree_map(_detached, value)
            for key, value in kwargs.items()
        }
        return (*args[:1], *tree_map(_detached, args[1:])), rest

    hooks = [
        block.register_forward_pre_hook(later if place else first, with_kwargs=True)
        for place, block in enumerate(blocks)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
