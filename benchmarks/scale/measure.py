"""Count the costs of every objective on one, two and four processes, and a few constants of embedding."""

import multiprocessing
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.scale.count import count_step
from benchmarks.scale.encoders import Transformer
from benchmarks.scale.objectives import OBJECTIVES
from benchmarks.scale.parts import Setting
from unialign import encoders
from unialign.errors import MissingDependencyError
from unialign.io import describe_environment
from unialign.items import Items
from unialign.losses import Objective, create
from unialign.media import load_cell

__all__ = ["SETTINGS", "measure", "measure_here"]

# One process computes up to 2,048 rows as whole blocks, and tuples up to 1,024 rows as one tile, which the model does
# not cover. The numbers of rows are not multiples of the side of a tile.
SETTINGS = (
    Setting(3, 2064, 192, 1, width=96),
    Setting(3, 2064, 192, 2, width=96),
    Setting(3, 1040, 192, 4, width=96),
    Setting(5, 1040, 128, 2, width=160),
    Setting(2, 1040, 128, 4, width=160),
)
# Modalities of objectives that need a fixed number.
FIXED = {"triangle": 3}
_PATHS, _IMAGES = 20_000, 64


def measure() -> dict[str, Any]:
    torch.set_num_threads(1)
    cases = [case for s in SETTINGS if s.processes == 1 for case in measure_here(s)]
    cases += _measure_there([s for s in SETTINGS if s.processes > 1])
    return {
        "schema": 1,
        "cases": cases,
        "transformer": measure_transformer(),
        "embedding": measure_embedding(),
        "environment": describe_environment(),
    }


def measure_here(s: Setting, rank: int = 0, group: Any = None, names: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Counts of the process with this rank; every process of a group must call the function."""
    generator = torch.Generator().manual_seed(0)

    def draw(width: int) -> dict[str, Tensor]:
        rows = {f"m{m}": torch.randn(s.items, width, generator=generator) for m in range(s.modalities)}
        return {name: x[rank * s.own : (rank + 1) * s.own].clone() for name, x in rows.items()}

    own, features, found = draw(s.dim), draw(s.width), []
    for name in names or OBJECTIVES:
        if s.modalities == FIXED.get(name, s.modalities):
            key, options = OBJECTIVES[name].create
            loss = create(key, **options)

            options = {"similarity": features} if loss.needs_similarity() else {}
            counts = count_step(own, partial(_total, loss, group, options))
            facts = {key: getattr(s, key) for key in ("modalities", "items", "dim", "processes", "width")}
            found.append({"objective": name, **facts, **counts.to_dict()})
            if rank == 0:
                print(f"{s.processes} processes, {name}", flush=True)
    return found


def _total(loss: Objective, group: Any, options: dict[str, Any], rows: Mapping[str, Tensor]) -> Tensor:
    return loss(rows, group=group, **options).total  # type: ignore[no-any-return]


def _measure_there(settings: list[Setting]) -> list[dict[str, Any]]:
    """Counts of process 0, in groups of a job of the largest number of processes."""
    spawn, world = multiprocessing.get_context("spawn"), max(s.processes for s in settings)
    with tempfile.TemporaryDirectory() as folder:
        arguments = [(rank, world, folder, settings) for rank in range(world)]
        processes = [spawn.Process(target=_work, args=each) for each in arguments]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise SystemExit("a process of the measurement failed")
        cases: list[dict[str, Any]] = pickle.loads(Path(folder, "cases").read_bytes())
        return cases


def _work(rank: int, world: int, folder: str, settings: list[Setting]) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    where = f"file://{folder}/meet"
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=world, timeout=timedelta(minutes=5))
    groups = {size: dist.new_group(list(range(size))) for size in sorted({s.processes for s in settings})}
    cases = []
    for s in settings:
        if rank < s.processes:
            cases += measure_here(s, rank, groups[s.processes])
    if rank == 0:
        Path(folder, "cases").write_bytes(pickle.dumps(cases))
    dist.barrier()
    dist.destroy_process_group()


def measure_transformer() -> dict[str, Any]:
    """Flops of a layer of a transformer, to check the formula."""
    shape, items = Transformer(1, 192, 50), 2
    layer = nn.TransformerEncoderLayer(shape.width, 3, 4 * shape.width, batch_first=True)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as flops:
        layer(torch.randn(items, shape.tokens, shape.width))
    return {"layers": 1, "width": shape.width, "tokens": shape.tokens, "flops": flops.get_total_flops() / items}


def measure_embedding() -> dict[str, Any]:
    """Bytes of a cell that every actor of a Ray run receives, and processor seconds of an image."""
    paths = [{"image": f"images/{number // 1000:06d}/{number:012d}.jpg"} for number in range(_PATHS)]
    cells, _ = Items.from_records(paths, kinds={"image": "image"}, root="/").column("image")
    found: dict[str, Any] = {"pickled bytes per cell": round(len(pickle.dumps(cells)) / _PATHS, 1)}
    try:
        from benchmarks.embed import write_images

        with tempfile.TemporaryDirectory() as folder:
            found |= _measure_images(write_images(Path(folder), _IMAGES))
    except (ImportError, MissingDependencyError) as error:
        print(f"images are not measured: {error}")
    return found


def _measure_images(items: Items) -> dict[str, Any]:
    encoder = encoders.create("package:efficientnet-lite0", media="image")
    cells, _ = items.column("image")

    def prepare(number: int) -> Any:
        return encoder.prepare(load_cell(cells[number], "image", roots=items.roots, decoding=encoder.decoding))

    prepared = [prepare(0)]
    seconds = _seconds(lambda: prepared.extend(prepare(number) for number in range(1, len(cells))))
    encoders.encode_prepared(encoder, prepared[:8], batch_size=8)
    encoding = _seconds(lambda: encoders.encode_prepared(encoder, prepared, batch_size=32))
    return {
        "encoder": "package:efficientnet-lite0",
        "pixels": [320, 240],
        "prepared images per processor second": round((len(cells) - 1) / seconds, 1),
        "encoded images per processor second": round(len(cells) / encoding, 1),
    }


def _seconds(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started
