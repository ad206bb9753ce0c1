"""Test that a space encodes raw media as it encodes their features."""

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import raw_spaces
from raw_spaces import encoder, make_space, raw, store
from unialign.encoders import create, wrap
from unialign.errors import ConfigError, DataError, MediaError, ShapeError
from unialign.space import Space


@pytest.fixture
def space() -> Space:
    torch.manual_seed(0)
    return make_space()


def test_raw_media_and_features_give_the_same_embeddings(space: Space) -> None:
    found = space.encode(raw())
    features = {name: store().array(name) for name in raw()}
    expected = space.encode(features, present={name: store().present(name) for name in raw()})
    for name, z in expected.items():
        torch.testing.assert_close(found[name], z, atol=1e-6, rtol=0)
        assert torch.equal(found[name].any(1), torch.from_numpy(store().present(name).copy()))


def test_each_form_of_an_image(space: Space, tmp_path: Path) -> None:
    pixels = raw()["image"][0]
    picture = Image.fromarray(pixels)
    picture.save(tmp_path / "a.png")
    content = io.BytesIO()
    picture.save(content, "PNG")
    forms = [pixels, picture, tmp_path / "a.png", str(tmp_path / "a.png"), content.getvalue(), torch.from_numpy(pixels)]
    z = space.encode({"image": tuple(forms)})["image"]
    torch.testing.assert_close(z, z[:1].expand(6, -1), atol=1e-6, rtol=0)


def test_absent_rows(space: Space) -> None:
    z = space.encode(
        {"text": ["a cat", None, "  ", "a dog"], "image": [None, None]},
        present={"text": np.array([True, True, True, False])},
    )
    assert z["text"].any(1).tolist() == [True, False, False, False]
    assert z["image"].shape == (2, 6)
    assert not z["image"].any()
    assert space.encode({"text": []})["text"].shape == (0, 6)
    assert space.last_broken == ()


def test_an_array_of_strings_is_raw_media(space: Space) -> None:
    texts = raw()["text"][:3]
    expected = space.encode({"text": texts})["text"]
    for values in (np.array(texts), np.array(texts, dtype=object)):
        assert torch.equal(space.encode({"text": values})["text"], expected)


def test_many_rows_are_encoded_in_windows(space: Space) -> None:
    """Rows keep their places beyond one batch, with absent rows in between."""
    images = [raw()["image"][i % 20] for i in range(150)]
    z = space.encode({"image": images})["image"]
    torch.testing.assert_close(z[100:120], z[:20], atol=1e-6, rtol=0)
    assert z.any(1).tolist() == [value is not None for value in images]


