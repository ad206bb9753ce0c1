"""Every setting of a decoder and of its training, in one frozen object that becomes YAML and JSON and comes back."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from unialign._checks import check_choice, check_integer, check_nonnegative, check_number
from unialign.errors import ConfigError
from unialign.space import WhiteningMode

__all__ = ["BOOKKEEPING", "DecoderConfig", "Network"]

Network = Literal["mlp", "unet"]

# Settings that say how a run is watched and kept, not what is learnt: they may differ between a run and its resumption.
BOOKKEEPING = ("save_steps", "save_total_limit", "logging_steps")

_MAX_SIZE = 512
# Far above any use: a damaged or hostile file must not fill the memory or take for ever.
_MOST = {
    "directions": 2**16,
    "latents": 2**20,
    "width": 2**16,
    "depth": 1024,
    "steps": 10**9,
    "batch_size": 2**20,
    "sampler_steps": 10**4,
}


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Settings of `train_decoder`; checked when made.

    Attributes:
        network: `mlp`, a residual network on principal components of the pictures, for a CPU; `unet`, a convolutional
            network on pixels from diffusers (needs `unialign[generate]`), for a GPU.
        size: pixels a side; for `unet` a multiple of 8.
        directions: how many principal directions of the image embeddings are read.
        framing: `center` keeps their variances, so that noise of the condition covers the weak ones, which held-out
            pictures do not share; `whiten` makes all of them alike.
        latents: principal components of a picture (`mlp`).
        width: of the network; channels of the first level (`unet`).
        depth: residual blocks (`mlp`), residual blocks a level (`unet`).
        condition_noise: the most noise that a condition gets in training, in units of a direction's mean deviation;
            drawn evenly from 0 to this. Without it the network learns training pictures by heart even sooner.
        condition_dropout: share of the samples that train without a condition, which guidance needs.
        flips: `none`, or `horizontal`: half of the pictures are mirrored (their embeddings are not).
        steps: optimiser steps.
        batch_size: pictures a step.
        lr: the highest learning rate; a cosine falls from it to 0.
        warmup: fraction of the steps in which the rate rises.
        weight_decay: AdamW's, on weight matrices.
        clip: largest norm of the gradient.
        average: decay of the moving average of the weights, which is what samples.
        sampler_steps, guidance: what `generate` takes when it is not told otherwise.
        save_steps: the most steps between checkpoints, each with a picture of samples; short runs have one every
            tenth of `steps`, but not before 5; None: at the end only.
        save_total_limit: how many of the latest stay.
        logging_steps: steps between records.
        seed: decides weights, order, noise.
    """

    network: Network = "mlp"
    size: int = 32
    directions: int = 128
    whitening: WhiteningMode = "center"
    latents: int = 512
    width: int = 384
    depth: int = 4
    condition_noise: float = 1.6
    condition_dropout: float = 0.1
    flips: Literal["none", "horizontal"] = "none"
    steps: int = 4000
    batch_size: int = 192
    lr: float = 1.5e-3
    warmup_ratio: float = 0.05
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    average: float = 0.998
    sampler_steps: int = 10
    guidance: float = 1.0
    save_steps: int | None = 500
    save_total_limit: int = 2
    logging_steps: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("network", self.network, get_args(Network))
        check_choice("whitening", self.whitening, get_args(WhiteningMode))
        check_choice("flips", self.flips, ("none", "horizontal"))
        check_integer("size", self.size, low=4, high=_MAX_SIZE)
        if self.network == "unet" and self.size % 8:
            raise ConfigError(f"size must be a multiple of 8 for network='unet', got {self.size}")
        for name, most in _MOST.items():
            check_integer(name, getattr(self, name), low=1, high=most)
        for name in ("save_total_limit", "logging_steps"):
            check_integer(name, getattr(self, name), low=1)
        if self.save_steps is not None:
            check_integer("save_steps", self.save_steps, low=1)
        check_integer("seed", self.seed, low=0)
        if self.network == "mlp" and self.latents > 3 * self.size * self.size:
            raise ConfigError(
                f"latents={self.latents} is more than the {3 * self.size**2} numbers of a picture of size={self.size}"
            )
        for name in ("condition_noise", "weight_decay", "guidance"):
            check_nonnegative(name, getattr(self, name))
        for name in ("lr", "max_grad_norm"):
            check_number(name, getattr(self, name), "a positive finite number", lambda x: 0 < x < math.inf)
        for name in ("condition_dropout", "warmup_ratio", "average"):
            check_number(name, getattr(self, name), "a number in [0, 1)", lambda x: 0 <= x < 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain dict of JSON types; `from_dict` gives the same configuration back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DecoderConfig":
        """A configuration from a dict; missing settings take their defaults, unknown ones are a `ConfigError`."""
        known = [entry.name for entry in dataclasses.fields(cls)]
        if unknown := [str(name) for name in values if name not in known]:
            raise ConfigError(f"unknown decoder setting {', '.join(unknown)}; expected {', '.join(known)}")
        return cls(**values)
