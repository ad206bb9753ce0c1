"""Test encoders of sentence-transformers, and compare their features with those of the library."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import encoder_models as models
from unialign.encoders import create, encode_media, load, save
from unialign.errors import ConfigError, DataError

pytest.importorskip("sentence_transformers")


def saved_model(folder: Path, base: str, *modules: Any, **options: Any) -> tuple[Any, Path]:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Transformer

    source = models.save_model(base, folder / "source")
    model = SentenceTransformer(modules=[Transformer(str(source)), *modules], device="cpu", **options)
    model.save_pretrained(str(folder / "saved"), create_model_card=False)
    return model, folder / "saved"


def check(folder: Path, model: Any, media: str, inputs: list[Any], tmp_path: Path) -> Any:
    encoder = create(f"sentence-transformers:{folder}", media=media)
    given = models.inputs(media)
    features = encode_media(encoder, given)
    expected = torch.as_tensor(model.encode(inputs))
    torch.testing.assert_close(features, expected, atol=1e-6, rtol=1e-5)
    loaded = load(json.loads(json.dumps(encoder.reference)))
    assert torch.equal(encode_media(loaded, given), features)
    for change, name in ((False, "kept"), (True, "trained")):
        if change:
            with torch.no_grad():
                for parameter in encoder.module.parameters():
                    parameter.add_(0.02)
        target = tmp_path / name
        target.mkdir()
        saved = json.loads(json.dumps(save(encoder, target)))
        assert (saved["fingerprint"] == encoder.fingerprint) is not change
        found = encode_media(load(saved, folder=target), given)
        assert torch.equal(found, encode_media(encoder, given))
    return encoder


@pytest.mark.parametrize("case", ["mean", "cls", "max", "dense", "prompt"])
def test_texts(case, tmp_path):
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling

    modules = {
        "mean": [Pooling(16, "mean"), Normalize()],
        "cls": [Pooling(16, "cls")],
        "max": [Pooling(16, "max")],
        "dense": [Pooling(16, "mean"), Dense(16, 5)],
        "prompt": [Pooling(16, "mean")],
    }[case]
    options = {"prompts": {"query": "find "}, "default_prompt_name": "query"} if case == "prompt" else {}
    model, folder = saved_model(tmp_path, "bert", *modules, **options)
    encoder = check(folder, model, "text", models.TEXTS, tmp_path)
    uses_library = "modules" in encoder.reference["architecture"]
    assert uses_library is (case in ("max", "dense"))
    assert encoder.dim == (5 if case == "dense" else 16)
    if case == "prompt":
        plain = create(f"sentence-transformers:{folder}?prefix=")
        assert plain.fingerprint != encoder.fingerprint
        expected = torch.as_tensor(model.encode(models.TEXTS, prompt=""))
        torch.testing.assert_close(encode_media(plain, models.TEXTS), expected, atol=1e-6, rtol=1e-5)
        with pytest.raises(ConfigError, match="unknown prompt 'other'"):
            create(f"sentence-transformers:{folder}?prompt=other")


def test_images_and_sounds(tmp_path):
    from PIL import Image
    from sentence_transformers.sentence_transformer.modules import Pooling

    cases: dict[str, Any] = {
        "vit": ("image", 12, [Image.fromarray(image) for image in models.images()]),
        "ast": ("audio", 8, [{"array": s.samples, "sampling_rate": s.rate} for s in models.sounds()]),
    }
    for base, (media, dim, inputs) in cases.items():
        place = tmp_path / base
        model, folder = saved_model(place, base, Pooling(dim, "mean"))
        check(folder, model, media, inputs, place)
        with pytest.raises(ConfigError, match=f"encodes {media}, not text"):
            create(f"sentence-transformers:{folder}", media="text")


def test_other_classes_and_pickles_are_not_loaded(tmp_path):
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling

    _, folder = saved_model(tmp_path, "bert", Pooling(16, "mean"), Dense(16, 5))
    listed = json.loads((folder / "modules.json").read_text())
    for change, error, message in (
        ({"type": "os.path.join"}, ConfigError, "'os.path.join', which is not part of sentence-transformers"),
        ({"path": "../other"}, DataError, "is outside"),
    ):
        (folder / "modules.json").write_text(json.dumps([listed[0], listed[1] | change]))
        with pytest.raises(error, match=message):
            create(f"sentence-transformers:{folder}")
    for damage in ("[]", "{", '[{"path": ""}]'):
        (folder / "modules.json").write_text(damage)
        with pytest.raises(DataError, match="is damaged"):
            create(f"sentence-transformers:{folder}")
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"pytorch_model\.bin is a pickle"):
        create(f"sentence-transformers:{folder}")
    (folder / "modules.json").unlink()
    with pytest.raises(DataError, match=r"has no modules\.json"):
        create(f"sentence-transformers:{folder}")


def test_adapters_raise(tmp_path):
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling

    _, folder = saved_model(tmp_path, "bert", Pooling(16, "max"), Dense(16, 5))
    (folder / "0_Transformer").mkdir(exist_ok=True)
    (folder / "0_Transformer" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(ConfigError, match=r"adapter_config\.json adds an adapter to the model"):
        create(f"sentence-transformers:{folder}")
