"""Implementations of each loss: ours and baselines.

An implementation is a function of unit rows that returns a scalar for autograd; with `steps_itself`, it runs its own
backward pass.

Shapes: `B` items, `D` dimension.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from benchmarks.torchvision_shim import make_torchvision_importable

__all__ = ["IMPLEMENTATIONS", "POTENTIAL_T", "TAU", "TAU_UNIFORMITY", "Implementation", "find_implementation"]

TAU_UNIFORMITY, POTENTIAL_T = 0.25, 2.0  # exp((cos - 1) / 0.25) is Wang and Isola's exp(-2 |x - y|^2)
TAU, SCALE, BIAS = 0.07, 10.0, -10.0
CHUNK = 1024
Function = Callable[..., Tensor]


@dataclass(frozen=True)
class Implementation:
    loss: str
    name: str
    what: str
    make: Callable[[], Function]
    modalities: int
    packages: tuple[str, ...] = ()
    steps_itself: bool = False
    compiled: bool = False
    largest: int = 65536

    @property
    def ours(self) -> bool:
        return self.name.startswith("unialign")


def plain_kernel(x_BD: Tensor) -> Tensor:
    z_BD = normalize(x_BD, dim=-1)
    return ((z_BD @ z_BD.mT - 1) / TAU_UNIFORMITY).exp()


def outer_log(kernel_BB: Tensor) -> Tensor:
    size = len(kernel_BB)
    return ((kernel_BB.sum() - kernel_BB.diagonal().sum()) / (size * (size - 1))).log()


def mean_log(kernel_BB: Tensor) -> Tensor:
    return ((kernel_BB.sum(1) - kernel_BB.diagonal()) / (len(kernel_BB) - 1)).log().mean()


def plain_outer_log(x_BD: Tensor) -> Tensor:
    return outer_log(plain_kernel(x_BD))


def plain_mean_log(x_BD: Tensor) -> Tensor:
    return mean_log(plain_kernel(x_BD))


def pdist_outer_log(x_BD: Tensor) -> Tensor:
    return torch.pdist(normalize(x_BD, dim=-1)).square().mul(-POTENTIAL_T).exp().mean().log()


def cdist_kernel(x_BD: Tensor) -> Tensor:
    z_BD = normalize(x_BD, dim=-1)
    return torch.cdist(z_BD, z_BD).square().mul(-POTENTIAL_T).exp()


def cdist_outer_log(x_BD: Tensor) -> Tensor:
    return outer_log(cdist_kernel(x_BD))


def cdist_mean_log(x_BD: Tensor) -> Tensor:
    return mean_log(cdist_kernel(x_BD))


def plain_infonce(x_BD: Tensor, y_BD: Tensor) -> Tensor:
    logits_BB = normalize(x_BD, dim=-1) @ normalize(y_BD, dim=-1).mT / TAU
    target_B = torch.arange(len(x_BD), device=x_BD.device)
    return (cross_entropy(logits_BB, target_B) + cross_entropy(logits_BB.mT, target_B)) / 2


def plain_sigmoid(x_BD: Tensor, y_BD: Tensor) -> Tensor:
    logits_BB = normalize(x_BD, dim=-1) @ normalize(y_BD, dim=-1).mT * SCALE + BIAS
    signs_BB = 2 * torch.eye(len(x_BD), device=x_BD.device) - 1
    return -torch.nn.functional.logsigmoid(signs_BB * logits_BB).sum() / len(x_BD)


def our_uniformity(reduction: str) -> Function:
    from unialign.functional import uniformity

    if reduction == "mean_log":  # the default
        return lambda x_BD: uniformity(x_BD, kernel="clip", temperature=TAU_UNIFORMITY)
    return lambda x_BD: uniformity(x_BD, kernel="clip", temperature=TAU_UNIFORMITY, reduction="outer_log")


def our_unit_uniformity(reduction: Any) -> Function:
    from unialign.functional import unit_uniformity
    from unialign.ops import select_rows

    def value(x_BD: Tensor) -> Tensor:
        selection = select_rows(torch.ones(len(x_BD), dtype=torch.bool, device=x_BD.device))
        return unit_uniformity(x_BD, selection, kernel="clip", temperature=TAU_UNIFORMITY, reduction=reduction)[0]

    return value


def our_objective(name: str, **options: Any) -> Function:
    from unialign import losses

    objective = losses.create(name, **options)
    return lambda *rows: objective({f"m{m}": z_BD for m, z_BD in enumerate(rows)}).total


def compiled(function: Function) -> Function:
    return torch.compile(function, dynamic=False)


def open_clip_infonce() -> Function:
    make_torchvision_importable()
    from open_clip.loss import ClipLoss

    loss = ClipLoss()
    return lambda x_BD, y_BD: loss(normalize(x_BD, dim=-1), normalize(y_BD, dim=-1), 1 / TAU)


def open_clip_sigmoid() -> Function:
    make_torchvision_importable()
    from open_clip.loss import SigLipLoss

    loss = SigLipLoss()
    scale, bias = (torch.tensor(number, requires_grad=True) for number in (SCALE, BIAS))
    return lambda x_BD, y_BD: loss(normalize(x_BD, dim=-1), normalize(y_BD, dim=-1), scale, bias)


def open_clip_sigmoid_blocks() -> Function:
    make_torchvision_importable()
    from open_clip.loss import SigLipLoss

    loss = SigLipLoss()
    scale, bias = (torch.tensor(number, requires_grad=True) for number in (SCALE, BIAS))

    def step(x_BD: Tensor, y_BD: Tensor) -> Tensor:
        leaves = [normalize(z.detach(), dim=-1).requires_grad_() for z in (x_BD, y_BD)]
        total = torch.zeros(())
        for i, rows_BD in enumerate(leaves[0].split(CHUNK)):
            for j, columns_BD in enumerate(leaves[1].split(CHUNK)):
                part = loss._loss(rows_BD, columns_BD, scale, bias, negative_only=i != j) * (len(rows_BD) / len(x_BD))
                part.backward()
                total += part.detach()
        torch.autograd.backward([normalize(z, dim=-1) for z in (x_BD, y_BD)], [z.grad for z in leaves])
        return total

    return step


def cached_ranking() -> Function:
    make_torchvision_importable()
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    loss = CachedMultipleNegativesRankingLoss(
        torch.nn.Sequential(torch.nn.Identity()),
        scale=1 / TAU,
        mini_batch_size=CHUNK,
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )
    return lambda x_BD, y_BD: loss.calculate_loss([[x_BD], [y_BD]], with_backward=True)


def metric_learning_infonce() -> Function:
    make_torchvision_importable()
    from pytorch_metric_learning.losses import NTXentLoss

    loss = NTXentLoss(temperature=TAU)

    def value(x_BD: Tensor, y_BD: Tensor) -> Tensor:
        labels_B = torch.arange(len(x_BD), device=x_BD.device)
        # With the same label object on both sides, the loss treats the rows as equal and finds no positive pairs.
        there = loss(x_BD, labels_B, ref_emb=y_BD, ref_labels=labels_B.clone())
        back = loss(y_BD, labels_B, ref_emb=x_BD, ref_labels=labels_B.clone())
        return (there + back) / 2

    return value


def lightly_ntxent() -> Function:
    make_torchvision_importable()
    from lightly.loss import NTXentLoss

    return NTXentLoss(temperature=TAU)


def lightly_hypersphere() -> Function:
    make_torchvision_importable()
    from lightly.loss.hypersphere_loss import HypersphereLoss

    return HypersphereLoss(t=POTENTIAL_T, lam=1.0, alpha=2.0)


def _table() -> list[Implementation]:
    made: list[Implementation] = []

    def add(loss: str, name: str, what: str, make: Callable[[], Function], modalities: int, **more: Any) -> None:
        made.append(Implementation(loss, name, what, make, modalities, **more))

    forms = (
        ("outer_log", plain_outer_log, cdist_outer_log),
        ("mean_log", plain_mean_log, cdist_mean_log),
    )
    for form, plain, cdist in forms:
        loss = f"uniformity/{form}"
        call = ', reduction="outer_log"' if form == "outer_log" else ""
        what = f'`functional.uniformity(z, kernel="clip", temperature=0.25{call})`'
        add(loss, "unialign", what, lambda f=form: our_uniformity(f), 1)
        what = "the same on unit rows (without input validation and normalization)"
        add(loss, "unialign, unit rows", what, lambda f=form: our_unit_uniformity(f), 1, largest=16384)
        add(loss, "torch", "Gram matrix, exp, sums, autograd", lambda p=plain: p, 1)
        add(loss, "torch.compile", "the same, compiled", lambda p=plain: compiled(p), 1, compiled=True)
        add(loss, "torch.cdist", "distances by `torch.cdist`, exp, sums, autograd", lambda c=cdist: c, 1)
        if form == "outer_log":
            what = "`torch.pdist`, as in Wang and Isola's code and in lightly"
            add(loss, "torch.pdist", what, lambda: pdist_outer_log, 1)

    what = '`losses.create("align_uniform", anchor="all", alpha=2, t=2)`, the same function as lightly\'s'
    options = {"anchor": "all", "alpha": 2.0, "t": POTENTIAL_T, "uniformity_weight": 1.0}
    make = partial(our_objective, "align_uniform", **options)
    add("alignment and uniformity", "unialign", what, make, 2, largest=16384)
    more = {"packages": ("lightly",)}
    add("alignment and uniformity", "lightly", "`HypersphereLoss(t=2)`", lightly_hypersphere, 2, **more)

    loss = "infonce"
    what = '`losses.create("infonce", anchor="all", temperature=0.07)`'
    add(loss, "unialign", what, lambda: our_objective("infonce", anchor="all", temperature=TAU), 2)
    add(loss, "torch", "logits and two `cross_entropy`", lambda: plain_infonce, 2)
    add(loss, "torch.compile", "the same, compiled", lambda: compiled(plain_infonce), 2, compiled=True)
    add(loss, "open_clip", "`ClipLoss`", open_clip_infonce, 2, packages=("open_clip_torch",))
    what = (
        "the loss part of `CachedMultipleNegativesRankingLoss`, both directions, chunks of 1,024 rows, "
        "backward chunk by chunk; no encoder"
    )
    more = {"packages": ("sentence-transformers",), "steps_itself": True}
    add(loss, "sentence-transformers", what, cached_ranking, 2, **more)
    what = "mean of `NTXentLoss` in both directions"
    more = {"packages": ("pytorch-metric-learning",)}
    add(loss, "pytorch-metric-learning", what, metric_learning_infonce, 2, **more)
    what = "`NTXentLoss`, a related loss that contrasts each of 2 B rows with all others: 4 times the logits"
    add("nt-xent", "lightly", what, lightly_ntxent, 2, packages=("lightly",))

    loss = "sigmoid"
    what = '`losses.create("sigmoid")`, scale and bias learnable'
    add(loss, "unialign", what, lambda: our_objective("sigmoid"), 2)
    add(loss, "torch", "logits, signs, `logsigmoid`", lambda: plain_sigmoid, 2)
    add(loss, "torch.compile", "the same, compiled", lambda: compiled(plain_sigmoid), 2, compiled=True)
    more = {"packages": ("open_clip_torch",)}
    add(loss, "open_clip", "`SigLipLoss`", open_clip_sigmoid, 2, **more)
    what = "`SigLipLoss` in blocks of 1,024 x 1,024, as on several processes, backward block by block"
    add(loss, "open_clip, blocks", what, open_clip_sigmoid_blocks, 2, steps_itself=True, **more)
    return made


IMPLEMENTATIONS = _table()


def find_implementation(loss: str, name: str) -> Implementation:
    return next(c for c in IMPLEMENTATIONS if (c.loss, c.name) == (loss, name))
