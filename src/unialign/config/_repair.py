"""Settings of a repair."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from unialign._checks import check_number
from unialign.config._base import REQUIRED, Config, setting
from unialign.config._ranges import integer, not_empty

RepairMethod = Literal["none", "center", "coral", "center_csls"]


def _holdout(name: str, value: Any) -> None:
    check_number(name, value, "in (0, 1)", lambda x: 0 < x < 1)


@dataclass(frozen=True, kw_only=True)
class RepairConfig(Config):
    """A repair of the gap between modalities."""

    kind: ClassVar[str] = "repair"

    sources: tuple[str, ...] = setting(
        REQUIRED, "files of embeddings or a store; or the folder of a space, followed by its data", not_empty
    )
    modalities: tuple[str, ...] | None = setting(None, "modalities to repair (default: all)", not_empty)
    id: str | None = setting(
        None, "array or column of ids that joins the files (default: ids, or a common name such as id or key)"
    )
    methods: tuple[RepairMethod, ...] = setting(
        ("none", "center", "coral", "center_csls"), "methods to compare on held-out items", not_empty
    )
    holdout: float = setting(
        0.5, "fraction of the items held out to choose the method, in (0, 1), if there is no split `val`", _holdout
    )
    seed: int = setting(0, "seed of the held-out items, the pools and the bootstrap", integer(0))
