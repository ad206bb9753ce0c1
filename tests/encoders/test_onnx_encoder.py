"""Test encoders of ONNX files with small graphs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import encoder_models as models
from unialign.encoders import create, encode_media, load, save
from unialign.errors import ConfigError, DataError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(0)


def write(
    path: Path, nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], weights: dict[str, Any]
) -> Path:
    helper = onnx.helper
    types = {"input_ids": onnx.TensorProto.INT64, "attention_mask": onnx.TensorProto.INT64}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, types.get(name, onnx.TensorProto.FLOAT), s) for name, s in inputs.items()],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def classifier(path: Path, batch: Any = "n") -> Path:
    """Mean over the pixels, a hidden layer, and a classifier of 5 classes."""
    node = onnx.helper.make_node
    weights = {
        "w1": RNG.normal(size=(3, 4)).astype(np.float32),
        "w2": RNG.normal(size=(4, 5)).astype(np.float32),
        "b2": RNG.normal(size=5).astype(np.float32),
    }
    nodes = [
        node("GlobalAveragePool", ["pixels"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("MatMul", ["flat", "w1"], ["hidden"]),
        node("Relu", ["hidden"], ["active"]),
        node("Gemm", ["active", "w2", "b2"], ["logits"]),
    ]
    return write(path, nodes, {"pixels": [batch, 3, 8, 8]}, {"logits": [batch, 5]}, weights)


def test_the_output_or_the_input_of_the_last_layer_is_used(tmp_path):
    path = classifier(tmp_path / "net.onnx")
    logits, hidden, named = (
        create(f"onnx:{path}?media=image&size=8{options}") for options in ("", "&layer=penultimate", "&output=flat")
    )
    assert (logits.dim, hidden.dim, named.dim) == (5, 4, 3)
    images = models.images()
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    flat = encode_media(named, images).numpy()
    expected = np.maximum(flat @ weights["w1"], 0)
    np.testing.assert_allclose(encode_media(hidden, images).numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(
        encode_media(logits, images).numpy(), expected @ weights["w2"] + weights["b2"], rtol=1e-4
    )
    assert len({encoder.fingerprint for encoder in (logits, hidden, named)}) == 3
    with pytest.raises(ConfigError, match="has no tensor 'other'; its outputs are logits"):
        create(f"onnx:{path}?media=image&size=8&output=other")


def test_batches_and_places_do_not_matter(tmp_path):
    images = models.images()
    whole = create(f"onnx:{classifier(tmp_path / 'net.onnx')}?media=image&size=8")
    features = encode_media(whole, images)
    torch.testing.assert_close(encode_media(whole, images, batch_size=2), features)
    (tmp_path / "other").mkdir()
    (tmp_path / "net.onnx").rename(tmp_path / "other" / "renamed.onnx")
    moved = create(f"onnx:{tmp_path}/other?file=renamed.onnx&size=8", media="image")
    assert {**moved.reference["options"], "file": ""} == {**whole.reference["options"], "file": ""}
    assert moved.reference["weights"] == whole.reference["weights"]
    assert torch.equal(encode_media(moved, images), features)
    single = create(f"onnx:{classifier(tmp_path / 'one.onnx', batch=1)}?media=image&size=8")
    assert encode_media(single, images).shape == (3, 5)


def test_pixels_are_normalized_by_options_or_by_a_file(tmp_path):
    path = classifier(tmp_path / "net.onnx")
    plain = create(f"onnx:{path}?media=image&size=8&output=flat")
    scaled = create(f"onnx:{path}?media=image&size=8&output=flat&mean=0.5,0.5,0.5&std=0.5,0.5,0.25")
    given = models.images()
    expected = (encode_media(plain, given) - 0.5) / torch.tensor([0.5, 0.5, 0.25])
    torch.testing.assert_close(encode_media(scaled, given), expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(ConfigError, match="needs the size of the images"):
        create(f"onnx:{path}?media=image")
    with pytest.raises(ConfigError, match=r"mean .* must be 3 numbers"):
        create(f"onnx:{path}?media=image&size=8&mean=1,2")
    models.image_processor("ViT", size={"height": 8, "width": 8}).save_pretrained(tmp_path)
    by_file = create(f"onnx:{path}?media=image&output=flat")
    stretched = create(f"onnx:{path}?media=image&size=8&fit=stretch&output=flat&mean=0.5,0.5,0.5&std=0.5,0.5,0.5")
    # The file uses another filter.
    torch.testing.assert_close(encode_media(by_file, given), encode_media(stretched, given), atol=0.2, rtol=0)


def test_texts_are_averaged_over_their_tokens(tmp_path):
    node = onnx.helper.make_node
    table = RNG.normal(size=(57, 6)).astype(np.float32)
    nodes = [
        node("Gather", ["table", "input_ids"], ["tokens"]),
        node("Cast", ["attention_mask"], ["mask"], to=onnx.TensorProto.FLOAT),
        node("Unsqueeze", ["mask", "axis"], ["column"]),
        node("Mul", ["tokens", "column"], ["last_hidden_state"]),
    ]
    inputs = {"input_ids": ["n", "t"], "attention_mask": ["n", "t"]}
    weights = {"table": table, "axis": np.array([2])}
    path = write(tmp_path / "text.onnx", nodes, inputs, {"last_hidden_state": ["n", "t", 6]}, weights)
    models.tokenizer().save_pretrained(tmp_path)
    encoder = create(f"onnx:{path}?media=text")
    features = encode_media(encoder, models.TEXTS)
    for row, text in zip(features, models.TEXTS, strict=True):
        ids = encoder.prepare(text)["input_ids"]
        np.testing.assert_allclose(row.numpy(), table[ids].mean(0), rtol=1e-5, atol=1e-6)
    first = encode_media(create(f"onnx:{path}?media=text&pool=cls"), models.TEXTS)
    np.testing.assert_allclose(first.numpy(), np.repeat(table[[2]], 3, 0))


def test_vectors_are_passed_unchanged(tmp_path):
    weights = {"w": RNG.normal(size=(4, 2)).astype(np.float32)}
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = write(tmp_path / "vector.onnx", nodes, {"x": ["n", 4]}, {"y": ["n", 2]}, weights)
    encoder = create(f"onnx:{path}?media=array&dim=4")
    vectors = RNG.normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(
        encode_media(encoder, list(vectors)).numpy(), vectors @ weights["w"], rtol=1e-5, atol=1e-6
    )


def test_a_reference_rebuilds_the_encoder_and_finds_changes(tmp_path):
    path = classifier(tmp_path / "net.onnx")
    encoder = create(f"onnx:{path}?media=image&size=8&mean=0.1,0.2,0.3&layer=penultimate")
    reference = json.loads(json.dumps(encoder.reference))
    assert load(reference).reference == reference
    kept = tmp_path / "kept"
    kept.mkdir()
    saved = json.loads(json.dumps(save(encoder, kept)))
    loaded = load(saved, folder=kept)
    assert loaded.fingerprint == encoder.fingerprint
    assert torch.equal(encode_media(loaded, models.images()), encode_media(encoder, models.images()))
    classifier(tmp_path / "net.onnx")  # other random weights
    with pytest.raises(DataError, match="has different weights than its reference"):
        load(reference)


def test_weights_in_other_files_and_damaged_files_raise(tmp_path):
    path = classifier(tmp_path / "net.onnx")
    model = onnx.load(path)
    onnx.save_model(model, tmp_path / "split.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(ConfigError, match="refers to weights in other files"):
        create(f"onnx:{tmp_path}/split.onnx?media=image&size=8")
    (tmp_path / "damaged.onnx").write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"damaged\.onnx"):
        create(f"onnx:{tmp_path}/damaged.onnx?media=image&size=8")
    for name, message in (
        (f"onnx:{tmp_path}/gone.onnx?media=image&size=8", "gone.onnx, which does not exist"),
        (f"onnx:{tmp_path}?file=../x.onnx&media=image&size=8", "must be a path within the folder"),
        (f"onnx:{path}", "kind of media .* is unknown"),
        (f"onnx:{path}?media=video", "encode image, text, audio, array, not video"),
    ):
        with pytest.raises((ConfigError, DataError), match=message):
            create(name)
    with pytest.raises(ConfigError, match="encodes image, not text"):
        create(f"onnx:{path}?media=image&size=8", media="text")
