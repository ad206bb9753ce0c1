"""Test the protocol `gram` against a slow float64 reference: ranks, clips without media, captions, second stage."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError, NonFiniteError, ShapeError
from unialign.evaluation import GramResult, gram_protocol

DIRECTIONS = ("text->joint", "joint->text")


def unit(x: Any) -> Any:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def pair_score(score: str, text: Any, clip: dict[str, Any]) -> float | None:
    """Score of a caption and the rows of a clip, or None if the score knows nothing about the clip."""
    if score == "centroid":
        return float(text @ unit(sum(clip.values()))) if clip else None
    if score == "volume":
        rows = np.stack([text, *clip.values()])
        return -float(np.sqrt(max(0.0, np.linalg.det(rows @ rows.T)))) if clip else None
    return float(text @ clip[score]) if score in clip else None


def expected_rank(scores: list[float | None], right: set[int]) -> float:
    """1 + g + T / (p + 1); see decision 9 of the conventions. None: nothing is known about the candidate."""
    if all(scores[j] is None for j in right):
        scores, known = [0.0] * len(scores), True
    else:
        known = False
    values = [-np.inf if s is None and not known else float(s or 0.0) for s in scores]
    best = max(values[j] for j in right)
    above = sum(v > best + 1e-9 for v in values)
    tied = [j for j, v in enumerate(values) if abs(v - best) <= 1e-9]
    positives = sum(j in right for j in tied)
    return 1 + above + (len(tied) - positives) / (positives + 1)


def reference(texts: list[tuple[int, Any]], clips: list[dict[str, Any]], score: str) -> dict[str, list[float]]:
    table = [[pair_score(score, row, clip) for clip in clips] for _, row in texts]
    forward = [expected_rank(scores, {clip}) for scores, (clip, _) in zip(table, texts, strict=True)]
    back = []
    for g in range(len(clips)):
        right = {t for t, (clip, _) in enumerate(texts) if clip == g}
        column = [scores[g] for scores in table]
        if right:
            back.append(expected_rank(column, right))
    return {"text->joint": forward, "joint->text": back}


def world(captions: int = 1, clips: int = 9, seed: int = 0) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Clip 2 has no media, clip 3 no audio, clip 5 no caption, clip 6 only a subtitle."""
    rng = np.random.default_rng(seed)
    n = captions * clips
    ids = np.repeat(np.arange(clips), captions)
    shared = rng.normal(size=(clips, 6))[ids]
    z = {name: rng.normal(size=(n, 6)) + shared for name in ("text", "video", "audio", "subtitle")}
    for name in ("video", "audio", "subtitle"):
        z[name] = z[name][ids * captions]
    has = {name: np.ones(n, bool) for name in z}
    for name, gone in {"video": (2, 6), "audio": (2, 3, 6), "subtitle": (2, 4, 7), "text": (5,)}.items():
        has[name] &= ~np.isin(ids, gone)
        z[name][~has[name]] = np.nan
    return z, has, ids


def lists(z: dict[str, Any], has: dict[str, Any], ids: Any, captions: str) -> tuple[list[Any], list[dict[str, Any]]]:
    clips: list[dict[str, Any]] = []
    texts = []
    for g in range(int(ids.max()) + 1):
        rows = np.flatnonzero(ids == g)
        clips.append({m: unit(z[m][rows[0]]) for m in ("video", "audio", "subtitle") if has[m][rows[0]]})
        own = [row for row in rows if has["text"][row]]
        texts += [(g, unit(z["text"][row])) for row in (own[:1] if captions == "first" else own)]
    return texts, clips


