"""Choose settings on the validation split, with the same number of trials, steps and seeds for every objective."""

import hashlib
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from unialign.config import TrainConfig
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError
from unialign.experiments._run import embed_split, evaluate_split
from unialign.train import fit

__all__ = ["search"]

SELECTION = "recall@1"


def search(
    store: EmbeddingStore,
    base: TrainConfig,
    grid: Mapping[str, Sequence[Any]],
    *,
    trials: int,
    seeds: Sequence[int] = (0,),
    name: str = "",
) -> Iterator[dict[str, Any]]:
    """Try `trials` settings of a grid and score each on the validation split, never on the test split.

    A grid with more points than trials is sampled without replacement, by a seed that depends on `name` only. The score
    is the mean R@1 over all ordered pairs of modalities, averaged over the seeds.

    Args:
        store: its `train` split trains, its `val` split scores.
        base: settings that all trials share.
        grid: setting -> values; `objective_options.temperature` reaches into the objective's options.
        trials: budget; a smaller grid is an error, since other objectives would have more trials.
        seeds: seeds trained per trial.
        name: name of the objective, for the sample and the log.

    Yields:
        One record per trial: `objective`, `settings`, `recall@1` and the other metrics, per-seed scores.

    Raises:
        ConfigError: fewer grid points than trials, or an unknown setting.
        DataError: the store has no validation split.
    """
    if len(store.rows("val")) < 2:
        raise DataError(f"{store.name!r} has no validation split to choose settings on")
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    if len(points) < trials:
        raise ConfigError(f"the grid of {name!r} has {len(points)} points, fewer than the budget of {trials} trials")
    draw = random.Random(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    for settings in draw.sample(points, trials):
        config = base.override(settings)
        metrics: list[dict[str, float]] = []
        for seed in seeds:
            result = fit(store, config.replace(seed=seed), progress="none")
            metrics.append(evaluate_split(embed_split(result.space, store, "val"), store, "val").metrics)
        means = {key: float(torch.tensor([m[key] for m in metrics]).mean()) for key in metrics[0]}
        yield {
            "objective": name,
            "settings": settings,
            SELECTION: means[SELECTION],
            "per_seed": [m[SELECTION] for m in metrics],
            "metrics": means,
        }
