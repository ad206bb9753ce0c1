"""Test that a new process without network encodes raw media to the embeddings of the stored features."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from raw_spaces import raw, store
from unialign import fit
from unialign.config import TrainConfig


def test_a_new_process_without_network(tmp_path: Path) -> None:
    data = store()
    config = TrainConfig(epochs=2, batch_size=8, dim=6, hidden=8, save_steps=None)
    space = fit(data, config, out=tmp_path / "run", progress="none").space
    stored = space.encode(
        {name: data.array(name) for name in data.modalities},
        present={name: data.present(name) for name in data.modalities},
    )
    inputs = {"text": raw()["text"], "sensor": [None if row is None else row.tolist() for row in raw()["sensor"]]}
    inputs["image"] = []
    for place, pixels in enumerate(raw()["image"]):
        path = tmp_path / f"{place}.png"
        inputs["image"].append(None if pixels is None else str(path))
        if pixels is not None:
            Image.fromarray(pixels).save(path)
    (tmp_path / "raw.json").write_text(json.dumps(inputs))
    script = Path(__file__).with_name("encode_offline.py")
    command = [
        sys.executable,
        str(script),
        str(tmp_path / "run/space"),
        str(tmp_path / "raw.json"),
        str(tmp_path / "z.npz"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "z.npz") as found:
        assert set(found.files) == set(stored)
        for name, z in stored.items():
            np.testing.assert_allclose(found[name], z.numpy(), atol=1e-6, rtol=0)
            assert np.array_equal(found[name].any(1), data.present(name))
