"""Regimes of the study `front`: other batches, numbers of modalities, faults of the data, and ways of training."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from research._front_data import DATA
from research._front_objectives import RECIPES, base_config
from research._plan import DataTransform
from research.conflict import POOLS
from unialign.config import TrainConfig

__all__ = ["REGIMES", "Regime", "regime_config", "regimes_of"]

# The temperatures of all objectives in regimes with wrong pairs, which need softer ones.
_SOFT = (0.07, 0.5)
# More than the rows of any data set, so that all rows are one batch.
_ALL_ROWS = 1 << 16


@dataclass(frozen=True)
class Regime:
    """A regime.

    Attributes:
        settings: settings of all objectives.
        only: objectives with other options, entry -> options; empty: all objectives of the part.
        modalities: number of modalities, of which every split has others; 0: those of the data set.
        temperatures: other range of the temperatures.
        queue: rows of earlier batches that are additional negatives of InfoNCE.
        continued: whether a space that InfoNCE trained is continued at a tenth of the learning rate.
    """

    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    fault: DataTransform | None = None
    only: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    modalities: int = 0
    temperatures: tuple[float, float] | None = None
    queue: int = 0
    continued: bool = False


REGIMES: Mapping[str, Regime] = {
    "batch16": Regime("batch 16", {"batch_size": 16}),
    "batch64": Regime("batch 64", {"batch_size": 64}),
    # With one step per epoch, the number of epochs is about that of the steps of the recipe.
    "all_rows": Regime("all rows in a batch", {"batch_size": _ALL_ROWS, "epochs": 40}),
    "queue": Regime("batch 64, queue of 512 rows", {"batch_size": 64}, only={"infonce": {}}, queue=512),
    "learned": Regime(
        "learned temperature",
        only={"infonce": {"objective_options.temperature_mode": "learnable"}, "sigmoid": {}},
    ),
    "mispaired": Regime(
        "40 % of each modality mispaired", fault=DataTransform("mispair", {"fraction": 0.4}), temperatures=_SOFT
    ),
    "rare_modalities": Regime(
        "every second modality on a quarter of the items", fault=DataTransform("rare_modalities", {"fraction": 0.25})
    ),
    "rare_classes": Regime(
        "a fifth of the items of every second class", fault=DataTransform("rare_classes", {"fraction": 0.2})
    ),
    "continued": Regime("continued from InfoNCE", continued=True),
    **{f"modalities{m}": Regime(f"{m} modalities", modalities=m) for m in range(2, 9)},
}


def regimes_of(data: str) -> list[str]:
    """Return the regimes that a data set allows; only emoji and digits have pools of further modalities."""
    most = min(8, len(POOLS[data]) + 1) if data in POOLS else 0
    return [name for name, regime in REGIMES.items() if regime.modalities <= most]


def regime_config(
    data: str, recipe: str, entry: str, name: str, k: int, start: Mapping[str, Any], *, epochs: int | None
) -> tuple[TrainConfig, TrainConfig | None]:
    """Return the settings before a trial, and those of the training that is continued, if any."""
    regime = REGIMES[name]
    config = base_config(DATA[data], recipe, entry, start, epochs=epochs)
    changes = {**regime.settings, **regime.only.get(entry, {})}
    if epochs is not None:
        changes.pop("epochs", None)
    if regime.modalities:
        pool = list(POOLS[data])
        random.Random(f"front/{data}/{k}").shuffle(pool)
        changes["modalities"] = (DATA[data].anchor, *pool[: regime.modalities - 1])
    config = config.override(changes)
    if not regime.continued:
        return config, None
    parent = base_config(DATA[data], recipe, "infonce", start, epochs=epochs)
    return config, parent.override({"objective_options.temperature": 0.07})


def continued_rate(settings: Mapping[str, Any], recipe: str) -> float:
    return float(settings.get("lr", RECIPES[recipe].settings["lr"])) / 10
