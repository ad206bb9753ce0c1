"""Compare results of a device with float64 references on the CPU.

A check takes a device and returns the largest error relative to the norm of the reference.

Shapes: `B` items, `D` dimension.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

import unialign as ua
from benchmarks.gpu.encoder_checks import encoder_checks
from benchmarks.gpu.errors import Check, Unavailable, relative
from loss_cases import (
    OBJECTIVES,
    draw_batch,
    draw_ids,
    draw_present,
    fit_items,
    fit_modalities,
    make_objective,
    reference_value_and_gradients,
    value_and_gradients,
)
from train_cases import stop_at, tiny_config, tiny_store
from unialign.errors import MissingDependencyError
from unialign.ops import use_backend
from unialign.train import grad_cache_backward

Embeddings = Mapping[str, Tensor]

# Errors on a CPU are at most 1e-6; other devices add in another order.
FLOAT32_BOUND = 1e-5
ITEMS, DIM = 1000, 96


def checks() -> Iterator[tuple[str, Check, float]]:
    for case in OBJECTIVES:
        yield f"objective {case}", lambda device, case=case: objective_error(case, device), FLOAT32_BOUND
    for case in ("infonce", "outer_log", "balanced"):
        for backend in ("tiled", "compiled", "triton"):
            yield (
                f"{backend} {case}, {ITEMS} rows",
                lambda device, case=case, backend=backend: backend_error(case, backend, device),
                FLOAT32_BOUND,
            )
    for preset in ("joint_queries", "retrieval"):
        yield (
            f"similar negatives, {preset}, {ITEMS} rows",
            lambda device, preset=preset: similarity_error(preset, device),
            FLOAT32_BOUND,
        )
    yield "autocast does not change a loss", autocast_error, 0.0
    yield "gradient cache", grad_cache_error, FLOAT32_BOUND
    yield "retrieval ranks", retrieval_error, 0.0
    yield "fit, against the CPU", fit_error, 1e-2
    yield "fit resumes bit by bit", resume_error, 0.0
    yield "NCCL with one process", nccl_error, 0.0
    yield from encoder_checks()


def objective_error(case: str, device: torch.device) -> float:
    modalities = fit_modalities(case, 3)
    items = fit_items(case, modalities, 24)
    objective = make_objective(case)
    embeddings = draw_batch(7, modalities, items, 16, torch.float32)
    present, ids = draw_present(7, modalities, items), draw_ids(7, items)
    found = value_and_gradients(
        make_objective(case).to(device), on(device, embeddings), present=on(device, present), ids=ids.to(device)
    )
    wide = {name: z.double() for name, z in embeddings.items()}
    return largest_error(found, reference_value_and_gradients(objective.double(), wide, present=present, ids=ids))


def backend_error(case: str, backend: str, device: torch.device) -> float:
    if backend == "triton" and device.type != "cuda":
        raise Unavailable("Triton needs a CUDA device")
    embeddings = draw_batch(3, 2, ITEMS, DIM, torch.float32)
    wide = {name: z.double() for name, z in embeddings.items()}
    with use_backend("reference"):
        expected = value_and_gradients(make_objective(case).double(), wide)
    try:
        with use_backend(backend):
            found = value_and_gradients(make_objective(case).to(device), on(device, embeddings))
    except MissingDependencyError as error:
        raise Unavailable(str(error)) from None
    return largest_error(found, expected)


def similarity_error(preset: str, device: torch.device) -> float:
    z, features = (draw_batch(seed, 3, ITEMS, width, torch.float32) for seed, width in ((3, DIM), (4, 40)))
    results = []
    for chosen, dtype in ((device, torch.float32), (torch.device("cpu"), torch.float64)):
        leaves = {name: x.to(chosen, dtype).requires_grad_() for name, x in z.items()}
        similarity = {name: x.to(chosen) for name, x in features.items()}
        total = ua.losses.UniAlign(preset=preset)(leaves, similarity=similarity).total
        slopes = torch.autograd.grad(total, list(leaves.values()))
        results.append((total.detach(), dict(zip(leaves, slopes, strict=True))))
    return largest_error(*results)


def autocast_error(device: torch.device) -> float:
    """Objectives switch off bfloat16 autocast."""
    embeddings = on(device, draw_batch(3, 3, 64, 16, torch.float32))
    plain = value_and_gradients(make_objective("balanced"), embeddings)
    with torch.autocast(device.type, torch.bfloat16):
        total = make_objective("balanced")(embeddings).total
    return relative(total, plain[0])


def grad_cache_error(device: torch.device) -> float:
    embeddings = draw_batch(5, 2, 200, 16)
    model = torch.nn.ModuleDict({name: torch.nn.Linear(16, 8) for name in embeddings}).double()

    def encode(part: Embeddings) -> dict[str, Tensor]:
        return {name: model[name](x) for name, x in part.items()}

    ua.losses.create("infonce")(encode(embeddings)).total.backward()
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    model.to(device, torch.float32)
    rows = {name: x.to(device, torch.float32) for name, x in embeddings.items()}
    parts = [{name: x[at : at + 64] for name, x in rows.items()} for at in range(0, 200, 64)]
    grad_cache_backward(ua.losses.create("infonce").to(device), encode, parts)
    found = [p.grad for p in model.parameters() if p.grad is not None]
    return max(relative(a, b) for a, b in zip(found, expected, strict=True))


def retrieval_error(device: torch.device) -> float:
    x, y = draw_batch(11, 2, 700, 16, torch.float32).values()
    there, here = ua.metrics.retrieval(x.to(device), y.to(device)), ua.metrics.retrieval(x, y)
    return max(abs(there.recall[k] - here.recall[k]) for k in here.recall)


def fit_error(device: torch.device) -> float:
    config = tiny_config(precision="fp32", dropout=0.0)
    there, here = (train(chosen, config) for chosen in (device, torch.device("cpu")))
    return max(relative(there[name], here[name]) for name in here)


def resume_error(device: torch.device) -> float:
    """Return 0 if an interrupted training ends with the bits of an uninterrupted one; else 1."""
    config = tiny_config(precision="fp32")
    whole = train(device, config)
    with TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        with suppress(KeyboardInterrupt):
            train(device, config, out=out, on_step=stop_at(10))
        again = train(device, config, out=out, resume="required")
    return float(not all(torch.equal(whole[name], again[name]) for name in whole))


def train(device: torch.device, config: ua.TrainConfig, **options: Any) -> dict[str, Tensor]:
    space = ua.fit(tiny_store(), config, device=str(device), progress="none", **options).space
    return {name: value.cpu() for name, value in space.state_dict().items()}


def nccl_error(device: torch.device) -> float:
    if device.type != "cuda":
        raise Unavailable("NCCL needs a CUDA device")
    embeddings = on(device, draw_batch(3, 3, 64, 16, torch.float32))
    alone = value_and_gradients(make_objective("infonce").to(device), embeddings)
    with ua.distributed.init(backend="nccl", watchdog=False):
        group = torch.distributed.group.WORLD
        leaves = {name: z.clone().requires_grad_() for name, z in embeddings.items()}
        total = make_objective("infonce").to(device)(leaves, group=group).total
        gathered = torch.ones(3, device=device)
        torch.distributed.all_reduce(gathered)
    return relative(total, alone[0]) + float(gathered.sum() - 3)


def on(device: torch.device, tensors: Embeddings) -> dict[str, Tensor]:
    return {name: x.to(device) for name, x in tensors.items()}


def largest_error(found: tuple[Tensor, Embeddings], expected: tuple[Tensor, Embeddings]) -> float:
    (value, gradients), (true_value, true_gradients) = found, expected
    stacked, true = (torch.cat([g.cpu().double() for g in part.values()]) for part in (gradients, true_gradients))
    return max(relative(value, true_value), relative(stacked, true))
