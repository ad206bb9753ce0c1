"""Test that resuming from a damaged checkpoint raises an error that names the file, and changes no file."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from train_cases import digest_of, finished, run, stop_at, tiny_config, tiny_store
from unialign.errors import CheckpointError
from unialign.train._checkpoint import MANIFEST, STATE

FILES = (MANIFEST, STATE, "space.safetensors", "objective.safetensors", "optimizer.safetensors")
RECIPE: dict[str, Any] = {"objective_options": {"temperature_mode": "learnable"}, "save_steps": 4}
CONFIG = tiny_config(**RECIPE)
STORE = tiny_store()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cut") / "run"
    with pytest.raises(KeyboardInterrupt):
        run(STORE, CONFIG, out=out, on_step=stop_at(8))
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-00000004", "step-00000008"]
    return out


def damages(data: bytes) -> dict[str, bytes]:
    # Damage to a trailing line break would not change a JSON document.
    end = len(data.rstrip(b"\n"))
    places = sorted({0, 3, 7, 8, end // 3, end // 2, end - 2, end - 1})
    return {
        **{f"cut at {n}": data[:n] for n in places},
        **{f"bit {n % 8} of byte {n}": _flipped(data, n) for n in places},
        "a byte more": data + b"\0",
        "zeros": bytes(len(data)),
    }


def _flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :]


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_raises_an_error_and_nothing_is_changed(cut: Path, tmp_path: Path, file: str) -> None:
    out = Path(shutil.copytree(cut, tmp_path / "run"))
    path = out / "checkpoints" / "step-00000008" / file
    whole = path.read_bytes()
    for what, content in damages(whole).items():
        path.write_bytes(content)
        before = contents(out)
        with pytest.raises(CheckpointError) as caught:
            run(STORE, CONFIG, out=out, resume="auto")
        assert file in str(caught.value), what
        assert "to continue from an earlier checkpoint, remove step-00000008" in str(caught.value), what
        assert contents(out) == before, what
    path.unlink()
    # A checkpoint without a manifest is incomplete and therefore skipped.
    if file != MANIFEST:
        with pytest.raises(CheckpointError, match=f"{file} is missing"):
            run(STORE, CONFIG, out=out, resume="auto")


@pytest.mark.parametrize("removed", ["manifest.json", "."])
def test_the_earlier_checkpoint_continues_to_the_same_weights(cut: Path, tmp_path: Path, removed: str) -> None:
    out = Path(shutil.copytree(cut, tmp_path / "run"))
    path = out / "checkpoints" / "step-00000008" / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    result = run(STORE, CONFIG, out=out, resume="required")
    assert digest_of(result) == finished(**RECIPE).digest


def test_partial_files_of_a_crash_are_deleted(cut: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(cut, tmp_path / "run"))
    (out / ".log.jsonl.0123456789ab.partial").write_text("half")
    (out / ".config.yaml.0123456789ab.partial").write_text("half")
    (out / "checkpoints" / ".step-00000012.0123456789ab.partial").mkdir()
    run(STORE, CONFIG, out=out, resume="required")
    assert not list(out.rglob("*.partial"))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_finished_run_whose_space_is_damaged(cut: Path, tmp_path: Path, file: str) -> None:
    """Resuming must return the correct weights or raise an error that names the damaged file."""
    out = Path(shutil.copytree(cut, tmp_path / "run"))
    expected = digest_of(run(STORE, CONFIG, out=out, resume="auto"))
    path = out / "space" / file
    whole = path.read_bytes()
    for what, content in damages(whole).items():
        path.write_bytes(content)
        try:
            answer = digest_of(run(STORE, CONFIG, out=out, resume="auto"))
        except CheckpointError as error:
            answer = str(error)
        assert answer == expected or file in answer, what
