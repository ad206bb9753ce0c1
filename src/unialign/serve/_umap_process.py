"""Run UMAP in a separate process: its import and compilation would block all threads of the service for half a minute.

`python -m unialign.serve._umap_process` reads the (P, D) rows from its standard input and writes the (P, 2) coordinates
to its standard output, both as `.npy`.
"""

import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from unialign._optional import optional_module
from unialign.errors import ConfigError

__all__ = ["check_umap", "umap_places"]

_PAUSE = 0.25
_SEED = 0
# Numbers of rows and columns, before the rows in float32.
_SHAPE = struct.Struct("<QQ")


def has_umap() -> bool:
    """Return whether umap-learn is installed; does not import it."""
    return find_spec("umap") is not None


def check_umap() -> None:
    """Raise MissingDependencyError if umap-learn is not installed."""
    if not has_umap():
        optional_module("umap", "the layout `umap`", "map")


def umap_places(
    z_PD: NDArray[np.float32], start_P2: NDArray[np.float32], *, check: Callable[[], None]
) -> NDArray[np.float32]:
    """Return coordinates by UMAP with the cosine distance (McInnes, Healy and Melville, 2018).

    Args:
        z_PD: rows.
        start_P2: initial coordinates.
        check: called several times a second; the process ends if it raises.

    Raises:
        MissingDependencyError: umap-learn is not installed.
        ConfigError: the computation failed.
    """
    check_umap()
    rows = np.ascontiguousarray(np.concatenate([z_PD, start_P2], 1), "<f4")
    given = _SHAPE.pack(*rows.shape) + rows.tobytes()
    process = subprocess.Popen(
        [sys.executable, "-m", "unialign.serve._umap_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    answer: list[bytes] = []
    reader = threading.Thread(target=lambda: answer.append(process.communicate(given)[0]), daemon=True)
    reader.start()
    try:
        while reader.is_alive():
            check()
            reader.join(_PAUSE)
    finally:
        if process.poll() is None:
            process.kill()
        reader.join(5)
    if process.returncode != 0 or not answer:
        raise ConfigError("UMAP failed; see the log of the service, or use the layout `pca`")
    return np.frombuffer(answer[0], "<f4").reshape(len(rows), 2).astype(np.float32)


def _main() -> None:
    umap = optional_module("umap", "the layout `umap`", "map")
    content = sys.stdin.buffer.read()
    given = np.frombuffer(content, "<f4", offset=_SHAPE.size).reshape(_SHAPE.unpack_from(content))
    z_PD, start_P2 = given[:, :-2], given[:, -2:]
    model = umap.UMAP(
        n_neighbors=min(15, len(z_PD) - 1),
        min_dist=0.15,
        metric="cosine",
        init=10 * start_P2 / max(float(np.abs(start_P2).max()), 1e-9),
        random_state=_SEED,
        n_jobs=1,
        low_memory=True,
    )
    sys.stdout.buffer.write(np.ascontiguousarray(model.fit_transform(z_PD), "<f4").tobytes())


if __name__ == "__main__":
    _main()
