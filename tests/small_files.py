"""Write one small space in every file format."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from unialign.data import EmbeddingStore

ITEMS, DIM = 60, 8
Space = dict[str, np.ndarray]
KINDS = [
    "npz", "packed.npz", "columns.npz", "safetensors", "parquet", "fixed.parquet", "store", "columns.npy", "named",
]  # fmt: skip


def write_files(space: Space, folder: Path, kind: str) -> list[Path | str]:
    path = folder / f"space.{kind}"
    if kind == "npz":
        np.savez(path, **space)
    elif kind == "packed.npz":
        np.savez_compressed(path, **space)
    elif kind == "columns.npz":
        np.savez_compressed(path, **{name: np.asfortranarray(z) for name, z in space.items()})
    elif kind == "safetensors":
        save_file(space, path)
    elif kind.endswith("parquet"):
        write_parquet(space, path, fixed=kind.startswith("fixed"))
    elif kind == "store":
        EmbeddingStore.write(path, space)
    elif kind == "columns.npy":
        for name, z in space.items():
            np.save(folder / f"{name}.npy", np.asfortranarray(z))
        return [folder / f"{name}.npy" for name in space]
    elif kind == "named":
        for i, z in enumerate(space.values()):
            np.save(folder / f"{i}.npy", z.astype(">f4"))
        return [f"{name}={folder / f'{i}.npy'}" for i, name in enumerate(space)]
    return [path]


def write_parquet(space: Space, path: Path, *, fixed: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if fixed:
        columns = {
            name: pa.FixedSizeListArray.from_arrays(pa.array(z.ravel()), z.shape[1]) for name, z in space.items()
        }
    else:
        columns = {name: pa.array(list(z)) for name, z in space.items()}
    pq.write_table(pa.table(columns), path, row_group_size=25)
