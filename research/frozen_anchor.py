"""Compare images generated with the settings that were chosen on validation rows with those of earlier settings.

`benchmarks.frozen_anchor` chooses the settings, with equal budgets for UniAlign, InfoNCE and GRAM.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from research import generation
from research._estimates import Interval
from research._figures import format_interval
from research._generation_page import GRAM, INFONCE, SOURCES, format_contrast, ratio_table, score_tables
from research._image_scores import train_decoders
from research._plan import Arm, Options, PairedComparison, Plan, Study
from research._read import Results, completed, label
from research.pages import Section, Table
from unialign.data import EmbeddingStore

__all__ = ["CHOSEN", "DECODER_SEEDS", "EARLIER", "STUDY"]

UNIALIGN = "unialign"
# The decoder of the data set has seed 0.
DECODER_SEEDS = (0,)
# The settings that `benchmarks.frozen_anchor` chose, and those of earlier versions.
CHOSEN: Mapping[str, Mapping[str, Any]] = {
    UNIALIGN: {"preset": "frozen_anchor", "alignment_weight": 2.0},
    INFONCE: {"temperature": 0.1},
    GRAM: {"temperature": 0.1, "infonce_warmup_ratio": 0.9},
}
EARLIER: Mapping[str, Mapping[str, Any]] = {
    UNIALIGN: {"preset": "frozen_anchor", "alignment_weight": 1.0},
    INFONCE: {"temperature": 0.07},
    GRAM: {"temperature": 0.07, "infonce_warmup_ratio": 0.5},
}
_EARLIER_KEYS = {objective: f"{objective}-earlier" for objective in EARLIER}
_LABELS = {
    UNIALIGN: "UniAlign, alignment weight {alignment_weight:g}",
    INFONCE: "InfoNCE, temperature {temperature:g}",
    GRAM: "GRAM, temperature {temperature:g}, InfoNCE warmup {infonce_warmup_ratio:g}",
}
# Targets of the page `generation`: the least R@10 of images from text, and the largest ratios of FD.
_LEAST_RECALL, _MOST_FD = 0.15, {INFONCE: 0.93, GRAM: 0.90}


def plan(options: Options) -> Plan:
    arms = [_arm(name, name, settings, options) for name, settings in CHOSEN.items()]
    for name, settings in EARLIER.items():
        if settings != CHOSEN[name]:
            arms.append(_arm(_EARLIER_KEYS[name], name, settings, options))
    others = [arm.key for arm in arms if arm.key != UNIALIGN]
    comparisons = [
        PairedComparison(UNIALIGN, other, f"images/{source}/{score}", "ratio" if score == "fd" else "difference")
        for other in others
        for source in SOURCES
        for score in ("fd", "recall@10")
    ]
    comparisons += [PairedComparison(UNIALIGN, other, m) for other in others for m in ("recall@1", "true_pair_cosine")]
    keep = ("recall@10", "true_pair_cosine", "modality_gap")
    return Plan(arms=tuple(arms), comparisons=tuple(comparisons), keep=keep)


def _arm(key: str, objective: str, settings: Mapping[str, Any], options: Options) -> Arm:
    return generation.make_arm(
        key,
        _LABELS[objective].format(**settings),
        objective,
        options,
        # The controls are the same for every space, and are measured for one arm.
        controls=key == INFONCE,
        validation=False,
        decoder_seeds=DECODER_SEEDS,
        factors={"objective": objective},
        **settings,
    )


def page(results: Results) -> list[Section]:
    arms = completed(results)
    others = [arm for arm in arms if arm != UNIALIGN]
    ratios = [ratio_table(results, "setting", {UNIALIGN: label(results, UNIALIGN)}, other) for other in others]
    return [
        Section("targets", "Targets", [_targets(results)]),
        Section("images", "Images of held-out concepts", score_tables(results, arms, decoders=len(DECODER_SEEDS))),
        Section("ratios", "The chosen weight against other settings", [*ratios, _embeddings(results, others)]),
    ]


def _embeddings(results: Results, others: Sequence[str]) -> Table:
    found = _contrasts(results)
    rows = [
        [
            label(results, other),
            format_contrast(found.get((other, "recall@1")), scale=100, decimals=1),
            format_contrast(found.get((other, "true_pair_cosine")), scale=1, decimals=3),
        ]
        for other in others
    ]
    head = [f"{label(results, UNIALIGN)}, minus", "R@1 of all pairs, points", "true-pair cosine"]
    return Table(head, rows, "Differences are paired on items and seeds [95 % interval].")


def _contrasts(results: Results) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {(c["baseline"], c["metric"]): c for c in results["study"]["comparisons"] if c["first"] == UNIALIGN}


def _targets(results: Results) -> Table:
    recall = Interval.read(results["summary"][UNIALIGN]["images/text/recall@10"])
    rows = [
        [
            "R@10 of images from text, %",
            f"at least {100 * _LEAST_RECALL:.0f}",
            format_interval(recall, scale=100, decimals=1),
            "met" if recall.mean >= _LEAST_RECALL else "missed",
        ]
    ]
    found = _contrasts(results)
    for other, most in _MOST_FD.items():
        for source in ("text", "drawing", "speech"):
            contrast = found[other, f"images/{source}/fd"]
            rows.append(
                [
                    f"FD of images from {source}, relative to {label(results, other)}",
                    f"at most {most:.2f}",
                    format_contrast(contrast, scale=1, decimals=2),
                    "met" if contrast["value"] <= most else "missed",
                ]
            )
    return Table([label(results, UNIALIGN), "target", "measured", ""], rows, "95 % intervals in brackets.")


def prepare(options: Options, folder: Path, stores: Mapping[str, EmbeddingStore], workers: int) -> None:
    settings = generation.decoder(options)
    train_decoders(stores["emoji"], settings, DECODER_SEEDS, folder, image=generation.ANCHOR, workers=workers)


def answer(results: Results) -> list[str]:
    return [
        f"{name}: target {target}, measured {value}, {verdict}."
        for name, target, value, verdict in _targets(results).rows
    ]


STUDY = Study(
    name="frozen_anchor",
    title="Alignment weight with a frozen anchor",
    plan=plan,
    page=page,
    answer=answer,
    prepare=prepare,
    epochs=generation.EPOCHS,
)
