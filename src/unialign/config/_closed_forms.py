"""Closed forms as entries of a comparison: training settings without training."""

from collections.abc import Mapping
from typing import Any

from unialign.config._closed_form_names import CLOSED_FORMS
from unialign.config._train import TrainConfig

# Settings that a closed form uses. Learning rates, batches and objectives do not affect it.
_USED = (
    "modalities",
    "dim",
    "head",
    "input_norm",
    "init",
    "init_regularization",
    "init_spectrum_power",
    "landmarks",
    "epochs",
)
# Settings of an entry that are not changed by options for all entries.
_FIXED = ("head", "init", "epochs")
_DIM = 256


def closed_form_config(name: str, settings: Mapping[str, Any] | None = None) -> TrainConfig:
    """Return the configuration of a closed form; settings that it does not use are ignored."""
    form = CLOSED_FORMS[name]
    start: dict[str, Any] = {"dim": _DIM, "head": form.head, "init": form.init, "epochs": 0}
    return TrainConfig.from_dict(start).override(closed_form_settings(start, settings or {}))


def closed_form_settings(train: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    is_linear = train["head"] == "linear"
    skipped = (*_FIXED, "input_norm") if is_linear else _FIXED
    return {name: value for name, value in settings.items() if name in _USED and name not in skipped}


def closed_form_of(train: TrainConfig) -> str | None:
    """Return the name of the closed form that the settings select; None if they require training."""
    if train.epochs > 0:
        return None
    return next(name for name, form in CLOSED_FORMS.items() if (form.head, form.init) == (train.head, train.init))


def stated_settings(train: TrainConfig) -> dict[str, Any]:
    """Return the settings that affect a result."""
    settings = train.to_dict()
    return settings if train.epochs > 0 else {name: settings[name] for name in _USED}