def test_broken_media(space: Space, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    inputs = {"image": [raw()["image"][0], tmp_path / "bad.png", "nowhere.png", raw()["image"][1]], "text": ["a", "b"]}
    with pytest.raises(MediaError, match=r"'image' row 1.*bad\.png.*\(undecodable\)") as caught:
        space.encode(inputs)
    assert caught.value.code == "undecodable"
    z = space.encode(inputs, on_error="absent")
    assert z["image"].any(1).tolist() == [True, False, False, True]
    assert [(found.modality, found.row, found.code) for found in space.last_broken] == [
        ("image", 1, "undecodable"),
        ("image", 2, "missing-file"),
    ]
    whole = space.encode({"image": [inputs["image"][0], inputs["image"][3]]})["image"]
    torch.testing.assert_close(z["image"][[0, 3]], whole, atol=1e-6, rtol=0)
    space.encode({"text": ["a"]})
    assert space.last_broken == ()
    with pytest.raises(ConfigError, match="on_error"):
        space.encode(inputs, on_error="skip")  # type: ignore[arg-type]


def test_media_whose_features_are_all_zero(space: Space) -> None:
    inputs = {"sensor": [np.zeros(5, np.float32), np.ones(5, np.float32)]}
    with pytest.raises(MediaError, match=r"'sensor' row 0: all features are 0.*\(zero-features\)"):
        space.encode(inputs)
    assert space.encode(inputs, on_error="absent")["sensor"].any(1).tolist() == [False, True]
    assert [(found.row, found.code) for found in space.last_broken] == [(0, "zero-features")]


def test_unsupported_values(space: Space) -> None:
    with pytest.raises(ConfigError, match="'text' row 1: "):
        space.encode({"text": ["a cat", 7]})
    for value in ("a cat", b"a cat", Path("a.png"), {"a": 1}, Image.new("RGB", (4, 4))):
        with pytest.raises(ConfigError, match="'image' must be a list with one value per row"):
            space.encode({"image": value})  # type: ignore[dict-item]


def test_a_space_without_encoders() -> None:
    space = Space({"text": 3}, dim=2)
    rows = [[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]]
    assert torch.equal(space.encode({"text": rows})["text"], space.encode({"text": torch.tensor(rows)})["text"])
    for values in (["a cat"], [b"x"], [Path("a")], [None], [{"a": 1}], [Image.new("RGB", (4, 4))]):
        with pytest.raises(ConfigError, match=r"no encoder of 'text'; pass encoders=\{'text': encoder\}"):
            space.encode({"text": values})
    with pytest.raises(ShapeError):
        space.encode({"text": ["a cat", "a dog"][:0]})


def test_references_are_checked() -> None:
    reference = encoder("text").reference
    for encoders, message in (
        ({"txt": reference}, "unknown modality 'txt' in `encoders`"),
        ({"text": {"kind": "builtin"}}, r"encoders\['text'\] is not a reference"),
        ({"text": {**reference, "dim": 7}}, "was altered"),
        ({"text": encoder("sensor").reference}, "returns features of dim 5, but the space expects dim 32"),
        ([reference], "encoders must map modalities to references"),
    ):
        with pytest.raises(ConfigError, match=message):
            Space({"text": 32, "image": 3}, encoders=encoders)  # type: ignore[arg-type]


def test_encoders_are_loaded_at_their_first_use(monkeypatch: pytest.MonkeyPatch, space: Space) -> None:
    loads: list[str] = []
    from unialign.space import _encoders

    load = _encoders.load
    monkeypatch.setattr(
        _encoders, "load", lambda reference, **options: (loads.append(reference["name"]), load(reference, **options))[1]
    )
    space.encode({"text": store().array("text")})
    assert loads == []
    space.encode({"text": ["a cat"]})
    copied = copy.deepcopy(space)
    copied.encode({"text": ["a dog"]})
    repaired = space.with_output_affine({"text": (2 * torch.eye(6), torch.zeros(6))})
    torch.testing.assert_close(repaired.encode({"text": ["a cat"]})["text"], space.encode({"text": ["a cat"]})["text"])
    assert loads == ["chars"]
    assert pickle.loads(pickle.dumps(space)).encode({"text": ["a cat"]})["text"].any()
    assert loads == ["chars", "chars"]


def test_modalities_with_one_encoder_load_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    from unialign.space import _encoders

    load = _encoders.load
    monkeypatch.setattr(
        _encoders, "load", lambda reference, **options: (loads.append("x"), load(reference, **options))[1]
    )
    reference = encoder("text").reference
    Space({"de": 32, "fr": 32}, dim=4, encoders={"de": reference, "fr": reference}).encode({"de": ["a"], "fr": ["b"]})
    assert loads == ["x"]


# --- with_encoders --------------------------------------------------------------------------------------------------


def test_encoders_are_given_by_instance_name_or_reference(space: Space) -> None:
    bare = space.with_encoders(dict.fromkeys(space.encoders))
    assert bare.encoders == {}
    assert "encoders" not in bare.get_config()
    assert list(space.encoders) == ["text", "image", "sensor"]
    expected = space.encode({"text": ["a cat"]})["text"]
    for given in (encoder("text"), raw_spaces.ENCODERS["text"], encoder("text").reference):
        found = bare.with_encoders({"text": given})
        assert list(found.encoders) == ["text"]
        assert torch.equal(found.encode({"text": ["a cat"]})["text"], expected)


def test_another_encoder_is_rejected(space: Space) -> None:
    other = create("builtin:chars?dim=32&seed=1", device="cpu")
    for given in (other, other.reference, "builtin:chars?dim=32&seed=1"):
        with pytest.raises(DataError, match=r"made from features of 'text' by builtin:chars .* are not comparable"):
            space.with_encoders({"text": given})
    for given in (torch.nn.Linear(2, 2), 7):
        with pytest.raises(ConfigError, match=r"must be an encoder of `unialign\.encoders`, its name or its reference"):
            space.with_encoders({"text": given})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="unknown modality 'txt' in `encoders`"):
        space.with_encoders({"txt": None})


