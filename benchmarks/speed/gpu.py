"""Measure the losses on a CUDA device, as fractions of its measured matrix-product and copy rates.

Shapes: `B` items, `D` dimension.
"""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.cases import DIM
from benchmarks.speed.implementations import TAU, our_objective, our_uniformity, plain_infonce, plain_outer_log
from benchmarks.speed.inputs import draw

__all__ = ["measure_gpu"]

SIZES = (4096, 16384, 65536)
LARGEST = 1048576
REPEATS = 10


def measure_gpu() -> dict[str, Any]:
    if not torch.cuda.is_available():
        return {"status": "open", "reason": "not measured, since this machine has no CUDA device"}
    rate, bandwidth = matmul_rate(), copy_bandwidth()
    rows = [
        attempt(what, make, modalities, size, dtype, products, rate, bandwidth)
        for what, make, modalities, products, sizes in table()
        for size in sizes
        for dtype in (torch.float32, torch.bfloat16)
    ]
    return {
        "status": "measured",
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "matmul_tflops": rate / 1e12,
        "copy_gbs": bandwidth / 1e9,
        "rows": rows,
    }


def table() -> list[tuple[str, Callable[[], Callable[..., Tensor]], int, int, tuple[int, ...]]]:
    """Multiply-adds are those of the closed form, in units of B^2 D."""
    return [
        ("uniformity, log of the mean", lambda: our_uniformity("outer_log"), 1, 2, (*SIZES, LARGEST)),
        ("uniformity, mean of row logs", lambda: our_uniformity("mean_log"), 1, 2, (*SIZES, LARGEST)),
        ("uniformity, torch", lambda: plain_outer_log, 1, 2, SIZES),
        ("InfoNCE", lambda: our_objective("infonce", anchor="all", temperature=TAU), 2, 4, (*SIZES, LARGEST)),
        ("InfoNCE, torch", lambda: plain_infonce, 2, 4, SIZES),
        ("InfoNCE, inf-cl", inf_cl, 2, 4, (*SIZES, LARGEST)),
        ("InfoNCE, memeff", memeff, 2, 4, (*SIZES, LARGEST)),
    ]


def inf_cl() -> Callable[..., Tensor]:
    from inf_cl import cal_flash_loss

    scale = torch.tensor(1 / TAU, device="cuda")

    def value(x_BD: Tensor, y_BD: Tensor) -> Tensor:
        there, back = (cal_flash_loss(a, b, scale=scale).mean() for a, b in ((x_BD, y_BD), (y_BD, x_BD)))
        result: Tensor = (there + back) / 2
        return result

    return value


def memeff() -> Callable[..., Tensor]:
    from memeff import MemoryEfficientCLIPLoss

    made: Callable[..., Tensor] = MemoryEfficientCLIPLoss(temperature=TAU, stable=False).cuda()
    return made


def attempt(
    what: str,
    make: Callable[[], Callable[..., Tensor]],
    modalities: int,
    items: int,
    dtype: torch.dtype,
    products: int,
    rate: float,
    bandwidth: float,
) -> dict[str, Any]:
    row: dict[str, Any] = {"what": what, "items": items, "dtype": str(dtype).removeprefix("torch.")}
    torch.cuda.empty_cache()
    try:
        function = make()
        rows = [z.detach().to("cuda", dtype).requires_grad_() for z in draw(modalities, items, DIM)]
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()

        def step() -> None:
            for z in rows:
                z.grad = None
            function(*rows).backward()

        seconds = clock(step, 2 if items == LARGEST else REPEATS)
        peak = torch.cuda.max_memory_allocated() - before
    except ImportError as error:
        return row | {"status": "absent", "reason": f"not installed: {error.name}"}
    except torch.OutOfMemoryError:
        return row | {"status": "memory", "reason": "out of memory"}
    except Exception as error:
        return row | {"status": "failed", "reason": f"{type(error).__name__}: {error}"[:200]}
    moved = 2 * sum(z.nbytes for z in rows)  # rows are read and gradients written at least once
    return row | {
        "status": "measured",
        "seconds": seconds,
        "peak": peak,
        "matmul_fraction": 2 * products * items**2 * DIM / seconds / rate,
        "copy_fraction": moved / seconds / bandwidth,
    }


def matmul_rate() -> float:
    """FLOP/s of a bf16 matrix product."""
    size = 8192
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return float(2 * size**3 / clock(lambda: torch.matmul(a, b), 20))


def copy_bandwidth() -> float:
    """Bytes per second that a copy reads and writes."""
    source = torch.empty(2**30, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * source.nbytes / clock(lambda: target.copy_(source), 20)


def clock(work: Callable[[], object], repeats: int) -> float:
    work()
    seconds = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        seconds.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(seconds)
