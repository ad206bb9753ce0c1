"""Define small stores on disk, which workers can open, and a small study that uses every feature of an arm."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from research._figures import dot_panel, metric_table, trials_table, verdict_table
from research._plan import Arm, DataTransform, EvalHook, Family, Options, Plan, Study
from research._read import completed
from research.pages import Figure, Section, sheet
from unialign.config import TrainConfig
from unialign.data import EmbeddingStore

TRAIN, VAL, TEST = 24, 8, 10
MODALITIES = ("image", "text", "audio")
RESAMPLES = 600


def write_store(
    folder: Path, columns: tuple[str, ...] = MODALITIES, *, test: float = 0.0, name: str = "tiny", dim: int = 5
) -> str:
    rng = np.random.default_rng(0)
    items = TRAIN + VAL + TEST
    latent = rng.normal(size=(items, 4))
    split = np.repeat([0, 1, 2], [TRAIN, VAL, TEST])
    arrays = {}
    for i, column in enumerate(columns):
        x = latent @ rng.normal(size=(4, dim + i % 3)) + 0.1 * rng.normal(size=(items, dim + i % 3))
        x[split == 2] += test
        arrays[column] = x
    group = np.arange(items)
    group[-1] = group[-2]
    EmbeddingStore.write(
        folder, arrays, split=split, groups=group, labels=np.arange(items) % 3, label_names=["a", "b", "c"], name=name
    )
    return str(folder)


def options(store: str, **changes: Any) -> Options:
    settings = {"study": "small", "seeds": (0, 1), "resamples": RESAMPLES, "stores": {"tiny": store}}
    return Options(**settings | changes)


def base(objective: str, epochs: int, **changes: Any) -> TrainConfig:
    settings = {"dim": 6, "head": "linear", "batch_size": 12, "lr": 0.02, "dropout": 0.2, "save_steps": None}
    return TrainConfig(objective=objective, modalities=MODALITIES, epochs=epochs, **settings | changes)


def plan(chosen: Options) -> Plan:
    epochs = chosen.epochs or 2
    trials = tuple({"objective_options.temperature": t} for t in (0.05, 0.1))
    text = {"objective_options": {"anchor": "text"}}

    def arm(key: str, objective: str, **more: Any) -> Arm:
        return Arm(key=key, label=key, data="tiny", train=base(objective, epochs, **text), **more)

    arms = (
        arm(
            "ours",
            "unialign",
            trials=trials,
            eval_hook=EvalHook("conflict", {"anchor": "text"}, points=3),
            anchor="text",
        ),
        arm("baseline", "infonce", trials=trials, factors={"kind": "baseline"}),
        arm("holes", "unialign", tuned_as="ours", transform=DataTransform("drop_entries", {"fraction": 0.3})),
        arm("on", "unialign", trials=trials, init_from="baseline"),
        arm("further", "unialign", init_from="on"),
        arm(
            "order",
            "infonce",
            per_seed={s: {"modalities": ["text", MODALITIES[2 * (s % 2)]]} for s in (0, 1, 100)},
        ),
    )
    return Plan(arms=arms, families=(Family("all", "ours", ("baseline", "on", "holes")),))


def page(results: Mapping[str, Any]) -> list[Section]:
    arms = completed(results, results["study"]["factors"])
    figure = sheet("small-recall", "R@1 & more", [dot_panel(results, arms, "recall@1", reference="ours")])
    numbers = [Figure("small-recall", "R@1", figure), metric_table(results, arms, family="all")]
    return [
        Section("numbers", "Numbers", [*numbers, verdict_table(results, "all")]),
        Section("tuning", "Tuning", ["Words.", trials_table(results, arms)]),
    ]


SMALL = Study(
    name="small",
    title="Small study",
    plan=plan,
    page=page,
    analyse=lambda results: {"arms": len(results["summary"]), "nothing": float("nan")},
)


def timeless(value: Any) -> Any:
    """Return results without times, dates and the description of the environment."""
    if isinstance(value, Mapping):
        return {k: timeless(v) for k, v in value.items() if k not in ("seconds", "date", "environment")}
    return [timeless(entry) for entry in value] if isinstance(value, list) else value
