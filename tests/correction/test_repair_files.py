"""Test round trips and exports of saved repairs, and errors for modified files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from unialign.correction import Repair, repair
from unialign.errors import CheckpointError
from unialign.io import read_json, write_json, write_tensors


def rows() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(200, 10, generator=generator)
    shift = 3 * torch.eye(10)[0]
    return {"a": shared + shift, "text-b": shared + 0.5 * torch.randn(200, 10, generator=generator)}


def test_round_trip_keeps_every_bit(tmp_path: Path) -> None:
    z = rows()
    found = repair(z)
    found.save(tmp_path / "folder")
    loaded = Repair.load(tmp_path / "folder")
    assert loaded.metadata == found.metadata
    assert loaded.table == found.table
    assert (loaded.choice, loaded.index_choice) == (found.choice, found.index_choice)
    for name, x in found.apply(z).items():
        assert torch.equal(loaded.apply(z)[name], x)
    both = {"query_modality": "a", "gallery_modality": "text-b"}
    assert torch.equal(loaded.scores(z["a"], z["text-b"], **both), found.scores(z["a"], z["text-b"], **both))
    found.save(tmp_path / "folder")
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_npz_holds_the_affine_map(tmp_path: Path) -> None:
    z = rows()
    found = repair(z, methods=["coral"])
    found.export_npz(tmp_path / "new" / "repair.npz")
    with np.load(tmp_path / "new" / "repair.npz") as arrays:
        assert set(arrays) == {"weight.a", "bias.a", "weight.text-b", "bias.text-b"}
        for name, x in z.items():
            unit = x.double().numpy() / np.linalg.norm(x.double().numpy(), axis=1, keepdims=True)
            mapped = unit @ arrays[f"weight.{name}"] + arrays[f"bias.{name}"]
            mapped /= np.linalg.norm(mapped, axis=1, keepdims=True)
            np.testing.assert_allclose(found.apply({name: x.double()})[name].numpy(), mapped, atol=1e-12)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write"):
        found.export_npz(tmp_path / "file" / "repair.npz")
    with pytest.raises(CheckpointError, match="Is a directory"):
        found.export_npz(tmp_path)


def test_modified_files_are_rejected(tmp_path: Path) -> None:
    repair(rows()).save(tmp_path)
    body = read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text(json.dumps(body | {"checksum": "0"}))
    with pytest.raises(CheckpointError):
        Repair.load(tmp_path)
    for change in (
        {"dim": 11},
        {"dim": 10**12},
        {"choice": "center_csls"},
        {"references": {}},
        {"references": {"a": 10**30}},
        {"unknown": 1},
    ):
        (tmp_path / "config.json").unlink()
        write_json(tmp_path / "config.json", body | {"repair": body["repair"] | change})
        with pytest.raises(CheckpointError):
            Repair.load(tmp_path)
    layers = repair(rows())._layers.state_dict()
    layers["layers.0.weight"][0, 0] = torch.nan
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "config.json").unlink()
    digest = write_tensors(tmp_path / "model.safetensors", layers)
    write_json(tmp_path / "config.json", body | {"weights": digest})
    with pytest.raises(CheckpointError, match="NaN"):
        Repair.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(CheckpointError):
        Repair.load(tmp_path)
    with pytest.raises(CheckpointError, match="repair"):
        Repair.load(tmp_path / "absent")
