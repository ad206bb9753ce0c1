"""Test that interrupted training of encoders ends with the bits of an uninterrupted run."""

import copy
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from end_to_end_kill_driver import SETTINGS, TUNE

from media_train_cases import ENCODERS, media_config, media_items, train, trained_bits, wrapped, wrapped_text
from train_cases import stop_at
from unialign.encoders import wrap
from unialign.errors import CheckpointError, DataError
from unialign.space import Space
from unialign.train import newest_checkpoint
from unialign.train._checkpoint import load_checkpoint

DRIVER = Path(__file__).with_name("end_to_end_kill_driver.py")


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("media")
    return media_items(folder).save(folder / "table")


def tuning(mode: str) -> dict[str, Any]:
    if mode == "lora":
        pytest.importorskip("peft")
    return {"all": {"image": "all", "text": {"mode": "all", "dropout": "model"}}, "lora": TUNE}[mode]


@pytest.mark.parametrize("mode", ["all", "lora"])
def test_resuming_with_other_workers_gives_the_same_bits(items: Any, tmp_path: Path, mode: str) -> None:
    config = media_config(**SETTINGS | {"epochs": 4}, tune=tuning(mode))
    whole = train(items, config, out=tmp_path / "whole")
    for step, workers in ((1, 0), (3, 2), (6, 1)):
        with pytest.raises(KeyboardInterrupt):
            train(items, config, out=tmp_path / "run", workers=workers, resume="auto", on_step=stop_at(step))
    result = train(items, config, out=tmp_path / "run", resume="required", workers=2)
    assert trained_bits(result) == trained_bits(whole)
    newest = newest_checkpoint(tmp_path / "run/checkpoints")
    assert newest is not None
    tensors = load_checkpoint(newest).tensors
    names = {name.rpartition("/")[0] for name in tensors["encoders"]}
    assert names == {"encoder/image", "encoder/text"}
    # Only trained tensors are stored.
    if mode == "lora":
        assert {name for name in tensors["encoders"] if "image" in name} == {
            f"encoder/image/layers.{layer}.lora_{part}" for layer in (3, 6) for part in "AB"
        }
    assert not any("sound" in name for name in (*tensors["encoders"], *tensors["optimizer"]))
    again = train(items, config, out=tmp_path / "run", resume="auto", workers=0)
    assert trained_bits(again) == trained_bits(whole)


