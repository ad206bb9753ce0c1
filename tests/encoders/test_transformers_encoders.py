"""Test encoders of transformers with random weights, and compare their features with those of the library."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import encoder_models as models
from unialign.encoders import create, encode_media, load, save
from unialign.errors import ConfigError, DataError

CASES = [(name, media) for name, dims in models.DIMS.items() for media in dims]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: models.save_model(name, root / name) for name in models.MODELS}


def copied(folder: Path, target: Path) -> Path:
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize(("name", "media"), CASES)
def test_a_model_is_created_saved_and_loaded_with_equal_features(name, media, folders, tmp_path):
    encoder = create(f"transformers:{folders[name]}", media=media)
    assert (encoder.media, encoder.dim) == (media, models.DIMS[name][media])
    given = models.inputs(media)
    features = encode_media(encoder, given)
    assert features.shape == (3, encoder.dim)
    assert features.std() > 1e-3
    reference = json.loads(json.dumps(encoder.reference))
    assert torch.equal(encode_media(load(reference), given), features)
    kept = tmp_path / "kept"
    kept.mkdir()
    saved = json.loads(json.dumps(save(encoder, kept)))
    assert (saved["fingerprint"], saved["stored"]) == (encoder.fingerprint, "inside")
    assert torch.equal(encode_media(load(saved, folder=kept), given), features)
    # A trained encoder has another fingerprint.
    with torch.no_grad():
        for parameter in encoder.module.parameters():
            # The positions of Whisper are fixed.
            parameter.add_(0.05 if parameter.requires_grad else 0)
    changed = encode_media(encoder, given)
    trained = tmp_path / "trained"
    trained.mkdir()
    saved = json.loads(json.dumps(save(encoder, trained)))
    assert saved["fingerprint"] != encoder.fingerprint
    assert torch.equal(encode_media(load(saved, folder=trained), given), changed)
    assert not torch.equal(changed, features)


def library_features(name: str, media: str, folder: Path) -> Tensor:
    """Compute features with the classes of the library alone."""
    import transformers

    given = models.inputs(media)
    if name == "whisper":
        model = transformers.WhisperModel.from_pretrained(folder).encoder.eval()
        extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
        rows = []
        for sound in given:
            outputs = []
            for start in range(0, len(sound.samples), 16000):
                part = sound.samples[start : start + 16000]
                frames = extractor(part, sampling_rate=16000, return_tensors="pt").input_features
                outputs.append(model(frames).last_hidden_state[0, : -(-len(part) // 320)])
            rows.append(torch.cat(outputs).mean(0))
        return torch.stack(rows)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    if media == "text":
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        if name == "siglip":
            ids = tokenizer(given, padding="max_length", max_length=24, return_tensors="pt")["input_ids"]
            return model.get_text_features(input_ids=ids).pooler_output
        rows = []
        for text in given:  # one at a time, without padding
            tokens = {key: value for key, value in tokenizer(text, return_tensors="pt").items() if "type" not in key}
            if name == "bert":
                rows.append(model(**tokens).last_hidden_state.mean(1))
            else:
                rows.append(model.get_text_features(**tokens).pooler_output)
        return torch.cat(rows)
    if media == "audio":
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
        if name == "ast":
            values = extractor([sound.samples for sound in given], sampling_rate=16000, return_tensors="pt")
            return model(**values).pooler_output
        # The library takes a random part of sounds that are too long; the encoder takes the start.
        values = extractor([sound.samples[:16000] for sound in given], sampling_rate=16000, return_tensors="pt")
        values["is_longer"] = torch.zeros(3, 1, dtype=torch.bool)
        return model.get_audio_features(**values).pooler_output
    kind = {"clip": "CLIP", "siglip": "Siglip", "dinov2": "Bit", "vit": "ViT", "videomae": "VideoMAE"}[name]
    processor = getattr(transformers, f"{kind}ImageProcessorPil").from_pretrained(folder)
    if media == "video":
        values = processor([list(video.frames) for video in given], return_tensors="pt")
        return model(**values).last_hidden_state.mean(1)
    from PIL import Image

    pixels = processor([Image.fromarray(image) for image in given], return_tensors="pt")
    if name in ("clip", "siglip"):
        return model.get_image_features(**pixels).pooler_output
    return model(**pixels).last_hidden_state[:, 0]


@pytest.mark.parametrize(("name", "media"), CASES)
@torch.no_grad()
def test_features_equal_those_of_the_library(name, media, folders):
    encoder = create(f"transformers:{folders[name]}", media=media)
    expected = library_features(name, media, folders[name])
    found = encode_media(encoder, models.inputs(media))
    if name.startswith("clap"):  # the library returns unit vectors
        found = torch.nn.functional.normalize(found, dim=1)
    torch.testing.assert_close(found, expected, atol=2e-4 if media == "audio" else 2e-6, rtol=1e-4)


def test_features_do_not_depend_on_the_batch(folders):
    for name, media in CASES:
        encoder = create(f"transformers:{folders[name]}", media=media)
        given = models.inputs(media)
        together = encode_media(encoder, given)
        for other in (
            encode_media(encoder, given, batch_size=1),
            encode_media(encoder, [*given[:1], None, *given[1:]]),
        ):
            kept = other[other.abs().sum(1) > 0]
            torch.testing.assert_close(kept, together, atol=1e-5, rtol=1e-5)


def test_poolings_differ_and_are_part_of_the_fingerprint(folders):
    for name, media, pool in (("bert", "text", "cls"), ("dinov2", "image", "mean"), ("ast", "audio", "mean")):
        default, other = (create(f"transformers:{folders[name]}{option}") for option in ("", f"?pool={pool}"))
        assert default.fingerprint != other.fingerprint
        given = models.inputs(media)
        assert not torch.allclose(encode_media(default, given), encode_media(other, given), atol=1e-3)
    with pytest.raises(ConfigError, match=r"unknown option pool .*'max'"):
        create(f"transformers:{folders['bert']}?pool=max")


def test_windows_of_whisper_may_be_shorter(folders):
    short = create(f"transformers:{folders['whisper']}?window=0.5&seconds=2")
    assert short.decoding.seconds == 2
    assert short.prepare(models.sounds()[2])["frames"].shape == (3, 80, 50)
    assert torch.isfinite(encode_media(short, models.sounds())).all()
    with pytest.raises(ConfigError, match="window 2 exceeds the 1 seconds of the model"):
        create(f"transformers:{folders['whisper']}?window=2")


def test_a_model_with_several_towers_needs_a_choice(folders):
    with pytest.raises(ConfigError, match=r"has tower=vision \(image\) or tower=text \(text\); choose one"):
        create(f"transformers:{folders['clip']}")
    with pytest.raises(ConfigError, match="not audio"):
        create(f"transformers:{folders['clip']}", media="audio")
    vision = create(f"transformers:{folders['clip']}?tower=vision")
    assert vision.media == "image"
    assert vision.fingerprint != create(f"transformers:{folders['clip']}?tower=text").fingerprint


def test_half_precision_is_close_and_has_another_fingerprint(folders):
    full, half = (create(f"transformers:{folders['bert']}", dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert half.fingerprint != full.fingerprint
    features = encode_media(half, models.TEXTS)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, encode_media(full, models.TEXTS), atol=0.05, rtol=0.05)
    assert load(json.loads(json.dumps(half.reference))).fingerprint == half.fingerprint


def test_gradients_reach_the_weights(folders):
    encoder = create(f"transformers:{folders['clip']}", media="image")
    batch = encoder.collate([encoder.prepare(image) for image in models.images()])
    encoder.encode(batch).square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.module.parameters() if parameter.requires_grad)


def changed_json(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_code_of_a_repository_is_not_run(folders, tmp_path):
    folder = copied(folders["bert"], tmp_path / "code")
    canary = tmp_path / "canary"
    (folder / "modeling.py").write_text(f"open({str(canary)!r}, 'w').close()\nclass Model: pass\n")
    auto_map = {"AutoModel": "modeling.Model", "AutoConfig": "modeling.Model", "AutoTokenizer": "modeling.Model"}
    for name in ("config.json", "tokenizer_config.json"):
        before = (folder / name).read_text()
        changed_json(folder, name, auto_map=auto_map)
        with pytest.raises(ConfigError, match=f"{name} names Python code to run"):
            create(f"transformers:{folder}")
        (folder / name).write_text(before)
    changed_json(folder, "config.json", model_type="secret")
    with pytest.raises(ConfigError, match=r"'secret' .* is not supported; expected one of clip, .*encoders.wrap"):
        create(f"transformers:{folder}")
    assert not canary.exists()


def test_only_safetensors_are_read(folders, tmp_path):
    folder = copied(folders["bert"], tmp_path / "pickle")
    state = {"weight": torch.zeros(2)}
    canary = tmp_path / "canary"

    class Harmful:
        def __reduce__(self) -> Any:
            return (open, (str(canary), "w"))

    torch.save({**state, "harm": Harmful()}, folder / "model.safetensors")
    with pytest.raises(DataError, match="is not a safetensors file; it is a pickle or an archive"):
        create(f"transformers:{folder}")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"has no model.safetensors; pytorch_model.bin is a pickle"):
        create(f"transformers:{folder}")
    assert not canary.exists()
    for damage in (b"", b"\0" * 100, (folders["bert"] / "model.safetensors").read_bytes()[:-50]):
        (folder / "model.safetensors").write_bytes(damage)
        with pytest.raises(DataError, match=r"model.safetensors|cannot be loaded"):
            create(f"transformers:{folder}")


def test_shards_must_be_in_the_folder(folders, tmp_path):
    from transformers import BertModel

    folder = copied(folders["bert"], tmp_path / "shards")
    whole = create(f"transformers:{folder}")
    model = BertModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="10KB")
    sharded = create(f"transformers:{folder}")
    assert len(sharded.reference["weights"]) > 2
    torch.testing.assert_close(encode_media(sharded, models.TEXTS), encode_media(whole, models.TEXTS))
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    name = next(iter(index["weight_map"]))
    index["weight_map"][name] = "../model.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="must map tensors to safetensors files in the same folder"):
        create(f"transformers:{folder}")


def test_weights_that_do_not_fit_raise(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = copied(folders["bert"], tmp_path / "missing")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "query.weight" in name)
    save_file(
        {key: value for key, value in tensors.items() if key != name}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(DataError, match=r"1 tensors are missing .*query.weight"):
        create(f"transformers:{folder}")
    save_file(tensors | {name: torch.zeros(3, 3)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match="1 tensors are missing or have another shape"):
        create(f"transformers:{folder}")


def test_a_reference_finds_changed_files(folders, tmp_path):
    folder = copied(folders["clip"], tmp_path / "changed")
    encoder = create(f"transformers:{folder}", media="image")
    reference = json.loads(json.dumps(encoder.reference))
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(DataError, match=r"model.safetensors is not the file that the reference names"):
        load(reference)
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    changed_json(folder, "preprocessor_config.json", image_std=[0.3, 0.3, 0.3])
    with pytest.raises(DataError, match="differs from that of the reference: prepare is"):
        load(reference)
    # The tokenizer does not matter for the image encoder.
    changed_json(folder, "preprocessor_config.json", image_std=reference["prepare"]["std"])
    changed_json(folder, "tokenizer_config.json", model_max_length=20)
    assert load(reference).fingerprint == encoder.fingerprint
    with pytest.raises(DataError, match=r"needs the folder .*, which does not exist"):
        load({**reference, "name": str(tmp_path / "gone")})


def test_adapters_raise(folders, tmp_path):
    folder = copied(folders["clip"], tmp_path / "adapted")
    reference = json.loads(json.dumps(create(f"transformers:{folder}", media="image").reference))
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(ConfigError, match=r"adapter_config\.json adds an adapter to the model"):
        create(f"transformers:{folder}", media="image")
    with pytest.raises(ConfigError, match=r"adapter_config\.json adds an adapter to the model"):
        load(reference)


def test_a_repository_is_read_from_the_cache_at_its_commit(folders, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "models--owner--clip"
    copied_to = cached / "snapshots"
    copied_to.mkdir(parents=True)
    copied(folders["clip"], copied_to / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    (copied_to / commit / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    encoder = create("transformers:owner/clip", media="image", offline=True)
    assert encoder.reference["revision"] == commit
    assert encoder.reference["license"] == "Apache-2.0"
    loaded = load(json.loads(json.dumps(encoder.reference)), offline=True)
    assert loaded.reference == encoder.reference
    # Neither the place nor the commit is part of the fingerprint.
    assert create(f"transformers:{folders['clip']}", media="image").fingerprint == encoder.fingerprint
    with pytest.raises(DataError, match="is not in the local cache, and downloads are disabled"):
        create("transformers:owner/other", offline=True)
    with pytest.raises(DataError, match="downloads are disabled"):
        create("transformers:owner/clip@other", media="image")


def test_each_listed_fact_changes_the_fingerprint(folders, tmp_path):
    place = copied(folders["clip"], tmp_path / "facts")
    before = create(f"transformers:{place}", media="image").fingerprint
    path = place / "preprocessor_config.json"
    original = path.read_text()
    for change in (
        {"resample": 2},
        {"size": {"shortest_edge": 21}},
        {"crop_size": {"height": 15, "width": 16}},
        {"image_mean": [0.4, 0.4, 0.4]},
        {"rescale_factor": 0.004},
        {"do_normalize": False},
    ):
        changed_json(place, path.name, **change)
        if change.get("crop_size") is None:
            assert create(f"transformers:{place}", media="image").fingerprint != before, change
        path.write_text(original)
    text = create(f"transformers:{place}", media="text")
    changed_json(place, "tokenizer_config.json", model_max_length=20)
    assert create(f"transformers:{place}", media="text").fingerprint != text.fingerprint
    # Facts about the file and the library do not change it.
    changed_json(place, "config.json", transformers_version="4.1.0", _name_or_path="x/y", architectures=["Other"])
    changed_json(place, path.name, processor_class="Other")
    for device, media in (("auto", "image"), ("cpu", "image")):
        assert create(f"transformers:{place}", media=media, device=device).fingerprint == before


def test_videos_of_another_length_are_sampled(folders):
    encoder = create(f"transformers:{folders['videomae']}")
    video = models.videos(frames=9)[0]
    frames = encoder.prepare(video)["pixels"]
    assert frames.shape == (4, 3, 16, 16)
    for place, frame in zip((1, 3, 5, 7), frames, strict=True):
        expected = encoder.prepare.prepare(video.frames[place])["pixels"]
        assert np.array_equal(frame, expected)
