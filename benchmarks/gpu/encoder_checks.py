"""Compare the training of encoders on a device with float64, and with the CPU.

Shapes: `B` items of a batch.
"""

import copy
import runpy
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import embed_prepare
from benchmarks.gpu.errors import Check, Unavailable, relative
from media_train_cases import media_config, media_items, train, wrapped, wrapped_text
from unialign.encoders import Encoder
from unialign.errors import MissingDependencyError
from unialign.items import Items
from unialign.train import FitResult, HealthWarning

EXAMPLE = Path(__file__).parents[2] / "examples" / "lora_clip_clap.py"
# bfloat16 has 8 bits; the standardization of features whose mean is large multiplies its error.
FLOAT32_BOUND, BFLOAT16_BOUND = 1e-4, 0.1
# The adapters of the example, by its name, so that tests can leave it out.
LORA = "LoRA example"


def encoder_checks() -> Iterator[tuple[str, Check, float]]:
    yield "encoders in float32, loss and gradient norm", lambda device: step_error(device, "fp32"), FLOAT32_BOUND
    yield "encoders in bfloat16, loss and gradient norm", lambda device: step_error(device, "bf16"), BFLOAT16_BOUND
    yield "encoders trained in float32, against the CPU", trained_error, 1e-2
    yield "encoders trained in bfloat16, losses against float32", bfloat16_curve_error, 0.15
    yield f"{LORA}, R@1 above twice the chance level", lora_error, 0.0


def step_error(device: torch.device, precision: str) -> float:
    """Compare the first step of `fit`, in micro-batches and with absent texts, with a plain float64 loop.

    The learning rate is so small that the weights stay as they are.
    """
    with TemporaryDirectory() as folder:
        items = media_items(Path(folder))
        encoders = {"image": wrapped(), "text": wrapped_text()}
        result = run(items, device, precision, encoders=encoders, lr=1e-12, epochs=1, batch_size=64)
        expected = plain_step(items, Path(folder), encoders, result)
    first = result.history[0]
    return max(relative(torch.tensor(first[name]), expected[name]) for name in expected)


def run(
    items: Items, device: torch.device, precision: str, *, encoders: Mapping[str, Encoder] | None = None, **changes: Any
) -> FitResult:
    if precision == "bf16" and not (device.type == "cuda" and torch.cuda.is_bf16_supported()):
        raise Unavailable("bfloat16 needs a CUDA device of compute capability 8.0 or higher")
    settings: dict[str, Any] = {
        "modalities": ("image", "text"),
        "encoders": {} if encoders else {"image": "builtin:conv?size=16", "text": "builtin:bag?dim=16"},
        "tune": {"image": "all", "text": "all"},
        "micro_batch_size": 5,
        "precision": precision,
        "warmup_ratio": 0.0,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HealthWarning)
        return train(items, media_config(**settings | changes), device=str(device), encoders=encoders)


def plain_step(items: Items, folder: Path, encoders: Mapping[str, Encoder], result: FitResult) -> dict[str, Tensor]:
    """Return the loss and the norm of the gradient of all weights, for the training items as one batch."""
    space, objective = (copy.deepcopy(module).cpu().double() for module in (result.space, result.objective))
    rows = np.flatnonzero(items.split == 0)
    features, present = {}, {}
    modules = [space, objective]
    for name, encoder in encoders.items():
        assert encoder.module is not None
        module = copy.deepcopy(encoder.module).cpu().double().requires_grad_(True)
        modules.append(module)
        prepared = [prepared_cell(items, folder, int(row), name) for row in rows]
        present[name] = torch.tensor([x is not None for x in prepared])
        x_nW = module(torch.stack([x for x in prepared if x is not None]))
        zeros_BW = x_nW.new_zeros(len(rows), encoder.dim)
        features[name] = zeros_BW.index_put((present[name].nonzero()[:, 0],), x_nW)
    total = objective(space(features, present=present), present=present).total
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    return {"loss": total.detach(), "grad_norm": torch.cat([g.flatten() for g in gradients if g is not None]).norm()}


def prepared_cell(items: Items, folder: Path, row: int, name: str) -> Tensor | None:
    cell = items.cell(row, name)
    if cell is None:
        return None
    if cell.path is None:
        return torch.from_numpy(embed_prepare.letters(str(cell.value))["x"])
    try:
        pixels = np.asarray(Image.open(folder / cell.path).convert("RGB"))
    except OSError:  # the damaged picture
        return None
    return torch.from_numpy(embed_prepare.pixels(pixels)["x"])


def trained_error(device: torch.device) -> float:
    with TemporaryDirectory() as folder:
        items = media_items(Path(folder))
        # By default, convolutions on a CUDA device round float32 to 10 bits.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            found = [weights(run(items, chosen, "fp32", lr=1e-3)) for chosen in (device, torch.device("cpu"))]
    return relative(*found)


def weights(result: FitResult) -> Tensor:
    """Return the weights of the heads and of the trained encoders in one vector."""
    modules = [result.space, *(result.space.encoder(name).module for name in ("image", "text"))]
    found = [p.detach().cpu().flatten() for module in modules if module is not None for p in module.parameters()]
    return torch.cat(found)


def bfloat16_curve_error(device: torch.device) -> float:
    """Return the largest difference of the losses of 10 epochs, relative to the first loss."""
    with TemporaryDirectory() as folder:
        items = media_items(Path(folder))
        curves = [
            torch.tensor([record["loss"] for record in run(items, device, precision, epochs=10, lr=1e-3).history])
            for precision in ("bf16", "fp32")
        ]
    return float((curves[0] - curves[1]).abs().max() / curves[1][0])


def lora_error(device: torch.device) -> float:
    """Return 0 if the example finds the items of test media; else 1. It uses the CUDA device, if there is one."""
    words = ["--tiny", "--epochs", "5", "--batch-size", "64", "--lora-lr", "1e-3", "--out"]
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", HealthWarning)
        try:
            found = runpy.run_path(str(EXAMPLE))["main"]([*words, folder])
        except (ImportError, MissingDependencyError) as error:
            raise Unavailable(str(error)) from None
    return float(found.interval("recall@1").low <= 2 * found.chance["recall@1"])
