"""Test the comparison of an encoder with its earlier features, and the fingerprint of references."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from unialign.data import EmbeddingStore, encoder_fingerprint
from unialign.encoders import (
    check_reference,
    check_witness,
    create,
    encode_media,
    encode_prepared,
    load,
    references_of,
    save,
    witness,
    wrap,
)
from unialign.errors import ConfigError, DataError
from unialign.media import Decoding

NAMES = [
    "builtin:color",
    "builtin:conv",
    "builtin:chars",
    "builtin:bag",
    "builtin:logmel",
    "builtin:logmel-conv",
    "builtin:frames:builtin:color",
    "builtin:frames:builtin:conv?frames=2",
    "builtin:identity?dim=3",
    "builtin:log1p?dim=200",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_reference_rebuilds_the_encoder(name, tmp_path):
    encoder = create(name)
    reference = json.loads(json.dumps(encoder.reference))
    assert len(reference["witness"]) == 64
    loaded = load(reference)
    assert loaded.reference == reference
    assert check_witness(loaded, reference["witness"]) <= 1e-6
    saved = json.loads(json.dumps(save(encoder, tmp_path)))
    assert load(saved, folder=tmp_path).fingerprint == encoder.fingerprint == saved["fingerprint"]


def test_differences_are_ignored_warned_about_or_raised():
    encoder = create("builtin:chars")
    stored = witness(encoder).double()
    scale = stored.square().mean().sqrt()
    assert check_witness(encoder, (stored + 1e-4 * scale).tolist()) == pytest.approx(1e-4, rel=1e-2)
    with pytest.warns(UserWarning, match=r"computes different features .* 0.01; .* are torch .* instead of torch 1.0"):
        check_witness(encoder, stored + 1e-2 * scale, packages={"torch": "1.0"})
    with pytest.raises(DataError, match="install the earlier versions, or embed the data again"):
        check_witness(encoder, stored + scale)
    for wrong in ([1.0] * 63, [float("nan")] * 64):
        with pytest.raises(DataError, match="must have 64 finite numbers"):
            check_witness(encoder, wrong)


def test_a_changed_library_is_noticed_when_a_reference_is_loaded(monkeypatch):
    from unialign.encoders._pixels import SquarePixels

    encoder = create("builtin:color")
    reference = encoder.reference
    original = SquarePixels.square
    monkeypatch.setattr(SquarePixels, "square", lambda self, image: original(self, image[::-1]))
    with pytest.raises(DataError, match="builtin:color computes different features"):
        load(reference)


def test_an_altered_reference_raises():
    reference = create("builtin:chars").reference
    for changes, message in (
        ({"dim": 255}, "was altered"),
        ({"options": {"seed": 1, "dim": 256}}, "was altered"),
        ({"fingerprint": "0" * 64}, "was altered"),
        ({"prepare": {1, 2}}, "is not a reference"),
    ):
        with pytest.raises(DataError, match=message):
            check_reference({**reference, **changes})
    for wrong in (None, {}, {"kind": "builtin"}, [1]):
        with pytest.raises(DataError, match="is not a reference to an encoder"):
            check_reference(wrong)
    # These entries do not affect the features.
    for key in ("name", "revision", "witness", "stored", "license", "packages", "batch_size"):
        assert check_reference({**reference, key: "other"})["fingerprint"] == reference["fingerprint"]


def test_options_and_weights_change_the_fingerprint_and_defaults_do_not():
    before = create("builtin:conv").fingerprint
    assert create("builtin:conv?seed=0&size=64").fingerprint == before
    found = {create(f"builtin:conv?{option}").fingerprint for option in ("seed=1", "size=32")}
    assert len({before, *found}) == 3
    assert create("builtin:conv", device="cpu").fingerprint == before
    assert create("builtin:chars").fingerprint != create("builtin:bag").fingerprint
    frames = [create(f"builtin:frames:builtin:{name}").fingerprint for name in ("color", "conv", "conv?frames=3")]
    assert len(set(frames)) == 3


def test_weights_of_a_trained_encoder_are_checked(tmp_path):
    encoder = create("builtin:bag")
    with torch.no_grad():
        encoder.module.weight_KD.mul_(2)
    saved = save(encoder, tmp_path)
    with pytest.raises(DataError, match=r"has different weights than its reference"):
        load({**saved, "stored": "reference"})
    loaded = load(saved, folder=tmp_path)
    assert torch.equal(encode_media(loaded, ["a cat"]), encode_media(encoder, ["a cat"]))
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:-8])
    with pytest.raises(DataError, match=r"model\.safetensors"):
        load(saved, folder=tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"model\.safetensors"):
        load(saved, folder=tmp_path)


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.factor * values


def as_values(vector: Any) -> dict[str, Any]:
    return {"values": np.asarray(vector, np.float32)}


def test_a_wrapped_module_has_a_fingerprint_of_its_weights():
    first, second = (wrap(Doubled(), media="array", dim=3, prepare=as_values) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert encode_media(first, [[1, 2, 3]]).tolist() == [[2, 4, 6]]
    changed = Doubled()
    with torch.no_grad():
        changed.factor.add_(1)
    others = [
        wrap(changed, media="array", dim=3, prepare=as_values),
        wrap(Doubled(), media="array", dim=3, prepare=as_values, version=2),
        wrap(Doubled(), media="array", dim=3, prepare=as_values, decoding=Decoding(dim=3)),
        wrap(Doubled(), media="array", dim=3, prepare=lambda vector: as_values(vector)),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert first.reference["kind"] == "module"
    with pytest.raises(ConfigError, match=r"the module .Doubled., .* was passed to wrap and is not saved"):
        load(first.reference)


def test_arguments_of_wrap_are_checked():
    for arguments, message in (
        ({"media": "smell"}, "unknown kind of media"),
        ({"dim": 0}, "dim must be an integer of at least 1"),
        ({"prepare": 3}, "prepare must be a function"),
        ({"version": "1"}, "version must be an integer"),
        ({"name": 4}, "name must be a string"),
    ):
        with pytest.raises(ConfigError, match=message):
            wrap(Doubled(), **({"media": "array", "dim": 3, "prepare": as_values} | arguments))
    with pytest.raises(ConfigError, match=r"wrap expects a torch.nn.Module"):
        wrap(lambda values: values, media="array", dim=3, prepare=as_values)


def test_references_of_a_store_are_the_valid_ones():
    encoder = create("builtin:chars")
    rows = encode_media(encoder, ["a", "b"]).numpy()
    entry = {"encoder": "builtin:chars", "fingerprint": encoder.fingerprint, "reference": encoder.reference}
    columns = {
        "text": entry,
        "altered": {**entry, "reference": {**encoder.reference, "dtype": "float16"}},
        "other": {**entry, "fingerprint": "0" * 64},
        "plain": {"encoder": "unknown"},
    }
    store = EmbeddingStore.from_arrays(
        {"text": rows, "altered": rows, "other": rows, "plain": rows, "none": rows, "narrow": rows[:, :4]},
        provenance={"columns": {**columns, "narrow": entry}},
    )
    assert references_of(store, store.modalities) == {"text": encoder.reference}
    assert references_of(store, ["none"]) == {}
    assert encoder_fingerprint(store, "text") == encoder.fingerprint
    with pytest.raises(ConfigError, match="unknown column 'missing'"):
        references_of(store, ["missing"])


def test_absent_items_are_zero_rows_and_parts_equal_the_whole():
    encoder = create("builtin:conv")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (20, 30, 3), dtype=np.uint8) for _ in range(7)]
    given = [*images[:3], None, *images[3:]]
    whole = encode_media(encoder, given, batch_size=3)
    assert whole.shape == (8, 320)
    assert not whole[3].any()
    parts = [encode_media(encoder, given[start : start + 6], batch_size=3) for start in (0, 6)]
    assert torch.equal(torch.cat(parts), whole)
    prepared = [None if image is None else encoder.prepare(image) for image in given]
    assert torch.equal(encode_prepared(encoder, prepared, batch_size=3), whole)
    assert encode_media(encoder, []).shape == (0, 320)
    with pytest.raises(ConfigError, match="batch_size must be an integer of at least 1"):
        encode_media(encoder, given, batch_size=0)


def test_encoding_keeps_the_mode_of_the_module_and_needs_no_gradient():
    module = nn.Sequential(Doubled(), nn.Dropout(0.9))
    module[0].forward = lambda values: values  # type: ignore[method-assign]

    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return self.inner(values)

    encoder = wrap(Dropped().train(), media="array", dim=3, prepare=as_values)
    encoder.module.inner[0].eval()
    features = encode_media(encoder, [[1, 2, 3]])
    assert features.tolist() == [[1, 2, 3]]
    assert encoder.module.training
    assert not encoder.module.inner[0].training
    assert not features.requires_grad
    assert not features.is_inference()
