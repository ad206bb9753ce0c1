"""Test that a new process without network encodes raw media to the embeddings of the embedded store."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from raw_spaces import ENCODERS, raw
from unialign import embed, fit
from unialign.config import TrainConfig
from unialign.items import Items


def test_a_new_process_without_network(tmp_path: Path) -> None:
    for place, pixels in enumerate(raw()["image"]):
        if pixels is not None:
            Image.fromarray(pixels).save(tmp_path / f"{place}.png")
    images = [None if pixels is None else f"{place}.png" for place, pixels in enumerate(raw()["image"])]
    sensors = [None if row is None else row.tolist() for row in raw()["sensor"]]
    # The last text is absent, and white space around a text does not matter.
    texts = [f"\r\n {text}\r\n" for text in raw()["text"][:-1]] + ["  "]
    records = [
        {"image": image, "text": text, "sensor": sensor, "split": "train" if place % 3 else "test"}
        for place, (image, text, sensor) in enumerate(zip(images, texts, sensors, strict=True))
    ]
    items = Items.from_records(records, kinds={"image": "image", "text": "text", "sensor": "array"}, root=tmp_path)
    store = embed(items, ENCODERS, tmp_path / "store", workers=0, progress="none")
    config = TrainConfig(epochs=2, batch_size=8, dim=6, hidden=8, save_steps=None)
    space = fit(store, config, out=tmp_path / "run", progress="none").space
    stored = space.encode(
        {name: store.array(name) for name in store.modalities},
        present={name: store.present(name) for name in store.modalities},
    )
    paths = [None if image is None else str(tmp_path / image) for image in images]
    (tmp_path / "raw.json").write_text(json.dumps({"image": paths, "text": texts, "sensor": sensors}))
    script = Path(__file__).with_name("encode_offline.py")
    arguments = [str(tmp_path / name) for name in ("run/space", "raw.json", "z.npz")]
    done = subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "z.npz") as found:
        assert set(found.files) == set(stored) == {"image", "text", "sensor"}
        for name, z in stored.items():
            np.testing.assert_allclose(found[name], z.numpy(), atol=1e-6, rtol=0)
            assert np.array_equal(found[name].any(1), store.present(name))
    assert not store.present("text")[-1]
