"""Change an index in a child process, kill the child or cut the power of its disk, and compare what is left.

Run as `python crash_rounds.py FOLDER ROUNDS SEED [IMAGE]`. With IMAGE, FOLDER is the mount point of that file system,
which is shut down without its journal. The child writes what it is about to commit, and writes again once the commit
is acknowledged. What is found must be the acknowledged state, or that and the whole commit that had begun.
"""

import ctypes
import fcntl
import gc
import json
import os
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

import unialign as ua
from unialign.index import _index

DIM = 8
MODALITIES = ("image", "text")
CHANGES = ("add", "add", "update", "delete", "batch", "compact", "calibrate")
# EXT4_IOC_SHUTDOWN with the flag NOLOGFLUSH.
SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2

State = dict[str, int]


def rows_of(key: str, version: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([zlib.crc32(key.encode()), version])
    rows = {name: rng.normal(size=DIM) for name in MODALITIES}
    return {name: (row / np.linalg.norm(row)).astype(np.float32) for name, row in rows.items()}


def stacked(keys: list[str], version: int) -> dict[str, np.ndarray]:
    found = [rows_of(key, version) for key in keys]
    return {name: np.stack([rows[name] for rows in found]) for name in MODALITIES}


def write(folder: Path, state: State, seed: int, pipe: int) -> None:
    """Change the index until the process ends."""
    rng = np.random.default_rng(seed)
    _index._MOST_SMALL = 4  # Merge parts often.

    def say(*values: Any) -> None:
        os.write(pipe, json.dumps(values).encode() + b"\n")

    with ua.Index.open(folder, mode="w") as index:
        say("open")
        version = max(state.values(), default=0)
        while True:
            version += 1
            kind = str(rng.choice(CHANGES)) if len(state) > 60 else "add"
            if kind in ("add", "batch") and len(state) > 150:
                kind = "delete"
            some = [str(key) for key in rng.choice(sorted(state), 8, replace=False)] if state else []
            new = [f"{version}-{number}" for number in range(int(rng.integers(1, 40)))]
            changes: dict[str, int | None] = {
                "add": dict.fromkeys(new, version),
                "update": dict.fromkeys(some[:1], version),
                "delete": dict.fromkeys(some),
                "batch": {**dict.fromkeys(new, version), some[0]: None, some[1]: version} if some else {},
            }.get(kind, {})
            say("begin", changes)
            if kind == "add":
                index.add(stacked(new, version), keys=new, labels=[str(version)] * len(new))
            elif kind == "update":
                index.update(some[0], rows_of(some[0], version), label=str(version))
            elif kind == "delete":
                index.delete(keys=some)
            elif kind == "batch":
                with index.batch():
                    index.delete(keys=some[:1])
                    index.add(stacked(new, version), keys=new, labels=[str(version)] * len(new))
                    index.update(some[1], rows_of(some[1], version), label=str(version))
            elif kind == "compact":
                index.compact(everything=bool(rng.integers(2)))
            else:
                index.calibrate(method="center")
            state = applied(state, changes)
            say("acknowledged", kind)


def applied(state: State, changes: dict[str, int | None]) -> State:
    return {key: version for key, version in {**state, **changes}.items() if version is not None}


def found_in(folder: Path) -> State:
    """Read the index, and compare all rows with those of the versions of the items."""
    with ua.Index.open(folder) as index:
        items = index.items(limit=10_000)
        assert index.verify() == [], index.verify()
        state = {item.key: int(str(item.label)) for item in items}
        assert len(state) == len(items) == len(index), "keys are not unique"
        for key, version in state.items():
            for name, row in rows_of(key, version).items():
                np.testing.assert_allclose(index.get(key).rows[name], row, atol=1e-6)
        if state:
            first = items[0].key
            assert index.search(ua.query(vector=rows_of(first, state[first])["image"], modality="image"), k=3)
        return state


def one_round(folder: Path, mount: Path | None, image: Path | None, state: State, seed: int) -> tuple[State, list[str]]:
    rng = np.random.default_rng(seed)
    read, written = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            write(folder, state, seed, written)
        finally:
            os._exit(1)
    os.close(written)
    lines = os.fdopen(read, "rb")
    acknowledged, begun, kinds = state, {}, []
    # A calibration takes longer than other changes.
    seconds = float(rng.uniform(0.02, 2.5 if seed % 5 == 0 else 0.4))
    has_opened = False
    for line in lines:
        words = json.loads(line)
        if words[0] == "begin":
            begun = words[1]
        elif words[0] == "acknowledged":
            acknowledged, begun = applied(acknowledged, begun), {}
            kinds.append(words[1])
        if words[0] == "open":
            signal.signal(signal.SIGALRM, lambda *_: stop(child, mount))
            signal.setitimer(signal.ITIMER_REAL, seconds)
            has_opened = True
    os.waitpid(child, 0)
    lines.close()
    assert has_opened, "the writer failed before it was stopped"
    if mount is not None:
        gc.collect()  # Mapped files keep the file system busy.
        subprocess.run(["umount", str(mount)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=True)
    found = found_in(folder)
    allowed = [acknowledged, applied(acknowledged, begun)]
    if found not in allowed:
        lost = sorted(set(acknowledged) - set(found))[:5]
        raise AssertionError(f"round {seed}: lost {lost}, begun {begun}, found {len(found)} of {len(acknowledged)}")
    return found, kinds


def stop(child: int, mount: Path | None) -> None:
    if mount is not None:
        handle = os.open(mount, os.O_RDONLY)
        flags = ctypes.c_uint32(NO_LOG_FLUSH)
        fcntl.ioctl(handle, SHUTDOWN, flags)
        os.close(handle)
    os.kill(child, signal.SIGKILL)


def main() -> None:
    torch.set_num_threads(1)
    folder, rounds, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    image = Path(sys.argv[4]) if len(sys.argv) > 4 else None
    mount = folder if image is not None else None
    folder = folder / "index"
    ua.Index.create(folder, dim=DIM, modalities=MODALITIES).close()
    state: State = {}
    counts: dict[str, int] = {}
    for number in range(rounds):
        state, kinds = one_round(folder, mount, image, state, seed + number)
        for kind in kinds:
            counts[kind] = counts.get(kind, 0) + 1
    print(json.dumps({"rounds": rounds, "items": len(state), "acknowledged": counts}))


if __name__ == "__main__":
    main()
