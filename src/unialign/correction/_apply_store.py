"""Repair the columns of a store or of files in batches.

Shapes: `N` items, `b` items of a batch, `D` dimension.
"""

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unialign.data import EmbeddingStore, Overwrite, RowReader, derive_store, label_codes
from unialign.readers import Collection, first_appearance_codes

if TYPE_CHECKING:
    from unialign.correction._repair import Repair

_BATCH = 4096


def apply_store(
    repair: "Repair", store: EmbeddingStore, path: str | os.PathLike[str], *, overwrite: Overwrite, batch_size: int
) -> EmbeddingStore:
    def apply(readers: Mapping[str, RowReader], rows_b: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        return {name: _repaired(repair, name, reader, store.present(name), rows_b) for name, reader in readers.items()}

    return derive_store(
        store, path, apply, modalities=repair.modalities, source="repair", overwrite=overwrite, batch_size=batch_size
    )


def repair_collection(repair: "Repair", data: Collection, path: str | os.PathLike[str]) -> EmbeddingStore:
    labels_N, label_names = label_codes(data.values.get("labels"))
    names_N, groups_N = data.values.get("names"), data.values.get("groups")
    return EmbeddingStore.write(
        path,
        {name: _repaired_rows(repair, name, data) for name in data.modalities},
        name=data.name,
        overwrite="replace",
        present={name: modality.present_N for name, modality in data.modalities.items()},
        ids=data.values.get("ids"),
        groups=None if groups_N is None else first_appearance_codes(groups_N),
        labels=labels_N,
        label_names=label_names,
        split=data.values.get("split"),
        names=None if names_N is None else names_N.astype(str).tolist(),
        provenance={"columns": {name: {"embedding": "a repair"} for name in data.modalities}},
    )


def _repaired_rows(repair: "Repair", name: str, data: Collection) -> Iterator[NDArray[np.float32]]:
    array_ND, present_N = data.modalities[name].load(), data.modalities[name].present_N
    reader = RowReader(array_ND)
    for start in range(0, data.items, _BATCH):
        rows_b = np.arange(start, min(start + _BATCH, data.items))
        yield _repaired(repair, name, reader, present_N, rows_b)


def _repaired(
    repair: "Repair", name: str, reader: RowReader, present_N: NDArray[np.bool_], rows_b: NDArray[np.int64]
) -> NDArray[np.float32]:
    part_bD = repair._apply_part(name, reader.read(rows_b), present_N[rows_b], int(rows_b[0]))
    return part_bD.float().cpu().numpy()
