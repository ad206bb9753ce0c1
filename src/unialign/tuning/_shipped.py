"""The shipped settings, which are the first trials, so that a search cannot end below them on the validation split."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from unialign._datasets import list_datasets
from unialign.config import CLOSED_FORMS, TrainConfig, closed_form_config, closed_form_of
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError
from unialign.experiments import recipe
from unialign.losses import PRESETS, display_name
from unialign.train import check_fit
from unialign.tuning._propose import SearchSpace
from unialign.tuning._variation import params_of

# Presets of UniAlign that say what they are for.
_PRESETS = ("retrieval", "joint_queries", "classes", "small_batch")
# The recipe for all objectives: kernel heads from GCCA, a short training with a small learning rate.
_KERNEL_START: dict[str, Any] = {
    "head": "kernel",
    "init": "gcca",
    "dim": 256,
    "epochs": 10,
    "lr": 1e-3,
    "weight_decay": 0.0,
}


@dataclass(frozen=True)
class Shipped:
    """Named settings that come with the package."""

    name: str
    train: TrainConfig


def shipped_settings(store: EmbeddingStore, space: SearchSpace, *, with_default: bool = True) -> list[Shipped]:
    """Return the shipped settings that fit the data, the default first.

    The default is the first entry of the recipe of a named data set, otherwise the default of `fit`. Settings with an
    objective that is not searched are skipped, except for the default if `with_default` is True.
    """
    found: list[Shipped] = []
    for number, (name, train) in enumerate(_candidates(store, space)):
        is_kept = number == 0 and with_default
        if not (is_kept or is_searched(train, space)):
            continue
        try:
            settings = space.with_fixed(train)
            check_fit(store, settings)
        except ConfigError:
            if is_kept:
                raise
            continue  # such as an anchor that is not among the modalities
        # A preset may equal an entry of a recipe that lists its options.
        if all(params_of(settings) != params_of(other.train) for other in found):
            found.append(Shipped(name, settings))
    return found


def _candidates(store: EmbeddingStore, space: SearchSpace) -> Iterator[tuple[str, TrainConfig]]:
    has_recipe = store.name in list_datasets() and recipe(store.name).fingerprint == store.fingerprint
    if has_recipe:
        for entry in recipe(store.name).entries.values():
            yield f"recipe {store.name}: {entry.label}", entry.train.replace(save_steps=None)
    else:
        options = {"anchor": "all"}
        yield "default of `train`", TrainConfig(**_head(space), objective_options=options)
        for name in ("unialign", "infonce"):
            label = f"{display_name(name)}, kernel heads from GCCA"
            yield label, TrainConfig(objective=name, objective_options=options, **_start(space))
        for form in CLOSED_FORMS:
            yield CLOSED_FORMS[form].label, closed_form_config(form)
    start = _start(space)
    if has_recipe and start["head"] == "kernel":
        first = next(iter(recipe(store.name).entries.values())).train
        start |= {name: getattr(first, name) for name in ("init_regularization", "init_spectrum_power")}
    for preset in _PRESETS:
        if preset in PRESETS:
            options = {"preset": preset}
            yield f"preset {preset}", TrainConfig(objective="unialign", objective_options=options, **start)


def _head(space: SearchSpace) -> dict[str, Any]:
    return {name: space.fixed[name] for name in ("head",) if name in space.fixed}


def _start(space: SearchSpace) -> dict[str, Any]:
    head = space.fixed.get("head", "kernel")
    return {"head": "mlp"} if head == "mlp" else _KERNEL_START | {"head": head}


def is_searched(train: TrainConfig, space: SearchSpace) -> bool:
    """Whether the objective or closed form of settings is one of those to choose from."""
    return (closed_form_of(train) or train.objective) in space.objectives
