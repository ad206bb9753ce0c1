"""Implementation of `unialign evaluate --protocol gram`."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unialign._plain_text import count, repeat_command, table_lines
from unialign.cli._console import echo, shown
from unialign.cli._space_data import check_evaluation, store_for_space
from unialign.config import GramConfig
from unialign.data import EmbeddingStore
from unialign.errors import DataError
from unialign.evaluation import GramResult, GramSet, gram_benchmark, gram_own_rows, gram_protocol, gram_published
from unialign.experiments import describe_data, open_run_dir, write_json
from unialign.io import describe_environment
from unialign.report import write_gram_report
from unialign.space import Space

_DIRECTIONS = ("text->joint", "joint->text")


def evaluate(config: GramConfig, sources: Sequence[str], options: argparse.Namespace) -> int:
    """Measure the space, write the report, and return the exit status."""
    out = options.out
    if config.benchmark is not None:
        gram_published(config.benchmark)  # raises an error for an unknown name before anything is computed
    space = Space.from_pretrained(config.space)
    # Broken media never remove a clip.
    store, config = store_for_space(
        space, config, sources, options, "evaluation", split=config.split, max_broken=1.0, thumbnails=None
    )
    names = [name for name in space.modalities if name in store.columns]
    if config.text in names and len(names) == 1 and len(space.modalities) > 1:
        others = " or ".join(name for name in space.modalities if name != config.text)
        raise DataError(
            f"{store.name!r} has captions, but no clip has {others}; the files of clips are expected in vision/ "
            "and audio/ next to the annotations; specify other folders with --rule video=FOLDER and --rule "
            "audio=FOLDER"
        )
    if config.text not in names or len(names) < 2:
        raise DataError(
            f"the protocol needs the captions {config.text!r} and another modality; the space has "
            f"{', '.join(space.modalities)}, and the data have {', '.join(store.columns)}; specify the modality of "
            "the captions with --text"
        )
    check_evaluation(out, config)
    store = store.select(names)
    result = gram_protocol(
        store,
        space,
        text=config.text,
        joint=config.joint,
        captions=config.captions,
        subset=config.subset,
        split=config.split,
        resamples=config.resamples,
    )
    # An evaluation that fails leaves no settings, so that the corrected command can use the folder.
    open_run_dir(out, "evaluation", config.to_dict())
    benchmark = config.benchmark or gram_benchmark(store.name)
    published = None if benchmark is None else gram_published(benchmark)
    if published is not None:
        published["own"] = gram_own_rows(result, Path(config.space).name)
    results = _results(config, store, result, published, out)
    write_json(out / "results.json", results)
    report = write_gram_report(out)
    _print(store, config, result, published)
    echo(f"Report: {shown(report)}")
    return 0


def _results(
    config: GramConfig, store: EmbeddingStore, result: GramResult, published: Mapping[str, Any] | None, out: Path
) -> dict[str, Any]:
    label = Path(config.space).name
    found = result.sets["all"]
    score = found.entries[0].score
    entries = {direction: found.entry(direction, score) for direction in _DIRECTIONS}
    directions = {
        result.direction_name(direction): {
            **{name: value.estimate for name, value in entry.metrics.items()},
            "queries": entry.queries,
            "gallery": entry.gallery,
            "chance_recall@1": entry.chance.get("recall@1"),
        }
        for direction, entry in entries.items()
    }
    summary = {
        f"{name}/{result.direction_name(direction)}": {"mean": value.estimate, "low": value.low, "high": value.high}
        for direction, entry in entries.items()
        for name, value in entry.metrics.items()
    }
    recalls = [name for name in entries[_DIRECTIONS[0]].metrics if name.startswith("recall@")]
    means = {name: sum(entry.metrics[name].estimate for entry in entries.values()) / 2 for name in recalls}
    return {
        "schema": 1,
        "environment": describe_environment(),
        "data": describe_data(store, split=config.split),
        "protocol": {
            "name": "gram",
            "captions": config.captions,
            "gallery": "every clip of the split, including clips without audio or without media",
            "clip without media": "rank of a random order",
            "ties": "expected rank",
            "score of runs and summary": score,
            "resamples": config.resamples,
        },
        "runs": [{"objective": label, "seed": 0, "metrics": means, "directions": directions}],
        "summary": {label: summary},
        "reproduce": repeat_command("evaluate", out),
        "gram": {"space": label, **result.to_dict(), "published": published},
    }


def _print(store: EmbeddingStore, config: GramConfig, result: GramResult, published: Mapping[str, Any] | None) -> None:
    echo()
    for name, found in result.sets.items():
        echo(f"{store.name}, {config.split} split, {name}: {_counts(found)}")
    echo()
    echo(result.text())
    echo()
    if published is None:
        return
    rows = [
        (
            row["model"],
            *("-" if row[key] is None else f"{row[key]:.1f}" for key in ("text_to_clip", "clip_to_text")),
            str(row["stages"] or "not stated"),
            f"{row['gallery'] or published['gallery']:,}",
        )
        for row in (*published["own"], *(row for row in published["rows"] if row["printed"]))
    ]
    echo(f"R@1 beside published numbers on {published['benchmark']}:")
    echo("\n".join(table_lines(("model", "text->clip", "clip->text", "stages", "clips"), rows)))
    echo(published["note"])
    clips = result.sets["all"].clips
    if clips != published["gallery"]:
        echo(f"Warning: these data have {count(clips, 'clip')}, so their numbers cannot be compared with the published")


def _counts(found: GramSet) -> str:
    present = ", ".join(f"{number:,} with {name}" for name, number in found.present.items())
    parts = [f"{count(found.clips, 'clip')} ({present})", count(found.captions, "caption")]
    if found.empty:
        parts.append(f"{found.empty:,} without media at chance")
    if found.without_caption:
        parts.append(f"{found.without_caption:,} without a caption, as candidates only")
    return ", ".join(parts)
