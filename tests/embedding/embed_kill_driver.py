"""Kill runs of `embed` with SIGKILL, continue them, and print the outcomes as JSON.

`test_embed_kills.py` runs this script as `embed_kill_driver.py FOLDER KILLS STRIDE`. Python is forked, so that a run
takes a fraction of a second.
"""

import json
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from forked import die_at, run_child

import unialign as ua
from embed_cases import content, small_encoders, small_items

torch.set_num_threads(1)
Send = Callable[[str], None]
# Operations of a run before it writes a part: the lock and the names of the process.
_FIRST_OPERATIONS = 8


def embed(media: Path, out: Path, workers: int, *, keep_parts: bool = False) -> None:
    ua.embed(
        media / "table",
        small_encoders(),
        out / "store",
        batch_size=1,
        part_cells=1,
        threads=1,
        workers=workers,
        progress="none",
        keep_parts=keep_parts,
    )


def state(out: Path) -> dict[str, Any]:
    store = out / "store"
    return {"store": content(store) if store.exists() else None, "files": sorted(p.name for p in out.iterdir())}


def random_kills(media: Path, out: Path, kills: int) -> Iterator[dict[str, Any]]:
    """Kill one run several times in turn at random operations, with and without a worker; then finish it."""
    draw = random.Random(0)
    out.mkdir()
    for i in range(kills):
        place = draw.randrange(_FIRST_OPERATIONS, _FIRST_OPERATIONS + 12)

        def work(send: Send, place: int = place, workers: int = i % 2) -> None:
            die_at(out, place)
            embed(media, out, workers)

        yield {"killed": run_child(work).killed, "parts": len(list(out.rglob("*.safetensors")))}
    run_child(lambda send: embed(media, out, 1))
    yield state(out)


def kills_in_assembly(media: Path, finished: Path, folder: Path, stride: int) -> Iterator[dict[str, Any]]:
    """Kill runs with complete parts at every operation of the assembly, the rename and the removal of the parts."""
    for operation in range(0, 10000, stride):
        out = folder / str(operation)
        shutil.copytree(finished, out)

        def work(send: Send, out: Path = out, operation: int = operation) -> None:
            die_at(out, operation)
            embed(media, out, 0)

        child = run_child(work)
        had_store = (out / "store").exists()
        run_child(lambda send, out=out: embed(media, out, 0))
        yield {"killed": child.killed, "had_store": had_store, **state(out)}
        shutil.rmtree(out)
        if not child.killed:
            return


def main(folder: Path, kills: int, stride: int) -> None:
    media, whole = folder / "media", folder / "whole"
    small_items(media).save(media / "table")
    whole.mkdir()
    run_child(lambda send: embed(media, whole, 1))
    finished = folder / "finished"
    finished.mkdir()
    # All parts, and no store.
    embed(media, finished, 0, keep_parts=True)
    shutil.rmtree(finished / "store")
    report = {
        "whole": state(whole),
        "random": list(random_kills(media, folder / "random", kills)),
        "assembly": list(kills_in_assembly(media, finished, folder / "assembly", stride)),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
