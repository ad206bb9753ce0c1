"""Retrieval protocol of VAST (Chen et al., NeurIPS 2023), GRAM (Cicchetti et al., ICLR 2025) and UniAlign (arXiv
2602.09507): captions against all modalities of a clip, in both directions.

Shapes: `N` items, `T` captions, `S` queries with a correct answer, `D` dimension, `R` resamples.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from unialign._checks import check_choice, check_cutoffs, check_integer, suggestion
from unialign.batch import Batch, as_tensors, make_batch, row_integers
from unialign.config import Captions, GramSubset
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError
from unialign.evaluation._gram_protocol_clips import Clips, clips_of, with_modality
from unialign.evaluation._gram_protocol_result import GramEntry, GramResult, GramSet
from unialign.evaluation._gram_protocol_scores import Rerank, from_captions, from_clips, rescored, scores_of
from unialign.evaluation._store_evaluation import StoreItems
from unialign.metrics import (
    Interval,
    RetrievalResult,
    percentile_interval,
    retrieval_from_scores,
    weight_blocks,
    weighted_mean,
    weighted_median,
)
from unialign.space import Space

__all__ = ["gram_protocol"]

# Modalities with texts that describe a clip but are neither its content nor its caption.
_NOT_JOINT = ("vision_cap", "audio_cap", "audio_caption")
_JOINT = ("centroid", "volume")


@torch.no_grad()
def gram_protocol(
    embeddings: Mapping[str, Any] | EmbeddingStore,
    space: Space | None = None,
    *,
    present: Mapping[str, Any] | None = None,
    ids: Any = None,
    text: str = "text",
    joint: Sequence[str] | None = None,
    captions: Captions = "first",
    subset: GramSubset = "all",
    k: Sequence[int] = (1, 5, 10),
    rerank: Rerank | Mapping[str, Rerank] | None = None,
    rerank_top: int = 50,
    split: str = "test",
    resamples: int = 2000,
    seed: int = 0,
) -> GramResult:
    """Measure retrieval between captions and clips, in both directions, with every score.

    The gallery contains every clip, including clips without audio or without any media. A clip is scored by the
    modalities that are present: by the cosine of the caption with the normalized mean of its unit rows (`centroid`), by
    the volume that the caption and its rows span, smallest first (`volume`; Cicchetti et al., "Gramian multimodal
    representation learning and alignment", ICLR 2025), and by each modality alone. If a score is undefined for a clip,
    since its modalities are absent, then the clip ties with all others as the query or the correct answer, so the
    expected rank is that of a random order; as an incorrect candidate, the clip is ranked last. Ties are scored by
    their expected rank.

    Args:
        embeddings: modality -> (N, D) floating-point tensor or array, whose rows are normalized. Alternatively, a store
            of embeddings or, with `space`, of features.
        space: space that embeds the features of a store.
        present: modality -> (N,) bool.
        ids: (N,) integers; items with equal ids are captions of one clip. Default: every item is a clip.
        text: modality of the captions.
        joint: modalities of a clip. Default: all others, except vision_cap, audio_cap and audio_caption.
        captions: "first": the first caption of a clip is a query; "all": each caption is a query, and all captions are
            correct answers for the clip.
        subset: "with-audio": also report results on only those clips that have the modality `audio`, as other papers
            do.
        k: cut-offs of recall; 1 is always included.
        rerank: second stage, a function of the item rows of queries (q,) and of their candidates (q, C) that returns
            scores (q, C), where larger is better. The function scores the first `rerank_top` candidates of `centroid`
            and `volume`. A mapping has one function for each direction, "text->joint" and "joint->text"; a single
            function is used in both, with captions as queries and then with clips as queries.
        rerank_top: number of candidates of the second stage.
        split: split of the store.
        resamples: number R of bootstrap resamples of the clips.
        seed: seed of the resamples.

    Returns:
        See `GramResult`. Memory is that of the embeddings, plus tiles of 64 MiB.

    Raises:
        ShapeError: as in `unialign.batch.make_batch`; or `rerank` returns another shape.
        NonFiniteError: as in `make_batch`; or `rerank` returns NaN.
        ConfigError: an unknown modality or option; `present` or `ids` with a store; `space` without a store.
        DataError: no clip has a caption, or none has media.
    """
    check_choice("captions", captions, get_args(Captions))
    check_choice("subset", subset, get_args(GramSubset))
    check_integer("rerank_top", rerank_top, low=1)
    cutoffs = tuple(sorted({1, *check_cutoffs(k)}))
    hooks = _hooks(rerank)
    rows_N: Tensor | None = None
    if isinstance(embeddings, EmbeddingStore):
        if present is not None or ids is not None:
            raise ConfigError("a store contains presence and ids; omit `present` and `ids`")
        items = StoreItems(embeddings, space, split)
        embeddings, present = items.embed(np.arange(len(items)))
        ids, rows_N = torch.from_numpy(np.array(items.ids_N)), torch.from_numpy(np.array(items.rows_N))
    elif space is not None:
        raise ConfigError("`space` requires an EmbeddingStore; give a store, or omit it")
    names = _joint_names(tuple(embeddings), text, joint)
    chosen = {name: embeddings[name] for name in (text, *names)}
    chosen_present = None if present is None else {name: has for name, has in present.items() if name in chosen}
    batch = make_batch(as_tensors(chosen), present=chosen_present, zero_rows="ignore")
    batch = Batch(batch.names, batch.z_MBD.detach().cpu(), batch.present_MB.cpu(), None)
    count = batch.z_MBD.shape[1]
    ids_N = torch.arange(count) if ids is None else row_integers(ids, "ids", count).cpu()
    clips = clips_of(batch, ids_N, text=text, joint=names, captions=captions)
    sets = {"all": clips}
    if subset == "with-audio":
        if "audio" not in names:
            raise ConfigError(f"subset='with-audio' needs the modality 'audio'; the clips have {', '.join(names)}")
        sets["with-audio"] = with_modality(clips, "audio")
    found = {
        name: GramSet(
            **_counts(part),
            entries=tuple(_entries(part, cutoffs, hooks, rerank_top, rows_N, resamples=resamples, seed=seed)),
        )
        for name, part in sets.items()
    }
    return GramResult(text, names, captions, cutoffs, count, found)


def _hooks(rerank: Rerank | Mapping[str, Rerank] | None) -> dict[str, Rerank]:
    directions = ("text->joint", "joint->text")
    if rerank is None:
        return {}
    if isinstance(rerank, Mapping):
        for name in rerank:
            check_choice("direction of rerank", name, directions)
        return dict(rerank)
    return dict.fromkeys(directions, rerank)


def _joint_names(names: tuple[str, ...], text: str, joint: Sequence[str] | None) -> tuple[str, ...]:
    found = tuple(name for name in names if name not in (text, *_NOT_JOINT)) if joint is None else tuple(joint)
    for name in (text, *found):
        if name not in names:
            raise ConfigError(
                f"{name!r} is not a modality; expected one of {', '.join(names)}{suggestion(name, names)}"
            )
    if text in found or not found or len(set(found)) < len(found):
        raise ConfigError(
            f"joint must name modalities other than {text!r}, each once, got {', '.join(found) or 'none'}"
        )
    return found


def _counts(clips: Clips) -> dict[str, Any]:
    return {
        "clips": clips.present_KG.shape[1],
        "captions": len(clips.clip_T),
        "without_caption": clips.present_KG.shape[1] - len(torch.unique(clips.clip_T)),
        "empty": int((~clips.present_KG.any(0)).sum()),
        "present": {name: int(clips.present_KG[k].sum()) for k, name in enumerate(clips.names)},
    }


def _entries(
    clips: Clips,
    k: tuple[int, ...],
    hooks: Mapping[str, Rerank],
    top: int,
    rows_N: Tensor | None,
    *,
    resamples: int,
    seed: int,
) -> Iterator[GramEntry]:
    number_G = torch.arange(clips.present_KG.shape[1])
    row_T, row_G = (rows if rows_N is None else rows_N[rows] for rows in (clips.row_T, clips.row_G))
    scores = scores_of(clips)
    for direction in ("text->joint", "joint->text"):
        is_text = direction == "text->joint"
        query_ids, gallery_ids = (clips.clip_T, number_G) if is_text else (number_G, clips.clip_T)
        query_rows, gallery_rows = (row_T, row_G) if is_text else (row_G, row_T)
        results: dict[tuple[str, int], RetrievalResult] = {}
        for score in scores:
            stages = {1: from_captions(clips, score) if is_text else from_clips(clips, score)}
            if direction in hooks and (score.name in _JOINT or len(clips.names) == 1):
                stages[2] = rescored(stages[1], hooks[direction], query_rows, gallery_rows, top=top)
            for stage, tile in stages.items():
                results[score.name, stage] = retrieval_from_scores(
                    tile,
                    queries=len(query_ids),
                    gallery=len(gallery_ids),
                    query_ids=query_ids,
                    gallery_ids=gallery_ids,
                    k=k,
                )
        first = next(iter(results.values()))
        intervals = _intervals(list(results.values()), k, query_ids[first.rows], resamples, seed)
        for (name, stage), metrics in zip(results, intervals, strict=True):
            defined_G = next(score.defined_G for score in scores if score.name == name)
            undefined = ~defined_G[query_ids[first.rows]]
            yield GramEntry(
                direction=direction,
                score=name,
                stage=stage,
                queries=len(first.rows),
                gallery=first.gallery_size,
                at_chance=int(undefined.sum()),
                chance={f"recall@{cut}": value for cut, value in first.chance.items()},
                metrics=metrics,
                ranks=results[name, stage].ranks,
            )


def _intervals(
    results: Sequence[RetrievalResult], k: tuple[int, ...], clip_S: Tensor, resamples: int, seed: int
) -> list[dict[str, Interval]]:
    """Compute the entries of a direction. All scores share the resamples, in which the captions of a clip are drawn
    together.
    """
    names = [*(f"recall@{cut}" for cut in k), "median_rank"]
    columns = [[result.scores(name) for name in names] for result in results]
    values: list[list[list[Tensor]]] = [[[] for _ in names] for _ in results]
    for weights_RS in weight_blocks(clip_S, resamples=resamples, seed=seed):
        for place, column in zip(values, columns, strict=True):
            for parts, name, scores_S in zip(place, names, column, strict=True):
                statistic = weighted_median if name == "median_rank" else weighted_mean
                parts.append(statistic(scores_S, weights_RS))
    ones_1S = torch.ones(1, len(clip_S), dtype=torch.float64)
    found: list[dict[str, Interval]] = []
    for place, column in zip(values, columns, strict=True):
        row = {}
        for parts, name, scores_S in zip(place, names, column, strict=True):
            whole = (weighted_median if name == "median_rank" else weighted_mean)(scores_S, ones_1S)
            row[name] = percentile_interval(torch.cat(parts), estimate=float(whole))
        found.append(row)
    return found
