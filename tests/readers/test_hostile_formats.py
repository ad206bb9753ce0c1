"""Test that damaged, malicious and unsupported files raise a helpful error."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest
from format_writers import WRITERS

from small_files import DIM, ITEMS, Space
from unialign.data import open_collection
from unialign.errors import DataError, ShapeError, UniAlignError
from unialign.readers import _text


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Limit address space to 4 GB above current use, so that allocating a forged size raises MemoryError."""
    resource = pytest.importorskip("resource")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 4 * 2**30, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def read_all(path: Path) -> None:
    collection = open_collection(path)
    for modality in collection.modalities.values():
        for _ in modality.rows.chunks():
            pass


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("name", WRITERS)
def test_a_damaged_file_raises_one_readable_error_or_is_read(tmp_path: Path, space: Space, name: str) -> None:
    """A damaged file raises a UniAlignError, or is read if it is still valid."""
    WRITERS[name](tmp_path / name, space["image"])
    content = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(0)
    cases = [content[: int(fraction * len(content))] for fraction in (0.02, 0.5, 0.97)]
    for _ in range(6):
        changed = bytearray(content)
        for place in rng.integers(0, min(len(content), 600), 8):
            changed[place] = rng.integers(256)
        cases.append(bytes(changed))
    for case in cases:
        (tmp_path / name).write_bytes(case)
        message = ""
        try:
            read_all(tmp_path / name)
        except UniAlignError as error:
            message = str(error)
        assert message == "" or name in message or "damaged" in message
        assert "\n" not in message
        assert len(message) < 900


def faiss_index(fourcc: bytes, dim: int, count: int, floats: int) -> bytes:
    return fourcc + struct.pack("<iqqqBiQ", dim, count, 1 << 20, 1 << 20, 1, 0, floats) + bytes(64)