def test_buffers_that_change_in_training_are_resumed(items: Any, tmp_path: Path) -> None:
    """Spectral normalization updates its vectors in each forward pass in training mode."""
    config = media_config(
        epochs=4, modalities=("image", "text"), encoders={}, tune={"image": {"mode": "all", "dropout": "model"}}
    )

    def encoders() -> dict[str, Any]:
        encoder = wrapped()
        layer = next(
            layer for layer in encoder.module.modules() if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
        )
        torch.nn.utils.parametrizations.spectral_norm(layer)
        module = wrap(
            encoder.module, media="image", dim=encoder.dim, prepare=encoder.prepare, decoding=encoder.decoding
        )
        return {"image": module, "text": wrapped_text()}

    torch.manual_seed(0)
    start = encoders()
    states = {name: copy.deepcopy(encoder.module.state_dict()) for name, encoder in start.items()}

    def again() -> dict[str, Any]:
        torch.manual_seed(0)
        found = encoders()
        for name, encoder in found.items():
            encoder.module.load_state_dict(states[name])
        return found

    whole = train(items, config, encoders=again(), out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(items, config, encoders=again(), out=tmp_path / "run", on_step=stop_at(3))
    result = train(items, config, encoders=again(), out=tmp_path / "run", resume="required")
    modules = [found.space._loaded_encoders.given(found.space.encoders["image"]).module for found in (whole, result)]
    for name, tensor in modules[0].state_dict().items():
        assert torch.equal(tensor, modules[1].state_dict()[name]), name


def test_the_base_of_an_adapter_does_not_move(items: Any, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from unialign.encoders import create

    before = create(ENCODERS["image"]).module
    assert before is not None
    result = train(items, media_config(tune={"image": TUNE["image"]}), out=tmp_path / "run")
    encoder = result.space._loaded_encoders.given(result.space.encoders["image"])
    assert encoder is not None
    assert encoder.module is not None
    after = {name.replace(".base_layer", ""): tensor for name, tensor in encoder.module.state_dict().items()}
    for name, tensor in before.state_dict().items():
        assert torch.equal(after[name], tensor)
    moved = [name for name in after if "lora_B" in name]
    assert len(moved) == 2
    assert all(bool(after[name].any()) for name in moved)
    assert result.space.encoders["image"]["stored"] == "adapter"
    loaded = Space.from_pretrained(tmp_path / "run/space")
    files = [items.roots[0] / "0.png", items.roots[0] / "7.png"]
    found, expected = (space.encode({"image": files})["image"] for space in (loaded, result.space))
    torch.testing.assert_close(found, expected)


def test_other_initial_encoders_are_named(items: Any, tmp_path: Path) -> None:
    config = media_config()
    with pytest.raises(KeyboardInterrupt):
        train(items, config, out=tmp_path / "run", on_step=stop_at(2))
    other = config.override({"encoders.image": "builtin:conv?size=16&seed=1"})
    with pytest.raises(CheckpointError, match=r"other initial encoders \(.*image.options.seed: 0 -> 1"):
        train(items, other, out=tmp_path / "run", resume="auto")
    encoders = {"image": wrapped(), "text": wrapped_text()}
    pair = media_config(modalities=("image", "text"), encoders={})
    with pytest.raises(KeyboardInterrupt):
        train(items, pair, encoders=encoders, out=tmp_path / "wrapped", on_step=stop_at(2))
    changed = {"image": wrapped(), "text": wrapped_text()}
    with torch.no_grad():
        assert changed["image"].module is not None
        next(changed["image"].module.parameters()).add_(1)
    from unialign.encoders import trained_encoder

    changed["image"] = trained_encoder(changed["image"])
    with pytest.raises(CheckpointError, match=r"image.weights.state"):
        train(items, pair, encoders=changed, out=tmp_path / "wrapped", resume="auto")
    with pytest.raises(CheckpointError, match=r"the encoders of 'image', 'text', but this run trains those of 'im"):
        train(items, media_config(tune={"image": "all"}), out=tmp_path / "run", resume="auto")
    with pytest.raises(CheckpointError, match=r"tune.image.lr"):
        train(items, config.override({"tune.image.lr": 0.5}), out=tmp_path / "run", resume="auto")
    with pytest.raises(Exception, match="holds an unfinished run"):
        train(items, config, out=tmp_path / "run")


def test_a_run_continues_with_another_version_of_torch(
    items: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(items, media_config(), out=tmp_path / "run", on_step=stop_at(2))
    store = (tmp_path / "run/store/store.json").read_bytes()
    monkeypatch.setattr(torch, "__version__", "9.9")
    with pytest.warns(UserWarning, match=r"but torch 9.9 is installed"):
        train(items, media_config(), out=tmp_path / "run", resume="required")
    assert (tmp_path / "run/store/store.json").read_bytes() == store
    monkeypatch.undo()
    picture = items.roots[0] / "2.png"
    content = picture.read_bytes()
    picture.write_bytes(content + b" ")
    try:
        with pytest.raises(DataError, match=r"1 file differs from those that were encoded: 2.png"):
            train(items, media_config(), out=tmp_path / "run", resume="auto")
    finally:
        picture.write_bytes(content)


@pytest.mark.slow
def test_ten_kills(items: Any, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = train(items, media_config(**SETTINGS, tune=TUNE), out=tmp_path / "whole")
    tests = str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": tests, "OMP_NUM_THREADS": "1"}
    random.seed(0)
    kills = 0
    finished, log = tmp_path / "run/space/config.json", tmp_path / "run/log.jsonl"
    for attempt in range(60):
        words = [str(items.roots[0]), str(tmp_path / "run"), str((0, 1, 3)[attempt % 3])]
        process = subprocess.Popen(
            [sys.executable, str(DRIVER), *words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        # At first at a random time, also within the embedding, then after a random number of steps.
        begun, lines, steps = time.monotonic(), _lines(log), random.randint(1, 3)
        wait = random.uniform(0.5, 4)
        while process.poll() is None and (
            time.monotonic() - begun < wait if kills < 3 else _lines(log) < lines + steps or kills == 10
        ):
            time.sleep(0.01)
        if process.poll() is None and kills < 10:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        _, message = process.communicate()
        assert process.returncode == 0, message.decode()[-2000:]
        break
    assert finished.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = train(items, media_config(**SETTINGS, tune=TUNE), out=tmp_path / "run", resume="auto")
    assert trained_bits(result) == trained_bits(whole)
    assert kills >= 8


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
