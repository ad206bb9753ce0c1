"""Weights of the mean over pairs of modalities."""

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from unialign._checks import check_nonnegative, suggestion
from unialign._pair_keys import pair_name
from unialign.batch import Batch
from unialign.errors import ConfigError
from unialign.losses._modality_terms import Pair
from unialign.losses._objective import LossTerm, mean_terms


def check_pair_weights(pair_weights: object) -> None:
    if pair_weights is not None and not isinstance(pair_weights, Mapping):
        raise ConfigError(f"pair_weights must be a mapping such as {{'image-text': 2.0}}, got {pair_weights!r}")
    for pair, weight in (pair_weights or {}).items():
        check_nonnegative(f"pair_weights[{pair!r}]", weight)


def mean_over_pairs(
    batch: Batch,
    pairs: Sequence[Pair],
    values: Mapping[str, Tensor],
    term: str,
    pair_weights: Mapping[str, float] | None,
) -> dict[str, LossTerm]:
    """Pairs without a weight have weight 1; values of weight 0 are omitted."""
    if pair_weights is None:
        return mean_terms(values)
    weights = {f"{term}/{pair}": weight for pair, weight in _weights(batch, pairs, pair_weights).items()}
    used = {name: value for name, value in values.items() if weights[name] > 0}
    total = sum(weights[name] for name in used)
    return {name: LossTerm(value, weights[name] / total) for name, value in used.items()}


def _weights(batch: Batch, pairs: Iterable[Pair], pair_weights: Mapping[str, float]) -> dict[str, float]:
    weights, known = {}, set()
    for m, n in pairs:
        name, reverse = (pair_name(batch.names[i], batch.names[j]) for i, j in ((m, n), (n, m)))
        if name in pair_weights and reverse in pair_weights:
            raise ConfigError(f"pair_weights has two weights of one pair, {name!r} and {reverse!r}; give only one")
        weights[name] = float(pair_weights.get(name, pair_weights.get(reverse, 1.0)))
        known |= {name, reverse}
    for key in pair_weights:
        if key not in known:
            raise ConfigError(
                f"pair_weights has {key!r}, which is not a pair of this loss; its pairs are "
                f"{', '.join(map(repr, weights))}{suggestion(key, weights)}"
            )
    if weights and not any(weights.values()):
        raise ConfigError(f"pair_weights gives weight 0 to every pair of this loss: {', '.join(map(repr, weights))}")
    return weights
