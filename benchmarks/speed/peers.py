"""Compare whole losses with those of other libraries, as ratios of processor time.

Each comparison alternates forward and backward passes of two implementations on the same rows, and uses the minimum of
each.

Shapes: `B` items, `D` dimension.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from benchmarks.speed.implementations import (
    POTENTIAL_T,
    TAU,
    lightly_hypersphere,
    lightly_ntxent,
    open_clip_infonce,
    open_clip_sigmoid,
    our_objective,
)
from benchmarks.speed.inputs import draw

__all__ = ["COMPARISONS", "PEER_SIZES", "Comparison", "compare_with_peer", "why_slower"]

PEER_SIZES = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
SECONDS, LEAST_ROUNDS, MOST_ROUNDS = 3.0, 3, 1000
# At larger sizes, a step of some peers takes a minute.
LARGE, LARGE_ROUNDS = 8192, 2
SYMILE_SCALE = 100.0
Function = Callable[..., Tensor]


@dataclass(frozen=True)
class Comparison:
    key: str
    peer: str
    what: str
    make_ours: Callable[[], Function]
    make_peer: Callable[[], Function]
    modalities: int = 2
    dim: int = 512


def two_views() -> Function:
    """NT-Xent as InfoNCE: both views in one batch, each of which is the pair of the other."""
    from unialign import losses

    objective = losses.create("infonce", anchor="all", temperature=TAU)

    def value(x_BD: Tensor, y_BD: Tensor) -> Tensor:
        both = {"query": torch.cat((x_BD, y_BD)), "key": torch.cat((y_BD, x_BD))}
        total: Tensor = objective(both, ids=torch.arange(len(x_BD)).repeat(2)).total
        return total

    return value


def published_symile() -> Function:
    scale = torch.tensor(SYMILE_SCALE, requires_grad=True)

    def one_side(query_BD: Tensor, *others: Tensor) -> Tensor:
        key_BD, positive_BD = torch.ones_like(query_BD), query_BD
        for z_BD in others:
            key_BD = key_BD * z_BD[torch.randperm(len(z_BD))]
            positive_BD = positive_BD * z_BD
        diagonal_BB = torch.eye(len(query_BD)) > 0.5
        logits_BB = torch.where(diagonal_BB, positive_BD.sum(1), query_BD @ key_BD.mT)
        return cross_entropy(scale * logits_BB, torch.arange(len(query_BD)))

    def value(*rows: Tensor) -> Tensor:
        units = [normalize(x_BD, dim=-1) for x_BD in rows]
        sides = [one_side(z, *(other for other in units if other is not z)) for z in units]
        return torch.stack(sides).mean()

    return value


def plain_balanced(*rows: Tensor) -> Tensor:
    units = [normalize(x_BD, dim=-1) for x_BD in rows]
    uniformity = []
    for z_BD in units:
        kernel_BB = ((z_BD @ z_BD.mT - 1) / TAU).exp()
        uniformity.append(((kernel_BB.sum(1) - kernel_BB.diagonal()) / (len(z_BD) - 1)).log().mean())
    distances = [(units[0] - z_BD).square().sum(1).mean() for z_BD in units[1:]]
    return torch.stack(uniformity).mean() + torch.stack(distances).mean() / (2 * TAU)


def plain_all_pairs(*rows: Tensor) -> Tensor:
    units, target_B = [normalize(x_BD, dim=-1) for x_BD in rows], torch.arange(len(rows[0]))
    values = []
    for x_BD, y_BD in combinations(units, 2):
        logits_BB = x_BD @ y_BD.mT / TAU
        values.append((cross_entropy(logits_BB, target_B) + cross_entropy(logits_BB.mT, target_B)) / 2)
    return torch.stack(values).mean()


def _ours(name: str, **options: Any) -> Callable[[], Function]:
    return partial(our_objective, name, **options)


ALIGN_UNIFORM = {"anchor": "all", "alpha": 2.0, "t": POTENTIAL_T}
COMPARISONS = (
    Comparison(
        "InfoNCE", "open_clip `ClipLoss`", "temperature fixed", _ours("infonce", temperature=TAU), open_clip_infonce
    ),
    Comparison("Sigmoid", "open_clip `SigLipLoss`", "scale and bias learned", _ours("sigmoid"), open_clip_sigmoid),
    Comparison(
        "NT-Xent",
        "lightly `NTXentLoss`",
        "InfoNCE of two views, 2 B rows with ids",
        two_views,
        lightly_ntxent,
    ),
    Comparison(
        "Align+Uniform",
        "lightly `HypersphereLoss`",
        "both modalities",
        _ours("align_uniform", **ALIGN_UNIFORM),
        lightly_hypersphere,
    ),
    Comparison(
        "Symile",
        "the formula of the package symile",
        "M = 3, sampled negatives",
        _ours("symile", temperature=1 / SYMILE_SCALE),
        published_symile,
        modalities=3,
    ),
    Comparison(
        "UniAlign",
        "torch, written by hand",
        "M = 5, D = 128, `balanced`",
        _ours("unialign", anchor="m0"),
        lambda: plain_balanced,
        modalities=5,
        dim=128,
    ),
    Comparison(
        "InfoNCE, all pairs",
        "torch, written by hand",
        "M = 5, D = 128",
        _ours("infonce", anchor="all", temperature=TAU),
        lambda: plain_all_pairs,
        modalities=5,
        dim=128,
    ),
)


def compare_with_peer(comparison: Comparison, items: int, *, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    functions = [comparison.make_ours(), comparison.make_peer()]
    rows = draw(comparison.modalities, items, comparison.dim)
    times: list[list[float]] = [[], []]
    values = [0.0, 0.0]
    least = LARGE_ROUNDS if items >= LARGE else LEAST_ROUNDS
    started = time.perf_counter()
    while len(times[0]) < least or (time.perf_counter() - started < SECONDS and len(times[0]) < MOST_ROUNDS):
        for k, function in enumerate(functions):
            for z in rows:
                z.grad = None
            cpu = time.process_time()
            value = function(*rows)
            value.backward()
            times[k].append(time.process_time() - cpu)
            values[k] = value.item()
    ours, peer = (min(each) for each in times)
    return {
        "status": "measured",
        "rounds": len(times[0]),
        "cpu_seconds": {"ours": ours, "peer": peer},
        "ratio": ours / peer,
        "values": {"ours": values[0], "peer": values[1]},
        "load": round(os.getloadavg()[0], 2),
    }


def why_slower(items: int) -> str:
    if items <= 256:
        return "fixed costs of a call: checks of names and rows, named terms, autograd functions in Python"
    if items > 2048:
        return "no table of all pairs is kept, so the logits are computed a second time in the backward pass"
    return "not known"
