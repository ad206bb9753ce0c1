"""Test worker processes: decoders that hang or crash, and errors in a worker."""

import errno
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embed_prepare
import unialign as ua
from embed_cases import content, small_encoders, small_items, text_encoder, text_items
from unialign.config import EmbedConfig
from unialign.embedding import _pool
from unialign.embedding._batch import BatchTask
from unialign.embedding._outcome import embed_items
from unialign.embedding._pool import WorkerPool, pickled_columns
from unialign.embedding._prepare import ColumnWork
from unialign.errors import ConfigError, DataError
from unialign.media import Cell, Decoding, MediaLimits

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")

ROOT = Path(__file__).parent.parent.parent
OPTIONS = {"batch_size": 4, "part_cells": 8, "threads": 1, "progress": "none", "max_broken": 1.0}


def broken_of(store: ua.data.EmbeddingStore) -> dict[str, tuple[str, str]]:
    lines = [json.loads(line) for line in store.asset("broken.jsonl").splitlines()]
    return {line["source"]["value"]: (line["code"], line["detail"]) for line in lines}


def test_cells_that_crash_or_hang_a_decoder_are_listed(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(30)]
    texts[1], texts[2], texts[17], texts[29] = "segfault a", "hang b", "exit c", "segfault d"
    encoder = text_encoder(prepare=embed_prepare.Hazard(str(tmp_path)))
    options = OPTIONS | {"limits": {"seconds": 0.4}}
    store = ua.embed(text_items(texts), {"text": encoder}, tmp_path / "store", workers=2, **options)
    assert broken_of(store) == {
        "segfault a": ("undecodable", "the decoder crashed (SIGSEGV)"),
        "hang b": ("timeout", "reading and decoding took longer than 0.4 seconds"),
        "exit c": ("undecodable", "the decoder crashed (exit status 3)"),
        "segfault d": ("undecodable", "the decoder crashed (SIGSEGV)"),
    }
    fine = [not text.startswith(("segfault", "hang", "exit")) for text in texts]
    assert store.present("text").tolist() == fine
    expected = ua.encoders.encode_media(encoder, [text for text in texts if text.startswith("text")])
    np.testing.assert_allclose(store.array("text")[fine], expected.numpy(), rtol=0, atol=1e-6)


def test_a_cell_that_crashes_once_is_kept(tmp_path: Path) -> None:
    encoder = text_encoder(prepare=embed_prepare.Hazard(str(tmp_path)))
    store = ua.embed(text_items(["a", "once b", "c"]), {"text": encoder}, tmp_path / "store", workers=1, **OPTIONS)
    assert store.present("text").all()
    assert (tmp_path / "once-b").exists()


def test_a_worker_that_is_killed_says_nothing_about_the_data(tmp_path: Path) -> None:
    encoder = text_encoder(prepare=embed_prepare.Hazard())
    texts = [*(f"text {i}" for i in range(12)), "kill me"]
    with pytest.raises(DataError, match=r"killed twice \(SIGKILL\) at value 'kill me' .*memory ran out"):
        ua.embed(text_items(texts), {"text": encoder}, tmp_path / "store", workers=1, **OPTIONS)
    assert len(list((tmp_path / ".store.embed" / "parts" / "text").iterdir())) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_prepare_names_the_cell(tmp_path: Path, workers: int) -> None:
    encoder = text_encoder(prepare=embed_prepare.Hazard())
    with pytest.raises(
        ConfigError, match=r"the encoder of 'text' failed to prepare value 'bug 3' .*RuntimeError: the shape"
    ):
        ua.embed(text_items(["a", "bug 3"]), {"text": encoder}, tmp_path / "store", workers=workers, **OPTIONS)


def test_failed_reads_in_workers_are_retried_and_then_stop_the_run(tmp_path: Path) -> None:
    table = text_items(["a", "b"])
    target = tmp_path / "store"
    config = EmbedConfig(workers=1, threads=1)
    arguments: dict[str, Any] = {"resume": "auto", "overwrite": "never", "progress": "none"}
    retries = {"retry_seconds": (0.01, 0.01)}
    encoder = text_encoder(prepare=embed_prepare.FailingReads(str(tmp_path), times=2, number=errno.EIO))
    embed_items(table, {"text": encoder}, target, config, **arguments, work_options=retries)
    store = ua.data.EmbeddingStore.open(target)
    assert store.present("text").all()
    assert "broken.jsonl" not in store.assets
    encoder = text_encoder(prepare=embed_prepare.FailingReads(str(tmp_path / "b"), times=3, number=errno.ESTALE))
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"value 'a' .*cannot be read \(Stale file handle\)"):
        embed_items(table, {"text": encoder}, tmp_path / "other", config, **arguments, work_options=retries)


