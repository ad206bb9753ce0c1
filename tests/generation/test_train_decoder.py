"""Test that training a decoder reduces the loss, is reproducible, resumes bit-exactly, and rejects invalid input."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from decoder_cases import ITEMS, SIZE, tiny_decoder_config, tiny_image_store, tiny_images

from train_cases import stop_at
from unialign.data import EmbeddingStore
from unialign.errors import CheckpointError, ConfigError, DataError, NonFiniteError, ShapeError
from unialign.generation import DecoderFit, FlowDecoder, train_decoder
from unialign.train import HealthWarning


def run(out: Path | None = None, *, store: EmbeddingStore | None = None, **options: Any) -> DecoderFit:
    given = {name: options.pop(name) for name in ("resume", "on_step", "images") if name in options}
    config = tiny_decoder_config(**options)
    given.setdefault("images", tiny_images())
    return train_decoder(store or tiny_image_store(), config, out=out, progress="none", **given)


def digest_of(fit: DecoderFit) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(fit.decoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


@cache
def finished() -> DecoderFit:
    """Return the uninterrupted default run, which tests must not change."""
    return run()


def error_of(fit: DecoderFit, rows: Any, *, shuffled: bool = False) -> float:
    store, images = tiny_image_store(), tiny_images()
    embeddings = store.array("image")[rows]
    made = fit.decoder.generate(embeddings[::-1].copy() if shuffled else embeddings)
    return float((made - images[rows]).abs().mean())


def test_the_decoder_learns_the_content_of_embeddings() -> None:
    store = tiny_image_store()
    fit = run(steps=600, batch_size=32, condition_noise=0.2, lr=3e-3, sampler_steps=8)
    for split in ("train", "test"):
        rows = store.rows(split)
        right, wrong = error_of(fit, rows), error_of(fit, rows, shuffled=True)
        assert right < 0.75 * wrong, split
    assert error_of(fit, store.rows("train")) < 0.05
    losses = [line["loss"] for line in fit.history]
    assert sum(losses[-50:]) < 0.5 * sum(losses[:50])


def test_runs_are_reproducible_and_leave_the_random_state_of_the_caller_unchanged() -> None:
    before = torch.random.get_rng_state()
    assert digest_of(run()) == digest_of(finished())
    assert digest_of(finished()) != digest_of(run(seed=1))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("stop", [1, 5, 7, 12])
def test_an_interrupted_run_resumes_bit_by_bit(tmp_path: Path, stop: int) -> None:
    whole = finished()
    with pytest.raises(KeyboardInterrupt, match=f"after step {stop} of 12"):
        run(tmp_path, on_step=stop_at(stop))
    again = run(tmp_path, resume="required")
    assert digest_of(again) == digest_of(whole)
    assert [line["step"] for line in again.history] == list(range(1, 13))
    returned = run(tmp_path, resume="auto")
    assert digest_of(returned) == digest_of(whole)
    assert returned.history == again.history
    with pytest.raises(ConfigError, match="holds a finished run"):
        run(tmp_path)


def test_the_folder_of_a_run(tmp_path: Path) -> None:
    fit = run(tmp_path, save_total_limit=1)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert [f for f in files if not f.startswith(("checkpoints/", ".lock"))] == [
        "config.yaml",
        "decoder/README.md",
        "decoder/config.json",
        "decoder/model.safetensors",
        "log.jsonl",
        "samples-00000005.png",
        "samples-00000010.png",
        "samples-00000012.png",
    ]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000012"]
    loaded = FlowDecoder.from_pretrained(tmp_path / "decoder")
    embeddings = tiny_image_store().array("image")[:5]
    assert torch.equal(loaded.generate(embeddings), fit.decoder.generate(embeddings))
    assert loaded.metadata["data"]["training_items"] == 36


def test_a_run_of_other_settings_or_data_is_not_continued(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, on_step=stop_at(5))
    with pytest.raises(CheckpointError, match="made with lr="):
        run(tmp_path, resume="auto", lr=0.1)
    altered = EmbeddingStore.from_arrays({"image": tiny_image_store().array("image") + 1}, split=["train"] * ITEMS)
    with pytest.raises(DataError, match="use the same data"):
        run(tmp_path, resume="auto", store=altered)
    # A resumed run may have other settings for logging and saving.
    run(tmp_path, resume="required", logging_steps=3)


def test_images_may_be_bytes() -> None:
    exact = (tiny_images() * 255).round()
    assert digest_of(run(images=exact.to(torch.uint8))) == digest_of(run(images=exact / 255))


def test_absent_rows_do_not_train() -> None:
    store = tiny_image_store()
    image = store.array("image").copy()
    there = torch.arange(ITEMS) % 5 != 1
    image[~there.numpy()] = float("nan")
    split = [("train", "val", "test")[code] for code in store.split]
    partly = EmbeddingStore.from_arrays({"image": image}, present={"image": there.numpy()}, split=split)
    assert run(store=partly, latents=20).decoder.metadata["data"]["training_items"] < 36


def test_mirrored_images_change_training() -> None:
    assert digest_of(run(flips="horizontal")) != digest_of(finished())


def test_bad_input_raises(tmp_path: Path) -> None:
    images = tiny_images()
    with pytest.raises(ShapeError, match=r"expected a tensor of shape \(48, 3, 8, 8\)"):
        run(tmp_path / "a", images=images[:5])
    with pytest.raises(NonFiniteError, match=r"finite numbers in \[0, 1\]"):
        run(tmp_path / "a", images=images * 2)
    with pytest.raises(ConfigError, match="directions=11 exceeds the dim 10"):
        run(tmp_path / "a", directions=11)
    with pytest.raises(DataError, match=r"vary in \d+ directions, fewer than latents=36"):
        run(tmp_path / "a", latents=36)
    with pytest.raises(ConfigError, match="'photo'"):
        train_decoder(tiny_image_store(), tiny_decoder_config(), image="photo", images=images)
    with pytest.raises(ShapeError, match=r"dtype torch\.int64; expected uint8"):
        run(tmp_path / "a", images=(images * 255).long())
    for device in ("banana", "meta", "cuda:99"):
        with pytest.raises(ConfigError, match="device"):
            train_decoder(tiny_image_store(), tiny_decoder_config(), images=images, device=device)
    with pytest.raises(ConfigError, match="must be a DecoderConfig"):
        train_decoder(tiny_image_store(), {"steps": 1}, images=images)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="needs out="):
        run(resume="required")
    held = EmbeddingStore.from_arrays({"image": tiny_image_store().array("image")}, split=["test"] * ITEMS)
    with pytest.raises(DataError, match="has 0 training rows"):
        run(store=held)
    assert not (tmp_path / "a" / "log.jsonl").exists()


def test_a_diverging_run_stops_before_it_updates(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"gradient of step \d+ is not finite"):
        run(tmp_path, lr=1e30, steps=50, max_grad_norm=1e30)


def test_sizes_of_the_images_are_those_of_the_settings() -> None:
    decoder = finished().decoder
    assert decoder.size == SIZE
    assert decoder.generate(tiny_image_store().array("image")[:2]).shape == (2, 3, SIZE, SIZE)


def test_a_changed_environment_is_reported_on_resumption(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, on_step=stop_at(5))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.warns(HealthWarning, match=f"threads from {threads} to {threads + 1}"):
            run(tmp_path, resume="required")
    finally:
        torch.set_num_threads(threads)
