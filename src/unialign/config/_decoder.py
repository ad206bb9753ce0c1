"""Settings of a decoder of image embeddings and of its training."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from unialign._checks import check_nonnegative
from unialign.config._base import Config, setting
from unialign.config._choices import WhiteningMode
from unialign.config._ranges import fraction, integer, positive
from unialign.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(Config):
    """Settings of `train_decoder`, checked on construction.

    Upper limits are far above any practical value; they keep damaged or malicious files from exhausting memory or time.
    """

    kind: ClassVar[str] = "decoder"

    network: Literal["mlp", "unet"] = setting(
        "mlp",
        "`mlp`, a residual network on principal components of the images, for CPUs; `unet`, the convolutional network "
        "of diffusers on pixels, for GPUs (needs `unialign[generate]`)",
    )
    size: int = setting(32, "side length of the images in pixels; a multiple of 8 for `unet`", integer(4, 512))
    directions: int = setting(
        128, "number of principal directions of the image embeddings that the network reads", integer(1, 2**16)
    )
    whitening: WhiteningMode = setting(
        "center",
        "`center` keeps the variances of the directions, so that condition noise covers weak directions, which do not "
        "carry over to held-out images; `whiten` equalizes the variances",
    )
    latents: int = setting(512, "principal components of an image (`mlp`)", integer(1, 2**20))
    width: int = setting(384, "width of the network; channels of the first level (`unet`)", integer(1, 2**16))
    depth: int = setting(4, "residual blocks (`mlp`), or residual blocks per level (`unet`)", integer(1, 1024))
    condition_noise: float = setting(
        1.6,
        "largest noise added to a condition in training, in units of a direction's mean deviation; the noise level is "
        "drawn uniformly from 0 to this value, and delays memorization of training images",
        check_nonnegative,
    )
    condition_dropout: float = setting(
        0.1, "fraction of the samples trained without a condition, in [0, 1); guidance needs some", fraction
    )
    flips: Literal["none", "horizontal"] = setting(
        "none", "`none`, or `horizontal`: half of the images are mirrored, their embeddings are not"
    )
    steps: int = setting(4000, "optimizer steps", integer(1, 10**9))
    batch_size: int = setting(192, "images per step", integer(1, 2**20))
    lr: float = setting(1.5e-3, "peak learning rate; a cosine schedule ends at 0", positive)
    warmup_ratio: float = setting(0.05, "fraction of the steps with linear learning-rate warmup, in [0, 1)", fraction)
    weight_decay: float = setting(0.01, "weight decay of AdamW, on weight matrices only", check_nonnegative)
    max_grad_norm: float = setting(1.0, "largest gradient norm", positive)
    average: float = setting(
        0.998, "decay of the moving average of the weights, in [0, 1); the average is the trained decoder", fraction
    )
    sampler_steps: int = setting(10, "sampler steps of `generate` by default", integer(1, 10**4))
    guidance: float = setting(1.0, "guidance scale of `generate` by default; 1 is none", check_nonnegative)
    save_steps: int | None = setting(
        500,
        "steps between checkpoints, each with a grid of samples; short runs save after each tenth of `steps`, "
        "but not within 5 steps; `none`: only at the end",
        integer(1),
        bookkeeping=True,
    )
    save_total_limit: int = setting(2, "number of latest checkpoints to keep", integer(1), bookkeeping=True)
    logging_steps: int = setting(50, "steps between log records", integer(1), bookkeeping=True)
    seed: int = setting(0, "seed of weights, item order and noise", integer(0))

    def validate(self) -> None:
        if self.network == "unet" and self.size % 8:
            raise ConfigError(f"size must be a multiple of 8 for network='unet', got {self.size}")
        if self.network == "mlp" and self.latents > 3 * self.size * self.size:
            raise ConfigError(
                f"latents={self.latents} is more than the {3 * self.size**2} numbers of an image of size={self.size}"
            )
