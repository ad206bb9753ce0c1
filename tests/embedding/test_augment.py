"""Test the random changes of media, and that worker processes make those of the given seeds."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import embed_prepare
from embed_cases import small_items
from unialign.embedding._augment import augmented, augmented_decoding
from unialign.embedding._batch import BatchTask
from unialign.embedding._prepare import ColumnWork
from unialign.embedding._preparer import Preparer
from unialign.media import Audio, Decoding, MediaLimits


def test_images_are_cropped_and_flipped() -> None:
    rows, columns = np.meshgrid(np.arange(40), np.arange(60), indexing="ij")
    image = np.stack([rows, columns, rows * 0], -1).astype(np.uint8)
    areas, flips, starts = [], 0, set()
    for seed in range(200):
        found = augmented(image, seed)
        np.testing.assert_array_equal(found, augmented(image, seed))
        assert isinstance(found, np.ndarray)
        is_flipped = found[0, 0, 1] > found[0, -1, 1]
        flips += is_flipped
        straight = found[:, ::-1] if is_flipped else found
        top, left = straight[0, 0, :2].tolist()
        np.testing.assert_array_equal(straight, image[top : top + len(found), left : left + found.shape[1]])
        areas.append(found.shape[0] * found.shape[1] / 2400)
        starts.add((top, left))
    assert 0.77 < min(areas) < 0.83
    assert 0.97 < max(areas) <= 1
    assert 70 < flips < 130
    assert len(starts) > 20
    assert augmented(image[:1, :1], 3).shape == (1, 1, 3)  # type: ignore[union-attr]


def test_sounds_change_their_gain_and_place() -> None:
    samples = np.zeros(1000, np.float32)
    samples[500] = 1
    gains, places = [], []
    for seed in range(200):
        found = augmented(Audio(samples, 16000), seed)
        assert isinstance(found, Audio)
        assert found.rate == 16000
        assert np.count_nonzero(found.samples) == 1
        places.append(int(found.samples.argmax()))
        gains.append(20 * np.log10(found.samples.max()))
    assert -6 <= min(gains) < -5.5
    assert 5.5 < max(gains) <= 6
    assert 450 <= min(places) < 455
    assert 545 < max(places) <= 550


def test_other_media_do_not_change_and_videos_have_random_frames() -> None:
    vector = np.arange(5, dtype=np.float32)
    assert augmented(vector, 1) is vector
    assert augmented("a text", 1) == "a text"
    assert augmented_decoding(Decoding(frames=4), "video", 7) == Decoding(frames=4, seed=7)
    assert augmented_decoding(Decoding(rate=8), "audio", 7) == Decoding(rate=8)


@pytest.mark.parametrize("workers", [pytest.param(2, marks=pytest.mark.skipif(os.name != "posix", reason="POSIX")), 0])
def test_workers_use_the_seeds_of_the_cells(tmp_path: Path, workers: int) -> None:
    items = small_items(tmp_path, 12)
    cells, _ = items.column("image")
    work = ColumnWork("image", embed_prepare.pixels, Decoding(), MediaLimits(), items.roots)

    def tasks(seeds: Sequence[int] | None) -> list[BatchTask]:
        own = None if seeds is None else seeds
        halves = (range(4), range(4, 8))
        return [
            BatchTask(i, "image", 0, half, [cells[j] for j in half], None if own is None else [own[j] for j in half])
            for i, half in enumerate(halves)
        ]

    preparer = Preparer({"image": work}, workers=workers)
    try:
        found = []
        for seeds in (None, range(8), range(8), range(1, 9)):
            outcomes = []
            for batch in preparer.batches(iter(tasks(seeds))):
                outcomes += [np.array(outcome.arrays["x"]) for outcome in batch.outcomes if outcome.arrays is not None]
            found.append(np.stack(outcomes))
    finally:
        preparer.close()
    plain, first, again, other = found
    np.testing.assert_array_equal(first, again)
    assert (first != other).any((1, 2, 3)).sum() >= 6
    assert (first != plain).any((1, 2, 3)).sum() >= 6
    expected = [embed_prepare.pixels(augmented(_image(tmp_path, cells[j].path), j))["x"] for j in range(8)]
    np.testing.assert_array_equal(first, np.stack(expected))


def _image(folder: Path, path: str | None) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(folder / str(path)).convert("RGB"))
