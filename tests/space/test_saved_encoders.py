"""Test that a saved space encodes raw media after loading, with encoders by reference or inside of the folder."""

import json
import os
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

import raw_spaces
from raw_spaces import make_space, raw
from unialign.encoders import Encoder, create, encode_media, load, save
from unialign.encoders._reference import fingerprint_of
from unialign.errors import CheckpointError, ConfigError, DataError
from unialign.io import read_json, write_json
from unialign.space import Space


@pytest.fixture
def space() -> Space:
    torch.manual_seed(0)
    return make_space()


def train(encoder: Encoder) -> None:
    """Change the weights of an encoder."""
    assert encoder.module is not None
    with torch.no_grad():
        next(encoder.module.parameters()).add_(0.01)


def trained_space(folder: Path) -> Space:
    """Return a space with an image encoder that was trained, which no name gives."""
    image = create(raw_spaces.ENCODERS["image"], device="cpu")
    train(image)
    folder.mkdir(exist_ok=True)
    trained = load(save(image, folder), folder=folder, device="cpu")
    return make_space().with_encoders({"image": None}).with_encoders({"image": trained})


def equal(one: Space, other: Space, *names: str) -> bool:
    found, expected = (space.encode({name: raw()[name] for name in names}) for space in (one, other))
    return all(torch.equal(found[name], expected[name]) for name in names)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def forge(folder: Path, change: Any) -> None:
    body = read_json(folder / "config.json")
    change(body["space"]["encoders"])
    (folder / "config.json").unlink()
    write_json(folder / "config.json", body)


def test_encoders_by_reference(space: Space, tmp_path: Path) -> None:
    space.save_pretrained(tmp_path)
    assert files(tmp_path) == ["README.md", "config.json", "model.safetensors"]
    loaded = Space.from_pretrained(tmp_path)
    assert loaded.encoders == space.encoders
    assert equal(loaded, space, "text", "image", "sensor")


def test_the_files_of_a_space_without_encoders_do_not_mention_them(tmp_path: Path) -> None:
    Space({"a": 2}, dim=2).save_pretrained(tmp_path)
    assert "encoders" not in json.loads((tmp_path / "config.json").read_text())["space"]


def test_encoders_inside(space: Space, tmp_path: Path) -> None:
    space.save_pretrained(tmp_path / "a", inside="always")
    folder = f"encoders/{space.encoders['image']['fingerprint'][:16]}"
    assert f"{folder}/model.safetensors" in files(tmp_path / "a")
    assert {Path(name).suffix for name in files(tmp_path / "a")} == {".md", ".json", ".safetensors"}
    loaded = Space.from_pretrained(tmp_path / "a")
    assert {reference["stored"] for reference in loaded.encoders.values()} == {"inside"}
    assert equal(loaded, space, "text", "image", "sensor")
    loaded.save_pretrained(tmp_path / "b")
    assert files(tmp_path / "b") == files(tmp_path / "a")
    assert equal(Space.from_pretrained(tmp_path / "b"), space, "image")
    loaded.save_pretrained(tmp_path / "b", inside="never")
    assert files(tmp_path / "b") == ["README.md", "config.json", "model.safetensors"]
    assert equal(Space.from_pretrained(tmp_path / "b"), space, "image")


def test_other_files_in_the_folder_of_an_encoder_raise(space: Space, tmp_path: Path) -> None:
    space.save_pretrained(tmp_path, inside="always")
    (folder,) = (tmp_path / "encoders").glob(f"{space.encoders['image']['fingerprint'][:16]}")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"adapter_config\.json is not a file of the encoder; remove it"):
        Space.from_pretrained(tmp_path).encode({"image": raw()["image"]})
    (folder / "adapter_config.json").unlink()
    (folder / "other.json").symlink_to(folder / "config.json")
    with pytest.raises(CheckpointError, match=r"other\.json is not a file of the encoder; remove it"):
        Space.from_pretrained(tmp_path).encode({"image": raw()["image"]})


