"""Test the items of array files: .npy, .npz, .safetensors, .h5, AnnData and MuData."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from unialign.data import Items
from unialign.errors import ConfigError, DataError
from unialign.media import Cell, load_cell

N = 5


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"rna": rng.normal(size=(N, 4)).astype(np.float32), "protein": rng.normal(size=(N, 3))}


def loaded(items: Items, name: str) -> list[list[float] | None]:
    cells = [items.cell(row, name) for row in range(len(items))]
    rows = [None if cell is None else load_cell(cell, "array", roots=items.roots) for cell in cells]
    return [None if row is None else np.asarray(row).tolist() for row in rows]


def rounded(rows: np.ndarray) -> list[list[float]]:
    return rows.astype(np.float32).tolist()  # type: ignore[no-any-return]


def test_rows_of_each_matrix_are_cells(tmp_path: Path) -> None:
    found = arrays()
    values = {"ids": np.array(list("vwxyz")), "labels": np.array([0, 1, -1, 0, 1]), "split": np.array([0, 0, 1, 2, 0])}
    present = np.array([True, False, True, True, True])
    np.savez(tmp_path / "a.npz", **found, **values, **{"present.rna": present})
    np.savez_compressed(tmp_path / "b.npz", **found, **values, **{"present.rna": present})
    with h5py.File(tmp_path / "c.h5", "w") as file:
        for key, value in {**found, **values, "present.rna": present}.items():
            file[key] = value.astype(object) if key == "ids" else value
    for name in ("a.npz", "b.npz", "c.h5"):
        items = Items.open(tmp_path / name)
        assert sorted(items.modalities) == ["protein", "rna"]
        assert set(items.kinds.values()) == {"array"}
        assert items.keys.tolist() == list("vwxyz")
        assert items.present("rna").tolist() == present.tolist()
        assert loaded(items, "protein") == rounded(found["protein"])
        assert loaded(items, "rna") == [
            row if ok else None for row, ok in zip(rounded(found["rna"]), present, strict=True)
        ]
        assert items.labels.tolist() == [0, 1, -1, 0, 1]
        assert items.split.tolist() == [0, 0, 1, 2, 0]
        assert items.cell(2, "rna") == Cell(array=name, key="rna", row=2)


def test_several_files_are_modalities_of_the_same_items(tmp_path: Path) -> None:
    found = arrays()
    np.save(tmp_path / "rna.npy", found["rna"])
    save_file({"x": found["protein"].astype(np.float32)}, tmp_path / "protein.safetensors")
    with pytest.raises(DataError, match=r"is read as npy and .* as safetensors"):
        Items.open([tmp_path / "rna.npy", tmp_path / "protein.safetensors"])
    items = Items.open(tmp_path / "rna.npy").join(Items.open(tmp_path / "protein.safetensors"))
    assert items.modalities == ("rna", "protein")
    assert loaded(items, "protein") == rounded(found["protein"])
    np.save(tmp_path / "atac.npy", found["protein"])
    items = Items.open([tmp_path / "rna.npy", tmp_path / "atac.npy"])
    assert loaded(items, "atac") == rounded(found["protein"])
    assert items.cell(0, "rna") == Cell(array="rna.npy", row=0)
    np.save(tmp_path / "short.npy", found["protein"][:3])
    with pytest.raises(DataError, match=r"'short' in .* has 3 rows, but 'rna' in .* has 5"):
        Items.open([tmp_path / "rna.npy", tmp_path / "short.npy"])


def test_rules_and_values_of_arrays(tmp_path: Path) -> None:
    values = {
        "cell_type": np.array(["B", "T", "", "B", "T"]),
        "donor": np.array([1, 1, 2, 2, 2]),
        "score": np.arange(5.0),
    }
    np.savez(tmp_path / "a.npz", **arrays(), **values, ids=np.array([7, 7, 8, 9, 10]))
    items = Items.open(tmp_path / "a.npz", rules={"gene": "rna"}, label="cell_type", group="donor")
    assert items.modalities == ("gene",)
    assert items.label_names == ("B", "T")
    assert items.labels.tolist() == [0, 1, -1, 0, 1]
    assert items.groups.tolist() == [0, 0, 1, 1, 1]
    assert items.ids.tolist() == [0, 0, 1, 2, 3]  # repeated ids are equal things, and no names
    assert items.keys.tolist() == list("01234")
    assert items.notes == ("matrices that are not used: protein",)
    for options, words in (
        ({"rules": {"gene": "rnx"}}, "has no matrix 'rnx'; it has rna, protein"),
        ({"rules": {"gene": ["rna", "protein"]}}, "must name one array"),
        ({"rules": {"gene": "rna"}, "kinds": {"gene": "image"}}, "is an array in .*, so its kind cannot be 'image'"),
        ({"label": "batch"}, "has no values 'batch'; it has cell_type, donor, ids"),
        ({"split": "cell_type"}, "'cell_type' holds 'B', expected train, val, test"),
        ({"id": "donor"}, "the id '1' occurs twice: .*row 0 and .*row 1"),
    ):
        with pytest.raises((DataError, ConfigError), match=words):
            Items.open(tmp_path / "a.npz", **options)  # type: ignore[arg-type]
    np.savez(tmp_path / "b.npz", x=np.arange(3))
    with pytest.raises(DataError, match="no matrix of floats"):
        Items.open(tmp_path / "b.npz")


def write_index(group: Any, names: list[str], key: str = "barcode") -> None:
    group.attrs["_index"] = key
    group[key] = names


def write_sparse(file: Any, name: str, x: np.ndarray) -> None:
    rows, columns = np.nonzero(x)
    group = file.create_group(name)
    group.attrs["encoding-type"], group.attrs["shape"] = "csr_matrix", x.shape
    group["data"], group["indices"] = x[rows, columns], columns
    group["indptr"] = np.concatenate([[0], np.cumsum((x != 0).sum(1))])


def write_categories(obs: Any, name: str, codes: list[int], names: list[str]) -> None:
    obs.create_group(name)
    obs[name]["codes"], obs[name]["categories"] = codes, names


def test_anndata(tmp_path: Path) -> None:
    x = np.array([[0, 1, 0], [2, 0, 3], [0, 0, 0]], np.float32)
    with h5py.File(tmp_path / "cells.h5ad", "w") as file:
        file.attrs["encoding-type"] = "anndata"
        write_sparse(file, "X", x)
        file["obsm/X_umap"] = np.ones((3, 2))
        write_index(file.create_group("obs"), ["c1", "c2", "c3"])
        write_categories(file["obs"], "cell_type", [1, -1, 0], ["B", "T"])
        file.create_group("var")
    items = Items.open(tmp_path / "cells.h5ad", label="cell_type")
    assert items.keys.tolist() == ["c1", "c2", "c3"]
    assert items.modalities == ("cells",)
    assert loaded(items, "cells") == x.tolist()
    assert [items.label_names[code] if code >= 0 else None for code in items.labels] == ["T", None, "B"]
    items = Items.open(tmp_path / "cells.h5ad", rules={"map": "obsm/X_umap", "rna": "X"})
    assert items.cell(1, "map") == Cell(array="cells.h5ad", key="obsm/X_umap", row=1)
    assert loaded(items, "map") == [[1.0, 1.0]] * 3
    with h5py.File(tmp_path / "cells.h5ad", "a") as file:
        file["obsm/X_pca"] = np.arange(12.0).reshape(3, 4)
    assert loaded(Items.open(tmp_path / "cells.h5ad"), "X_pca") == np.arange(12.0).reshape(3, 4).tolist()


def test_wide_sparse_matrices_are_refused_with_advice(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "cells.h5ad", "w") as file:
        file.attrs["encoding-type"] = "anndata"
        write_sparse(file, "X", np.ones((2, 9000), np.float32))
        write_index(file.create_group("obs"), ["c1", "c2"])
        file.create_group("var")
    for rules in (None, {"rna": "X"}):
        with pytest.raises(DataError, match="more than 8,192 columns and probably contains counts; compute obsm/X_pca"):
            Items.open(tmp_path / "cells.h5ad", rules=rules)


def test_mudata(tmp_path: Path) -> None:
    """The expected rows are those that `mudata` 0.3.10 gives for the same cells: `mdata[modality][cell].X`."""
    cells = [f"c{i}" for i in range(7)]
    rows = {"rna": [2, 5, 1, 0, 4, 3], "prot": [6, 2, 3, 0]}  # the cells of each modality, in its order
    x = {
        "rna": np.arange(24, dtype=np.float32).reshape(6, 4),
        "prot": np.arange(16, dtype=np.float32).reshape(4, 4) + 100,
    }
    with h5py.File(tmp_path / "m.h5mu", "w", userblock_size=512) as file:
        file.attrs["encoding-type"] = "MuData"
        write_index(file.create_group("obs"), cells)
        write_categories(file["obs"], "cell_type", [0, 0, 1, 1, 0, -1, 1], ["B", "T"])
        file.create_group("mod").attrs["mod-order"] = ["rna", "prot"]
        for name, own in rows.items():
            group = file["mod"].create_group(name)
            write_index(group.create_group("obs"), [cells[row] for row in own])
            (write_sparse if name == "prot" else lambda g, key, values: g.create_dataset(key, data=values))(
                group, "X", x[name]
            )
            group["obsm/X_pca"] = -x[name]
            # Row of each cell in the modality, counted from 1; 0 = absent.
            file[f"obsmap/{name}"] = [own.index(row) + 1 if row in own else 0 for row in range(7)]
    items = Items.open(
        tmp_path / "m.h5mu", label="cell_type", rules={"rna": "rna/X", "prot": "prot/X", "pca": "rna/obsm/X_pca"}
    )
    assert items.keys.tolist() == cells
    expected = {
        "rna": [[12.0, 13.0, 14.0, 15.0], [8.0, 9.0, 10.0, 11.0], [0.0, 1.0, 2.0, 3.0], [20.0, 21.0, 22.0, 23.0],
                [16.0, 17.0, 18.0, 19.0], [4.0, 5.0, 6.0, 7.0], None],
        "prot": [[112.0, 113.0, 114.0, 115.0], None, [104.0, 105.0, 106.0, 107.0], [108.0, 109.0, 110.0, 111.0], None,
                 None, [100.0, 101.0, 102.0, 103.0]],
    }  # fmt: skip
    for name, values in expected.items():
        assert loaded(items, name) == values
    assert loaded(items, "pca")[0] == [-12.0, -13.0, -14.0, -15.0]
    assert items.labels.tolist() == [0, 0, 1, 1, 0, -1, 1]
    # Without rules, the embedding of each modality is read.
    items = Items.open(tmp_path / "m.h5mu")
    assert items.modalities == ("rna", "prot")
    assert items.cell(0, "prot") == Cell(array="m.h5mu", key="mod/prot/obsm/X_pca", row=3)
    assert loaded(items, "prot")[0] == [-112.0, -113.0, -114.0, -115.0]
    with h5py.File(tmp_path / "m.h5mu", "a") as file:
        del file["obsmap/rna"]
        file["obsmap/rna"] = [9] * 7
    with pytest.raises(DataError, match="obsmap/rna does not match 7 cells and 6 rows"):
        Items.open(tmp_path / "m.h5mu")
