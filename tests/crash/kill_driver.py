"""Kill training runs and file writes with SIGKILL, resume them, and print the outcomes as JSON."""

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # Import this here, or each child would import it with its first optimizer.
from forked import Child, count_operations, die_at, run_child

from train_cases import bits, digest_of, run, tiny_config, tiny_store
from unialign.data import EmbeddingStore
from unialign.io import replace_file
from unialign.io._atomic import exchange
from unialign.space import Space
from unialign.train import _trainer
from unialign.train._checkpoint import Snapshot, load_checkpoint, newest_checkpoint, save_checkpoint
from unialign.train._log import read_log

torch.set_num_threads(1)
# A checkpoint is saved after every step, so that many kills occur during a save.
CONFIG = tiny_config(
    objective="gram", objective_options={"anchor": "text"}, infonce_warmup_ratio=0.3, save_steps=1, epochs=8
)
Send = Callable[[str], None]


# --- training -------------------------------------------------------------------------------------------------------


def train(out: Path, resume: str, send: Send) -> None:
    def save(folder: Path, snapshot: Snapshot, *, keep: int) -> Path:
        send(f"begin {snapshot.step}")
        path = save_checkpoint(folder, snapshot, keep=keep)
        send(f"end {snapshot.step}")
        return path

    _trainer.save_checkpoint = save
    send(f"digest {digest_of(run(tiny_store(), CONFIG, out=out, resume=resume))}")


def last(child: Child, word: str, default: str) -> str:
    return next((line.split()[1] for line in reversed(child.lines) if line.startswith(f"{word} ")), default)


def counted(out: Path, send: Send) -> None:
    count = count_operations(out)
    train(out, "never", send)
    send(f"operations {count[0]}")


def killed_run(folder: Path, begin: Callable[[Path], Child]) -> tuple[Path, Child]:
    for attempt in range(100):
        out = folder / f"attempt-{attempt}"
        child = begin(out)
        if child.killed:
            return out, child
    raise SystemExit("no run was killed")


def one_trial(folder: Path, draw: random.Random, way: str, duration: float, operations: int) -> dict[str, Any]:
    def killed_at_moment(out: Path) -> Child:
        return run_child(lambda send: train(out, "never", send), kill_after=draw.uniform(0, duration))

    def killed_at_operation(out: Path) -> Child:
        place = draw.randrange(operations)

        def work(send: Send) -> None:
            die_at(out, place)
            train(out, "never", send)

        return run_child(work)

    out, child = killed_run(folder, killed_at_moment if way == "moment" else killed_at_operation)
    newest = newest_checkpoint(out / "checkpoints")
    # This call raises an error if the checkpoint is incomplete or altered.
    found = 0 if newest is None else load_checkpoint(newest).step
    result = run_child(lambda send: train(out, "auto", send))
    steps = [record["step"] for record in read_log(out / "log.jsonl") if record["kind"] == "step"]
    return {
        "way": way,
        "begun": int(last(child, "begin", "0")),
        "ended": int(last(child, "end", "0")),
        "found": found,
        "digest": last(result, "digest", "none"),
        "log_steps": steps,
        "left": sorted(path.name for path in out.rglob("*.partial")),
    }


def kill_training(folder: Path, trials: int) -> dict[str, Any]:
    started = time.perf_counter()
    whole = run_child(lambda send: train(folder / "whole", "never", send))
    duration = time.perf_counter() - started
    operations = int(last(run_child(lambda send: counted(folder / "counted", send)), "operations", "0"))
    draw = random.Random(0)
    report = [
        one_trial(folder / f"trial-{i}", draw, ("moment", "operation")[i % 2], duration, operations)
        for i in range(trials)
    ]
    return {"digest": last(whole, "digest", "none"), "steps": 16, "operations": operations, "trials": report}


# --- writers --------------------------------------------------------------------------------------------------------


def space(seed: int) -> Space:
    torch.manual_seed(seed)
    return Space({"image": 6, "text": 4}, dim=5, hidden=7)


def snapshot(step: int) -> Snapshot:
    tensors = {"space": {"w": torch.full((300, 2), float(step))}, "optimizer": {"m": torch.ones(3)}}
    return Snapshot(step, tensors, {"data": {"name": "x"}})


def write_space(path: Path, version: int) -> None:
    space(version).save_pretrained(path)


def read_space(path: Path) -> int:
    found = bits(Space.from_pretrained(path).state_dict())
    return next(version for version in (1, 2) if found == bits(space(version).state_dict()))


def write_store(path: Path, version: int) -> None:
    EmbeddingStore.write(path, {"x": np.full((30, 2), version, dtype=np.float32)}, overwrite="replace")


def read_store(path: Path) -> int:
    store = EmbeddingStore.open(path)
    store.verify()
    return int(store.array("x")[0, 0])


def write_checkpoint(path: Path, version: int) -> None:
    save_checkpoint(path, snapshot(version), keep=1)


def read_checkpoint(path: Path) -> int:
    newest = newest_checkpoint(path)
    assert newest is not None
    return load_checkpoint(newest).step


def write_text(path: Path, version: int) -> None:
    replace_file(path / "results.json", str(version) * 5000)


def read_text(path: Path) -> int:
    text = (path / "results.json").read_text()
    assert text == text[0] * 5000
    return int(text[0])


WRITERS = {
    "space": (write_space, read_space),
    "store": (write_store, read_store),
    "checkpoint": (write_checkpoint, read_checkpoint),
    "file": (write_text, read_text),
}


def kill_writer(folder: Path, kind: str) -> list[int]:
    write, read = WRITERS[kind]
    found = []
    for operation in range(1000):
        path = folder / f"{kind}-{operation}" / "it"
        path.parent.mkdir()
        write(path, 1)

        def work(send: Send, path: Path = path, operation: int = operation) -> None:
            die_at(path.parent, operation)
            write(path, 2)

        child = run_child(work)
        found.append(read(path))
        write(path, 2)
        assert read(path) == 2
        if not child.killed:
            return found
    raise SystemExit(f"{kind} did not finish")


def can_exchange(folder: Path) -> bool:
    (folder / "one").mkdir()
    (folder / "other").mkdir()
    return exchange(folder / "one", folder / "other")


def main(folder: Path, trials: int) -> None:
    report = kill_training(folder, trials)
    # `tests/data` covers file systems that need two renames, since they cannot exchange two folders in one step.
    kinds = [kind for kind in WRITERS if kind != "store" or can_exchange(folder)]
    print(json.dumps(report | {"writers": {kind: kill_writer(folder, kind) for kind in kinds}}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
