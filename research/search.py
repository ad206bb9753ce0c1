"""Measure an index by correction of the modality gap, with missing modalities, and with fused queries."""

from pathlib import Path
from typing import Any

from research._plan import Arm, EvalHook, Options, Plan, Study
from research._search_page import answer, page
from research._settings import ANCHORS, base
from unialign.config import TrainConfig

__all__ = ["STUDY"]

EPOCHS = 40
FIVE = ("image", "drawing", "text", "keywords", "speech")
SIZES = (50, 100, 250, 500, 1000)
# Embeddings of the stamps, which `python -m benchmarks.tuxpaint` writes.
TUXPAINT = "runs/tuxpaint/stamps-store"
STAMPS = ("text", "image", "speech_fr", "speech_es")


def plan(options: Options) -> Plan:
    epochs = options.epochs or EPOCHS
    stamps = options.stores.get(TUXPAINT, TUXPAINT)
    spaces = [
        _emoji("infonce", "emoji, InfoNCE", "infonce", epochs, parts="all", temperature=0.05),
        _emoji("unialign", "emoji, UniAlign", "unialign", epochs, parts="all", temperature=0.07, alignment_weight=0.5),
        _emoji("shift", "emoji, InfoNCE, shifted", "infonce", epochs, planted="shift", sizes=SIZES, temperature=0.05),
        _emoji("scale", "emoji, InfoNCE, scaled and shifted", "infonce", epochs, planted="scale", temperature=0.05),
        _cold("two-towers", "emoji, two towers, temperature 0.01", ("image", "text"), epochs),
        _cold("five-towers", "emoji, five towers, temperature 0.01", FIVE, epochs),
    ]
    if Path(stamps).is_dir():
        spaces += [
            _stamps("tuxpaint-infonce", "Tux Paint, InfoNCE", "infonce", epochs, temperature=0.05),
            _stamps("tuxpaint-unialign", "Tux Paint, UniAlign", "unialign", epochs, anchor="all", temperature=0.07),
        ]
    return Plan(arms=tuple(spaces), keep=())


def _arm(key: str, label: str, data: str, train: TrainConfig, anchor: str, **arguments: Any) -> Arm:
    hook = EvalHook("search", arguments, points=1)
    kind = "planted gap" if arguments.get("planted") else "low temperature" if "towers" in key else "trained"
    return Arm(key=key, label=label, data=data, train=train, factors={"kind": kind}, anchor=anchor, eval_hook=hook)


def _emoji(
    key: str,
    label: str,
    objective: str,
    epochs: int,
    *,
    planted: str = "",
    sizes: tuple[int, ...] = (),
    parts: str = "pool",
    **options: Any,
) -> Arm:
    if objective in ("infonce", "unialign"):
        options = {"anchor": "all", **options}
    train = base("emoji", objective, FIVE, epochs=epochs, **options)
    return _arm(key, label, "emoji", train, ANCHORS["emoji"], planted=planted, sizes=list(sizes), parts=parts)


def _cold(key: str, label: str, modalities: tuple[str, ...], epochs: int) -> Arm:
    train = base("emoji", "infonce", modalities, epochs=epochs, temperature=0.01, anchor="all")
    cold = train.override({"head": "mlp", "hidden": 256, "dropout": 0.3, "lr": 0.002})
    return _arm(key, label, "emoji", cold, ANCHORS["emoji"], sizes=list(SIZES) if len(modalities) == 2 else [])


def _stamps(key: str, label: str, objective: str, epochs: int, **options: Any) -> Arm:
    train = TrainConfig(
        objective=objective,
        objective_options=options,
        modalities=STAMPS,
        head="linear",
        dim=128,
        dropout=0.5,
        weight_decay=0.05,
        lr=0.004,
        batch_size=256,
        epochs=epochs,
    )
    return _arm(key, label, TUXPAINT, train, "text")


STUDY = Study(
    name="search",
    title="Search in an index with a modality gap",
    plan=plan,
    page=page,
    answer=answer,
    epochs=EPOCHS,
)
