"""Test that the SentenceTransformer folder of a space returns equal vectors, and errors for unsupported models."""

import copy
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import tiny_towers
from tiny_towers import make_space
from unialign.errors import CheckpointError, ConfigError, MissingDependencyError
from unialign.space import Space, _sentence_transformer as export, _towers

pytestmark = pytest.mark.integrations
FORMAT: Any = "sentence-transformers"


def load(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", trust_remote_code=False, local_files_only=True)


def inputs(kind: str) -> list[Any]:
    return {"text": tiny_towers.TEXTS, "image": tiny_towers.images(), "audio": tiny_towers.sounds()}[kind]


def check_equal(space: Space, folder: Path, *kinds: str) -> None:
    model = load(folder)
    for kind in kinds:
        expected = space.encode({kind: tiny_towers.features(kind)})[kind].numpy()
        np.testing.assert_allclose(model.encode(inputs(kind)), expected, atol=1e-6, rtol=0)


def test_both_readers_return_the_vectors_of_the_space(
    space: Space, folder: Path, vectors: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model = load(folder)
    assert not [record for record in caplog.records if "Tanh" in record.getMessage()]
    assert model.modalities == ["audio", "image", "text"]
    assert model.get_embedding_dimension() == 6
    for kind, expected in vectors.items():
        found = model.encode(inputs(kind))
        np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    loaded = Space.from_pretrained(folder)
    assert loaded.modalities == ("text", "image", "audio", "sensor")
    for name, dim in loaded.dims.items():
        rows = torch.randn(3, dim)
        assert torch.equal(loaded.encode({name: rows})[name], space.encode({name: rows})[name])


def test_no_file_needs_code_or_is_a_pickle(folder: Path) -> None:
    types = [entry["type"] for entry in json.loads((folder / "modules.json").read_text())]
    types += json.loads((folder / "0_Router" / "router_config.json").read_text())["types"].values()
    assert all(name.startswith("sentence_transformers.") for name in types)
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors", ".md"}


@pytest.mark.parametrize(
    "options",
    [
        {"head": "linear"},
        {"head": "linear", "input_norm": "unit"},
        {"input_norm": "unit"},
        {"input_norm": "none"},
        {"frozen": {"text": "whiten", "image": "center"}},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_each_head_and_normalization(options: dict[str, Any], tmp_path: Path) -> None:
    space = make_space(**options)
    encoders = {kind: tiny_towers.towers()[kind] for kind in ("text", "image")}
    before = torch.get_rng_state()
    space.save_pretrained(tmp_path, format=FORMAT, encoders=encoders)
    assert torch.equal(torch.get_rng_state(), before)
    check_equal(space, tmp_path, "text", "image")


def test_a_repaired_space(tmp_path: Path) -> None:
    """The affine map of a repair is applied between two normalizations to unit length."""
    torch.manual_seed(9)
    layers = {kind: (torch.eye(6) + 0.3 * torch.randn(6, 6), 0.2 * torch.randn(6)) for kind in ("text", "sensor")}
    space = make_space().with_output_affine(layers)
    encoders = {kind: tiny_towers.towers()[kind] for kind in ("text", "image")}
    space.save_pretrained(tmp_path, format=FORMAT, encoders=encoders)
    check_equal(space, tmp_path, "text", "image")


def test_a_space_in_float64_and_training_mode(tmp_path: Path) -> None:
    space = make_space(dropout=0.5).double().train()
    space.save_pretrained(tmp_path, format=FORMAT, encoders={"text": tiny_towers.text_tower()})
    assert space.training
    found = load(tmp_path).encode(tiny_towers.TEXTS)
    expected = space.encode({"text": tiny_towers.features("text")})["text"].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


def test_an_encoder_as_model_folder_or_tuple(space: Space, tmp_path: Path) -> None:
    model = tiny_towers.sentence_transformer(tiny_towers.text_tower())
    model.prompts = {"query": "find "}
    model.save_pretrained(str(tmp_path / "encoder"))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    for place, encoder in enumerate((model, tmp_path / "encoder", str(tmp_path / "encoder"))):
        space.save_pretrained(tmp_path / str(place), format=FORMAT, encoders={"text": encoder})
        check_equal(space, tmp_path / str(place), "text")
        assert load(tmp_path / str(place)).prompts["query"] == "find "
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_default_prompt_is_kept(space: Space, tmp_path: Path) -> None:
    model = tiny_towers.sentence_transformer(tiny_towers.text_tower())
    model.prompts, model.default_prompt_name = {"query": "find "}, "query"
    encoders = {"text": model, "image": tiny_towers.image_tower()}
    space.save_pretrained(tmp_path, format=FORMAT, encoders=encoders)
    loaded = load(tmp_path)
    expected = space.encode({"text": model.encode(tiny_towers.TEXTS)})["text"].numpy()
    np.testing.assert_allclose(loaded.encode(tiny_towers.TEXTS), expected, atol=1e-6, rtol=0)
    check_equal(space, tmp_path, "image")


def test_an_encoder_of_two_kinds_is_stored_once(tmp_path: Path) -> None:
    clip = tiny_towers.clip_tower()
    space = Space({"text": 10, "image": 10, "photo": 10}, dim=6, head="linear").eval()
    space.save_pretrained(tmp_path / "both", format=FORMAT, encoders={"text": clip, "image": clip})
    assert len(list((tmp_path / "both" / "0_Router").glob("*_Transformer"))) == 1
    tower, model = tiny_towers.sentence_transformer(clip), load(tmp_path / "both")
    for kind in ("text", "image"):
        expected = space.encode({kind: tower.encode(inputs(kind))})[kind].numpy()
        np.testing.assert_allclose(model.encode(inputs(kind)), expected, atol=1e-6, rtol=0)
    # A model with only a text route must not list images.
    space.save_pretrained(tmp_path / "text", format=FORMAT, encoders={"text": clip})
    assert load(tmp_path / "text").modalities == ["text"]
    with pytest.raises(ConfigError, match=r"'photo' accepts text, image, so the media type of 'photo' is unknown"):
        space.save_pretrained(tmp_path / "photo", format=FORMAT, encoders={"photo": clip})


def test_a_clap_encoder(tmp_path: Path) -> None:
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, ClapProcessor

    torch.manual_seed(8)
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "hidden_size": 8}
    audio = {
        "spec_size": 64, "num_mel_bins": 16, "patch_size": 4, "patch_stride": [4, 4], "patch_embeds_hidden_size": 8,
        "depths": [1, 1], "num_attention_heads": [2, 2], "hidden_size": 16, "window_size": 4,
    }  # fmt: skip
    text = {"vocab_size": len(tiny_towers.tokenizer()), "max_position_embeddings": 80, "pad_token_id": 0, **sizes}
    model = ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=10)).eval()
    options = {"feature_size": 16, "max_length_s": 1, "truncation": "rand_trunc", "padding": "repeatpad"}
    processor = ClapProcessor(ClapFeatureExtractor(**options), tiny_towers.tokenizer())
    space = Space({"audio": 10}, dim=6).eval()
    space.save_pretrained(tmp_path, format=FORMAT, encoders={"audio": (model, processor)})
    tone = {"audio": {"array": np.sin(np.arange(48000) / 20).astype(np.float32), "sampling_rate": 48000}}
    rows = tiny_towers.sentence_transformer((model, processor)).encode([tone])
    found = load(tmp_path).encode([tone])
    np.testing.assert_allclose(found, space.encode({"audio": rows})["audio"].numpy(), atol=1e-6, rtol=0)


def test_a_modality_with_another_name(tmp_path: Path) -> None:
    space = Space({"caption": 16}, dim=6, head="linear").eval()
    space.save_pretrained(tmp_path, format=FORMAT, encoders={"caption": tiny_towers.text_tower()})
    expected = space.encode({"caption": tiny_towers.features("text")})["caption"].numpy()
    np.testing.assert_allclose(load(tmp_path).encode(tiny_towers.TEXTS), expected, atol=1e-6, rtol=0)


# --- what the format cannot express ---------------------------------------------------------------------------------


def test_inputs_of_two_kinds_have_no_route(folder: Path) -> None:
    with pytest.raises(ValueError, match="supports image and text individually, but cannot combine them"):
        load(folder).encode([{"text": "a cat", "image": tiny_towers.images(1)[0]}])


def refusals() -> dict[str, tuple[Any, str]]:
    class Session:
        __module__ = "onnxruntime.capi"

    class Timm:
        __module__ = "timm.models.vit"

    class Builtin:
        __module__ = "unialign.encoders._text_encoder"

    return {
        "array": (np.zeros((3, 16)), "an array of features"),
        "tensor": (torch.zeros(3, 16), "without a processor"),
        "onnx": (Session(), "an ONNX session is not a module"),
        "timm": (Timm(), "timm models are not modules"),
        "builtin": (Builtin(), "built-in encoders are not modules"),
        "function": (len, "expected a SentenceTransformer"),
        "model": ((tiny_towers.text_tower()[0],), "expected a SentenceTransformer"),
        "bare": (tiny_towers.text_tower()[0], "needs its processor"),
        "pooling": (tiny_towers.text_tower()[:2], "one vector per token, so pass the pooling"),
        "extra": ((*tiny_towers.clip_tower(), "mean"), "one vector per item"),
        "mode": ((*tiny_towers.text_tower()[:2], "median"), "Invalid pooling mode"),
        "kind": (tiny_towers.image_tower(), "'text' accepts image"),
        "none": (None, "expected a SentenceTransformer"),
    }


CASES = [
    "array",
    "bare",
    "builtin",
    "extra",
    "function",
    "kind",
    "mode",
    "model",
    "none",
    "onnx",
    "pooling",
    "tensor",
    "timm",
]


@pytest.mark.parametrize("case", CASES)
def test_encoders_that_are_refused(case: str, space: Space, tmp_path: Path) -> None:
    encoder, message = refusals()[case]
    with pytest.raises(ConfigError, match=message):
        space.save_pretrained(tmp_path, format=FORMAT, encoders={"text": encoder})
    assert not list(tmp_path.iterdir())


def test_a_model_whose_reload_has_another_class(space: Space, tmp_path: Path) -> None:
    from transformers import BertForMaskedLM

    model, processor, pooling = tiny_towers.text_tower()
    with pytest.raises(ConfigError, match="a BertForMaskedLM, but its saved folder is loaded as BertModel"):
        space.save_pretrained(
            tmp_path, format=FORMAT, encoders={"text": (BertForMaskedLM(model.config), processor, pooling)}
        )


def test_two_modalities_of_one_kind(tmp_path: Path) -> None:
    text, image = tiny_towers.text_tower(), tiny_towers.image_tower()
    space = Space({"german": 16, "english": 16, "image": 12}, dim=6)
    with pytest.raises(ConfigError, match="'german' and 'english' are both text"):
        space.save_pretrained(tmp_path, format=FORMAT, encoders={"german": text, "image": image, "english": text})


def test_a_kernel_head(tmp_path: Path) -> None:
    space = make_space(head="kernel")
    with pytest.raises(ConfigError, match="the head of 'text' is a kernel head, which dense layers cannot express"):
        space.save_pretrained(tmp_path, format=FORMAT, encoders={"text": tiny_towers.text_tower()})


def test_licenses(tmp_path: Path) -> None:
    encoders = {"text": tiny_towers.text_tower()}
    for entry in ({"redistribution": False}, {"license": "proprietary"}):
        space = Space({"text": 16}, dim=6, metadata={"encoders": {"text": entry}})
        with pytest.raises(ConfigError, match="does not permit copies of its weights"):
            space.save_pretrained(tmp_path, format=FORMAT, encoders=encoders)
    space.metadata["encoders"]["text"] = {"license": "mit"}
    space.save_pretrained(tmp_path, format=FORMAT, encoders=encoders)
    assert "\nlicense: mit\n" in (tmp_path / "README.md").read_text()


def test_a_module_of_another_package(space: Space, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    class Doubled(nn.Module):
        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            return {**features, "sentence_embedding": 2 * features["sentence_embedding"]}

    tower = tiny_towers.sentence_transformer(tiny_towers.text_tower())
    model = SentenceTransformer(modules=[*tower.children(), Doubled()], device="cpu")
    with pytest.raises(ConfigError, match=r"contains Doubled from .*, and SentenceTransformer loads classes of other"):
        space.save_pretrained(tmp_path, format=FORMAT, encoders={"text": model})


def test_a_folder_without_pooling(space: Space, tmp_path: Path) -> None:
    model, processor, _ = tiny_towers.text_tower()
    model.save_pretrained(tmp_path / "plain")
    processor.save_pretrained(tmp_path / "plain")
    with pytest.raises(ConfigError, match=r"has no modules\.json, so its pooling is unknown"):
        space.save_pretrained(tmp_path / "out", format=FORMAT, encoders={"text": tmp_path / "plain"})


def test_a_folder_that_does_not_exist(space: Space, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the encoder '.*/nowhere' of 'text' cannot be loaded: "):
        space.save_pretrained(tmp_path, format=FORMAT, encoders={"text": tmp_path / "a" / "nowhere"})


def test_half_precision_and_truncation(space: Space, tmp_path: Path) -> None:
    model, processor, pooling = tiny_towers.text_tower()
    half = copy.deepcopy(model).bfloat16()
    with pytest.raises(
        ConfigError, match=r"weights of dtype torch\.bfloat16, but the dense layers of a head need float32"
    ):
        space.save_pretrained(tmp_path, format=FORMAT, encoders={"text": (half, processor, pooling)})
    whole = tiny_towers.sentence_transformer((model, processor, pooling))
    whole.truncate_dim = 8
    with pytest.raises(ConfigError, match="truncates its vectors to 8 dimensions"):
        space.save_pretrained(tmp_path, format=FORMAT, encoders={"text": whole})


def test_options(space: Space, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown format 'onnx'; expected one of 'unialign', 'sentence-transformers'"):
        space.save_pretrained(tmp_path, format="onnx")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="stored only with format='sentence-transformers'"):
        space.save_pretrained(tmp_path, encoders={"text": tiny_towers.text_tower()})
    with pytest.raises(ConfigError, match="needs encoders, a mapping of modality"):
        space.save_pretrained(tmp_path, format=FORMAT, encoders={})
    with pytest.raises(ConfigError, match=r"or encoders=, a mapping of modality .*; the space has no encoders"):
        space.save_pretrained(tmp_path, format=FORMAT)
    with pytest.raises(ConfigError, match="encoders has 'txt', but the space has the modalities text, image"):
        space.save_pretrained(tmp_path, format=FORMAT, encoders={"txt": tiny_towers.text_tower()})


def test_an_encoder_of_another_dim(tmp_path: Path) -> None:
    space = Space({"text": 17}, dim=6)
    with pytest.raises(ConfigError, match="features of dim 16, but the space expects dim 17"):
        space.save_pretrained(tmp_path, format=FORMAT, encoders={"text": tiny_towers.text_tower()})
    assert not list(tmp_path.iterdir())


def test_the_extra_is_named(space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", None)
    with pytest.raises(MissingDependencyError, match=r"unialign\[sentence-transformers\]"):
        space.save_pretrained(tmp_path, format=FORMAT, encoders={"text": None})


# --- the comparison before the commit -------------------------------------------------------------------------------


def test_an_activation_that_is_replaced_on_loading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """sentence-transformers replaces an activation of another package by Tanh, with only a warning."""
    first = make_space(head="linear")
    first.save_pretrained(tmp_path, format=FORMAT, encoders={"text": tiny_towers.text_tower()})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    class GELU(nn.GELU):
        pass

    original = export._dense_module

    def with_custom_activation(layer: Any) -> nn.Module:
        module = original(layer)
        if layer.gelu:
            module.activation_function = GELU()
        return module

    monkeypatch.setattr(export, "_dense_module", with_custom_activation)
    with pytest.raises(CheckpointError, match="compute embeddings that differ by"):
        make_space().save_pretrained(tmp_path, format=FORMAT, encoders={"text": tiny_towers.text_tower()})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    check_equal(first, tmp_path, "text")


def test_an_encoder_that_changes_on_reload(space: Space, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = tiny_towers.sentence_transformer(tiny_towers.text_tower())
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda inputs, **options: encode(inputs, **options) * 1.01)
    with pytest.raises(CheckpointError, match=r"differ by a fraction of 0\.0099 from those of the given encoder"):
        space.save_pretrained(tmp_path, format=FORMAT, encoders={"text": model})


def test_an_encoder_that_fails(space: Space, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = tiny_towers.sentence_transformer(tiny_towers.text_tower())

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(model, "encode", fail)
    with pytest.raises(ConfigError, match="'text' failed on a test input of type text: RuntimeError: no memory"):
        space.save_pretrained(tmp_path, format=FORMAT, encoders={"text": model})


def test_saving_again(space: Space, tmp_path: Path) -> None:
    """Modules of an earlier space are replaced or deleted; other files and edited cards are kept."""
    encoders = {"text": tiny_towers.text_tower()}
    (tmp_path / "notes.txt").write_text("mine")
    space.save_pretrained(tmp_path)
    assert "library_name: unialign\n" in (tmp_path / "README.md").read_text()
    space.save_pretrained(tmp_path, format=FORMAT, encoders=encoders | {"image": tiny_towers.image_tower()})
    assert "library_name: sentence-transformers\n" in (tmp_path / "README.md").read_text()
    other = make_space(head="linear")
    other.save_pretrained(tmp_path, format=FORMAT, encoders=encoders)
    check_equal(other, tmp_path, "text")
    assert load(tmp_path).modalities == ["text"]
    assert "tags: [unialign, sentence-transformers, multimodal, text]" in (tmp_path / "README.md").read_text()
    other.save_pretrained(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["README.md", "config.json", "model.safetensors", "notes.txt"]
    assert "library_name: unialign\n" in (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text("mine")
    other.save_pretrained(tmp_path, format=FORMAT, encoders=encoders)
    other.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize("settings", ["", "[]", "[" * 100_000, '{"unialign": 3}', '{"unialign": {}}', "\xff"])
def test_settings_of_others_are_kept(space: Space, tmp_path: Path, settings: str) -> None:
    (tmp_path / "config_sentence_transformers.json").write_text(settings, "latin-1")
    space.save_pretrained(tmp_path)
    assert (tmp_path / "config_sentence_transformers.json").read_text("latin-1") == settings


def test_modules_of_others_are_kept(space: Space, tmp_path: Path) -> None:
    tower = tiny_towers.sentence_transformer(tiny_towers.text_tower())
    tower.save_pretrained(str(tmp_path))
    space.save_pretrained(tmp_path)
    assert (tmp_path / "modules.json").exists()


# --- the hub --------------------------------------------------------------------------------------------------------


def test_the_model_card(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1]) == {
        "library_name": "sentence-transformers",
        "pipeline_tag": "feature-extraction",
        "tags": ["unialign", "sentence-transformers", "multimodal", "text", "image", "audio"],
    }
    assert 'model = SentenceTransformer("path or owner/name of this folder")' in card
    for line in ("| sensor | 5 |", 'text = model.encode(["a text"])', 'image = model.encode(["photo.png"])'):
        assert line in card


def test_push_to_hub(space: Space, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    files: dict[str, bytes] = {}

    def upload_folder(*, folder_path: Path, **options: Any) -> str:
        assert options["repo_id"] == "someone/space"
        paths = [path for path in folder_path.rglob("*") if path.is_file()]
        files.update({str(path.relative_to(folder_path)): path.read_bytes() for path in paths})
        return "https://huggingface.co/someone/space/commit/1"

    monkeypatch.setattr(huggingface_hub, "create_repo", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub, "upload_folder", upload_folder)
    url = space.push_to_hub("someone/space", format=FORMAT, encoders=tiny_towers.towers())
    assert url.endswith("/commit/1")
    expected = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert set(files) == expected
    assert files["model.safetensors"] == (folder / "model.safetensors").read_bytes()


def test_library_versions_are_recorded(folder: Path) -> None:
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    assert settings["__version__"]["sentence_transformers"] == _towers.library().__version__
    assert settings["similarity_fn_name"] == "cosine"
