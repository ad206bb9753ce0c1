"""Settings of image generation."""

from dataclasses import dataclass
from typing import ClassVar

from unialign._checks import check_nonnegative
from unialign.config._base import Config, setting
from unialign.config._choices import Mix
from unialign.config._ranges import integer, not_empty
from unialign.errors import ConfigError

_MAX_IMAGES = 1000


def _weights(name: str, value: tuple[object, ...]) -> None:
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in value):
        raise ConfigError(f"{name} must be a list of numbers, got {list(value)}")


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(Config):
    """Settings of `unialign generate`: images of items, texts and mixtures in a space with a frozen modality."""

    kind: ClassVar[str] = "generation"

    data: str = setting("emoji", "name of a data set, or path of a store")
    fingerprint: str | None = setting(None, "required fingerprint of the data; a mismatch raises DataError")
    space: str | None = setting(
        None, "folder or Hub id of a trained space with a frozen anchor (default: the space shipped with the data)"
    )
    decoder: str | None = setting(
        None, "folder or Hub id of a decoder of image embeddings (default: the decoder shipped with the data)"
    )
    prior: str | None = setting(
        None, "folder or Hub id of the prior with the image encoder of a Kandinsky 2.2 decoder (default: none)"
    )
    items: tuple[str, ...] = setting((), "items of the data, by name or as #row")
    texts: tuple[str, ...] = setting((), "new texts; needs the text encoder (unialign[text])")
    source: tuple[str, ...] | None = setting(
        None, "modalities of each item to mix (default: all except the anchor)", not_empty
    )
    mix: Mix = setting(
        "mean",
        "how to mix modalities: `mean` (unit length), `unnormalized_mean` (as in the paper) or `frechet_mean`",
    )
    weights: tuple[float, ...] | None = setting(
        None, "weights of the parts of a mixture, in the given order (default: equal)", _weights
    )
    combine: bool = setting(False, "generate a single image of the mixture of all items and texts")
    interpolate: int | None = setting(
        None, "number of images on a path through all items and texts (default: no path)", integer(2)
    )
    samples: int = setting(4, "number of images per item or text, each from different noise", integer(1))
    seed: int = setting(0, "seed of the noise", integer(0))
    steps: int | None = setting(None, "number of sampler steps (default: the decoder's)", integer(1))
    guidance: float | None = setting(
        None, "guidance scale; 1 disables guidance (default: the decoder's)", check_nonnegative
    )
    anchor: str | None = setting(None, "frozen modality to decode (default: the only frozen modality)")

    def validate(self) -> None:
        if self.interpolate is not None:
            if self.combine:
                raise ConfigError(
                    "interpolate generates a path through all items and texts, and combine generates a single image; "
                    "give only one of interpolate and combine"
                )
            if self.mix != "mean":
                raise ConfigError("mix has no effect on interpolate, which follows arcs; omit mix")
        if self.source is not None and not self.items:
            raise ConfigError("source selects modalities of items, but items is empty; specify an item")
        count = self.interpolate or len(self.items) + len(self.texts)
        if count * self.samples > _MAX_IMAGES:
            raise ConfigError(
                f"{count} x {self.samples} images exceed the limit of {_MAX_IMAGES} images per page; request fewer"
            )
