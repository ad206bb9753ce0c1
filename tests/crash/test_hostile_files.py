"""Test that every reader rejects malicious files, executes no code, and allocates no large block of memory."""

import contextlib
import hashlib
import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hostile_cases import payloads

import unialign as ua
from research._records import read_record
from unialign.cli import main
from unialign.data import EmbeddingStore
from unialign.errors import CheckpointError, ConfigError, UniAlignError
from unialign.io import read_json, write_json
from unialign.report._folder import _read_space
from unialign.space import Space
from unialign.train._checkpoint import Snapshot, load_checkpoint, save_checkpoint

Reader = Callable[[Path, bytes], None]


def _forge(file: Path, change: Callable[[dict], object]) -> None:
    body = read_json(file)
    change(body)
    file.unlink()
    write_json(file, body)


def read_checkpoint(folder: Path, content: bytes) -> None:
    step = save_checkpoint(folder, Snapshot(3, {"model": {"w": torch.ones(2)}}, {}), keep=1)
    (step / "model.safetensors").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    _forge(step / "manifest.json", lambda body: body["files"].update({"model.safetensors": sha256}))
    load_checkpoint(step)


def read_saved_space(folder: Path, content: bytes) -> None:
    Space({"image": 4}, dim=2).save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(content)
    _forge(folder / "config.json", lambda body: body.update(weights=hashlib.sha256(content).hexdigest()))
    Space.from_pretrained(folder)


def read_for_a_diagnosis(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(content)
    ua.diagnose(folder / "model.safetensors")


def read_for_a_report(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(content)
    _read_space(folder / "model.safetensors", ("image", "text"), None)


def read_record_of_a_study(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(content)
    read_record(folder / "model.safetensors", {})


READERS: dict[str, Reader] = {
    "checkpoint": read_checkpoint,
    "space": read_saved_space,
    "diagnosis": read_for_a_diagnosis,
    "report": read_for_a_report,
    "study": read_record_of_a_study,
}


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Limit address space to 8 GB above current use, so that allocating 10 GB for a header raises MemoryError."""
    if not Path("/proc/self/statm").exists():
        yield
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 8 * 2**30, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def rejected(read: Callable[[], object], *words: str) -> str:
    with pytest.raises(UniAlignError) as caught:
        read()
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "Traceback" not in message
    assert message.count("\n") <= 2
    assert len(message) < 900
    return message


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("place", READERS)
def test_hostile_weights_raise_and_are_not_executed(tmp_path: Path, place: str) -> None:
    canary = tmp_path / "canary"
    for payload, content in payloads(canary).items():
        rejected(lambda p=payload, c=content: READERS[place](tmp_path / p, c), "model.safetensors")
        assert not canary.exists(), payload


def test_the_payloads_would_execute_code(tmp_path: Path) -> None:
    for name in ("pickle of protocol 0", "pickle of protocol 5", "torch.save"):
        canary = tmp_path / name
        content = payloads(canary)[name]
        with contextlib.suppress(FileExistsError):  # This error is raised if the payload creates the canary twice.
            pickle.loads(content) if "pickle" in name else torch.load(io.BytesIO(content), weights_only=False)
        assert canary.exists()


def test_a_deeply_nested_study_record_raises(tmp_path: Path) -> None:
    path = tmp_path / "record.safetensors"
    path.write_bytes(safetensors.torch.save({"x": torch.ones(1)}, metadata={"study": "[" * 100_000}))
    rejected(lambda: read_record(path, {}), "record.safetensors is not a valid record of a study")


def test_a_hostile_column_of_a_store(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    EmbeddingStore.write(tmp_path / "store", {"x": np.ones((3, 2), dtype=np.float32)})
    for content in payloads(canary).values():
        (tmp_path / "store" / "arrays" / "x.npy").write_bytes(content)
        rejected(lambda: EmbeddingStore.open(tmp_path / "store").array("x"), "x.npy")
        assert not canary.exists()


# --- links ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_link_out_of_the_folder_of_a_space_raises(tmp_path: Path, file: str) -> None:
    """A link out of the folder is rejected even if its target is a valid file."""
    Space({"image": 4}, dim=2).save_pretrained(tmp_path / "space")
    (tmp_path / "space" / file).rename(tmp_path / file)
    (tmp_path / "space" / file).symlink_to(tmp_path / file)
    with pytest.raises(CheckpointError, match=rf"{file} is a link out of the folder"):
        Space.from_pretrained(tmp_path / "space")


def test_links_into_the_cache_of_the_hub_are_followed(tmp_path: Path) -> None:
    folder = tmp_path / "models--a--b" / "snapshots" / "0123"
    Space({"image": 4}, dim=2).save_pretrained(folder)
    (tmp_path / "models--a--b" / "blobs").mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).rename(tmp_path / "models--a--b" / "blobs" / name)
        (folder / name).symlink_to(Path("..") / ".." / "blobs" / name)
    assert Space.from_pretrained(folder).dim == 2
    (tmp_path / "link").symlink_to(folder)
    assert Space.from_pretrained(tmp_path / "link").dim == 2


def test_a_circular_link_raises(tmp_path: Path) -> None:
    Space({"image": 4}, dim=2).save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").symlink_to(tmp_path / "config.json")
    rejected(lambda: Space.from_pretrained(tmp_path), "config.json")


# --- configurations -------------------------------------------------------------------------------------------------

COMMANDS = ("train", "compare", "evaluate", "diagnose", "generate", "decoder")
YAML = {
    "a call": "data: !!python/object/apply:os.mkdir [CANARY]\n",
    "a call with new": "train: !!python/object/new:os.mkdir [CANARY]\n",
    "a call in a key": "? !!python/object/apply:os.mkdir [CANARY]\n: 1\n",
    "a name": "data: !!python/name:os.system\n",
    "a module": "data: !!python/module:os\n",
    "a path of ours": "train: !!python/object:unialign.space.Space {}\n",
    "a mapping in itself": "train: &a {objective_options: *a}\nentries: *a\nfiles: *a\nstudy: *a\nspace: *a\n",
    "a list in itself": "&a [*a]\n",
    "endless nesting": "data: " + "[" * 20_000,
    "no UTF-8": "data: \udcff\udcfe\n",
    "a null character": "data: \0\n",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_configuration_with_yaml_tags_raises_and_executes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*command.split(), *(["train"] if command == "decoder" else [])]
    for case, text in YAML.items():
        content = text.replace("CANARY", str(tmp_path / "canary"))
        (tmp_path / "evil.yaml").write_bytes(content.encode("utf-8", errors="surrogateescape"))
        assert main([*words, "--config", "evil.yaml", "--out", "out"]) == 2, case
        message = capsys.readouterr().err
        assert "Traceback" not in message, case
        assert 0 < len(message) < 1500, case
        assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.yaml"], case


def test_a_set_option_with_yaml_tags_raises_and_executes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for value in ("!!python/object/apply:os.mkdir [canary]", "!!python/name:os.system", "&a [*a]"):
        assert main(["train", "digits", "--out", "out", "--set", f"objective_options={value}"]) == 2
        assert "Traceback" not in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


def test_a_training_configuration_cannot_import_code() -> None:
    with pytest.raises(ConfigError, match=r"unknown objective 'os\.system'"):
        ua.TrainConfig(objective="os.system")