def test_a_trained_encoder_is_stored_inside(space: Space, tmp_path: Path) -> None:
    trained = trained_space(tmp_path / "trained")
    trained.save_pretrained(tmp_path / "space")
    loaded = Space.from_pretrained(tmp_path / "space")
    assert [name for name, reference in loaded.encoders.items() if reference["stored"] == "inside"] == ["image"]
    assert loaded.encoders["image"]["fingerprint"] != space.encoders["image"]["fingerprint"]
    assert equal(loaded, trained, "image", "text")


def test_an_encoder_that_is_trained_after_it_was_given(tmp_path: Path) -> None:
    image = create(raw_spaces.ENCODERS["image"], device="cpu")
    space = make_space().with_encoders({"image": image})
    space.save_pretrained(tmp_path)
    assert files(tmp_path) == ["README.md", "config.json", "model.safetensors"]
    train(image)
    with pytest.raises(DataError, match=r"encoder of 'image' cannot be used: .* computes different features"):
        space.encode({"image": raw()["image"]})
    space.save_pretrained(tmp_path)
    loaded = Space.from_pretrained(tmp_path)
    found = loaded.encode({"image": raw()["image"]})["image"]
    features = encode_media(image, raw()["image"])
    present = {"image": features.any(1)}
    torch.testing.assert_close(found, space.encode({"image": features}, present=present)["image"], atol=1e-6, rtol=0)


def test_saving_again_removes_the_encoders_of_the_earlier_space(tmp_path: Path) -> None:
    folder = tmp_path / "space"
    space = trained_space(tmp_path / "trained")
    space.save_pretrained(folder)
    (folder / "encoders" / "notes").mkdir()
    before = files(folder)
    make_space().save_pretrained(folder, inside="always")
    assert not set(files(folder)) & set(before) - {"README.md", "config.json", "model.safetensors"}
    make_space().save_pretrained(folder)
    assert files(folder) == ["README.md", "config.json", "model.safetensors"]
    assert (folder / "encoders" / "notes").is_dir()


@pytest.mark.parametrize("crash_at", range(4))
def test_a_crash_leaves_one_whole_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int) -> None:
    old, new = make_space(), trained_space(tmp_path / "trained")
    folder = tmp_path / "space"
    old.save_pretrained(folder, inside="always")
    calls: list[Path] = []
    replace = os.replace

    class Crash(BaseException):
        pass

    def crashing(source: Path, target: Path) -> None:
        if len(calls) == crash_at:
            raise Crash
        calls.append(target)
        replace(source, target)

    (folder / "README.md").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crashing)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(Crash):
            new.save_pretrained(folder)
    assert equal(Space.from_pretrained(folder), old if crash_at < 2 else new, "image", "text")


