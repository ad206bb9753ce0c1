"""k-nearest-neighbor probe: weighted votes of the nearest training items.

Shapes: `n` classified items, `t` training items, `D` dimension, `k` neighbors, `C` classes.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from unialign._checks import check_integer, check_number
from unialign.errors import ConfigError
from unialign.metrics import KNNResult, knn as nearest
from unialign.probes._hits import hits
from unialign.probes._result import ProbeResult
from unialign.probes._score import scored
from unialign.probes._split import probe_data


def knn(
    z: Any,
    y: Any,
    split: Any,
    *,
    k: int | Sequence[int] = 20,
    temperature: float | Sequence[float] = 0.07,
    batch_size: int = 1024,
    groups: Any = None,
) -> ProbeResult:
    """Classify the test items by the classes of the nearest training items.

    The score of a class is the sum of `exp(cosine / temperature)` over the training items of this class among the k
    training items with the highest cosine (Wu et al., "Unsupervised feature learning via non-parametric instance
    discrimination", CVPR 2018). The search is exact, in float64 where float32 cannot decide; see `metrics.knn`. Of
    training items with equal cosines at place k, the first ones vote. Scores that differ by at most 1e-12 of the vote
    of the nearest item are tied, such as those of classes without a vote.

    With several values of k or temperature, the pair with the highest accuracy on the validation items is used; of
    equally good pairs, that with the smallest k, then the first temperature. Neighbors are always training items.

    Classes without a training item cannot be predicted: their validation and test items count as errors. Unlabeled
    items are not used.

    Args:
        z: (N, D) floating-point tensor or array; rows are L2-normalized here.
        y, split, groups: as in `linear`.
        k: number of neighbors, at most the number of training items; or several numbers.
        temperature: positive number; or several numbers.
        batch_size: maximum number of items searched at once; it does not affect the result.

    Returns:
        See `ProbeResult`.

    Raises:
        ShapeError, DataError: as in `linear`.
        NonFiniteError: a row that is used contains NaN or infinity, or has norm zero.
        ConfigError: an unknown split, an option is out of range, or k exceeds the number of training items.
    """
    counts, temperatures = _grid(k, temperature)
    is_choice = len(counts) * len(temperatures) > 1
    data = probe_data(z, y, split, groups=groups, needs_val="k or temperature" if is_choice else "")
    if counts[-1] > len(data.rows["train"]):
        raise ConfigError(f"k is {counts[-1]}, but there are only {len(data.rows['train'])} training items")
    votes = _Votes(data.labels["train"], data.known)
    validation: list[dict[str, float]] = []
    if is_choice:
        found = nearest(data.z["val"], data.z["train"], k=counts[-1], batch_size=batch_size)
        for number in counts:
            for value in temperatures:
                found_v = hits(votes(found, number, value), data.labels["val"], 1)
                validation.append({"k": number, "temperature": value, "top1": float(found_v.mean())})
    # max returns the first of equal values.
    best = max(validation, key=lambda tried: tried["top1"]) if validation else {}
    neighbors, width = int(best.get("k", counts[0])), float(best.get("temperature", temperatures[0]))

    def scores(part: slice) -> Tensor:
        found = nearest(data.z["test"][part], data.z["train"], k=neighbors, batch_size=batch_size)
        return votes(found, neighbors, width)

    return scored("knn", data, scores, {"k": neighbors, "temperature": width}, validation)


class _Votes:
    def __init__(self, labels_t: Tensor, classes: int) -> None:
        self.labels_t, self.classes = labels_t, classes

    def __call__(self, found: KNNResult, k: int, temperature: float) -> Tensor:
        """Return (n, C) scores, divided by the score of a neighbor with the highest cosine."""
        cosines_nk = found.scores[:, :k].cpu()
        weights_nk = ((cosines_nk - cosines_nk[:, :1]) / temperature).exp()
        scores_nC = weights_nk.new_zeros(len(cosines_nk), self.classes)
        return scores_nC.scatter_add_(1, self.labels_t[found.rows[:, :k].cpu()], weights_nk)


def _grid(k: Any, temperature: Any) -> tuple[list[int], list[float]]:
    counts = list(k) if isinstance(k, Sequence) else [k]
    temperatures = list(temperature) if isinstance(temperature, Sequence) else [temperature]
    if not counts or not temperatures:
        raise ConfigError("k and temperature must be numbers or non-empty sequences of numbers, got none")
    for number in counts:
        check_integer("k", number, low=1)
    for value in temperatures:
        check_number("temperature", value, "a positive number", lambda x: 0 < x < float("inf"))
    return sorted(set(counts)), list(dict.fromkeys(map(float, temperatures)))
