"""Training settings for each data set, and trials for each objective.

Each objective has four trials, which include the published setting, or the closest setting for batches of 256 and
random initialization.
"""

from collections.abc import Mapping
from typing import Any

from unialign.config import TrainConfig
from unialign.losses import names, parameter_names as option_names

__all__ = ["ANCHORS", "HEADS", "OBJECTIVE_TRIALS", "TRIALS", "base", "registered"]

# These are the settings of the demo, but digits have no dropout, which could drop all six columns of `mor`.
HEADS: Mapping[str, Mapping[str, Any]] = {
    "emoji": {"head": "linear", "dropout": 0.5, "weight_decay": 0.05, "lr": 0.004, "batch_size": 256, "dim": 128},
    "digits": {"head": "linear", "dropout": 0.0, "weight_decay": 0.05, "lr": 0.004, "batch_size": 256, "dim": 128},
}
ANCHORS = {"emoji": "text", "digits": "pix"}
TRIALS = 4

_T = "objective_options.temperature"
_WARM = "infonce_warmup_ratio"


def _options(**options: Any) -> dict[str, Any]:
    return {f"objective_options.{key}": value for key, value in options.items()}


OBJECTIVE_TRIALS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "unialign": tuple(
        {_T: t, **_options(alignment_weight=w)} for t, w in ((0.07, 1), (0.07, 0.5), (0.05, 0.5), (0.1, 0.5))
    ),
    "infonce": tuple({_T: t} for t in (0.03, 0.05, 0.07, 0.1)),
    "gram": tuple({_T: t, _WARM: w} for t, w in ((0.07, 0.5), (0.07, 0.9), (0.05, 0.75), (0.1, 0.75))),
    "triangle": tuple({_T: t, _WARM: w} for t, w in ((0.07, 0.5), (0.07, 0.9), (0.05, 0.75), (0.1, 0.75))),
    # Some trials start with InfoNCE, since Symile aligns triples but not pairs if it starts from random weights.
    "symile": tuple({_T: t, _WARM: w} for t, w in ((0.01, 0.0), (0.005, 0.0), (0.01, 0.5), (0.005, 0.5))),
    "pmrl": tuple(
        {**_options(intra_temperature=a, inter_temperature=b), _WARM: w}
        for a, b, w in ((0.01, 0.1, 0.5), (0.01, 0.1, 0.9), (0.05, 0.1, 0.5), (0.05, 0.1, 0.9))
    ),
    "sigmoid": tuple(_options(scale=s, bias=b) for s, b in ((10.0, -10.0), (20.0, -10.0), (10.0, -5.0), (20.0, -15.0))),
    "cs_aligner": tuple(
        {_T: t, **_options(divergence_weight=w)} for t, w in ((0.07, 1.0), (0.05, 1.0), (0.05, 0.1), (0.1, 1.0))
    ),
    "modgap": tuple(
        {_T: t, **_options(contrast_weight=w)} for t, w in ((0.1, 1.0), (0.07, 1.0), (0.05, 1.0), (0.05, 2.0))
    ),
    "cua": tuple({_T: t} for t in (0.01, 0.03, 0.05, 0.1)),
    "align_uniform": tuple(
        _options(t=t, uniformity_weight=w) for t, w in ((2.0, 1.0), (5.0, 1.0), (2.0, 2.0), (5.0, 0.5))
    ),
}


def base(data: str, objective: str, modalities: tuple[str, ...], *, epochs: int, **options: Any) -> TrainConfig:
    if "anchor" in option_names(objective):
        options = {"anchor": ANCHORS[data], **options}
    return TrainConfig(
        objective=objective,
        objective_options=options,
        modalities=modalities,
        epochs=epochs,
        save_steps=None,
        **HEADS[data],
    )


def registered() -> tuple[str, ...]:
    return tuple(name for name in OBJECTIVE_TRIALS if name in names())
