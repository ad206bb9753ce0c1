"""Every setting of a training run, in one frozen object that becomes YAML and JSON and comes back."""

import dataclasses
import difflib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from unialign._checks import check_choice, check_integer, check_nonnegative, check_number
from unialign.errors import ConfigError
from unialign.losses import names as objective_names

if TYPE_CHECKING:
    from unialign.space import Head, Inputs, WhiteningMode

__all__ = ["TrainConfig"]

Precision = Literal["auto", "fp32", "bf16"]

# Settings that say how a run is watched and kept, not what is learnt: they may differ between a run and its resumption.
BOOKKEEPING = ("save_steps", "save_total_limit", "logging_steps", "log_to", "monitor_steps")
_LOGS = ("jsonl", "tensorboard")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of `fit`; checked when made.

    Attributes:
        objective: a name of `unialign.losses.names()`.
        objective_options: its options. Without an `anchor`, objectives that allow it take all pairs.
        modalities: columns of the store, at least two; None means the store's default ones.
        dim, head, hidden, dropout, inputs, frozen: see `unialign.Space`.
        epochs: passes over the training rows, at least 1.
        batch_size: items that an objective sees at once, at least 2 (all training rows, if there are fewer). The last
            batch of an epoch is smaller, and is left out if it would hold a single item.
        micro_batch_size: items that the heads see at once, at least 1; None: the whole batch. The objective sees the
            batch all the same and the result is the same, but for other draws of dropout and rounding; the heads keep
            the activations of that many items only, and run forward twice (see `grad_cache_backward`).
        accumulate: batches whose gradients one optimiser step averages, weighted by their items. Each has negatives of
            its own: 4 batches of 256 are not one batch of 1024 to a contrastive objective.
        lr: the highest learning rate.
        weight_decay: AdamW's, on weight matrices only.
        warmup: fraction of the steps, in [0, 1), in which the rate rises linearly.
        min_lr: where the cosine ends, in [0, lr].
        clip: largest norm of the gradient; None leaves it alone.
        precision: `auto` (bf16 autocast of the heads on CUDA, fp32 elsewhere), `fp32` or `bf16` (CUDA only). Objectives
            compute in fp32 always.
        infonce_warmup_ratio: fraction of the steps, in [0, 1], that InfoNCE trains first, with the same anchor, and the same
            temperature where it is one of cosines.
        save_steps: steps between checkpoints; None: only when interrupted and at the end.
        save_total_limit: how many of the latest stay, at least 1.
        logging_steps: steps between records.
        monitor_steps: steps between looks at the health of the space.
        log_to: `jsonl` (always, if there is a folder) and optionally `tensorboard`.
        seed: decides initial weights, order of the items and dropout.
    """

    objective: str = "unialign"
    objective_options: Mapping[str, Any] = field(default_factory=dict)
    modalities: tuple[str, ...] | None = None
    dim: int = 128
    head: "Head" = "mlp"
    hidden: int = 256
    dropout: float = 0.0
    input_norm: "Inputs" = "standardize"
    frozen: Mapping[str, "WhiteningMode"] = field(default_factory=dict)
    epochs: int = 100
    batch_size: int = 256
    micro_batch_size: int | None = None
    gradient_accumulation_steps: int = 1
    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup_ratio: float = 0.05
    min_lr: float = 0.0
    max_grad_norm: float | None = 1.0
    precision: Precision = "auto"
    infonce_warmup_ratio: float = 0.0
    save_steps: int | None = 500
    save_total_limit: int = 2
    logging_steps: int = 10
    monitor_steps: int = 50
    log_to: tuple[str, ...] = ("jsonl",)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("modalities", "log_to"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise ConfigError(f"{name} is the string {value!r}; expected a list of names such as [{value!r}]")
            if not isinstance(value, Iterable) and (value is not None or name == "log_to"):
                raise ConfigError(f"{name} must be a list of names, got {value!r}")
            if value is not None:
                object.__setattr__(self, name, tuple(value))
        if not isinstance(self.objective_options, Mapping):
            raise ConfigError(f"objective_options must map option to value, got {self.objective_options!r}")
        self.validate()
        # What a file would give back, so that a resumed configuration equals the one in memory; also a private copy.
        object.__setattr__(self, "frozen", dict(self.frozen))
        object.__setattr__(self, "objective_options", json.loads(json.dumps(dict(self.objective_options))))

    def validate(self) -> None:
        """Raise `ConfigError` for the first setting that is out of range."""
        from unialign.space import Head, Inputs, WhiteningMode

        check_choice("objective", self.objective, objective_names())
        check_choice("head", self.head, get_args(Head))
        check_choice("input_norm", self.input_norm, get_args(Inputs))
        if not isinstance(self.frozen, Mapping):
            raise ConfigError(
                f"frozen must map modality to framing, such as {{'image': 'whiten'}}; got {self.frozen!r}"
            )
        for name, framing in self.frozen.items():
            check_choice(f"framing of {name!r}", framing, get_args(WhiteningMode))
        if str(self.precision) == "fp16":
            raise ConfigError("precision='fp16' would need loss scaling; use 'bf16' on a GPU, or 'fp32'")
        check_choice("precision", self.precision, get_args(Precision))
        for name in (
            "dim",
            "hidden",
            "epochs",
            "gradient_accumulation_steps",
            "save_total_limit",
            "logging_steps",
            "monitor_steps",
        ):
            check_integer(name, getattr(self, name), low=1)
        check_integer("batch_size", self.batch_size, low=2)
        if self.micro_batch_size is not None:
            check_integer("micro_batch_size", self.micro_batch_size, low=1)
        if self.save_steps is not None:
            check_integer("save_steps", self.save_steps, low=1)
        check_integer("seed", self.seed, low=0)
        check_number("lr", self.lr, "a positive finite number", lambda x: 0 < x < math.inf)
        check_nonnegative("weight_decay", self.weight_decay)
        check_number("min_lr", self.min_lr, f"a number in [0, lr = {self.lr}]", lambda x: 0 <= x <= self.lr)
        check_number("dropout", self.dropout, "a number in [0, 1)", lambda x: 0 <= x < 1)
        check_number("warmup_ratio", self.warmup_ratio, "in [0, 1), a fraction of the steps", lambda x: 0 <= x < 1)
        check_number(
            "infonce_warmup_ratio",
            self.infonce_warmup_ratio,
            "a number in [0, 1], a fraction of the steps",
            lambda x: 0 <= x <= 1,
        )
        if self.max_grad_norm is not None:
            check_number(
                "max_grad_norm", self.max_grad_norm, "a positive finite number, or None", lambda x: 0 < x < math.inf
            )
        if self.modalities is not None and (
            not all(isinstance(name, str) for name in self.modalities)
            or len(set(self.modalities)) < max(2, len(self.modalities))
        ):
            raise ConfigError(f"modalities must be at least two different names, got {list(self.modalities)}")
        for log in self.log_to:
            check_choice("log_to", log, _LOGS)
        try:
            json.dumps(dict(self.objective_options), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"objective_options must hold plain numbers, strings and lists: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain dict of JSON types; `from_dict` gives the same configuration back."""
        body = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        body["objective_options"] = dict(self.objective_options)
        body["frozen"] = dict(self.frozen)
        if not self.frozen:
            del body["frozen"]  # as files of earlier versions have it, so that what they began goes on
        for name in ("modalities", "log_to"):
            body[name] = None if body[name] is None else list(body[name])
        return body

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """A configuration from a dict, for example a YAML file; missing settings take their defaults.

        Raises:
            ConfigError: a setting is unknown (the message suggests one) or out of range.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"a training configuration must map setting to value, got {type(values).__name__}")
        known = [entry.name for entry in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                close = difflib.get_close_matches(str(name), known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}"
                raise ConfigError(f"unknown training setting {name!r}; {hint}")
        return cls(**values)
