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

    Upper limits are far above practical values; without these limits, damaged or malicious files could exhaust memory
    or time.
    """

    kind: ClassVar[str] = "decoder"

    network: Literal["mlp", "unet"] = setting(
        "mlp",
        "`mlp`: residual network on principal components of the images, for CPUs; `unet`: convolutional network of "
        "diffusers on pixels, for GPUs (needs `unialign[generate]`)",
    )
    size: int = setting(32, "side length of the images in pixels; a multiple of 8 for `unet`", integer(4, 512))
    directions: int = setting(
        128, "number of principal directions of the image embeddings used as the condition", integer(1, 2**16)
    )
    whitening: WhiteningMode = setting(
        "center",
        "`center` keeps the variances of the directions, so that condition noise masks weak directions, which do not "
        "generalize to held-out images; `whiten` equalizes the variances",
    )
    latents: int = setting(512, "number of principal components of an image (`mlp`)", integer(1, 2**20))
    width: int = setting(384, "width of the network; channels of the first level (`unet`)", integer(1, 2**16))
    depth: int = setting(
        4, "number of residual blocks (`mlp`), or of residual blocks per level (`unet`)", integer(1, 1024)
    )
    condition_noise: float = setting(
        1.6,
        "maximum standard deviation of the noise added to conditions in training, relative to the root mean square "
        "of the condition, and drawn uniformly from 0 to this value; noise delays the memorization of training "
        "images",
        check_nonnegative,
    )
    condition_dropout: float = setting(
        0.1, "fraction of the samples trained without a condition, in [0, 1); must be positive for guidance", fraction
    )
    flips: Literal["none", "horizontal"] = setting(
        "none", "augmentation: `none`, or `horizontal`, which mirrors half of the images but not their embeddings"
    )
    steps: int = setting(4000, "number of optimizer steps", integer(1, 10**9))
    batch_size: int = setting(192, "number of images per step", integer(1, 2**20))
    lr: float = setting(1.5e-3, "peak learning rate; a cosine schedule ends at 0", positive)
    warmup_ratio: float = setting(0.05, "fraction of the steps with linear learning-rate warmup, in [0, 1)", fraction)
    weight_decay: float = setting(0.01, "weight decay of AdamW, on weight matrices only", check_nonnegative)
    max_grad_norm: float = setting(1.0, "maximum gradient norm", positive)
    average: float = setting(
        0.998, "decay of the moving average of the weights, in [0, 1); the trained decoder uses the average", fraction
    )
    sampler_steps: int = setting(10, "default number of sampler steps of `generate`", integer(1, 10**4))
    guidance: float = setting(1.0, "default guidance scale of `generate`; 1 disables guidance", check_nonnegative)
    save_steps: int | None = setting(
        500,
        "steps between checkpoints, each with a grid of samples, but at most max(5, steps // 10); `none` saves only at "
        "the end",
        integer(1),
        bookkeeping=True,
    )
    save_total_limit: int = setting(2, "number of latest checkpoints to keep", integer(1), bookkeeping=True)
    logging_steps: int = setting(50, "steps between log records", integer(1), bookkeeping=True)
    seed: int = setting(0, "seed of initial weights, item order and noise", integer(0))

    def validate(self) -> None:
        if self.network == "unet" and self.size % 8:
            raise ConfigError(f"size must be a multiple of 8 for network='unet', got {self.size}")
        if self.network == "mlp" and self.latents > 3 * self.size * self.size:
            raise ConfigError(
                f"latents must be at most {3 * self.size**2}, the number of values in an image of size={self.size}, "
                f"got {self.latents}"
            )