@pytest.mark.usefixtures("little_memory")
def test_declared_sizes_are_not_trusted(tmp_path: Path) -> None:
    cases = {
        "huge.faiss": faiss_index(b"IxFI", 2**31 - 1, 2**62, 2**63),
        "more.faiss": faiss_index(b"IxFI", 8, 2**40, 2**43),
        "negative.faiss": faiss_index(b"IxFI", -8, -4, 32),
        "short.faiss": faiss_index(b"IxFI", 8, 4, 32),
        "map.faiss": b"IxMp" + struct.pack("<iqqqBi", 8, 2**60, 1, 1, 1, 0) + faiss_index(b"IxFI", 4, 4, 16),
        "bits.faiss": b"IBxF" + struct.pack("<iiqBiQ", 2**31 - 8, 2**28, 2**60, 1, 1, 2**62) + bytes(64),
        "words.vec": b"999999999999999999 300\nword " + b"0.5 " * 300,
        "wide.vec": b"2 999999999\nword " + b"0.5 " * 300,
        "line.csv": b"a,b\n" + b"1," * (_text.MAX_LINE_BYTES // 2 + 10),
        "cells.csv": b"e0,e1\n1,2\n1,2,3\n",
        "quote.csv": b'e0,e1\n"1,2\n' * 50,
        "latin.csv": b"name,e0,e1\nM\xfcller,1,2\n" + b"x,1,2\n" * 9,
        "nested.jsonl": b'{"a": ' + b"[" * 100_000,
        "ragged.jsonl": b'{"v": [1.5, 2]}\n{"v": [1.5]}\n',
        "texts.jsonl": b'{"v": [1.5, 2]}\n{"v": ["a", "b"]}\n',
        "half.jsonl": b'{"v": [1.5, 2]}\n{"v": [1.5',
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises((DataError, ShapeError), match=name.replace(".", r"\.")):
            read_all(tmp_path / name)


@pytest.mark.usefixtures("little_memory")
def test_hostile_hdf5_is_not_followed_or_inflated(tmp_path: Path, space: Space) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["text"] = space["text"]
    (tmp_path / "raw.bin").write_bytes(space["text"].tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = space["image"]
        file["outside"] = h5py.ExternalLink("secret.h5", "text")
        file["soft"] = h5py.SoftLink("/soft")
        file.create_dataset("stored", space["text"].shape, "f4", external=[("raw.bin", 0, 1 << 20)])
        layout = h5py.VirtualLayout(shape=space["text"].shape, dtype="f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "text", shape=space["text"].shape)
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("bomb", (2**40, 2**10), "f4", chunks=(64, 2**10), compression="gzip")
        file.create_dataset("chunk", (2**14, 2**17), "f4", chunks=(2**12, 2**17), compression="gzip")
        file["ring"] = file["/"]
    with pytest.raises(DataError, match=r"a\.h5 has more than .* levels of groups"):
        open_collection(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["ring"]
    collection = open_collection(tmp_path / "a.h5")
    assert list(collection.modalities) == ["image"]
    reasons = {entry.split(": ")[1].split(" ")[0]: entry for entry in collection.ignored}
    assert set(reasons) == {"outside", "soft", "stored", "virtual", "bomb", "chunk"}
    assert "declares 4,503,599,627,370,496 bytes" in reasons["bomb"]
    with pytest.raises(DataError, match=r"a\.h5: bomb cannot be used: it declares"):
        open_collection(tmp_path / "a.h5", modalities=["bomb"])


def test_files_of_other_formats_are_named_with_the_line_that_converts_them(tmp_path: Path) -> None:
    tar, excel = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.npy"), io.BytesIO())
    with zipfile.ZipFile(excel, "w") as zipped:
        zipped.writestr("[Content_Types].xml", "<Types/>")
    cases: dict[str, tuple[bytes, str]] = {
        "a.npz": (pickle.dumps(np.ones((3, 2))), "a pickle, which can run code and is never read; .*numpy.save"),
        "old.pkl": (pickle.dumps({"a": [1.0, 2.0]}, protocol=0), "a pickle, which can run code"),
        "a.npy.gz": (gzip.compress(b"x" * 99), r"compressed by gzip; decompress it first: gunzip -k a\.npy\.gz"),
        "a.zst": (b"\x28\xb5\x2f\xfd" + bytes(30), "zstd -d"),
        "a.tar": (tar.getvalue(), r"a tar archive; decompress it first: tar -xf a\.tar"),
        "a.xlsx": (excel.getvalue(), "an Excel or Office file; convert it: pandas.read_excel"),
        "a.mat": (b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(90), r"scipy\.io\.loadmat\('a\.mat'\)"),
        "a.sqlite": (b"SQLite format 3\0" + bytes(90), "an SQLite database; export a table"),
        "old.feather": (b"FEA1" + bytes(30), r"pandas\.read_feather\('old\.feather'\)"),
        "lfs.npy": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        "page.npy": (b"<!DOCTYPE html><html>404</html>", "a web page or XML file, perhaps from a failed download"),
        "items.json": (json.dumps([{"v": [1, 2]}], indent=1).encode(), r"jq -c '\.\[\]' items\.json > items\.jsonl"),
        "lists.json": (json.dumps([[1, 2], [3, 4]]).encode(), r"numpy\.save\('x\.npy', .*open\('lists\.json'\)"),
        "keys.json": (json.dumps({"v": [[1, 2]]}, indent=1).encode(), r"numpy\.savez\('x\.npz', \*\*"),
        "line.json": (json.dumps({"v": [[1, 2]]}).encode(), r"one JSON object with all items in 'v'.*numpy\.savez"),
        "a.joblib": (zlib.compress(b"x" * 99), "like joblib files, and probably a pickle"),
        "wide.txt": ("a,b\n1,2\n".encode("utf-16"), "iconv -f UTF-16"),
        "w2v.bin": (b"3 4\nthe \x00\x00\x80\x3f" + bytes(40), "load_word2vec_format"),
        "a.jpg": (b"\xff\xd8\xff\xe0" + bytes(40), "a JPEG image; embed it with an encoder and save the vectors"),
        "a.gguf": (b"GGUF" + bytes(40), "a GGUF file of model weights"),
        "ivf.faiss": (b"IwFl" + bytes(60), r"faiss index of IVF,Flat.*reconstruct_n"),
    }
    for name, (content, words) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}.*{words}"):
            open_collection(tmp_path / name)


def test_folders_of_other_formats_are_named(tmp_path: Path) -> None:
    for folder, name, words in (("z", "zarr.json", "a Zarr array"), ("c", "chroma.sqlite3", "a Chroma database")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(b"{}")
        with pytest.raises(DataError, match=words):
            open_collection(tmp_path / folder)


def test_errors_of_shapes_lead_on(tmp_path: Path, space: Space) -> None:
    """Regression test: stacked modalities got the advice for tokens, and axes of length 1 were not dropped."""
    z = space["image"]
    np.save(tmp_path / "stacked.npy", np.stack(list(space.values())))
    with pytest.raises(ShapeError, match=r"perhaps it contains 2 modalities of 60 items.*a=x\[0\], b=x\[1\]"):
        open_collection(tmp_path / "stacked.npy")
    np.save(tmp_path / "tokens.npy", np.zeros((ITEMS, 7, DIM), np.float32))
    with pytest.raises(ShapeError, match=r"7 vectors per item; average over tokens or frames, x\.mean\(1\)"):
        open_collection(tmp_path / "tokens.npy")
    np.save(tmp_path / "maps.npy", np.zeros((ITEMS, 7, 7, DIM), np.float32))
    with pytest.raises(ShapeError, match=r"feature maps; average over positions"):
        open_collection(tmp_path / "maps.npy")
    np.save(tmp_path / "tokens.npy", np.zeros((ITEMS, 77), np.int64))
    with pytest.raises(ShapeError, match=r"integers such as token ids"):
        open_collection(tmp_path / "tokens.npy")
    for shape in ((ITEMS, 1, DIM), (ITEMS, DIM, 1, 1), (ITEMS, 1, 1, DIM)):
        for order in ("C", "F"):
            np.save(tmp_path / "single.npy", np.asarray(z.reshape(shape), order=order))  # type: ignore[call-overload]
            (modality,) = open_collection(tmp_path / "single.npy").modalities.values()
            np.testing.assert_array_equal(modality.load(), z)
            np.testing.assert_array_equal(modality.rows.take([5]), z[[5]])
        np.savez_compressed(tmp_path / "single.npz", image=z.reshape(shape))
        (modality,) = open_collection(tmp_path / "single.npz").modalities.values()
        np.testing.assert_array_equal(modality.load(), z)
        np.testing.assert_array_equal(modality.rows.take([5]), z[[5]])


def test_arrays_that_nobody_needs_are_left_with_a_note(tmp_path: Path, space: Space) -> None:
    extras = {
        "labels": np.array([{"a": 1}] * ITEMS, dtype=object),
        "tokens": np.zeros((ITEMS, 7, DIM), np.float32),
        "input_ids": np.zeros((ITEMS, 77), np.int64),
        "empty": np.zeros((0, DIM), np.float32),
        "scores": np.zeros((ITEMS, 1), np.float32),
        "attention_mask": np.ones((ITEMS, 7), np.bool_),
        "titles": np.array(["x"] * ITEMS),
        "when": np.array(["2020-01-01"] * ITEMS, "datetime64[D]"),
        "logit_scale": np.float32(4.6),
    }
    np.savez(tmp_path / "a.npz", **space, **extras)
    collection = open_collection(tmp_path / "a.npz")
    assert list(collection.modalities) == list(space)
    assert {entry.partition(": ")[2].split(" ")[0] for entry in collection.ignored} == set(extras)
    for entry in collection.ignored:
        key = entry.partition(" (")[0]  # This is the name as printed in the message.
        if key.endswith("scores"):  # A column of single numbers can be selected.
            assert (
                open_collection(tmp_path / "a.npz", modalities=["image", key]).modalities["scores"].rows.shape[1] == 1
            )
            continue
        with pytest.raises(UniAlignError):
            open_collection(tmp_path / "a.npz", modalities=["image", key])
    for key in (f"{tmp_path}/a.npz: image", "'image'", f"'{tmp_path}/a.npz: image'"):
        assert list(open_collection(tmp_path / "a.npz", modalities=[key]).modalities) == ["image"]


def test_arrow_stream_with_a_forged_length_raises(tmp_path: Path) -> None:
    batch = pa.record_batch({"v": pa.array([[1.0, 2.0]] * 9, pa.list_(pa.float32()))})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    content = bytearray(sink.getvalue().to_pybytes())
    content[4:8] = struct.pack("<i", 2**31 - 1)
    (tmp_path / "a.arrow").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.arrow is not a readable Arrow file"):
        open_collection(tmp_path / "a.arrow")


def test_cell_ids_as_text_join_an_array_file(tmp_path: Path, space: Space) -> None:
    """Regression test: an array of text beside the embeddings, which nobody asked for, made the file unreadable."""
    np.savez(tmp_path / "cells.npz", **space, cell_ids=np.array([f"cell-{i}" for i in range(ITEMS)]))
    collection = open_collection(tmp_path / "cells.npz")
    assert list(collection.modalities) == list(space)
    for name, z in space.items():
        np.testing.assert_array_equal(collection.modalities[name].load(), z)
