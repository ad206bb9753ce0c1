"""Restore the settings of a user's modules after a run."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unialign.encoders._lora import adapter_of, plain_name, remove
from unialign.encoders._state import state_digest
from unialign.encoders._tuning import RECORD

__all__ = ["module_settings_restored"]


@contextlib.contextmanager
def module_settings_restored(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Restore `requires_grad` of all parameters at the end; after an error also the architecture, modes and device.

    After an error, adapters that were added within the context are removed. Weights that were trained before the error
    are not restored.
    """
    before = [(module, _Settings.of(module)) for module in modules]
    try:
        yield
    except BaseException:
        for module, settings in before:
            settings.restore_all(module)
        raise
    finally:
        for module, settings in before:
            settings.restore_flags(module)


@dataclass(frozen=True)
class _Settings:
    has_adapter: bool
    record: Any
    device: torch.device | None
    flags: dict[str, bool]
    modes: dict[str, bool]
    # Optimizers with fused kernels do not increment the version counters of parameters.
    digest: str

    @classmethod
    def of(cls, module: nn.Module) -> "_Settings":
        named = dict(module.named_parameters())
        devices = {parameter.device for parameter in named.values()}
        return cls(
            has_adapter=adapter_of(module) is not None,
            record=getattr(module, RECORD, None),
            device=devices.pop() if len(devices) == 1 else None,
            flags={plain_name(name): parameter.requires_grad for name, parameter in named.items()},
            modes={name: inner.training for name, inner in module.named_modules()},
            digest=state_digest(module),
        )

    def restore_all(self, module: nn.Module) -> None:
        if not self.has_adapter:
            remove(module)
        # The record states whether weights may have been trained.
        if not self.has_adapter and state_digest(module) == self.digest:
            setattr(module, RECORD, self.record) if self.record is not None else module.__dict__.pop(RECORD, None)
        for name, inner in module.named_modules():
            inner.training = self.modes.get(name, inner.training)
        if self.device is not None:
            module.to(self.device)

    def restore_flags(self, module: nn.Module) -> None:
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(self.flags.get(plain_name(name), parameter.requires_grad))
