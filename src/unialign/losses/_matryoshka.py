"""Matryoshka: an objective on prefixes of the embeddings (Kusupati et al. 2022)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unialign._checks import check_integer, check_nonnegative
from unialign.batch import Batch
from unialign.errors import ConfigError
from unialign.losses._objective import LossTerm, Objective
from unialign.losses._prefixes import batch_prefix
from unialign.losses._wrapper import ObjectiveWrapper


class Matryoshka(ObjectiveWrapper):
    """The sum of an objective over prefixes of the embeddings, so that embeddings can be truncated after training.

    The loss is sum_k weights[k] * L(first dims[k] dimensions, normalized again), with L any objective (Kusupati et al.,
    NeurIPS 2022, Eq. 1). Term names start with the prefix: `d64/contrast/image-text`. After training, keep the first
    dimensions of the embeddings and normalize them, as `Space.encode(dim=64)` does.

    Dimensions beyond the largest prefix get no gradient, so `dims` usually contains the full dimension. All prefixes
    share the parameters of the objective, its temperature and its sampled negatives. With several processes, rows are
    gathered once for all prefixes.

    Args:
        objective: an objective, or the name of an objective.
        dims: numbers of leading dimensions, distinct, at most the dimension of the embeddings.
        weights: weight of each prefix, in the order of `dims`; 1 by default. A prefix of weight 0 is skipped.
        objective_options: options of an objective given by name.

    Examples:
        >>> import torch
        >>> loss = Matryoshka("infonce", dims=(8, 16), objective_options={"temperature": 0.1})
        >>> sorted(loss({"image": torch.eye(4, 16) + 1, "text": torch.eye(4, 16) + 2}).terms)
        ['d16/contrast/image-text', 'd8/contrast/image-text']

    Raises:
        ConfigError: an invalid option. A call raises ShapeError if the embeddings have fewer dimensions than a prefix,
            and NonFiniteError if a prefix of a present row has norm zero.
    """

    name = "matryoshka"
    display_name = "Matryoshka"

    def __init__(
        self,
        objective: str | Objective = "unialign",
        dims: Sequence[int] = (64, 128, 256),
        weights: Sequence[float] | None = None,
        *,
        objective_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(objective, objective_options)
        self.dims = check_dims(dims)
        if weights is None:
            weights = (1.0,) * len(self.dims)
        if not isinstance(weights, list | tuple) or len(weights) != len(self.dims):
            raise ConfigError(f"weights must have one number for each of the {len(self.dims)} dims, got {weights!r}")
        for k, weight in enumerate(weights):
            check_nonnegative(f"weights[{k}]", weight)
        if not any(weights):
            raise ConfigError("weights are all 0; give at least one prefix a positive weight")
        self.weights = tuple(map(float, weights))
        self.smallest_dim = max(*self.dims, self.objective.smallest_dim)

    def terms(self, batch: Batch) -> dict[str, LossTerm]:
        terms: dict[str, LossTerm] = {}
        for dim, weight in zip(self.dims, self.weights, strict=True):
            if weight > 0:
                inner = self.objective.terms(batch_prefix(batch, dim))
                terms |= {f"d{dim}/{name}": LossTerm(value, weight * factor) for name, (value, factor) in inner.items()}
        return terms

    def own_config(self) -> dict[str, Any]:
        return {"dims": list(self.dims), "weights": list(self.weights)}


def check_dims(dims: object, option: str = "dims") -> tuple[int, ...]:
    if isinstance(dims, str | bytes) or not isinstance(dims, Iterable):
        raise ConfigError(f"{option} must be a sequence of prefix lengths such as (64, 128), got {dims!r}")
    lengths = tuple(dims)
    for length in lengths:
        check_integer(f"an entry of {option}", length, low=1)
    if not lengths or len(set(lengths)) < len(lengths):
        raise ConfigError(f"{option} must be one or more distinct prefix lengths, got {list(lengths)}")
    return lengths
