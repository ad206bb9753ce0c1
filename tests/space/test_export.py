"""Test that exported files compute the embeddings of the space."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import raw_spaces
from raw_spaces import make_space, raw
from unialign import closed_form
from unialign.encoders import wrap
from unialign.errors import CheckpointError, ConfigError, MissingDependencyError
from unialign.media import as_media
from unialign.space import Space, _export


def run_onnx(path: Path, inputs: dict[str, Tensor]) -> Tensor:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0])


def run_torch(path: Path, inputs: dict[str, Tensor]) -> Tensor:
    found: Tensor = torch.export.load(path).module()(*inputs.values())
    return found


RUN = {"onnx": run_onnx, "torch": run_torch}


def described(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "io.json").read_text())
    return found


def spaces() -> dict[str, Space]:
    torch.manual_seed(0)
    dims = {"a/b c": 6, "text": 5}
    fitted = closed_form.gcca(raw_spaces.store(), dim=4, regularization=0.1, spectrum_power=0.5)
    repaired = Space(dims, dim=4, head="linear", input_norm="unit")
    layer = (torch.eye(4) + 0.3 * torch.randn(4, 4), 0.2 * torch.randn(4))
    return {
        "mlp": Space(dims, dim=4, hidden=7, dropout=0.5),
        "repaired": repaired.with_output_affine({"text": layer}),
        "frozen": Space(dims, dim=4, frozen={"text": "whiten"}, input_norm="none").double(),
        "kernel": fitted,
    }


@pytest.mark.parametrize(
    ("case", "format"),
    [
        ("mlp", "onnx"),
        ("mlp", "torch"),
        ("repaired", "onnx"),
        ("repaired", "torch"),
        ("frozen", "torch"),
        ("kernel", "torch"),
        pytest.param("kernel", "onnx", marks=pytest.mark.slow),
    ],
)
def test_heads(case: str, format: Any, tmp_path: Path) -> None:
    space = spaces()[case].train()
    before = space.state_dict()
    names = space.modalities[-1:] if case == "kernel" else space.modalities
    space.export(tmp_path / "out", format=format, modalities=names)
    assert space.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in space.state_dict().items())
    found = described(tmp_path / "out")
    assert found["format"] == format
    assert tuple(found["modalities"]) == names
    for name, entry in found["modalities"].items():
        assert entry["inputs"] == [{"name": "features", "dtype": "float32", "shape": ["batch", space.dims[name]]}]
        assert entry["output"] == {"name": "embedding", "dtype": "float32", "shape": ["batch", 4], "norm": 1}
        for count in (1, 3, 40):
            x = torch.randn(count, space.dims[name])
            z = RUN[format](tmp_path / "out" / entry["file"], {"features": x})
            expected = space.encode({name: x})[name].float()
            torch.testing.assert_close(z, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_built_in_encoders(format: Any, tmp_path: Path) -> None:
    space = make_space()
    space.export(tmp_path, format=format, modalities=["text", "image"], encoders=True)
    for name, entry in described(tmp_path)["modalities"].items():
        assert entry["contains_encoder"] is True
        assert entry["encoder"]["fingerprint"] == raw_spaces.encoder(name).fingerprint
        assert entry["preprocessing"]["prepare"] == space.encoders[name]["prepare"]
        encoder = raw_spaces.encoder(name)
        values = [value for value in raw()[name] if value is not None]
        for count in (1, 17):
            media = [as_media(value, encoder.media, decoding=encoder.decoding) for value in values[:count]]
            batch = encoder.collate([encoder.prepare(value) for value in media])
            assert list(batch) == [entry["name"] for entry in entry["inputs"]]
            found = RUN[format](tmp_path / entry["file"], batch)
            torch.testing.assert_close(found, space.encode({name: values[:count]})[name], atol=1e-5, rtol=0)


def test_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    space = spaces()["mlp"]
    space.export(tmp_path / "out", format="torch")
    space.export(tmp_path / "out", format="torch", modalities=("text", "text"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0-text.pt2", "io.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_other_files_are_kept(tmp_path: Path) -> None:
    space = spaces()["mlp"]
    for place, files in enumerate(({"notes.txt": "mine"}, {"io.json": "{}"}, {"io.json": '{"library": "unialign"}'})):
        folder = tmp_path / str(place)
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
        with pytest.raises(CheckpointError, match="which is not from an earlier export; export to another folder"):
            space.export(folder, format="torch")
        assert {path.name: path.read_text() for path in folder.iterdir()} == files
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError):
        space.export(tmp_path / "file", format="torch")


def test_a_file_that_computes_other_embeddings_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = spaces()["mlp"]
    space.export(tmp_path / "out", format="torch")
    before = (tmp_path / "out/io.json").read_bytes()
    suffix, write, read = _export._FORMATS["torch"]
    for change in (2e-5, float("nan")):
        monkeypatch.setitem(
            _export._FORMATS, "torch", (suffix, write, lambda path, change=change: lambda x: read(path)(x) + change)
        )
        with pytest.raises(CheckpointError, match=r"differ by (2e-05|inf) from those of the space"):
            space.export(tmp_path / "out", format="torch")
        assert (tmp_path / "out/io.json").read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


def prepare(text: str) -> dict[str, np.ndarray]:
    return {"input": np.zeros(4, np.float32)}


def test_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = wrap(torch.nn.Linear(4, 3), media="text", dim=3, prepare=prepare)
    space = Space({"text": 3, "x": 2}, dim=2).with_encoders({"text": wrapped})
    for options, message in (
        ({"format": "tensorrt"}, "unknown format 'tensorrt'"),
        ({"modalities": ["y"]}, "unknown modality 'y' in `modalities`"),
        ({"modalities": "text"}, "modalities must be a list"),
        ({"modalities": []}, "nothing to export"),
        ({"modalities": ["x"], "encoders": True}, "no encoder of 'x'"),
        ({"encoders": True}, "encoder module:Linear of 'text' cannot be exported, since it is not built in"),
    ):
        with pytest.raises(ConfigError, match=message):
            space.export(tmp_path / "out", **{"format": "torch", **options})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="the space has no encoders"):
        Space({"x": 2}).export(tmp_path / "out", encoders=True)
    with pytest.raises(ConfigError, match="no landmarks"):
        Space({"x": 2}, dim=2, head="kernel").export(tmp_path / "out", format="torch")
    for name in ("onnx", "onnxscript", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(MissingDependencyError, match=rf"needs {name}.*unialign\[export\]"):
                space.export(tmp_path / "out")
    assert not list(tmp_path.iterdir())