def test_damaged_encoders(tmp_path: Path) -> None:
    trained_space(tmp_path / "trained").save_pretrained(tmp_path)
    (folder,) = (tmp_path / "encoders").iterdir()
    weights = folder / "model.safetensors"
    data = weights.read_bytes()

    def fails(message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            Space.from_pretrained(tmp_path).encode({"image": raw()["image"][:1]})

    for place in (0, 9, len(data) // 2, len(data) - 1):
        weights.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        fails(r"model\.safetensors was altered or truncated")
    weights.write_bytes(data[:100])
    fails(r"model\.safetensors was altered or truncated")
    weights.unlink()
    fails(r"model\.safetensors cannot be read")
    (tmp_path.parent / "outside").write_bytes(data)
    weights.symlink_to(tmp_path.parent / "outside")
    fails("is a link out of the folder")
    assert Space.from_pretrained(tmp_path).encode({"text": ["a cat"]})["text"].any()


def test_hostile_references(tmp_path: Path) -> None:
    space = trained_space(tmp_path / "trained")

    def fails(change: Any, message: str, kind: type[Exception] = CheckpointError) -> None:
        space.save_pretrained(tmp_path)
        forge(tmp_path, change)
        with pytest.raises(kind, match=message):
            Space.from_pretrained(tmp_path).encode({"image": raw()["image"][:1]})

    fails(lambda found: found["image"].update(files={"../x.json": "0" * 64}), r"cannot have the file '\.\./x\.json'")
    fails(lambda found: found["image"].update(files={"model.bin": "0" * 64}), r"cannot have the file 'model\.bin'")
    fails(lambda found: found["image"].update(files=["a"]), "`files` of .* must be an object")
    fails(lambda found: found["image"].update(batch_size="x"), "`batch_size` of")
    fails(lambda found: found["image"].update(batch_size=0), "`batch_size` of")
    fails(lambda found: found["image"].update(packages=3), "`packages` of .* must be an object")
    fails(lambda found: found["image"].update(witness="x"), "`witness` of .* must be a list of numbers")

    def with_options(found: Any) -> None:
        """Change an entry that is part of the fingerprint, and compute the fingerprint again."""
        found["image"] = {**found["image"], "options": [3]}
        found["image"]["fingerprint"] = fingerprint_of(found["image"])

    fails(with_options, "`options` of .* must be an object")
    fails(lambda found: found["image"].update(kind="os"), "was altered")
    fails(lambda found: found["image"].update(fingerprint="../../x"), "was altered")
    fails(lambda found: found.update(image="builtin:conv"), "is not a reference")
    fails(lambda found: found.update(other=found["text"]), "unknown modality 'other'")
    fails(lambda found: found["image"].update(stored="reference", files={}), "sha256|weights", DataError)
    fails(lambda found: found["image"].update(witness=[0.5] * 3), "witness of an encoder must have 64", DataError)


def test_options(space: Space, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="inside"):
        space.save_pretrained(tmp_path, inside="yes")  # type: ignore[arg-type]


# --- the hub --------------------------------------------------------------------------------------------------------


class Hub(types.SimpleNamespace):
    """A fake client whose repositories are folders."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root, self.options = root, dict[str, Any]()

    def create_repo(self, repo_id: str, **options: object) -> None:
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)

    def upload_folder(self, repo_id: str, folder_path: Path, allow_patterns: list[str], **options: object) -> str:
        from fnmatch import fnmatch

        for name in files(folder_path):
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                (self.root / repo_id / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(folder_path / name, self.root / repo_id / name)
        return "commit"

    def snapshot_download(self, name: str, **options: Any) -> str:
        self.options = options
        return str(self.root / name)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", made)  # type: ignore[arg-type]
    return made


def test_push_and_load(hub: Hub, tmp_path: Path) -> None:
    space = trained_space(tmp_path / "trained")
    space.push_to_hub("someone/space")
    pushed = files(hub.root / "someone/space")
    assert [name for name in pushed if not name.startswith("encoders/")] == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert len(pushed) == 4
    loaded = Space.from_pretrained("someone/space", cache=tmp_path / "cache", offline=True)
    assert equal(loaded, space, "image", "text")
    assert hub.options["local_files_only"] is True
    assert hub.options["cache_dir"] == tmp_path / "cache"
    assert not any(pattern.endswith((".bin", ".py", "*")) for pattern in hub.options["allow_patterns"])


def test_licenses_of_encoders_that_are_uploaded(hub: Hub, space: Space) -> None:
    for license in ("unknown", "proprietary", ""):
        references = {name: {**reference, "license": license} for name, reference in space.encoders.items()}
        other = make_space(encoders=references)
        with pytest.raises(
            ConfigError, match=r"license of the encoder of 'image' .*license='\.\.\.' if you may publish"
        ):
            other.push_to_hub("someone/space", inside="always")
        assert not hub.root.exists()
        other.push_to_hub("someone/space", inside="always", license="I may publish the weights")
        shutil.rmtree(hub.root)
        other.push_to_hub("someone/space")
        shutil.rmtree(hub.root)
    space.push_to_hub("someone/space", inside="always")
