"""Is one objective better than another? Paired comparison from per-item scores over the same items.

Shapes: `S` seeds (training runs), `N` items, `G` groups of items, `R` resamples or permutations.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from unialign.errors import ConfigError, DataError, ShapeError
from unialign.metrics._bootstrap import Interval, percentile_interval, weight_blocks
from unialign.metrics._rows import codes

__all__ = ["Comparison", "compare_paired", "holm", "sign_flip_p_value"]

_BLOCK = 2**22


@dataclass(frozen=True)
class Comparison:
    """Mean score of a less mean score of b.

    Attributes:
        difference: estimate and bootstrap interval over seeds and groups of items.
        p_value: of the sign-flip test over groups of items, in (0, 1].
        items: how many were compared; items that are NaN in any run are left out.
        groups: how many independent groups they form.
    """

    difference: Interval
    p_value: float
    items: int
    groups: int


def compare_paired(
    a: Any,
    b: Any,
    *,
    groups: Any = None,
    seeds: Literal["paired", "independent"] = "paired",
    level: float = 0.95,
    resamples: int = 2000,
    permutations: int = 9999,
    seed: int = 0,
) -> Comparison:
    """Compare two objectives by scores of the same items.

    The interval draws seeds and, crossed with them, groups of items with replacement, the same groups on both sides
    (Owen 2007, "The pigeonhole bootstrap"), so it says what other seeds and other items would give. Luck of single
    items in single runs enters it up to three times, so where that is all there is the interval is too wide, by sqrt(3)
    at most. With few seeds it knows little about their spread: S seeds show (S - 1) / S of that variance, one shows
    none. The p-value takes the trained models as given and asks about items only; see `sign_flip_p_value`.

    Args:
        a, b: (S, N) scores, or (N,) for one run; column i is item i on both sides. NaN = undefined for that item.
        groups: (N,) labels of items that belong together.
        seeds: `paired` when row s of both shares its seed (data order, initialisation), which needs equal S;
            `independent` draws each side's runs on their own.
        level: of the interval, in (0, 1).
        resamples, permutations: at least 1.
        seed: of both.

    Raises:
        ShapeError: not (S, N), different N, or different S though paired.
        DataError: no item is defined in every run.
        ConfigError: a bad option.
    """
    if seeds not in get_args(Literal["paired", "independent"]):
        raise ConfigError(f"unknown seeds {seeds!r}; expected 'paired' or 'independent'")
    a_SN, b_SN = _scores(a, "a"), _scores(b, "b")
    if a_SN.shape[1] != b_SN.shape[1]:
        raise ShapeError(f"a scores {a_SN.shape[1]} items, b {b_SN.shape[1]}; a paired comparison needs the same items")
    if seeds == "paired" and len(a_SN) != len(b_SN):
        raise ShapeError(f"a has {len(a_SN)} seeds, b {len(b_SN)}; compare them with seeds='independent'")
    group_N = torch.arange(a_SN.shape[1]) if groups is None else codes(groups, "groups", rows=a_SN.shape[1])
    defined_N = ~(torch.isnan(a_SN).any(0) | torch.isnan(b_SN).any(0))
    if not bool(defined_N.any()):
        raise DataError("no item has a score in every run of both sides, so there is nothing to compare")
    a_SN, b_SN, group_N = a_SN[:, defined_N], b_SN[:, defined_N], codes(group_N[defined_N], "groups")

    values_R = _crossed(a_SN, b_SN, group_N, seeds == "paired", resamples, seed)
    difference_N = a_SN.mean(0) - b_SN.mean(0)
    return Comparison(
        percentile_interval(values_R, level, estimate=float(difference_N.mean())),
        sign_flip_p_value(difference_N, groups=group_N, permutations=permutations, seed=seed),
        items=len(group_N),
        groups=int(group_N.max()) + 1,
    )


def sign_flip_p_value(differences: Any, *, groups: Any = None, permutations: int = 9999, seed: int = 0) -> float:
    """Two-sided paired permutation test: which share of random sign flips of whole groups is as extreme as the data?

    Under the null the labels a and b of a group may be exchanged, which flips the sign of its sum of differences.
    (1 + extreme flips) / (1 + permutations): never 0, and valid for any number of permutations (Phipson & Smyth 2010).

    Args:
        differences: (N,) score of a less score of b.
        groups: (N,) labels.
        permutations: at least 1.
        seed: of the flips.

    Returns:
        A value in (0, 1]; 1 if all differences are 0.
    """
    if permutations < 1:
        raise ConfigError(f"permutations must be at least 1, got {permutations}")
    difference_N = torch.as_tensor(differences, dtype=torch.float64).detach().cpu()
    if difference_N.ndim != 1 or len(difference_N) == 0:
        raise ShapeError(f"differences have shape {tuple(difference_N.shape)}; expected (items,), at least one")
    group_N = torch.arange(len(difference_N)) if groups is None else codes(groups, "groups", rows=len(difference_N))
    sums_G = torch.zeros(int(group_N.max()) + 1, dtype=torch.float64).index_add_(0, group_N, difference_N)
    # A flip that gives the same value in another order of addition is as extreme as the data.
    observed = float(sums_G.sum().abs()) - 1e-9 * float(sums_G.abs().sum())
    extreme = sum(int(((signs @ sums_G).abs() >= observed).sum()) for signs in _signs(permutations, len(sums_G), seed))
    return (1 + extreme) / (1 + permutations)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjusted p-values, in the order given: below alpha together with error rate alpha.

    Raises:
        ConfigError: a value outside [0, 1].
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ConfigError(f"p-values must lie in [0, 1], got {list(p_values)}")
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def _crossed(a_SN: Tensor, b_SN: Tensor, group_N: Tensor, paired: bool, resamples: int, seed: int) -> Tensor:
    """(R,) difference of the means, with seeds and groups drawn again in each resample."""
    # Child seeds: draws of runs must not move in step with those of items.
    seeds_a, seeds_b = (int(s.generate_state(1)[0]) for s in np.random.SeedSequence(seed).spawn(2))
    u_RS = torch.cat(list(weight_blocks(len(a_SN), resamples=resamples, seed=seeds_a))) / len(a_SN)
    v_RS = u_RS if paired else torch.cat(list(weight_blocks(len(b_SN), resamples=resamples, seed=seeds_b))) / len(b_SN)
    values, start = [], 0
    for weights_RN in weight_blocks(group_N, resamples=resamples, seed=seed):
        rows = slice(start, start + len(weights_RN))
        mean_a_R = (u_RS[rows] * (weights_RN @ a_SN.mT)).sum(1)
        mean_b_R = (v_RS[rows] * (weights_RN @ b_SN.mT)).sum(1)
        values.append((mean_a_R - mean_b_R) / weights_RN.sum(1))
        start = rows.stop
    return torch.cat(values)


def _signs(permutations: int, groups: int, seed: int) -> Iterator[Tensor]:
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // groups)
    for start in range(0, permutations, step):
        flips = rng.integers(0, 2, size=(min(step, permutations - start), groups), dtype=np.int8)
        yield torch.from_numpy(flips).double() * 2 - 1


def _scores(scores: Any, name: str) -> Tensor:
    table = torch.as_tensor(scores, dtype=torch.float64).detach().cpu()
    table = table[None] if table.ndim == 1 else table
    if table.ndim != 2 or 0 in table.shape:
        raise ShapeError(f"{name} has shape {tuple(table.shape)}; expected (seeds, items), at least one of each")
    return table
