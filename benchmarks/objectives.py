"""Compare tuple objectives with direct implementations of their published formulas: `python -m benchmarks.objectives`.

Both run a forward and a backward pass in one thread, in alternating blocks of three runs. The result is the ratio of
the medians of processor time. The direct implementations use the released operations: a (B, B, M, M) tensor of Gram
matrices and `torch.det` for GRAM, differences of shape (B, B, D) for TRIANGLE, and an SVD of each D x M matrix for
PMRL.

Shapes: `M` modalities, `B` items, `D` dimension.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.saved_bytes import saved_bytes
from unialign import losses
from unialign.batch import Batch
from unialign.functional import singular_parts
from unialign.io import describe_environment

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "objectives.json"
ITEMS, DIMS, BLOCK = 512, (256, 512), 3
PMRL_DIMS = (*DIMS, 768)
TOLERANCE = 1e-5
TAU, SMOOTHING, INTRA, INTER = 0.07, 0.1, 0.01, 0.1
Formula = Callable[[Tensor], Tensor]


def both_ways(logits_BB: Tensor, smoothing: float) -> Tensor:
    target_B = torch.arange(len(logits_BB))
    rows, columns = (
        functional.cross_entropy(table, target_B, label_smoothing=smoothing) for table in (logits_BB, logits_BB.mT)
    )
    return (rows + columns) / 2


def published_gram(z_MBD: Tensor) -> Tensor:
    t_BD, *others = z_MBD.unbind()
    size = len(t_BD)
    first = [(t_BD * t_BD).sum(-1)[:, None].expand(-1, size), *(t_BD @ z_BD.mT for z_BD in others)]
    rest = [
        [first[m + 1], *((x_BD * y_BD).sum(-1)[None].expand(size, -1) for y_BD in others)]
        for m, x_BD in enumerate(others)
    ]
    gram_BBMM = torch.stack([torch.stack(row, -1) for row in (first, *rest)], -2)
    return both_ways(-torch.sqrt(torch.abs(torch.det(gram_BBMM))) / TAU, SMOOTHING)


def published_triangle(z_MBD: Tensor) -> Tensor:
    t_BD, v_BD, a_BD = z_MBD.unbind()
    u_BBD, w_BBD = t_BD[:, None] - v_BD[None], t_BD[:, None] - a_BD[None]
    square_BB = (u_BBD**2).sum(2) * (w_BBD**2).sum(2) - (u_BBD * w_BBD).sum(2) ** 2
    return both_ways(-torch.sqrt(square_BB) / 2 / TAU, SMOOTHING)


def published_pmrl(z_MBD: Tensor, *, full_matrices: bool) -> Tensor:
    z_BDM = torch.stack(z_MBD.unbind(), dim=-1)
    left_BDK, sigma_BM, _ = torch.linalg.svd(z_BDM, full_matrices=full_matrices)
    intra = functional.cross_entropy(sigma_BM / INTRA, torch.zeros(len(z_BDM), dtype=torch.int64))
    u_BD = left_BDK[:, :, 0]
    u_BD = u_BD * torch.where((u_BD * z_BDM.detach().mean(-1)).sum(-1, keepdim=True) >= 0, 1.0, -1.0)
    return intra + both_ways(u_BD @ u_BD.mT / INTER, 0.0)


def pmrl_parts(sigma_BM: Tensor, direction_BD: Tensor) -> Tensor:
    """A scalar that depends on all singular values and the leading vectors, up to sign."""
    squares_BM = sigma_BM.double() ** 2
    return (squares_BM * torch.arange(1.0, sigma_BM.shape[1] + 1)).mean() + (direction_BD[:, 0] ** 2).mean()


def published_decomposition(z_MBD: Tensor, *, full_matrices: bool) -> Tensor:
    left_BDK, sigma_BM, _ = torch.linalg.svd(torch.stack(z_MBD.unbind(), dim=-1), full_matrices=full_matrices)
    return pmrl_parts(sigma_BM, left_BDK[:, :, 0])


def batch_of(z_MBD: Tensor) -> Batch:
    present_MB = torch.ones(z_MBD.shape[:2], dtype=torch.bool)
    return Batch(tuple(f"m{m}" for m in range(len(z_MBD))), z_MBD, present_MB, None)


def our_decomposition(z_MBD: Tensor) -> Tensor:
    parts = singular_parts(batch_of(z_MBD))
    return pmrl_parts(parts.sigma_BK, parts.direction_BD)


def ours(objective: losses.Objective) -> Formula:
    def total(z_MBD: Tensor) -> Tensor:
        batch = batch_of(z_MBD)
        return losses.weighted_sum(batch, objective.terms(batch))

    return total


class FormulaPair(NamedTuple):
    formula: str
    baseline: str
    modalities: int
    dim: int
    required: float | None
    blocks: int
    ours: Formula
    theirs: Formula


def comparisons(dim: int) -> list[FormulaPair]:
    gram, triangle = (losses.create(name, anchor="m0", temperature=TAU) for name in ("gram", "triangle"))
    table = [FormulaPair("gram", "determinants", m, dim, 3, 9, ours(gram), published_gram) for m in (3, 4)]
    table.append(FormulaPair("triangle", "differences", 3, dim, 5, 2, ours(triangle), published_triangle))
    return table


def pmrl_comparisons(dim: int) -> list[FormulaPair]:
    pmrl = losses.create("pmrl", intra_temperature=INTRA, inter_temperature=INTER)
    table = []
    for m in (3, 4):
        for kind, full, blocks in (("full SVD", True, 3), ("reduced SVD", False, 9)):
            required = 50 if full and dim >= 512 else None
            whole, part = (
                partial(formula, full_matrices=full) for formula in (published_pmrl, published_decomposition)
            )
            table.append(FormulaPair("pmrl", kind, m, dim, required, blocks, ours(pmrl), whole))
            table.append(FormulaPair("singular", kind, m, dim, required, blocks, our_decomposition, part))
    return table


def draw(modalities: int, items: int, dim: int) -> Tensor:
    """One latent direction per item and equal noise per modality: true pairs have cosine 0.5."""
    generator = torch.Generator().manual_seed(0)
    latent_BD = torch.randn(items, dim, generator=generator)
    z_MBD = latent_BD + torch.randn(modalities, items, dim, generator=generator)
    return functional.normalize(z_MBD, dim=-1).requires_grad_()


def step(formula: Formula, z_MBD: Tensor) -> tuple[float, float, Tensor]:
    started = time.process_time()
    value = formula(z_MBD)
    (gradient_MBD,) = torch.autograd.grad(value, z_MBD)
    seconds = time.process_time() - started
    with torch.no_grad():  # normalization removes the radial part, in which formulas for unit rows may differ
        gradient_MBD -= (gradient_MBD * z_MBD).sum(-1, keepdim=True) * z_MBD
    return seconds, value.item(), gradient_MBD


def differences(contest: FormulaPair, z_MBD: Tensor) -> tuple[float, float]:
    _, value, gradient_MBD = step(contest.ours, z_MBD)
    _, expected, expected_MBD = step(contest.theirs, z_MBD)
    return abs(value - expected), float((gradient_MBD - expected_MBD).abs().max() / expected_MBD.abs().max())


def race(contest: FormulaPair) -> dict[str, Any]:
    z_MBD = draw(contest.modalities, ITEMS, contest.dim)
    exact = differences(contest, functional.normalize(z_MBD.detach().double(), dim=-1).requires_grad_())
    single = differences(contest, z_MBD)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(contest.blocks):
        for taken, formula in zip(seconds, (contest.ours, contest.theirs), strict=True):
            taken.extend(step(formula, z_MBD)[0] for _ in range(BLOCK))
    mine, theirs = map(statistics.median, seconds)
    return {
        "formula": contest.formula,
        "baseline": contest.baseline,
        "modalities": contest.modalities,
        "items": ITEMS,
        "dim": contest.dim,
        "repetitions": contest.blocks * BLOCK,
        "seconds": mine,
        "baseline_seconds": theirs,
        "ratio": theirs / mine,
        "required_ratio": contest.required,
        "float64": {"value_difference": exact[0], "relative_gradient_difference": exact[1]},
        "float32": {"value_difference": single[0], "relative_gradient_difference": single[1]},
    }


def kept(name: str) -> dict[str, Any]:
    dim = 256
    objective = losses.create(name, **({"anchor": "m0"} if "anchor" in losses.parameter_names(name) else {}))
    leaves = {f"m{m}": z.detach().requires_grad_() for m, z in enumerate(draw(3, ITEMS, dim))}
    number = saved_bytes(lambda: objective(leaves).total)
    return {
        "objective": name,
        "modalities": 3,
        "items": ITEMS,
        "dim": dim,
        "bytes": number,
        "squares": number / (4 * ITEMS * ITEMS),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULT)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    print(f"B = {ITEMS}, forward + backward, one thread")
    print(f"{'formula':10} {'against':13}  M    D      ours     theirs    ratio   difference of value, gradient")
    results = []
    chosen = [c for dim in DIMS for c in comparisons(dim)] + [c for w in PMRL_DIMS for c in pmrl_comparisons(w)]
    for contest in chosen:
        row = race(contest)
        results.append(row)
        print(
            f"{row['formula']:10} {row['baseline']:13} {row['modalities']:2} {row['dim']:4} "
            f"{1e3 * row['seconds']:6.1f} ms {1e3 * row['baseline_seconds']:7.1f} ms {row['ratio']:7.1f}x  "
            + ", ".join(f"{x:.0e}" for x in row["float64"].values()),
            flush=True,
        )
    print(f"\nkept for backward at B = {ITEMS}, M = 3, D = 256 (S: one B x B matrix of float32)")
    memory = [kept(name) for name in losses.names()]
    for row in memory:
        print(f"{row['objective']:14} {row['bytes'] / 2**20:6.1f} MiB {row['squares']:5.1f} S")
    facts = {
        "schema": 1,
        "environment": describe_environment() | {"threads": 1},
        "protocol": "medians of processor time, interleaved, forward and backward from unit rows, float32, seed 0",
    }
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(facts | {"speed": results, "kept": memory}, indent=1) + "\n", "utf-8")
    slow = [r for r in results if r["required_ratio"] is not None and r["ratio"] < r["required_ratio"]]
    wrong = [r for r in results if max(r["float64"].values()) > TOLERANCE]
    for row in slow + wrong:
        print(f"NOT MET: {row}")
    sys.exit(1 if slow or wrong else 0)


if __name__ == "__main__":
    main()
