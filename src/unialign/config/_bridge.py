"""Settings of a bridge between two embedding models."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from unialign.config._base import REQUIRED, Config, setting
from unialign.config._ranges import integer, not_empty, positive


@dataclass(frozen=True, kw_only=True)
class BridgeConfig(Config):
    """A map from an old to a new embedding model."""

    kind: ClassVar[str] = "bridge"

    old: str = setting(REQUIRED, "file or store with the whole index, as embeddings by the old model")
    new: str | None = setting(None, "file with embeddings of the sampled items by the new model")
    pairs: str | None = setting(
        None, "file with the row numbers or ids of the sampled items, .npy or one per line (default: ids of both files)"
    )
    pairs_by: Literal["row", "id"] | None = setting(
        None, "meaning of the numbers in the file of pairs, if the old index has numeric ids"
    )
    queries: str | None = setting(
        None, "file with embeddings of logged queries by the new model (default: the sampled items)"
    )
    known: str | None = setting(
        None, "file with the row number of the correct answer to each query, .npy or one per line"
    )
    old_queries: str | None = setting(
        None, "file with embeddings of the same queries by the old model, to score the old model"
    )
    old_modality: str | None = setting(None, "name of the matrix in the old file (default: its only matrix)")
    new_modality: str | None = setting(None, "name of the matrix in the new file (default: its only matrix)")
    goal: float = setting(
        0.95, "required fraction of equal results among the first 10, above 0 and at most 1", positive
    )
    methods: tuple[str, ...] | None = setting(
        None,
        "candidate maps: identity, procrustes, ridge, identity_ridge, scaled_ridge, kernel (default: all; kernel from "
        "600 to 5,000 pairs)",
        not_empty,
    )
    candidates: int = setting(100, "number of rows that the new model can embed for each query", integer(10))
    write_index: bool = setting(False, "write the mapped index to mapped.npy")
    plan: int | None = setting(
        None,
        "number of rows to embed next, chosen near cluster centers rather than at random and written to plan.txt",
        integer(1),
    )
    seed: int = setting(0, "seed of the random galleries and of the plan", integer(0))
