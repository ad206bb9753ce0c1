"""Test how an interrupted run continues: which parts are kept, computed again or not accepted."""

import contextlib
import errno
import os
import resource
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import unialign as ua
from embed_cases import content, image_encoder, small_encoders, small_items, text_encoder, write_image
from unialign.config import EmbedConfig
from unialign.data import EmbeddingStore
from unialign.embedding import _prepare, _work_folder, embed_with
from unialign.embedding._part_writer import PartWriter
from unialign.embedding._work_folder import WorkFolder
from unialign.encoders import Encoder
from unialign.errors import CheckpointError, ConfigError, DataError
from unialign.items import Items

CONFIG = EmbedConfig(batch_size=4, part_cells=8, threads=1, workers=0)
OPTIONS = {"batch_size": 4, "part_cells": 8, "threads": 1, "workers": 0, "progress": "none"}
# Parts of the images and of the texts.
IMAGE_PARTS, TEXT_PARTS = 2, 2


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    small_items(folder)
    return folder


@pytest.fixture(scope="module")
def whole(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    store = ua.embed(small_items(media), small_encoders(), tmp_path_factory.mktemp("whole") / "store", **OPTIONS)
    return content(store.path)


class Stop(BaseException):
    pass


def stopping(encoder: Encoder, calls: int) -> Encoder:
    """Return the encoder, which fails after some batches."""
    encoder.reference  # noqa: B018  the witness calls the module, too
    left = [calls]

    def count(*_: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Stop

    encoder.module.register_forward_hook(count)
    return encoder


def interrupted(media: Path, out: Path) -> Items:
    """Start a run that fails in the last part."""
    items = small_items(media)
    with pytest.raises(Stop):
        ua.embed(items, small_encoders() | {"text": stopping(text_encoder(), 2)}, out / "store", **OPTIONS)
    assert parts_of(out) == {"image": IMAGE_PARTS, "text": TEXT_PARTS - 1}
    return items


def parts_of(out: Path) -> dict[str, int]:
    folder = out / ".store.embed" / "parts"
    return {path.name: len(list(path.glob("*.safetensors"))) for path in sorted(folder.iterdir())}


def resumed(items: Items, out: Path, *, encoders: Any = None, **options: Any) -> Any:
    config = CONFIG.override({key: options.pop(key) for key in list(options) if hasattr(CONFIG, key)})
    options = {"progress": "none", **options}
    return embed_with(config, items, encoders or small_encoders(), out / "store", **options)


def test_a_run_continues_with_the_missing_parts(media: Path, tmp_path: Path, whole: Any) -> None:
    items = interrupted(media, tmp_path)
    outcome = resumed(items, tmp_path, resume="required", workers=1)
    assert (outcome.resumed, outcome.computed) == (3, 1)
    assert content(tmp_path / "store") == whole
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_resume_options(media: Path, tmp_path: Path, whole: Any) -> None:
    items = small_items(media)
    with pytest.raises(CheckpointError, match="there is no unfinished run"):
        resumed(items, tmp_path, resume="required")
    assert list(tmp_path.iterdir()) == []
    interrupted(media, tmp_path)
    with pytest.raises(CheckpointError, match=r"\.store\.embed has an unfinished run; continue it"):
        resumed(items, tmp_path, resume="never")
    outcome = resumed(items, tmp_path, resume="never", overwrite="replace")
    assert (outcome.resumed, outcome.computed) == (0, 4)
    assert content(tmp_path / "store") == whole


def with_other_weights(encoder: Encoder) -> Encoder:
    other = image_encoder()
    other.module.load_state_dict({"weight": encoder.module.weight + 1})
    return ua.encoders.wrap(other.module, media="image", dim=6, prepare=other.prepare, name="pixels")


# Option or argument -> another value, and the text of the message.
CHANGES: dict[str, tuple[Any, str]] = {
    "batch_size": (2, r"batch_size: 4 -> 2"),
    "part_cells": (4, r"part_cells: 8 -> 4"),
    "dtype": ("float16", r"dtype: 'float32' -> 'float16'"),
    "threads": (2, r"threads: 1 -> 2"),
    "thumbnails": (32, r"thumbnails: 64 -> 32"),
    "hash": (True, r"hash: False -> True"),
    "limits": ({"pixels": 1e6}, r"limits\.pixels: \d+ -> 1000000"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_setting_is_named(media: Path, tmp_path: Path, name: str) -> None:
    items, (value, message) = interrupted(media, tmp_path), CHANGES[name]
    before = content(tmp_path)
    with pytest.raises(CheckpointError, match=rf"other settings \({message}\); repeat the call"):
        resumed(items, tmp_path, **{name: value})
    after = content(tmp_path)
    assert {path: after[path] for path in before if "owner" not in path} == {
        path: before[path] for path in before if "owner" not in path
    }


def test_other_encoders_and_items_are_named(media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = interrupted(media, tmp_path)
    weights = with_other_weights(image_encoder())
    with pytest.raises(CheckpointError, match=r"encoder of 'image', weights\.state: \w{12}\.\. -> \w{12}\.\."):
        resumed(items, tmp_path, encoders=small_encoders() | {"image": weights})
    with pytest.raises(CheckpointError, match=r"dim of 'text': 5 -> 7"):
        resumed(items, tmp_path, encoders=small_encoders() | {"text": text_encoder(dim=7)})
    with pytest.raises(CheckpointError, match=r"item table: .*number of items: 23 -> 22"):
        resumed(items.rows_of(range(22)), tmp_path)
    with pytest.raises(CheckpointError, match=r"column 'text': present -> missing"):
        resumed(items.select(["image"]), tmp_path, encoders={"image": image_encoder()})
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "9.0")
        with pytest.raises(CheckpointError, match=r"torch: '.*' -> '9\.0'"):
            resumed(items, tmp_path)


def test_settings_without_effect_on_the_bytes_may_change(media: Path, tmp_path: Path, whole: Any) -> None:
    interrupted(media, tmp_path / "a")
    shutil.copytree(media, tmp_path / "moved")
    moved = small_items(tmp_path / "moved")
    for path in media.iterdir():
        shutil.copystat(path, tmp_path / "moved" / path.name)
    outcome = resumed(moved, tmp_path / "a", max_broken=0.5, on_broken="raise", workers=1, threads="auto")
    assert outcome.resumed == 3
    assert content(tmp_path / "a" / "store") == whole


def test_parts_of_columns_that_stay_the_same_are_kept(media: Path, tmp_path: Path) -> None:
    items = interrupted(media, tmp_path)
    encoders = small_encoders() | {"text": text_encoder(dim=7)}
    outcome = resumed(items, tmp_path, encoders=encoders, overwrite="replace")
    assert (outcome.resumed, outcome.computed) == (IMAGE_PARTS, TEXT_PARTS)
    fresh = ua.embed(items, encoders, tmp_path / "fresh", **OPTIONS)
    assert content(tmp_path / "store") == content(fresh.path)


def damages(data: bytes) -> dict[str, bytes]:
    header = 8 + int.from_bytes(data[:8], "little")
    found = {"cut": data[:-5], "empty": b"", "longer": data + b"x"}
    for name, place in {"length": 3, "header": header // 2, "first": header + 1, "last": len(data) - 1}.items():
        found[name] = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    return found


def test_damaged_parts_are_computed_again(media: Path, tmp_path: Path, whole: Any) -> None:
    items = interrupted(media, tmp_path / "base")
    part = Path(".store.embed/parts/image/00000001.safetensors")
    for name, damaged in damages((tmp_path / "base" / part).read_bytes()).items():
        shutil.copytree(tmp_path / "base", tmp_path / name)
        (tmp_path / name / part).write_bytes(damaged)
        outcome = resumed(items, tmp_path / name)
        assert (outcome.resumed, outcome.computed) == (2, 2), name
        assert content(tmp_path / name / "store") == whole, name


def test_parts_at_the_wrong_place_are_computed_again(media: Path, tmp_path: Path, whole: Any) -> None:
    items = interrupted(media, tmp_path)
    parts = tmp_path / ".store.embed" / "parts" / "image"
    shutil.copy(parts / "00000001.safetensors", parts / "00000000.safetensors")
    assert resumed(items, tmp_path).computed == 2
    assert content(tmp_path / "store") == whole


def test_an_altered_plan_raises(media: Path, tmp_path: Path) -> None:
    items = interrupted(media, tmp_path)
    plan = tmp_path / ".store.embed" / "plan.json"
    plan.write_text(plan.read_text().replace('"rows": 23', '"rows": 24'))
    with pytest.raises(CheckpointError, match=r"plan.json was altered"):
        resumed(items, tmp_path)


def test_files_that_change_between_calls(media: Path, tmp_path: Path) -> None:
    own = tmp_path / "media"
    shutil.copytree(media, own)
    items = interrupted(own, tmp_path)
    write_image(own / "2.png", 99)
    (own / "5.png").unlink()
    with pytest.raises(DataError, match=r"2 files differ from those that were encoded: .*2\.png.*--allow-changed"):
        resumed(items, tmp_path)
    assert parts_of(tmp_path) == {"image": IMAGE_PARTS, "text": TEXT_PARTS - 1}
    outcome = resumed(items, tmp_path, allow_changed=True)
    assert (outcome.resumed, outcome.computed) == (2, 2)
    fresh = ua.embed(items, small_encoders(), tmp_path / "fresh", **OPTIONS)
    assert content(tmp_path / "store") == content(fresh.path)


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("calm", "once", "always"):
        write_image(tmp_path / f"{name}.png", 1)
    table = Items.from_records(
        [{"image": f"{name}.png"} for name in ("calm", "once", "always")], kinds={"image": "image"}, root=tmp_path
    )
    load, reads = _prepare.load_cell, []

    def load_and_change(cell: Any, *arguments: Any, **options: Any) -> Any:
        found = load(cell, *arguments, **options)
        reads.append(cell.path)
        if cell.path == "always.png" or (cell.path == "once.png" and reads.count("once.png") == 1):
            write_image(tmp_path / cell.path, 10 + len(reads), side=12 + len(reads))
        return found

    monkeypatch.setattr(_prepare, "load_cell", load_and_change)
    store = ua.embed(table, {"image": image_encoder()}, tmp_path / "store", **OPTIONS)
    assert store.present("image").tolist() == [True, True, False]
    assert store.provenance["columns"]["image"]["input"]["broken"] == {"changed": 1}
    assert reads == ["calm.png", "once.png", "once.png", "always.png", "always.png"]


def failing_reads(monkeypatch: pytest.MonkeyPatch, fails: Callable[[int], bool]) -> list[float]:
    """Let the given calls of `load_cell` fail, and return the waiting times."""
    load, calls, waits = _prepare.load_cell, [0], []

    def fail(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if fails(calls[0]):
            raise OSError(errno.EIO, "Input/output error")
        return load(*arguments, **options)

    monkeypatch.setattr(_prepare, "load_cell", fail)
    monkeypatch.setattr(_prepare.time, "sleep", waits.append)
    return waits


def test_trouble_of_the_disk_is_retried(
    media: Path, tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = failing_reads(monkeypatch, lambda call: call in (3, 6, 7, 8, 20))
    store = ua.embed(small_items(media), small_encoders(), tmp_path / "store", **OPTIONS)
    assert waits == [1.0, 1.0, 4.0, 16.0, 1.0]
    assert "broken.jsonl" not in store.assets
    assert content(store.path) == whole


def test_lasting_trouble_of_the_disk_stops_the_run_and_lists_nothing(
    media: Path, tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = small_items(media)
    with monkeypatch.context() as patch:
        failing_reads(patch, lambda call: call > 18)
        with pytest.raises(
            DataError, match=r"'text number \d+' .*cannot be read \(Input/output error\).*repeat the call"
        ):
            ua.embed(items, small_encoders(), tmp_path / "store", **OPTIONS)
    assert parts_of(tmp_path) == {"image": IMAGE_PARTS, "text": 0}
    assert resumed(items, tmp_path).resumed == IMAGE_PARTS
    assert content(tmp_path / "store") == whole


def test_a_full_disk_during_the_parts(media: Path, tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = _work_folder.write_durably, [0]

    def full(path: Path, data: bytes) -> str:
        calls[0] += 1
        if calls[0] == 3:
            path.write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    items = small_items(media)
    with monkeypatch.context() as patch:
        patch.setattr(_work_folder, "write_durably", full)
        with pytest.raises(
            DataError, match=r"cannot write a part in .*\.store\.embed: No space left .* are kept: free"
        ):
            ua.embed(items, small_encoders(), tmp_path / "store", **OPTIONS)
    assert parts_of(tmp_path) == {"image": IMAGE_PARTS, "text": 0}
    assert not list(tmp_path.rglob("*.partial"))
    assert resumed(items, tmp_path).resumed == IMAGE_PARTS
    assert content(tmp_path / "store") == whole


def test_a_full_disk_during_the_assembly(media: Path, tmp_path: Path, whole: Any) -> None:
    """A limit on the size of files makes the write of each larger file fail."""
    items = small_items(media)
    store = resumed(items, tmp_path, keep_parts=True).store
    sizes = sorted({200, *(path.stat().st_size for path in store.path.rglob("*") if path.is_file())})
    shutil.rmtree(store.path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    messages = set()
    for size in sizes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, before[1]))
        try:
            with pytest.raises(DataError, match="File too large") as caught:
                resumed(items, tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        messages.add(str(caught.value).partition(str(tmp_path))[0].strip())
        assert not (tmp_path / "store").exists()
        assert not list(tmp_path.glob(".store.*.partial"))
    assert messages == {"cannot join the parts in", "cannot write the store"}
    assert resumed(items, tmp_path).resumed == IMAGE_PARTS + TEXT_PARTS
    assert content(tmp_path / "store") == whole


def test_a_read_only_folder(media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    items = small_items(media)
    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(DataError, match=r"\.store\.embed: Read-only file system; choose another path"):
        ua.embed(items, small_encoders(), tmp_path / "store", **OPTIONS)


def test_two_processes_do_not_write_the_same_store(media: Path, tmp_path: Path) -> None:
    items = small_items(media)
    with (
        WorkFolder(tmp_path / "store").locked(),
        pytest.raises(ConfigError, match=rf"embedding in .*\.store\.embed.* \(process {os.getpid()} on "),
    ):
        ua.embed(items, small_encoders(), tmp_path / "store", **OPTIONS)
    ua.embed(items, small_encoders(), tmp_path / "store", **OPTIONS)


def test_another_process_replaces_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, lock, calls = WorkFolder(tmp_path / "store"), _work_folder.lock_folder, []

    @contextlib.contextmanager
    def replace_before(path: Path, *, doing: str, times: int) -> Any:
        with lock(path, doing=doing):
            calls.append(path)
            if len(calls) <= times:
                shutil.rmtree(path)
                path.mkdir()
                (path / ".lock").touch()
            yield

    monkeypatch.setattr(_work_folder, "lock_folder", partial(replace_before, times=2))
    with folder.locked():
        assert len(calls) == 3
    monkeypatch.setattr(_work_folder, "lock_folder", partial(replace_before, times=10**9))
    with pytest.raises(ConfigError, match="cannot be locked"), folder.locked():
        pass


def test_the_assembly_of_another_store_is_kept(media: Path, tmp_path: Path) -> None:
    other, own = tmp_path / f".store.v2.{'0' * 12}.partial", tmp_path / f".store.{'0' * 12}.partial"
    other.mkdir()
    own.mkdir()
    ua.embed(small_items(media), small_encoders(), tmp_path / "store", **OPTIONS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "store"]


def test_kept_parts_remain_after_another_call(media: Path, tmp_path: Path) -> None:
    for _ in range(2):
        resumed(small_items(media), tmp_path, keep_parts=True)
        assert parts_of(tmp_path) == {"image": IMAGE_PARTS, "text": TEXT_PARTS}


def write_parts(folder: WorkFolder, parts: int) -> None:
    with PartWriter(folder) as writer:
        for number in range(parts):
            # Without a thread that empties the queue, the test would not end.
            assert writer._thread.is_alive()
            writer.put("image", number, b"")


def test_an_unexpected_error_of_a_write_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError("no memory")

    folder = WorkFolder(tmp_path / "store")
    monkeypatch.setattr(folder, "write_part", fail)
    with pytest.raises(MemoryError, match="no memory"):
        write_parts(folder, 10)


def test_a_run_killed_after_the_rename_is_finished(media: Path, tmp_path: Path, whole: Any) -> None:
    items = small_items(media)
    resumed(items, tmp_path, keep_parts=True)
    assert (tmp_path / ".store.embed").exists()
    store = ua.embed(items, small_encoders(), tmp_path / "store", **OPTIONS)
    assert isinstance(store, EmbeddingStore)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert content(store.path) == whole


def test_parts_with_broken_cells_are_retried(tmp_path: Path) -> None:
    for i in range(20):
        write_image(tmp_path / f"{i}.png", i)
    good = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(b"no image")
    table = Items.from_records([{"image": f"{i}.png"} for i in range(20)], kinds={"image": "image"}, root=tmp_path)
    with pytest.raises(Stop):
        ua.embed(table, {"image": stopping(image_encoder(), 4)}, tmp_path / "store", **OPTIONS)
    (tmp_path / "3.png").write_bytes(good)
    outcome = resumed(table, tmp_path, encoders={"image": image_encoder()}, retry_broken=True)
    assert (outcome.resumed, outcome.computed) == (1, 2)
    assert outcome.store.present("image").all()
