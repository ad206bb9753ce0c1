"""Train some modalities of a space: add modalities, replace their encoders or train them further.

All other modalities keep the weights of the given space, so their embeddings are bitwise equal.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign._checks import suggestion
from unialign.closed_form import fit_ridge_head
from unialign.config import TrainConfig
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError
from unialign.space import Space, described, with_new_modalities

References = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Extension:
    """A space and the modalities of it that a run trains.

    Attributes:
        base: the given space, which is not changed.
        trained: names of the trained modalities, in the order of the run.
        new: mapping of those with new heads, to the dims of their features.
        linear: those of `new` with a linear head although the heads of the space are of another kind.
        others: modalities of the run that are not trained.
    """

    base: Space
    trained: tuple[str, ...]
    new: Mapping[str, int]
    linear: tuple[str, ...]
    others: tuple[str, ...]

    def check_rows(self, store: EmbeddingStore, rows: NDArray[np.int64]) -> None:
        """Raise DataError if a trained modality has no training row with another modality."""
        for name in self.trained:
            partners = [other for other in (*self.others, *self.trained) if other != name]
            present_N = store.present(name)[rows]
            if not any((present_N & store.present(other)[rows]).any() for other in partners):
                raise DataError(
                    f"{name!r} shares no training row with {', '.join(partners)} in {store.name!r}, so nothing ties it "
                    f"to the space; add items that have both"
                )

    def make_space(self, encoders: References, *, without: Collection[str] = ()) -> Space:
        """Return a copy of the space on the CPU, with new heads of random weights.

        `without` names the modalities whose encoders are trained, which the space does not have before the end.
        """
        references = {name: encoders[name] for name in self.new if name in encoders}
        space = with_new_modalities(self.base, self.new, linear=self.linear, encoders=references).cpu()
        space.encoders = {name: found for name, found in space.encoders.items() if name not in without}
        return space

    def fit_heads(self, space: Space, store: EmbeddingStore, config: TrainConfig) -> dict[str, Any]:
        """With `init="ridge"`, set the heads of new modalities, and return the facts of this closed form."""
        if config.init != "ridge":
            return {}
        heads = {
            name: fit_ridge_head(space, store, name, self.others, regularization=config.init_regularization)
            for name in self.new
        }
        first = next(iter(heads.values()))
        chosen = {key: first[key] for key in ("regularization", "selection")}
        return {"method": "ridge", **chosen, "heads": heads}

    def freeze(self, space: Space) -> None:
        """Turn off gradients and dropout of all other modalities."""
        for name, head in zip(space.modalities, space.heads, strict=True):
            if name not in self.trained:
                head.requires_grad_(False).eval()


def extended_metadata(facts: Mapping[str, Any], base: Space) -> dict[str, Any]:
    """The metadata of the given space are kept in the entry `earlier`."""
    metadata = {**facts, "earlier": dict(base.metadata)}
    before: Any = base.metadata.get("data")
    columns = before.get("columns") if isinstance(before, Mapping) else None
    if isinstance(columns, Mapping):
        # Decoders look up the encoders of frozen modalities here.
        metadata["data"] = {**facts["data"], "columns": {**columns, **facts["data"].get("columns", {})}}
    return metadata


def check_extension(
    init_from: object, train: object, dims: Mapping[str, int], config: TrainConfig, encoders: References
) -> Extension | None:
    """Raise the errors of `fit` about `train`; return None if all modalities are trained.

    Args:
        dims: dims of the modalities of the run in the data.
        encoders: references of the encoders of these modalities, as far as they are known.
    """
    if train is None:
        return None
    names = _names(train)
    if not isinstance(init_from, Space):
        raise ConfigError(
            f"train={list(names)} trains only these modalities of a space, so it needs init_from=, the space with the "
            f"others; got init_from={init_from!r:.80}"
        )
    for name in names:
        if name not in dims:
            raise ConfigError(f"train names {name!r}, but the data have {', '.join(dims)}{suggestion(name, dims)}")
    others = tuple(name for name in dims if name not in names)
    if unknown := [name for name in others if name not in init_from.dims]:
        raise ConfigError(
            f"{unknown[0]!r} is in the data, but not in init_from, which has {', '.join(init_from.dims)}; add it to "
            f"train, or leave it out with modalities"
        )
    if not others:
        raise ConfigError(
            f"train names all modalities of the data ({', '.join(dims)}), so nothing ties them to the other modalities "
            f"of init_from; add a modality of init_from to the data, or omit train to train all"
        )
    for name in others:
        if init_from.dims[name] != dims[name]:
            raise ConfigError(
                f"init_from expects {name!r} to have dim {init_from.dims[name]}, but it has dim {dims[name]} in the "
                f"data; embed the data with the encoder of init_from, or add {name!r} to train"
            )
        if _differ(init_from, name, encoders):
            raise ConfigError(
                f"init_from was made from features of {name!r} by {described(init_from.encoders[name])}, but the data "
                f"have features by {described(encoders[name])}; embed the data with the encoder of init_from, or add "
                f"{name!r} to train"
            )
    new = {
        name: dims[name]
        for name in dims
        if name in names
        and (config.init == "ridge" or init_from.dims.get(name) != dims[name] or _differ(init_from, name, encoders))
    }
    if tuned := [name for name in others if config.tuning(name).mode != "frozen"]:
        raise ConfigError(f"tune trains the encoder of {tuned[0]!r}, but {tuned[0]!r} is not in train; add it to train")
    trained = tuple(name for name in dims if name in names)
    _check_trained(init_from, trained, new, config)
    return Extension(init_from, trained, new, _linear(init_from, trained, new, config), others)


def _names(train: object) -> tuple[str, ...]:
    if isinstance(train, str) or not isinstance(train, Sequence) or not all(isinstance(name, str) for name in train):
        raise ConfigError(f"train must be a list of modalities, such as ['speech'], got {train!r}")
    if not train or len(set(train)) < len(train):
        raise ConfigError(f"train must be one or more distinct modalities, got {list(train)}")
    return tuple(train)


def _differ(init_from: Space, name: str, encoders: References) -> bool:
    before, now = init_from.encoders.get(name), encoders.get(name)
    return before is not None and now is not None and before["fingerprint"] != now["fingerprint"]


def _check_trained(init_from: Space, trained: Sequence[str], new: Mapping[str, int], config: TrainConfig) -> None:
    if init_from.dim != config.dim:
        raise ConfigError(f"init_from has dim={init_from.dim}, but this run has dim={config.dim}; use the same setting")
    frozen = {name: mode for name, mode in init_from.frozen.items() if name not in new}
    if {**frozen, **config.frozen} != frozen:
        raise ConfigError(
            f"frozen is {dict(config.frozen)}, but init_from has {dict(init_from.frozen)}; with train, frozen may only "
            f"repeat the entries of init_from"
        )
    for name in trained:
        if name in frozen:
            raise ConfigError(
                f"{name!r} is frozen in init_from ({frozen[name]!r}), so it has no weights to train; leave it out of "
                f"train"
            )
        if name in init_from.output_affine and name not in new:
            raise ConfigError(
                f"{name!r} has an output affine map in init_from, such as a repair, which training does not keep; "
                f"start from the space without it, or leave {name!r} out of train"
            )
    if config.init == "gcca":
        raise ConfigError("init='gcca' sets the heads of all modalities, so it cannot be combined with train")
    if init_from.head == "kernel" and init_from.kernel_sizes is None:
        raise ConfigError("init_from has no kernel features yet; call its `fit_normalizer`, or load a saved space")


def _linear(init_from: Space, trained: Sequence[str], new: Mapping[str, int], config: TrainConfig) -> tuple[str, ...]:
    """A new head is of the kind of `init_from`, or linear on standardized features."""
    names = ("head", "input_norm", *(["hidden"] if config.head == "mlp" else []))
    differing = [name for name in names if getattr(init_from, name) != getattr(config, name)]
    if not differing:
        return ()
    if config.head == "linear" and config.input_norm == "standardize" and set(trained) <= {*new, *init_from.linear}:
        return tuple(new)
    name = differing[0]
    raise ConfigError(
        f"init_from was made with {name}={getattr(init_from, name)!r}, but this run has {name}="
        f"{getattr(config, name)!r}; new heads are of the kind of init_from, or linear on standardized features "
        f"(head='linear', input_norm='standardize')"
    )
