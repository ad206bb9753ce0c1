"""A checkpoint cut short or with one bit turned, anywhere: the run that would continue refuses it, names the file, and
touches nothing. Nothing is lost: without the damaged checkpoint, the earlier one continues to the same weights."""

import shutil
from pathlib import Path

import pytest
from train_cases import digest_of, run, stop_at, tiny_config, tiny_store

from unialign.errors import CheckpointError
from unialign.train._checkpoint import MANIFEST, STATE, TENSORS

FILES = (MANIFEST, STATE, *TENSORS.values())
CONFIG = tiny_config(objective_options={"temperature_mode": "learnable"}, save_steps=4)
STORE = tiny_store()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped at step 8, with checkpoints of steps 4 and 8."""
    out = tmp_path_factory.mktemp("cut") / "run"
    with pytest.raises(KeyboardInterrupt):
        run(STORE, CONFIG, out=out, on_step=stop_at(8))
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-00000004", "step-00000008"]
    return out


def damages(data: bytes) -> dict[str, bytes]:
    """Cut at several places, one bit turned at several places, a byte too many, nothing but zeros."""
    # A line break at the end of JSON says nothing.
    end = len(data.rstrip(b"\n"))
    places = sorted({0, 3, 7, 8, end // 3, end // 2, end - 2, end - 1})
    return {
        **{f"cut at {n}": data[:n] for n in places},
        **{f"bit {n % 8} of byte {n}": _turned(data, n) for n in places},
        "a byte more": data + b"\0",
        "zeros": bytes(len(data)),
    }


def _turned(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :]


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_refused_by_name_and_nothing_is_touched(cut: Path, tmp_path: Path, file: str) -> None:
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
    # Without its manifest a checkpoint is the trace of a crash, and the earlier one counts.
    if file != MANIFEST:
        with pytest.raises(CheckpointError, match=f"{file} is missing"):
            run(STORE, CONFIG, out=out, resume="auto")


@pytest.mark.parametrize("file", FILES)
def test_the_earlier_checkpoint_continues_to_the_same_weights(cut: Path, tmp_path: Path, file: str) -> None:
    out = Path(shutil.copytree(cut, tmp_path / "run"))
    if file == MANIFEST:
        (out / "checkpoints" / "step-00000008" / file).unlink()
    else:
        shutil.rmtree(out / "checkpoints" / "step-00000008")
    result = run(STORE, CONFIG, out=out, resume="required")
    assert digest_of(result) == digest_of(run(STORE, CONFIG))


def test_what_a_crash_left_half_written_is_cleared_away(cut: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(cut, tmp_path / "run"))
    (out / ".log.jsonl.0123.partial").write_text("half")
    (out / ".config.yaml.0123.partial").write_text("half")
    (out / "checkpoints" / ".step-00000012.0123.partial").mkdir()
    run(STORE, CONFIG, out=out, resume="required")
    assert not list(out.rglob("*.partial"))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_finished_run_whose_space_is_damaged(cut: Path, tmp_path: Path, file: str) -> None:
    """Asked again, the run answers with its true weights or refuses: never with damaged ones."""
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
