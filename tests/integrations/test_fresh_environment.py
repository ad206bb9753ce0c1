"""Test that other tools load a saved folder without unialign, and return the vectors of the space."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import tiny_towers

pytestmark = [
    pytest.mark.integrations,
    pytest.mark.skipif(find_spec("haystack") is None, reason="needs the environment of `make test-integrations`"),
]


def test_other_tools_return_the_vectors_of_the_space(
    folder: Path, vectors: dict[str, np.ndarray], tmp_path: Path
) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(tiny_towers.TEXTS))
    for place, image in enumerate(tiny_towers.images()):
        image.save(tmp_path / f"{place}.png")
    np.save(tmp_path / "sounds.npy", [sound["audio"]["array"] for sound in tiny_towers.sounds()])
    script = Path(__file__).with_name("read_folder.py")
    # Isolated mode ignores PYTHONPATH and the current folder, which would provide unialign.
    command = [sys.executable, "-I", str(script), str(folder), str(tmp_path), str(tmp_path / "found.npz")]
    options = {"cwd": tmp_path, "env": {**os.environ, "HF_HUB_OFFLINE": "1"}, "timeout": 240}
    result = subprocess.run(command, capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stderr[-3000:]
    with np.load(tmp_path / "found.npz") as found:
        assert len(found.files) == 8
        for key in found.files:
            kind = key.split("/")[1].split()[0]
            np.testing.assert_allclose(found[key], vectors[kind], atol=1e-5, rtol=0, err_msg=key)