@pytest.mark.parametrize("captions", ["first", "all"])
@pytest.mark.parametrize("number", [1, 3])
def test_ranks_equal_those_of_a_slow_reference(number: int, captions: Any) -> None:
    z, has, ids = world(number)
    found = gram_protocol(z, present=has, ids=ids, captions=captions, resamples=100).sets["all"]
    texts, clips = lists(z, has, ids, captions)
    assert (found.clips, found.captions, found.without_caption, found.empty) == (9, len(texts), 1, 1)
    assert found.present == {"video": 7, "audio": 6, "subtitle": 6}
    for score, direction in itertools.product(("centroid", "volume", "video", "audio", "subtitle"), DIRECTIONS):
        ranks = reference(texts, clips, score)[direction]
        entry = found.entry(direction, score)
        np.testing.assert_allclose(entry.ranks, ranks, err_msg=f"{score} {direction}")
        assert entry.metrics["median_rank"].estimate == pytest.approx(np.median(ranks))
        assert entry.metrics["recall@1"].low <= entry.metrics["recall@1"].estimate <= entry.metrics["recall@1"].high
    unknown = found.entry("text->joint", "video")
    assert unknown.at_chance == sum(clip in (2, 6) for clip, _ in texts)


def test_a_clip_without_media_scores_chance_in_both_directions() -> None:
    z, has, ids = world()
    only = gram_protocol(z, present=has, ids=ids, resamples=100).sets["all"]
    forward, back = only.entry("text->joint", "centroid"), only.entry("joint->text", "centroid")
    assert forward.ranks[2] == 5.0  # the middle of nine clips
    assert back.ranks[2] == 4.5  # the middle of eight captions
    others = np.delete(np.arange(9), 2)
    without = gram_protocol({m: x[others] for m, x in z.items()}, present={m: x[others] for m, x in has.items()})
    kept = without.sets["all"].entry("text->joint", "centroid")
    # As a wrong candidate, the clip is after all others, so it changes no other rank.
    np.testing.assert_array_equal(np.delete(forward.ranks.numpy(), 2), kept.ranks.numpy())
    # Its query is a hit at 1 with probability 1/9.
    hits = float((kept.ranks <= 1).sum())
    assert forward.metrics["recall@1"].estimate == pytest.approx((hits + 1 / 9) / 8)


def test_the_subset_with_audio_has_its_own_gallery() -> None:
    z, has, ids = world(2)
    result = gram_protocol(z, present=has, ids=ids, captions="all", subset="with-audio", resamples=100)
    found = result.sets["with-audio"]
    assert (found.clips, found.captions, found.empty, found.without_caption) == (6, 10, 0, 1)
    keep = has["audio"]
    direct = gram_protocol(
        {m: x[keep] for m, x in z.items()},
        present={m: x[keep] for m, x in has.items()},
        ids=ids[keep],
        captions="all",
        resamples=100,
    ).sets["all"]
    for mine, other in zip(found.entries, direct.entries, strict=True):
        np.testing.assert_array_equal(mine.ranks, other.ranks)
    assert result.sets["all"].clips == 9


def test_tiles_do_not_change_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    z, has, ids = world(2, clips=40, seed=3)
    whole = gram_protocol(z, present=has, ids=ids, captions="all", resamples=100).sets["all"]
    monkeypatch.setattr("unialign.evaluation._gram_protocol_scores._BLOCK_ROWS", 7)
    monkeypatch.setattr("unialign.metrics._ranks._TILE", 100)
    tiled = gram_protocol(z, present=has, ids=ids, captions="all", resamples=100).sets["all"]
    for one, other in zip(whole.entries, tiled.entries, strict=True):
        np.testing.assert_array_equal(one.ranks, other.ranks)


def test_the_second_stage_orders_the_first_candidates_and_leaves_the_others() -> None:
    z, has, ids = world(clips=12)
    calls = []

    def oracle(queries: Any, candidates: Any) -> Any:
        calls.append((queries, candidates))
        return (queries[:, None] == candidates).astype(np.float64)

    found = gram_protocol(z, present=has, ids=ids, rerank=oracle, rerank_top=4, resamples=100).sets["all"]
    for direction, score in itertools.product(DIRECTIONS, ("centroid", "volume")):
        first, second = found.entry(direction, score), found.entry(direction, score, 2)
        expected = [1.0 if rank <= 4 else rank for rank in first.ranks.tolist()]
        at_chance = first.ranks == (6.5 if direction == "text->joint" else 6.0)
        np.testing.assert_array_equal(second.ranks[~at_chance], np.array(expected)[~at_chance])
        np.testing.assert_array_equal(second.ranks[2], first.ranks[2])
    assert all(candidates.shape[1] == 4 for _, candidates in calls)
    with pytest.raises(KeyError):
        found.entry("text->joint", "video", 2)


