"""Six real clips in the layout of GRAM have the ranks that are worked out by hand; see `gram_clips`."""

from typing import Any

import pytest

from gram_clips import CAPTIONS, encoders, write_clips
from unialign.data import EmbeddingStore
from unialign.embedding import embed
from unialign.evaluation import gram_protocol
from unialign.items import Items

pytest.importorskip("av")
pytest.importorskip("soundfile")

# Of the six clips: a caption or clip about which a score knows nothing has rank 3.5, the middle of 1 to 6.
FIRST = {
    # c1 and c4 have the same mean, so `red` and `red red green` are at 1 + 1/2.
    ("text->joint", "centroid"): [1.5, 1, 1, 1.5, 3.5, 1],
    ("joint->text", "centroid"): [1, 1, 1, 2, 3.5, 1],
    # The equal rows of video and audio of c1 and c2 span no area, so their volume with every caption is 0.
    ("text->joint", "volume"): [2.5, 1.5, 2.5, 3.5, 3.5, 2],
    ("joint->text", "volume"): [3.5, 3.5, 1, 2, 3.5, 2],
    ("text->joint", "video"): [1.5, 1, 1, 3.5, 3.5, 2],
    ("joint->text", "video"): [1, 1, 1, 3.5, 3.5, 3],
    ("text->joint", "audio"): [1.5, 1, 3.5, 1.5, 3.5, 2],
    ("joint->text", "audio"): [1, 1, 3.5, 2, 3.5, 2.5],
}
ALL = {
    # The seventh caption, `blue` of c6, is nearer to c3.
    ("text->joint", "centroid"): [1.5, 1, 1, 1.5, 3.5, 1, 2],
    # `blue` of c3 ties with `blue` of c6; c5 has the middle of seven captions.
    ("joint->text", "centroid"): [1, 1, 1.5, 2, 4, 1],
    # `blue` has volume 0 with c1, c2, c3 and c6.
    ("text->joint", "volume"): [2.5, 1.5, 2.5, 3.5, 3.5, 2, 2.5],
    # c3: `blue` twice; c6: `red`, `blue`, `red blue`, `blue` at 0, of which two are right.
    ("joint->text", "volume"): [4, 4, 1.5, 2, 4, 1 + 2 / 3],
}
WITH_AUDIO = {
    # c1, c2, c4 and c6
    ("text->joint", "centroid"): [1.5, 1, 1.5, 1],
    ("joint->text", "centroid"): [1, 1, 2, 1],
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Items, EmbeddingStore]:
    folder = write_clips(tmp_path_factory.mktemp("gram") / "clips")
    items = Items.open(folder)
    store = embed(items, encoders(), folder.parent / "store", workers=0, max_broken=1.0, progress="none")
    return items, store


def test_every_clip_of_the_annotation_file_is_counted(clips: tuple[Items, EmbeddingStore]) -> None:
    items, store = clips
    assert items.keys.tolist() == ["c1", "c2", "c3", "c4", "c5", "c6", "c6#2"]
    assert store.items == 7
    found = gram_protocol(store, captions="all", subset="with-audio", resamples=100)
    every = found.sets["all"]
    assert (every.clips, every.captions) == (len(CAPTIONS), sum(map(len, CAPTIONS.values())))
    assert (every.empty, every.without_caption) == (1, 0)
    assert every.present == {"video": 4, "audio": 4}
    assert found.sets["with-audio"].clips == 4
    assert gram_protocol(store, resamples=100).sets["all"].captions == len(CAPTIONS)


@pytest.mark.parametrize(("captions", "expected"), [("first", FIRST), ("all", ALL)])
def test_the_ranks_are_those_worked_out_by_hand(
    clips: tuple[Items, EmbeddingStore], captions: Any, expected: dict[tuple[str, str], list[float]]
) -> None:
    found = gram_protocol(clips[1], captions=captions, resamples=100).sets["all"]
    for (direction, score), ranks in expected.items():
        assert found.entry(direction, score).ranks.tolist() == pytest.approx(ranks), (direction, score)


def test_a_clip_without_anything_scores_chance(clips: tuple[Items, EmbeddingStore]) -> None:
    found = gram_protocol(clips[1], k=(1, 2, 5), resamples=100).sets["all"]
    for direction in ("text->joint", "joint->text"):
        entry = found.entry(direction, "centroid")
        assert entry.at_chance == 1
        assert entry.ranks[4] == 3.5
        assert entry.chance == pytest.approx({"recall@1": 1 / 6, "recall@2": 2 / 6, "recall@5": 5 / 6})
    # c1 and c4 are hits with probability 1/2, and c5 with 1/6.
    assert found.entry("text->joint", "centroid").metrics["recall@1"].estimate == pytest.approx((3 + 1 + 1 / 6) / 6)


def test_the_clips_with_audio_alone(clips: tuple[Items, EmbeddingStore]) -> None:
    found = gram_protocol(clips[1], subset="with-audio", resamples=100).sets["with-audio"]
    for (direction, score), ranks in WITH_AUDIO.items():
        assert found.entry(direction, score).ranks.tolist() == pytest.approx(ranks)
