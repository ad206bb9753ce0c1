"""Test that streaming rows from the store equals training in memory, with memory independent of the store size."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from train_cases import DIMS, digest_of, finished, run, stop_at, tiny_config, tiny_store, without_time
from unialign.data import EmbeddingStore
from unialign.errors import NonFiniteError
from unialign.space import Space
from unialign.train import _features, _training_data
from unialign.train._training_data import load_training_data


@pytest.fixture
def _stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_training_data, "_IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(_features, "_STAGE_BYTES", 40 * 8 * sum(DIMS.values()))


@pytest.mark.usefixtures("_stream")
def test_weights_and_log_are_bitwise_equal_to_those_of_training_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases: list[dict[str, Any]] = [
        {},
        {"micro_batch_size": 3, "gradient_accumulation_steps": 3},
        {"input_norm": "unit", "epochs": 3},
        {"input_norm": "none", "epochs": 3},
    ]
    for number, changes in enumerate(cases):
        streamed = run(tiny_store(path=tmp_path / str(number)), tiny_config(**changes))
        with monkeypatch.context() as patch:
            patch.setattr(_training_data, "_IN_MEMORY_BYTES", 1 << 27)
            expected = finished(**changes)
        assert digest_of(streamed) == expected.digest, changes
        assert without_time(streamed.history) == expected.history


@pytest.mark.usefixtures("_stream")
def test_a_resumed_run_is_bitwise_equal(tmp_path: Path) -> None:
    whole = run(tiny_store(), tiny_config())
    with pytest.raises(KeyboardInterrupt):
        run(tiny_store(), tiny_config(), out=tmp_path, on_step=stop_at(5))
    assert digest_of(run(tiny_store(), tiny_config(), out=tmp_path, resume="required")) == digest_of(whole)


@pytest.mark.usefixtures("_stream")
def test_a_step_larger_than_the_rows_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = digest_of(run(tiny_store(), tiny_config()))
    monkeypatch.setattr(_features, "_STAGE_BYTES", 3 * 8 * sum(DIMS.values()))
    assert digest_of(run(tiny_store(), tiny_config())) == expected


@pytest.mark.usefixtures("_stream")
def test_a_frozen_modality_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"frozen": {"image": "whiten"}, "dim": 6, "epochs": 2}
    streamed = run(tiny_store(), tiny_config(**settings)).space.state_dict()
    monkeypatch.setattr(_training_data, "_IN_MEMORY_BYTES", 1 << 27)
    # The results agree up to rounding, which depends on the number of rows in a matrix product.
    torch.testing.assert_close(streamed, run(tiny_store(), tiny_config(**settings)).space.state_dict())


@pytest.mark.usefixtures("_stream")
def test_rows_that_are_not_finite_are_found_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_training_data, "_CHECKED_ENTRIES", 8)
    for dtype, bad in ((np.float32, np.nan), (np.float64, 1e300)):
        x = np.random.default_rng(0).normal(size=(20, 4)).astype(dtype)
        store = EmbeddingStore.from_arrays({"a": x, "b": x + 1}, names=[f"n{i}" for i in range(20)])
        x[[7, 12, 13], 2] = bad
        message = rf"'a', row 7 of the store \('n7'\), holds {bad} at column 2 \(2 more such rows\); mark items"
        with pytest.raises(NonFiniteError, match=message.replace("+", r"\+")):
            run(store, tiny_config(objective="infonce"))


def write_store(path: Path, items: int) -> EmbeddingStore:
    x = np.random.default_rng(0).standard_normal((items, 64), dtype=np.float32)
    return EmbeddingStore.write(path, {"a": x, "b": x[::-1]})


@pytest.mark.usefixtures("_stream")
def test_peak_bytes_do_not_grow_with_the_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_features, "_STAGE_BYTES", 1 << 20)
    peaks = []
    for items in (20_000, 80_000):
        store = write_store(tmp_path / str(items), items)
        rows, space = store.rows("train"), Space({"a": 64, "b": 64})
        tracemalloc.start()
        space.fit_normalizer(store, rows)
        data = load_training_data(store, space, rows, torch.device("cpu"), modalities=("a", "b"), is_fitted=True)
        for step in range(8):
            positions = torch.arange(step * 2000, (step + 1) * 2000)
            data.read_ahead(step, lambda size, p=positions, s=step: (p[:size], s + 1))  # type: ignore[misc]
            data.batch(positions[:1000], step=step, number=0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The columns of the larger store take 41 MB; only masks, of one byte per row, grow with the store.
    assert peaks[0] < 8e6
    assert peaks[1] < peaks[0] + 2e6