def test_equal_scores_of_the_second_stage_tie_and_each_direction_may_have_its_function() -> None:
    z, has, ids = world(clips=5)
    has = {name: np.ones(5, bool) for name in z}
    z = {name: np.nan_to_num(x, nan=1.0) for name, x in z.items()}
    same = {"joint->text": lambda queries, candidates: np.zeros(candidates.shape)}
    found = gram_protocol(z, present=has, ids=ids, rerank=same, resamples=100).sets["all"]
    assert found.entry("joint->text", "centroid", 2).ranks.tolist() == [3.0] * 5
    assert {entry.stage for entry in found.entries if entry.direction == "text->joint"} == {1}


def test_a_store_gives_the_ranks_of_its_rows(tmp_path: Any) -> None:
    z, has, ids = world(2)
    split = np.where(ids == 8, "train", "test")
    store = EmbeddingStore.from_arrays(
        {m: x.astype(np.float32) for m, x in z.items()}, present=has, ids=ids, split=split
    )
    rows = []
    hook = {"text->joint": lambda queries, candidates: rows.append((queries, candidates)) or np.zeros(candidates.shape)}
    found = gram_protocol(store, captions="all", rerank=hook, resamples=100).sets["all"]
    keep = ids < 8
    arrays = {m: x[keep].astype(np.float32) for m, x in z.items()}
    direct = gram_protocol(
        arrays, present={m: x[keep] for m, x in has.items()}, ids=ids[keep], captions="all", resamples=100
    )
    assert found.clips == 8
    for entry in direct.sets["all"].entries:
        np.testing.assert_array_equal(entry.ranks, found.entry(entry.direction, entry.score).ranks)
    queries, candidates = rows[0]
    assert set(queries.tolist()) <= set(range(16))
    assert set(candidates.ravel().tolist()) <= set(range(0, 16, 2))


def test_a_clip_of_one_modality_is_scored_by_its_cosine() -> None:
    z, has, _ = world()
    found = gram_protocol({m: z[m] for m in ("text", "video")}, present={m: has[m] for m in ("text", "video")})
    assert [entry.score for entry in found.sets["all"].entries] == ["video", "volume"] * 2
    assert found.sets["all"].best_single("text->joint") == "video"
    assert found.direction_name("joint->text") == "video->text"


def test_the_table_and_the_dictionary_have_every_entry() -> None:
    z, has, ids = world()
    result = gram_protocol(z, present=has, ids=ids, subset="with-audio", resamples=100)
    assert isinstance(result, GramResult)
    lines = result.text().splitlines()
    assert sum("text->video+audio+subtitle" in line for line in lines) == 10
    assert sum("best single" in line for line in lines) == 4
    entries = result.to_dict()["sets"]["all"]["entries"]
    assert len(entries) == 10
    assert set(entries[0]["metrics"]) == {"recall@1", "recall@5", "recall@10", "median_rank"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"text": "txt"}, ConfigError, "'txt' is not a modality"),
        ({"joint": ("text",)}, ConfigError, "other than 'text'"),
        ({"joint": ("video",), "subset": "with-audio"}, ConfigError, "needs the modality 'audio'"),
        ({"captions": "second"}, ConfigError, "captions"),
        ({"rerank": {"forward": None}}, ConfigError, "direction of rerank"),
        ({"rerank": lambda q, c: np.zeros(3)}, ShapeError, "rerank returned scores of shape"),
        ({"rerank": lambda q, c: np.full(c.shape, np.nan)}, NonFiniteError, "rerank returned nan"),
    ],
)
def test_invalid_options_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    z, has, ids = world()
    with pytest.raises(error, match=message):
        gram_protocol(z, present=has, ids=ids, resamples=100, **options)


def test_data_without_captions_or_without_media_raise_an_error() -> None:
    z = {"text": torch.randn(3, 4), "video": torch.randn(3, 4)}
    with pytest.raises(DataError, match="no clip has a caption"):
        gram_protocol(z, present={"text": torch.zeros(3, dtype=torch.bool)})
    with pytest.raises(DataError, match="no clip has any of video"):
        gram_protocol(z, present={"video": torch.zeros(3, dtype=torch.bool)})