# --- the witness ----------------------------------------------------------------------------------------------------


def with_witness(change: float) -> dict[str, Any]:
    """Return the reference of the text encoder with one number of its witness changed by a multiple of their size."""
    reference = encoder("text").reference
    witness = np.array(reference["witness"])
    witness[3] += change * np.sqrt(np.mean(witness**2))
    return {**reference, "witness": witness.tolist()}


@pytest.mark.parametrize("is_given", [False, True])
def test_the_witness(is_given: bool, recwarn: pytest.WarningsRecorder) -> None:
    def encode(change: float) -> torch.Tensor:
        space = Space({"text": 32}, dim=4, encoders={"text": with_witness(change)})
        space = space.with_encoders({"text": encoder("text")}) if is_given else space
        return space.encode({"text": ["a cat"]})["text"]

    encode(1e-4)
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"builtin:chars computes different features .* relative difference is 0\.01"):
        encode(1e-2)
    with pytest.raises(DataError, match=r"encoder of 'text' cannot be used: .* relative difference is 0\.\d+|1"):
        encode(1.0)


def test_a_space_without_a_witness() -> None:
    reference = {key: value for key, value in encoder("text").reference.items() if key != "witness"}
    assert Space({"text": 32}, encoders={"text": reference}).encode({"text": ["a cat"]})["text"].any()


# --- wrapped modules ------------------------------------------------------------------------------------------------


def _numbers(text: str) -> dict[str, np.ndarray]:
    return {"input": np.frombuffer(text.encode()[:4].ljust(4), np.uint8).astype(np.float32)}


def test_a_wrapped_module_must_be_given(tmp_path: Path) -> None:
    torch.manual_seed(1)
    given = wrap(torch.nn.Linear(4, 3), media="text", dim=3, prepare=_numbers)
    space = Space({"text": 3}, dim=2, encoders={"text": given.reference}).with_encoders({"text": given})
    expected = space.encode({"text": ["abcd"]})["text"]
    space.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"takes only features \(B, 3\).*encoders=\{'text': encoder\}"):
        Space.from_pretrained(tmp_path).encode({"text": ["abcd"]})
    loaded = Space.from_pretrained(tmp_path, encoders={"text": given})
    assert torch.equal(loaded.encode({"text": ["abcd"]})["text"], expected)
    other = wrap(torch.nn.Linear(4, 3), media="text", dim=3, prepare=_numbers)
    with pytest.raises(DataError, match="are not comparable"):
        Space.from_pretrained(tmp_path, encoders={"text": other})
    space.save_pretrained(tmp_path, inside="always")
    loaded = Space.from_pretrained(tmp_path, encoders={"text": other})
    assert torch.equal(loaded.encode({"text": ["abcd"]})["text"], expected)


def test_errors_of_preparing_name_modality_and_row(space: Space) -> None:
    with pytest.raises(MediaError, match=r"'text' row 1: .*surrogate") as info:
        space.encode({"text": ["a", "\ud800"]})
    assert info.value.code == "bad-utf8"
    space.encode({"text": ["a", "\ud800"]}, on_error="absent")
    assert [(found.row, found.code) for found in space.last_broken] == [(1, "bad-utf8")]

    def failing(value: Any) -> Any:
        if value == "b":
            raise KeyError("x")
        if value == "c":
            raise MediaError("wrong-shape", "too short")
        return encoder("text").prepare(value)

    reference = encoder("text")
    changed = copy.copy(reference)
    changed.prepare = failing
    space._loaded_encoders.get = lambda *_: changed  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"'text' row 2: .*cannot prepare the value \(KeyError: .x.\)"):
        space.encode({"text": ["a", None, "b"]})
    with pytest.raises(MediaError, match=r"'text' row 1.*too short"):
        space.encode({"text": ["a", "c"]})
