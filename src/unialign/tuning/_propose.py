"""The settings that are searched, with their ranges. A proposal draws them one by one from a source of values.

The ranges contain the settings that were found best in the studies of the objectives: heads from closed forms with few
epochs and a small learning rate, or MLPs from random weights with larger ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from unialign.config import CLOSED_FORMS, TrainConfig, closed_form_config
from unialign.losses import initialization, needs_anchor, parameter_names

Value = TypeVar("Value", str, int, float)

# Name in the parameters -> head and initial weights.
STARTS = {"kernel_gcca": ("kernel", "gcca"), "linear_gcca": ("linear", "gcca"), "mlp": ("mlp", "random")}
_START_WEIGHTS = {"kernel_gcca": 0.5, "linear_gcca": 0.2, "mlp": 0.3}
# Closed forms have few settings and need few trials.
_CLOSED_FORM_WEIGHT = 0.25
_REGULARIZATIONS = {"kernel": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), "linear": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)}
_POWERS = (0.0, 0.25, 0.5, 1.0)
_DIMS = (64, 128, 256, 512)
_EPOCHS = {"gcca": (3, 5, 10, 20, 40), "random": (20, 40, 80)}
_RATES = {"gcca": (1e-4, 5e-3), "random": (3e-4, 1e-2)}
_TEMPERATURES = (0.03, 0.3)
_SIMILARITY_SCALES = (0.0, 2.0, 5.0, 10.0)


class Draw(Protocol):
    """Source of the values of a proposal."""

    def choice(self, name: str, options: Sequence[Value], weights: Sequence[float] | None = None) -> Value:
        """Return one of the options."""
        ...

    def log_uniform(self, name: str, low: float, high: float) -> float:
        """Return a number in [low, high]."""
        ...


@dataclass(frozen=True)
class SearchSpace:
    """Objectives and settings that a search may propose.

    Attributes:
        objectives: names of objectives and closed forms.
        fixed: training settings that are not searched.
    """

    modalities: tuple[str, ...]
    objectives: tuple[str, ...]
    fixed: Mapping[str, Any]

    def propose(self, draw: Draw) -> TrainConfig:
        """Return training settings; equal draws give equal settings."""
        is_closed = [name in CLOSED_FORMS for name in self.objectives]
        weights = [_CLOSED_FORM_WEIGHT if closed else 1.0 for closed in is_closed]
        name = draw.choice("objective", self.objectives, weights)
        return self._closed_form(name, draw) if name in CLOSED_FORMS else self._trained(name, draw)

    def with_fixed(self, train: TrainConfig) -> TrainConfig:
        """Return settings with the fixed ones, as far as a closed form uses them."""
        if train.epochs == 0:
            form = next(n for n, f in CLOSED_FORMS.items() if (f.head, f.init) == (train.head, train.init))
            return closed_form_config(form, {**_closed(train), **self._fixed()})
        return train.override(self._fixed())

    def starts(self) -> tuple[str, ...]:
        """Return the names of possible heads with initial weights."""
        head = self.fixed.get("head")
        return tuple(name for name, (of, _) in STARTS.items() if head in (None, of))

    def _fixed(self) -> dict[str, Any]:
        return {"modalities": self.modalities, **self.fixed}

    def _closed_form(self, name: str, draw: Draw) -> TrainConfig:
        form = CLOSED_FORMS[name]
        settings = {"dim": self._dim(draw), **self._regularization(form.head, draw)}
        if form.init == "gcca":
            settings |= self._power(draw)
        return closed_form_config(name, {**settings, **self._fixed()})

    def _trained(self, name: str, draw: Draw) -> TrainConfig:
        starts = self.starts()
        start = draw.choice("start", starts, [_START_WEIGHTS[one] for one in starts])
        head, init = STARTS[start]
        settings: dict[str, Any] = {"objective": name, "head": head, "init": init, "dim": self._dim(draw)}
        if head != "mlp":
            settings |= self._regularization(head, draw) | self._power(draw) | {"weight_decay": 0.0}
        else:
            settings |= self._drawn("dropout", lambda: draw.choice("mlp.dropout", (0.0, 0.2, 0.5)))
            settings |= self._drawn("weight_decay", lambda: draw.choice("mlp.weight_decay", (0.0, 0.01, 0.1)))
            settings |= self._drawn("hidden", lambda: draw.choice("mlp.hidden", (256, 512)))
        settings |= self._drawn("epochs", lambda: draw.choice(f"{init}.epochs", _EPOCHS[init]))
        settings |= self._drawn("lr", lambda: draw.log_uniform(f"{init}.lr", *_RATES[init]))
        if initialization(name) == "contrastive":
            settings["infonce_warmup_ratio"] = 0.5
        settings["objective_options"] = self._options(name, draw)
        return TrainConfig.from_dict({**settings, **self._fixed()})

    def _options(self, name: str, draw: Draw) -> dict[str, Any]:
        known, options = parameter_names(name), dict[str, Any]()
        if needs_anchor(name) != "no" or "anchor" in known:
            options["anchor"] = self.modalities[0] if needs_anchor(name) == "modality" else "all"
        if "temperature" in known:
            options["temperature"] = draw.log_uniform(f"{name}.temperature", *_TEMPERATURES)
        if name == "unialign":
            options |= self._family(draw)
        if "similarity_scale" in known:
            options["similarity_scale"] = draw.choice(f"{name}.similarity_scale", _SIMILARITY_SCALES)
        return options

    def _family(self, draw: Draw) -> dict[str, Any]:
        options: dict[str, Any] = {
            "alignment_weight": draw.log_uniform("unialign.alignment_weight", 0.5, 1.5),
            "partition_mix": draw.choice("unialign.partition_mix", (0.0, 0.25, 0.5, 1.0)),
        }
        if options["partition_mix"] < 1:
            options["partition_positive"] = draw.choice("unialign.partition_positive", ("excluded", "included"))
        if len(self.modalities) > 2:
            options["anchor"] = draw.choice("unialign.anchor", ("all", "leave_one_out"))
        return options

    def _dim(self, draw: Draw) -> int:
        return int(self.fixed["dim"]) if "dim" in self.fixed else draw.choice("dim", _DIMS)

    def _regularization(self, head: str, draw: Draw) -> dict[str, Any]:
        options = _REGULARIZATIONS[head]
        return self._drawn("init_regularization", lambda: draw.choice(f"{head}.regularization", options))

    def _power(self, draw: Draw) -> dict[str, Any]:
        return self._drawn("init_spectrum_power", lambda: draw.choice("spectrum_power", _POWERS))

    def _drawn(self, setting: str, value: Any) -> dict[str, Any]:
        return {} if setting in self.fixed else {setting: value()}


def _closed(train: TrainConfig) -> dict[str, Any]:
    names = ("dim", "init_regularization", "init_spectrum_power", "landmarks", "input_norm")
    return {name: getattr(train, name) for name in names}
