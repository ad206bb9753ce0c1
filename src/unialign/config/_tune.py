"""Settings of the training of an encoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from unialign._checks import check_nonnegative, check_text
from unialign.config._base import REQUIRED, Config, setting
from unialign.config._ranges import fraction, integer, positive
from unialign.errors import ConfigError

TuneMode = Literal["frozen", "last", "lora", "all"]

# Factor between the learning rate of the heads, which start at random weights, and of pretrained weights.
_PRETRAINED = 0.1


def _targets(name: str, value: tuple[object, ...]) -> None:
    if not value or len(set(value)) < len(value):
        raise ConfigError(f"{name} must be one or more distinct names of layers, got {list(value)}")
    for target in value:
        check_text(f"an entry of {name}", target)


@dataclass(frozen=True, kw_only=True)
class TuneConfig(Config):
    """Settings of the training of one encoder. Where a mapping is expected, the name of a mode may be given instead."""

    kind: ClassVar[str] = "tuning"

    mode: TuneMode = setting(
        REQUIRED,
        "weights to train: none (`frozen`), the last blocks and all layers that follow them (`last`), low-rank "
        "matrices that are added to the weights of some layers (`lora`), or all weights (`all`)",
    )
    blocks: int = setting(2, "number of blocks to train with mode `last`, such as transformer layers", integer(1))
    r: int = setting(8, "rank of the matrices of mode `lora`", integer(1))
    alpha: float = setting(
        16.0, "scale of mode `lora`; the product of the matrices is multiplied by alpha / r", positive
    )
    lora_dropout: float = setting(
        0.0, "dropout probability of the inputs of the matrices of mode `lora`, in [0, 1)", fraction
    )
    targets: tuple[str, ...] | None = setting(
        None,
        "layers of mode `lora`: names of linear or convolutional layers, or suffixes of names such as `q_proj` "
        "(default: "
        "the linear layers of attention)",
        _targets,
    )
    dropout: Literal["off", "model"] = setting(
        "off",
        "dropout of the encoder in training: `off`, or `model` for the dropout of the model; with `model`, the "
        "result depends on the "
        "number of processes and on micro-batches",
    )
    lr: float | None = setting(
        None,
        "peak learning rate (default: the learning rate of the run for mode `lora` and for built-in encoders with "
        "random weights, otherwise a tenth of it)",
        positive,
    )
    weight_decay: float | None = setting(None, "weight decay (default: the weight decay of the run)", check_nonnegative)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | str) -> Self:
        """Build a configuration from a mapping, or from the name of a mode.

        Raises:
            ConfigError: a setting is unknown (the message suggests one), missing or out of range.
        """
        return super().from_dict({"mode": values} if isinstance(values, str) else values)

    def learning_rate(self, base: float, *, initial: Literal["pretrained", "random"] = "pretrained") -> float:
        """Return the peak learning rate of an encoder with these initial weights, where `base` is the peak learning
        rate of the run.
        """
        if self.lr is not None:
            return self.lr
        return base if self.mode == "lora" or initial == "random" else base * _PRETRAINED
