"""Settings of a probe."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from unialign.config._base import REQUIRED, Config, setting
from unialign.config._choices import Split
from unialign.config._ranges import RESAMPLES, integer, not_empty, positive
from unialign.errors import ConfigError

ProbeTask = Literal["zero-shot", "linear", "knn"]


def _positive_numbers(name: str, value: tuple[Any, ...]) -> None:
    not_empty(name, value)
    for number in value:
        positive(name, number)


def _counts(name: str, value: tuple[Any, ...]) -> None:
    not_empty(name, value)
    for number in value:
        integer(1)(name, number)


def _templates(name: str, value: tuple[str, ...]) -> None:
    not_empty(name, value)
    for template in value:
        if "{}" not in template:
            raise ConfigError(f"{name} has {template!r}, which has no placeholder {{}} for the class name")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(Config):
    """A classification of items by the embeddings of one modality."""

    kind: ClassVar[str] = "probe"

    space: str = setting(REQUIRED, "folder written by `Space.save_pretrained`, or a Hub id")
    data: str = setting(REQUIRED, "name of a data set, path of a store, or a source of media")
    task: ProbeTask = setting(
        REQUIRED,
        "`zero-shot`: class names as prompts; `linear`: logistic regression; `knn`: votes of the nearest training "
        "items",
    )
    fingerprint: str | None = setting(None, "required fingerprint of the data; a mismatch raises DataError")
    modality: str = setting("image", "modality to classify")
    text: str = setting("text", "zero-shot: modality of the prompts")
    templates: tuple[str, ...] = setting(
        ("a photo of a {}.",), "zero-shot: prompt templates, with {} for the name of the class", _templates
    )
    labels: tuple[str, ...] | None = setting(
        None, "class names in the order of the class numbers (default: the class names of the data)", not_empty
    )
    split: Split = setting("test", "zero-shot: split to classify; `linear` and `knn` use all splits")
    input: Literal["embeddings", "features"] = setting(
        "embeddings", "linear and knn: rows to classify, the embeddings of the space or the features of the encoder"
    )
    C: tuple[float, ...] = setting(
        tuple(10.0**power for power in range(-5, 5)),
        "linear: inverse regularization strengths; the best on the validation items is used",
        _positive_numbers,
    )
    k: tuple[int, ...] = setting((20,), "knn: numbers of neighbors; the best is used", _counts)
    temperature: tuple[float, ...] = setting(
        (0.07,), "knn: temperatures of the votes; the best is used", _positive_numbers
    )
    resamples: int = setting(2000, "number of bootstrap resamples, from 100 to 1,000,000", integer(*RESAMPLES))
    seed: int = setting(0, "seed of the bootstrap", integer(0))
