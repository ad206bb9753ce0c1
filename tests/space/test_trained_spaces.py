"""Test that a space with trained encoders encodes raw media to the same bits after loading, in a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import encoder_models as models
from raw_spaces import make_space, raw
from trained_encoder_checks import ALL, LAST, LORA, change
from unialign.data import EmbeddingStore
from unialign.encoders import Encoder, create, encode_media, trained_encoder, wrap
from unialign.errors import CheckpointError, ConfigError, DataError
from unialign.media import as_media
from unialign.space import Space

TEXTS = ["A red cat.", "Two ships.", "A grey house."]


@pytest.fixture
def bert(tmp_path: Path) -> str:
    pytest.importorskip("peft")
    return f"transformers:{models.save_model('bert', tmp_path / 'model')}"


def space_of(encoder: Encoder, name: str = "text") -> Space:
    torch.manual_seed(0)
    space = Space({name: encoder.dim, "sensor": 5}, dim=6, hidden=8).eval()
    return space.with_encoders({name: encoder})


def adapted(name: str) -> Encoder:
    encoder = create(name, device="cpu")
    change(encoder, LORA)
    return trained_encoder(encoder)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def encoded(space: Space) -> torch.Tensor:
    return space.encode({"text": TEXTS})["text"]


def test_an_adapter_is_stored_without_the_weights_below_it(bert: str, tmp_path: Path) -> None:
    encoder = adapted(bert)
    space = space_of(encoder)
    expected = encoded(space)
    base = create(bert, device="cpu")
    assert not torch.allclose(expected, encoded(space_of(base)), atol=1e-3)
    folder = tmp_path / "space"
    space.save_pretrained(folder)
    place = f"encoders/{encoder.fingerprint[:16]}/adapter.safetensors"
    assert files(folder) == ["README.md", "config.json", place, "model.safetensors"]
    card = (folder / "README.md").read_text()
    assert "trained with an adapter of rank 2" in card
    loaded = Space.from_pretrained(folder, offline=True)
    assert loaded.encoders["text"]["stored"] == "adapter"
    assert loaded.encoders["text"]["adapter"]["targets"] == ["attention.output.dense", "key", "query", "value"]
    assert loaded.encoders["text"]["fingerprint"] == encoder.fingerprint
    assert torch.equal(encoded(loaded), expected)
    # A space that was loaded is saved as it is, or with the weights below the adapter.
    loaded.save_pretrained(tmp_path / "again")
    assert files(tmp_path / "again") == files(folder)
    assert torch.equal(encoded(Space.from_pretrained(tmp_path / "again")), expected)
    loaded.save_pretrained(tmp_path / "whole", inside="always")
    shutil.rmtree(tmp_path / "model")
    whole = Space.from_pretrained(tmp_path / "whole")
    assert whole.encoders["text"]["stored"] == "inside"
    assert torch.equal(encoded(whole), expected)
    whole.save_pretrained(tmp_path / "copy")
    assert files(tmp_path / "copy") == files(tmp_path / "whole")
    with pytest.raises(DataError, match=r"encoder of 'text' cannot be used: .*which does not exist"):
        encoded(Space.from_pretrained(folder))


def test_a_process_of_its_own_without_network(bert: str, tmp_path: Path) -> None:
    spaces = {}
    for mode, tuning in {"lora": LORA, "last": LAST, "always": LORA}.items():
        encoder = create(bert, device="cpu")
        change(encoder, tuning)
        spaces[mode] = space_of(trained_encoder(encoder))
        spaces[mode].save_pretrained(tmp_path / mode, inside="always" if mode == "always" else "auto")
    (tmp_path / "raw.json").write_text(json.dumps({"text": TEXTS}))
    script = Path(__file__).with_name("encode_offline.py")
    arguments = [str(tmp_path / name) for mode in spaces for name in (mode, "raw.json", f"{mode}.npz")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        for mode, space in spaces.items():
            with np.load(tmp_path / f"{mode}.npz") as found:
                assert np.array_equal(found["text"], encoded(space).numpy())
    finally:
        torch.set_num_threads(threads)


def test_altered_adapters(bert: str, tmp_path: Path) -> None:
    encoder = adapted(bert)
    folder = tmp_path / "space"
    space_of(encoder).save_pretrained(folder)
    (inner,) = (folder / "encoders").iterdir()
    weights = inner / "adapter.safetensors"
    data = weights.read_bytes()

    def fails(message: str, error: type[Exception] = CheckpointError) -> None:
        with pytest.raises(error, match=message):
            encoded(Space.from_pretrained(folder))

    for place in (0, 9, len(data) // 2, len(data) - 1):
        weights.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        fails(r"adapter\.safetensors was altered or truncated")
    weights.unlink()
    fails(r"adapter\.safetensors cannot be read")
    weights.write_bytes(data)
    (inner / "adapter_config.json").write_text('{"base_model_name_or_path": "other/model"}')
    fails(r"adapter_config\.json is not a file of the encoder; remove it")
    (inner / "adapter_config.json").unlink()
    assert encoded(Space.from_pretrained(folder)).any()
    config = json.loads((folder / "config.json").read_text())
    config["space"]["encoders"]["text"]["adapter"] = [3]
    (folder / "config.json").write_text(json.dumps(config))
    fails("`adapter` of .* must be an object|altered")


def test_only_adapters_of_the_saved_space_are_kept(bert: str, tmp_path: Path) -> None:
    folder = tmp_path / "space"
    first = adapted(bert)
    space_of(first).save_pretrained(folder)
    encoder = create(bert, device="cpu")
    change(encoder, LORA.replace(r=3))
    second = trained_encoder(encoder)
    space_of(second).save_pretrained(folder)
    assert [path.name for path in (folder / "encoders").iterdir()] == [second.fingerprint[:16]]
    space_of(second).save_pretrained(folder)
    assert torch.equal(encoded(Space.from_pretrained(folder)), encoded(space_of(second)))
    space_of(second).save_pretrained(folder, inside="never")
    assert not (folder / "encoders").exists()
    with pytest.raises(DataError, match=r"with an adapter .*, was trained, and its weights are not"):
        encoded(Space.from_pretrained(folder))
    assert encoded(Space.from_pretrained(folder, encoders={"text": second})).any()


def test_an_adapter_above_an_encoder_that_no_reference_rebuilds(bert: str, tmp_path: Path) -> None:
    encoder = create(bert, device="cpu")
    change(encoder, ALL)
    first = space_of(trained_encoder(encoder))
    first.save_pretrained(tmp_path / "first")
    loaded = Space.from_pretrained(tmp_path / "first")
    encoded(loaded)
    inner = loaded._loaded_encoders.get("text", loaded.encoders["text"], torch.device("cpu"))
    change(inner, LORA)
    second = space_of(trained_encoder(inner))
    second.save_pretrained(tmp_path / "second")
    shutil.rmtree(tmp_path / "first")
    again = Space.from_pretrained(tmp_path / "second")
    assert again.encoders["text"]["stored"] == "inside"
    assert again.encoders["text"]["adapter"]["r"] == 2
    assert torch.equal(encoded(again), encoded(second))


def test_an_adapter_without_effect_is_not_stored(bert: str, tmp_path: Path) -> None:
    from unialign.encoders import tune_parameters

    encoder = create(bert, device="cpu")
    tune_parameters(encoder, LORA)
    space_of(trained_encoder(encoder)).save_pretrained(tmp_path / "space")
    assert files(tmp_path / "space") == ["README.md", "config.json", "model.safetensors"]


def test_stores_of_the_encoder_before_training(bert: str, tmp_path: Path) -> None:
    old, new = create(bert, device="cpu"), adapted(bert)
    media = [as_media(text, "text", decoding=old.decoding) for text in TEXTS]

    def store_of(encoder: Encoder) -> EmbeddingStore:
        entry = {"fingerprint": encoder.fingerprint, "reference": encoder.reference}
        columns = {"text": encode_media(encoder, media).numpy(), "sensor": np.ones((3, 5), np.float32)}
        return EmbeddingStore.from_arrays(columns, provenance={"columns": {"text": entry}})

    space = space_of(new)
    message = (
        rf"'text' by transformers:.* with an adapter \(fingerprint {new.fingerprint[:12]}\), but the column of .* has "
        rf"features by transformers:\S+ \(fingerprint {old.fingerprint[:12]}\); both have the same architecture, but "
        "one was trained"
    )
    with pytest.raises(DataError, match=message):
        space.encode_store(store_of(old), tmp_path / "old")
    assert space.encode_store(store_of(new), tmp_path / "new").array("text").shape == (3, 6)
    with pytest.raises(DataError, match="both have the same architecture, but one was trained"):
        space.with_encoders({"text": old})
    other = space_of(create("builtin:chars?dim=16"))
    with pytest.raises(DataError, match="features of different encoders are not comparable"):
        other.with_encoders({"text": create("builtin:bag?dim=16")})


def test_an_encoder_that_is_given_to_a_space_of_another_folder(bert: str, tmp_path: Path) -> None:
    first = adapted(bert)
    space_of(first).save_pretrained(tmp_path / "first")
    loaded = Space.from_pretrained(tmp_path / "first")
    encoder = create(bert, device="cpu")
    change(encoder, LORA.replace(r=3))
    for tuned in (encoder, None):
        if tuned is None:
            tuned = create(bert, device="cpu")
            change(tuned, ALL)
        second = trained_encoder(tuned)
        other = loaded.with_encoders({"text": None}).with_encoders({"text": second})
        other.save_pretrained(tmp_path / "second")
        again = Space.from_pretrained(tmp_path / "second")
        assert again.encoders["text"]["fingerprint"] == second.fingerprint
        assert torch.equal(encoded(again), encoded(other))
    # The reference in a store names an encoder that is not in the folder of a space.
    made = Space({"text": 16, "sensor": 5}, dim=6, encoders={"text": first.reference}).eval()
    with pytest.raises(DataError, match=r"such as `encoder\('text'\)` of the space that it was trained with"):
        encoded(made)
    given = made.with_encoders({"text": Space.from_pretrained(tmp_path / "first").encoder("text")})
    assert encoded(given).any()


def test_licenses_of_adapters(bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: list[list[str]] = []

    def push(folder: Path, repo_id: str, **options: Any) -> str:
        pushed.append(files(folder))
        return "url"

    monkeypatch.setattr("unialign.space._saving.push_folder", push)
    encoder = adapted(bert)
    assert encoder.reference["license"] == "unknown"
    space = space_of(encoder)
    space.push_to_hub("someone/space")
    assert pushed == [
        ["README.md", "config.json", f"encoders/{encoder.fingerprint[:16]}/adapter.safetensors", "model.safetensors"]
    ]
    with pytest.raises(ConfigError, match="license of the encoder of 'text' is not known, and the folder contains"):
        space.push_to_hub("someone/space", inside="always")


def test_trained_built_in_encoders(tmp_path: Path) -> None:
    image = create("builtin:conv?size=32", device="cpu")
    change(image, ALL)
    trained = trained_encoder(image)
    space = make_space().with_encoders({"image": None}).with_encoders({"image": trained})
    space.save_pretrained(tmp_path)
    assert "weights in this folder" in (tmp_path / "README.md").read_text()
    loaded = Space.from_pretrained(tmp_path)
    assert loaded.encoders["image"]["stored"] == "inside"
    inputs = {name: raw()[name] for name in ("image", "text")}
    assert all(torch.equal(z, loaded.encode(inputs)[name]) for name, z in space.encode(inputs).items())


class Counts(nn.Module):
    """Map counts of letters to features."""

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(26, hidden), nn.GELU(), nn.Linear(hidden, 4))

    def forward(self, counts: torch.Tensor) -> Any:
        return self.layers(counts)


def letters(text: str) -> dict[str, Any]:
    return {"counts": np.array([text.lower().count(chr(97 + place)) for place in range(26)], np.float32)}


def wrapped(seed: int = 0, hidden: int = 8) -> Encoder:
    torch.manual_seed(seed)
    return wrap(Counts(hidden), media="text", dim=4, prepare=letters)


@pytest.mark.parametrize("tuning", [ALL, LAST, LORA.replace(targets=("layers.0", "2"))], ids=["all", "last", "lora"])
def test_wrapped_modules(tmp_path: Path, tuning: Any) -> None:
    if tuning.mode == "lora":
        pytest.importorskip("peft")
    encoder = wrapped()
    change(encoder, tuning)
    space = space_of(trained_encoder(encoder))
    expected = encoded(space)
    space.save_pretrained(tmp_path)
    assert space.encoders["text"]["kind"] == "module"
    with pytest.raises(ConfigError, match="is a module, whose code is not stored in the space, so 'text' takes only"):
        encoded(Space.from_pretrained(tmp_path))
    other = wrapped(seed=5)
    loaded = Space.from_pretrained(tmp_path, encoders={"text": other})
    assert torch.equal(encoded(loaded), expected)
    assert torch.equal(encode_media(other, ["abc"]), encode_media(encoder, ["abc"]))
    loaded.save_pretrained(tmp_path / "again")
    again = Space.from_pretrained(tmp_path / "again", encoders={"text": wrapped(seed=6)})
    assert torch.equal(encoded(again), expected)
    changed = wrap(Counts(), media="text", dim=4, prepare=letters, version=2)
    with pytest.raises(DataError, match="features of different encoders are not comparable"):
        Space.from_pretrained(tmp_path, encoders={"text": changed})
    with pytest.raises(DataError, match=r"encoder of 'text' cannot be used: .*does not fit the encoder"):
        Space.from_pretrained(tmp_path, encoders={"text": wrapped(hidden=9)})
    (inner,) = (tmp_path / "encoders").iterdir()
    data = (inner / "model.safetensors").read_bytes()
    (inner / "model.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"model\.safetensors was altered or truncated"):
        Space.from_pretrained(tmp_path, encoders={"text": wrapped(seed=5)})
