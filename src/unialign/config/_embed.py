"""Settings of embedding: how raw media become the columns of a store."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from unialign._checks import check_number
from unialign.config._base import Config, setting
from unialign.config._ranges import integer
from unialign.errors import ConfigError

_LIMITS = ("bytes", "pixels", "samples", "characters", "seconds")


def _share(name: str, value: object) -> None:
    check_number(name, value, "a number in [0, 1]", lambda x: 0 <= x <= 1)


def _limits(name: str, value: Mapping[str, object]) -> None:
    for key, limit in value.items():
        if key not in _LIMITS:
            raise ConfigError(f"unknown entry {key!r} of {name}; expected one of {', '.join(_LIMITS)}")
        check_number(f"{name}.{key}", limit, "a positive finite number", lambda x: 0 < x < float("inf"))
        if key != "seconds":
            check_number(f"{name}.{key}", limit, "a positive integer", lambda x: x == int(x) >= 1)


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(Config):
    """Settings of `embed`."""

    kind: ClassVar[str] = "embedding"

    batch_size: int = setting(64, "number of cells per batch of an encoder", integer(1))
    part_cells: int = setting(
        1024,
        "number of cells per part, a multiple of batch_size; finished parts are kept after an interruption",
        integer(1),
    )
    dtype: Literal["float32", "float16"] = setting("float32", "dtype of the stored features")
    threads: int | Literal["auto"] = setting(
        "auto",
        "number of CPU threads of an encoder; `auto`: as in an unfinished run, else half of the cores, or 1 on Ray",
        integer(1, 1024),
    )
    workers: int | Literal["auto"] = setting(
        "auto",
        "number of processes that read and decode media, 0 for none; `auto` is half of the cores, or all but one "
        "with CUDA",
        integer(0),
        bookkeeping=True,
    )
    max_broken: float = setting(
        0.01,
        "maximum fraction of broken cells per modality, in [0, 1]; up to 10 are always accepted",
        _share,
        bookkeeping=True,
    )
    on_broken: Literal["absent", "raise"] = setting(
        "absent", "`absent` lists broken cells and continues; `raise` stops at the first broken cell", bookkeeping=True
    )
    retry_broken: bool = setting(False, "recompute parts with broken cells", bookkeeping=True)
    allow_changed: bool = setting(
        False, "recompute parts whose files have changed, instead of raising an error", bookkeeping=True
    )
    thumbnails: int | None = setting(
        64, "maximum side length of stored thumbnails in pixels; none: no thumbnails", integer(8, 512)
    )
    hash: bool = setting(False, "store the sha256 of every file in the asset files.jsonl")
    limits: Mapping[str, float] = setting(
        {},
        f"limits on media: {', '.join(_LIMITS[:-1])}, and seconds of decoding; larger media are broken cells",
        _limits,
    )
    engine: Literal["local", "ray"] = setting(
        "local", "`local` uses this machine, `ray` the machines of a Ray cluster", bookkeeping=True
    )

    def validate(self) -> None:
        if self.part_cells % self.batch_size:
            nearest = max(1, round(self.part_cells / self.batch_size)) * self.batch_size
            raise ConfigError(
                f"part_cells is {self.part_cells}, which is not a multiple of batch_size {self.batch_size}; use "
                f"{nearest}"
            )
