"""A plain training loop with Adam, and what it measures.

Shapes: `N` items, `B` items of a batch, `P` present rows, `D` dimension, `Q` queries.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.scratch.arms import ARMS, INFONCE, unialign
from benchmarks.scratch.models import MODELS, PlainModel, Stamps, standardize_outputs
from unialign.geometry import effective_rank
from unialign.metrics import retrieval

K = 10
EPOCHS, BATCH, LR = 10, 64, 1e-3
DIRECTIONS = (("image", "text"), ("text", "image"))


def train(
    stamps: Stamps, arm: str, model: str, rows_N: Tensor, *, seed: int, watch: Tensor | None = None
) -> tuple[PlainModel, list[dict[str, Any]]]:
    """Train on the given items; with `watch`, items for evaluation, also return measurements of each step."""
    chosen, trace = ARMS[arm], []
    net = MODELS[model](stamps, seed)
    rows_N = rows_N[torch.stack([stamps.present[name][rows_N] for name in ("image", "text")]).all(0)]
    if chosen.standardize:
        standardize_outputs(net, rows_N)
    optimizer = torch.optim.Adam(net.parameters(), lr=LR)
    steps = EPOCHS * (len(rows_N) // BATCH)
    for step, rows_B in enumerate(_batches(rows_N, seed)):
        outputs, masks = net(rows_B)
        ids_B = stamps.ids_N[rows_B]
        loss = chosen.loss(outputs, masks, ids_B, step / steps)
        if watch is not None:
            trace.append({"step": step, **measure_step(arm, outputs, masks, ids_B, loss)})
            if step % 10 == 0:
                trace[-1]["recall"] = mean_recall(stamps, net, watch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net, trace


def _batches(rows_N: Tensor, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        order_N = rows_N[torch.randperm(len(rows_N), generator=generator)]
        yield from (part for part in order_N.split(BATCH) if len(part) == BATCH)


def measure_step(
    arm: str, outputs: dict[str, Tensor], masks: dict[str, Tensor], ids_B: Tensor, loss: Tensor
) -> dict[str, Any]:
    """Return measures of the unit rows, and of the gradients at them.

    `common/NAME` is the share of the gradient that is equal for all items: |mean_i g_i|^2 / mean_i |g_i|^2, with g_i
    the gradient of the loss at an unnormalized output, multiplied by the norm of the output.
    """
    unit = {name: nn.functional.normalize(y_BD.detach()[masks[name]]) for name, y_BD in outputs.items()}
    found: dict[str, Any] = {}
    for name, z_PD in unit.items():
        count = len(z_PD)
        found[f"cosine/{name}"] = float((z_PD.sum(0).square().sum() - count) / (count * (count - 1)))
        found[f"rank/{name}"] = float(effective_rank(z_PD))
    both_B = masks["image"] & masks["text"]
    pairs = [nn.functional.normalize(y_BD.detach()[both_B]) for y_BD in outputs.values()]
    found["pair_cosine"] = float((pairs[0] * pairs[1]).sum(1).mean())
    terms = unialign()(outputs, present=masks, ids=ids_B).terms
    found |= {name: float(value) for name, value in terms.items()}
    slopes = torch.autograd.grad(loss, list(outputs.values()), retain_graph=True)
    for name, g_BD in zip(outputs, slopes, strict=True):
        g_PD = (g_BD * outputs[name].detach().norm(dim=1, keepdim=True))[masks[name]]
        found[f"common/{name}"] = float(g_PD.mean(0).square().sum() / g_PD.square().sum(1).mean())
    if arm != INFONCE:
        found |= _forces(outputs, masks, ids_B)
    return found


def _forces(outputs: dict[str, Tensor], masks: dict[str, Tensor], ids_B: Tensor) -> dict[str, float]:
    """Return the norms of the gradients of uniformity and alignment at unit rows, as means over rows, times B."""
    found = {}
    leaves = {name: y_BD.detach().requires_grad_(True) for name, y_BD in outputs.items()}
    _, terms = unialign().compute(leaves, present=masks, ids=ids_B)
    for kind in ("uniformity", "alignment"):
        total = torch.stack([value * weight for name, (value, weight) in terms.items() if name.startswith(kind)]).sum()
        slopes = torch.autograd.grad(total, list(leaves.values()), retain_graph=True)
        for name, g_BD in zip(leaves, slopes, strict=True):
            sizes_B = g_BD.norm(dim=1) * leaves[name].detach().norm(dim=1) * len(ids_B)
            found[f"force/{kind}/{name}"] = float(sizes_B[masks[name]].mean())
    return found


@torch.no_grad()
def direction_hits(stamps: Stamps, net: PlainModel, rows_N: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the hits of the queries of each direction, and the places of the queries among the items."""
    z, masks = net(rows_N)
    ids_N, found = stamps.ids_N[rows_N], {}
    for source, target in DIRECTIONS:
        chosen_N = masks[source] & masks[target]
        result = retrieval(
            z[source][chosen_N],
            z[target][masks[target]],
            query_ids=ids_N[chosen_N],
            gallery_ids=ids_N[masks[target]],
            k=(K,),
        )
        found[f"{source}->{target}"] = result.hits(K).double(), chosen_N.nonzero()[:, 0]
    return found


def mean_recall(stamps: Stamps, net: PlainModel, rows_N: Tensor) -> float:
    return sum(float(hits_Q.mean()) for hits_Q, _ in direction_hits(stamps, net, rows_N).values()) / len(DIRECTIONS)


@torch.no_grad()
def geometry(net: PlainModel, rows_N: Tensor) -> dict[str, float]:
    """Return the mean over both modalities of the mean cosine and the effective rank."""
    outputs, masks = net(rows_N)
    unit = [nn.functional.normalize(y_ND[masks[name]]) for name, y_ND in outputs.items()]
    cosines = [float((z.sum(0).square().sum() - len(z)) / (len(z) * (len(z) - 1))) for z in unit]
    return {"cosine": sum(cosines) / 2, "rank": sum(float(effective_rank(z)) for z in unit) / 2}
