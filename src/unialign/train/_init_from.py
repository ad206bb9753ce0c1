"""Initialize training from another space."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from unialign.config import TrainConfig
from unialign.errors import ConfigError
from unialign.space import Space, described


def check_init_from(
    init_from: object, dims: Mapping[str, int], config: TrainConfig, encoders: Mapping[str, Mapping[str, Any]]
) -> None:
    """The order of the modalities and dropout may differ, since they do not affect weights."""
    if init_from is None:
        return
    if config.init != "random":
        raise ConfigError(f"init_from and init={config.init!r} both set the initial weights; give one of them")
    if not isinstance(init_from, Space):
        raise ConfigError(f"init_from must be a Space, got {init_from!r}; load a space with Space.from_pretrained")
    if set(init_from.dims) != set(dims):
        raise ConfigError(
            f"init_from has the modalities {', '.join(init_from.dims)}, but this run trains {', '.join(dims)}; "
            f"set modalities to those of init_from"
        )
    for name, dim in dims.items():
        if init_from.dims[name] != dim:
            raise ConfigError(
                f"init_from expects {name!r} to have dim {init_from.dims[name]}, but it has dim {dim} in the store"
            )
    for name in ("dim", "head", "input_norm", "frozen", *(["hidden"] if config.head == "mlp" else [])):
        if getattr(init_from, name) != getattr(config, name):
            raise ConfigError(
                f"init_from was made with {name}={getattr(init_from, name)!r}, but this run has {name}="
                f"{getattr(config, name)!r}; use the same setting"
            )
    for name, reference in encoders.items():
        before = init_from.encoders.get(name)
        if before is not None and before["fingerprint"] != reference["fingerprint"]:
            raise ConfigError(
                f"init_from was made from features of {name!r} by {described(before)}, but the store has features by "
                f"{described(reference)}; embed the data with the encoder of init_from, or start from random weights"
            )
    if init_from.head == "kernel" and init_from.kernel_sizes is None:
        raise ConfigError("init_from has no kernel features yet; call its `fit_normalizer`, or load a saved space")
    if init_from.output_affine:
        raise ConfigError(
            "init_from has an output affine map, such as a repair, which training does not keep; start from the space "
            "without it"
        )


def check_frozen_encoders(init_from: Space, columns: Mapping[str, str]) -> None:
    data: Any = init_from.metadata.get("data")
    known = data.get("columns") if isinstance(data, Mapping) else None
    for name, fingerprint in columns.items():
        before = known.get(name) if isinstance(known, Mapping) else None
        if before is not None and before != fingerprint:
            raise ConfigError(
                f"the frozen modality {name!r} has another encoder in init_from (fingerprint {str(before)[:12]}) than "
                f"in the store (fingerprint {fingerprint[:12]}); use the training data of init_from, or start from "
                f"random weights"
            )


def weights_digest(space: Space) -> str:
    """The digest is independent of the order of modalities."""
    digest = hashlib.sha256()
    for name in sorted(space.modalities):
        m = space.modalities.index(name)
        for module in (space.features[m], space.heads[m], space.outputs[m]):
            for key, tensor in module.state_dict().items():
                digest.update(f"{name}/{key}/{tuple(tensor.shape)}/".encode())
                digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def copy_weights(space: Space, init_from: Space) -> None:
    for m, name in enumerate(space.modalities):
        source = init_from.modalities.index(name)
        space.features[m].load_state_dict(init_from.features[source].state_dict())
        space.heads[m].load_state_dict(init_from.heads[source].state_dict())