def outcomes_of(pool: WorkerPool, cells: list[Cell]) -> list[tuple[str | None, str]]:
    with pool:
        (batch,) = pool.batches(iter([BatchTask(0, "text", 0, range(len(cells)), cells)]))
        return [(outcome.code, outcome.detail) for outcome in batch.outcomes]


def pool_of(prepare: Any, *, seconds: float, folder: Path = Path(), **options: Any) -> WorkerPool:
    options = {"limits": MediaLimits(), **options}
    work = ColumnWork(media="text", prepare=prepare, decoding=Decoding(), roots=(folder,), **options)
    return WorkerPool(pickled_columns({"text": work}), workers=1, seconds=seconds)


def test_a_crash_is_no_timeout_if_it_is_noticed_late(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = WorkerPool._handle

    def handle_late(self: WorkerPool) -> None:
        time.sleep(0.3)
        handle(self)

    monkeypatch.setattr(WorkerPool, "_handle", handle_late)
    pool = pool_of(embed_prepare.Hazard(), seconds=0.1)
    assert outcomes_of(pool, [Cell(value="exit c")]) == [
        ("undecodable", "the decoder crashed (exit status 3)"),
    ]


def test_imports_for_the_first_cell_are_no_timeout() -> None:
    pool = pool_of(embed_prepare.SlowStart(0.8), seconds=0.2)
    assert outcomes_of(pool, [Cell(value="a"), Cell(value="b")]) == [(None, ""), (None, "")]


def test_a_file_system_that_does_not_answer_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pool, "_IMPORT_SECONDS", 0)
    (tmp_path / "a.txt").write_text("a")
    pool = pool_of(embed_prepare.letters, seconds=0.3, folder=tmp_path, limits=embed_prepare.StalledLimits())
    with pytest.raises(DataError, match=r"reading a\.txt .* gave no data for 0\.3 seconds; check the disk"):
        outcomes_of(pool, [Cell(path="a.txt")])


def test_too_many_workers_for_the_open_files(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 8, before[1]))
    try:
        with pytest.raises(ConfigError, match=r"Too many open files\); use fewer workers"):
            WorkerPool(b"", workers=20, seconds=1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_functions_that_workers_cannot_import(tmp_path: Path) -> None:
    table = text_items(["a"])
    local = text_encoder(prepare=lambda text: embed_prepare.letters(text))
    with pytest.raises(ConfigError, match=r"cannot receive the encoders .*workers=0"):
        ua.embed(table, {"text": local}, tmp_path / "store", workers=2, **OPTIONS)
    with pytest.warns(UserWarning, match="media are decoded in this process"):
        store = ua.embed(table, {"text": local}, tmp_path / "store", workers="auto", **OPTIONS)
    assert store.present("text").all()


def test_workers_do_not_import_torch(tmp_path: Path) -> None:
    encoder = text_encoder(prepare=embed_prepare.no_torch)
    store = ua.embed(text_items(["a"]), {"text": encoder}, tmp_path / "store", workers=1, **OPTIONS)
    assert store.present("text").all()


def test_one_worker_for_many_columns(tmp_path: Path) -> None:
    items = small_items(tmp_path / "media")
    outcomes = [
        ua.embed(items, small_encoders(), tmp_path / f"store{workers}", workers=workers, **OPTIONS | {"batch_size": 1})
        for workers in (0, 2)
    ]
    assert content(outcomes[0].path) == content(outcomes[1].path)


SCRIPT = """
print("started", flush=True)
import sys, embed_prepare, unialign as ua
from embed_cases import text_encoder, text_items
ua.embed(text_items(["a", "b"]), {"text": text_encoder()}, sys.argv[1], workers=2, progress="none")
print("done", flush=True)
"""


@pytest.mark.slow
def test_a_script_without_a_guard_starts_no_further_runs(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    paths = [str(ROOT / "src"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    words = [sys.executable, str(script), str(tmp_path / "store")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["started", "done"], done.stderr
