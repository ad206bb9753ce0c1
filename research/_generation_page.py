"""Build the page of the study `generation` from the content of its results.json."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from research._estimates import Interval
from research._figures import format_interval
from research._image_bench import CONTROLS, annotate_controls
from research._image_scores import SHOWN
from research._read import Results, completed, label, mean_of, metric_label, run_metric, scale_of
from research.pages import Figure, Mark, Section, Table, figure, scatter
from unialign._plain_text import count
from unialign.generation import SCORES
from unialign.report import DASH

__all__ = [
    "DECODER_SEEDS",
    "GRAM",
    "INFONCE",
    "MAX_LOSS",
    "SOURCES",
    "WEIGHTS",
    "answer",
    "format_contrast",
    "mean_over_seeds",
    "page",
    "ratio_table",
    "score_tables",
    "weight_arm",
]

SOURCES = ("text", "drawing", "speech", "text+speech", "text+drawing")
WEIGHTS = (0.0, 0.03, 0.1, 0.3, 1.0)
DECODER_SEEDS = (0, 1, 2)
INFONCE, GRAM = "infonce", "gram"
# The maximum accepted decrease of R@1 on the validation split relative to InfoNCE.
MAX_LOSS = 0.01


def weight_arm(weight: float) -> str:
    return f"unialign-u{weight:g}"


def mean_over_seeds(results: Results, arm: str, metric: str) -> float:
    values = run_metric(results, arm, metric)
    return math.fsum(values) / len(values) if values else math.nan


def page(results: Results) -> list[Section]:
    arms = completed(results)
    chosen = results["study"]["analysis"]["chosen"]
    choice = (
        f"Chosen on the validation split: {label(results, chosen)}, which has the smallest FD from text and drawing "
        f"among the weights whose R@1 is at most {100 * MAX_LOSS:.0f} point below that of InfoNCE."
        if chosen
        else f"For every weight, the validation R@1 is more than {100 * MAX_LOSS:.0f} point below that of InfoNCE."
    )
    return [
        Section("images", "Images of held-out concepts, by objective", [choice, *score_tables(results, arms)]),
        Section("controls", "Controls", _controls(results)),
        Section("front", "Retrieval against image scores", [_front(results, arms)]),
        Section("ratios", "The uniformity weight against InfoNCE and GRAM", _ratios(results)),
        Section("prediction", "Predictors of image scores", _prediction(results)),
    ]


def score_tables(results: Results, arms: Sequence[str], *, decoders: int = len(DECODER_SEEDS)) -> list[Table]:
    controls = _control_numbers(results)
    tables = []
    for source in SOURCES:
        rows = []
        for arm in arms:
            numbers = {s: mean_over_seeds(results, arm, f"images/{source}/{s}") for s in SHOWN}
            beaten = annotate_controls(numbers, controls)
            cells = [_format_score(_summary(results, arm, f"images/{source}/{s}"), s) for s in SHOWN]
            marks = [" *" if set(_UNRELATED) & set(beaten.get(s, ())) else "" for s in SHOWN]
            rows.append([label(results, arm), *map("".join, zip(cells, marks, strict=True))])
        note = (
            f"Mean over {len(results['protocol']['seeds'])} alignment seeds and {count(decoders, 'decoder seed')} "
            "[95 % interval over groups of items and alignment seeds]. An asterisk marks scores "
            "that are not informative, since a control that ignores the condition (shuffled, random, random image) is "
            "as good."
        )
        tables.append(Table([f"{source} -> image", *map(_head, SHOWN)], rows, note))
    rows = [[label(results, arm), *(_format_metric(results, arm, m) for m in _EMBEDDING)] for arm in arms]
    tables.append(
        Table(["embedding", *(metric_label(results, m) for m in _EMBEDDING)], rows, "Metrics of the embeddings.")
    )
    return tables


_EMBEDDING = ("recall@1", "recall@10", "true_pair_cosine", "modality_gap_debiased")
# Controls that ignore the condition. "nearest image" is excluded, since copies score better than nearly all generated
# images.
_UNRELATED = ("shuffled", "random", "random image")


def _head(score: str) -> str:
    return SCORES[score].label + (", %" if SCORES[score].unit == "percent" else "")


def _summary(results: Results, arm: str, metric: str) -> Interval:
    found = results["summary"][arm].get(metric)
    return Interval.read(found) if found is not None else Interval(mean_over_seeds(results, arm, metric))


def _format_metric(results: Results, arm: str, metric: str) -> str:
    scale = scale_of(results, metric)
    return format_interval(_summary(results, arm, metric), scale=scale, decimals=1 if scale == 100 else 3)


def _format_score(found: Interval, score: str) -> str:
    percent = SCORES[score].unit == "percent"
    decimals = 1 if percent or score in ("fd", "kid") else 3
    return format_interval(found, scale=100 if percent else 1, decimals=decimals)


def _control_numbers(results: Results) -> dict[str, dict[str, float]]:
    """Scores of the controls are the same for every space and measured only for one arm."""
    return {name: {s: mean_over_seeds(results, INFONCE, f"images/{name}/{s}") for s in SHOWN} for name in CONTROLS}


def _controls(results: Results) -> list[str | Table]:
    rows = [
        [f"{name}: {CONTROLS[name]}", *(_format_score(Interval(value), score) for score, value in numbers.items())]
        for name, numbers in _control_numbers(results).items()
    ]
    # For speed, a smoke run trains decoders for only a few steps and compares pixels.
    if results["study"]["options"].get("epochs") is None:
        extractor = (
            "EfficientNet-Lite2, which has the family and training data of the anchor's encoder Lite0, but is not used "
            "for alignment"
        )
    else:
        extractor = (
            "pixels; the decoders of a smoke run are trained for a few steps, and its numbers are not meaningful"
        )
    return [
        f"All rows use the same {results['protocol']['pool']['emoji']} held-out concepts, noise and feature extractor "
        f"({extractor}). FD and KID measure sharpness and style; only retrieval measures the content.",
        Table(["control", *map(_head, SHOWN)], rows),
    ]


def _front(results: Results, arms: Sequence[str]) -> Figure:
    factors = results["study"]["factors"]
    # Omit arms that learned little, which would compress the axis for all others.
    best = max((mean_of(results, arm, "recall@1") for arm in arms), default=math.nan)
    drawn = [arm for arm in arms if not mean_of(results, arm, "recall@1") < best / 2]
    far = [
        f"{label(results, arm)} (R@1 {100 * mean_of(results, arm, 'recall@1'):.1f} %)"
        for arm in arms
        if arm not in drawn
    ]
    kinds = {"unialign": "UniAlign", "infonce": "InfoNCE", "gram": "GRAM"}
    legend = [Mark(name, number) for number, name in enumerate((*kinds.values(), "others"))]
    of_kind = {
        mark: [arm for arm in drawn if kinds.get(factors[arm]["objective"], "others") == mark.label] for mark in legend
    }
    panels = []
    for source in ("text", "drawing"):
        for score in ("fd", "recall@10"):
            scale = 100 if SCORES[score].unit == "percent" else 1
            metric = f"images/{source}/{score}"
            points = {
                mark: [
                    (100 * mean_of(results, arm, "recall@1"), scale * mean_over_seeds(results, arm, metric))
                    for arm in own
                ]
                for mark, own in of_kind.items()
                if own
            }
            title = f"{source}: {_head(score)}"
            panels.append(scatter(title, points, x_label="embedding R@1, %", y_label=_head(score)))
    title = "Image scores against embedding retrieval"
    note = "Each point is the mean of an arm over seeds. High R@1, low FD and high R@10 are better."
    note += f" Omitted, since R@1 is low: {', '.join(far)}." if far else ""
    return figure("generation-front", title, note, panels, legend=legend)


def _ratios(results: Results) -> list[str | Table]:
    tables: list[str | Table] = []
    for baseline in (INFONCE, GRAM):
        arms = {weight_arm(weight): f"{weight:g}" for weight in WEIGHTS}
        first = {arm: name for arm, name in arms.items() if arm in results["summary"]}
        if first and baseline in results["summary"]:
            tables.append(ratio_table(results, "weight", first, baseline))
    return tables


def ratio_table(results: Results, head: str, arms: Mapping[str, str], baseline: str) -> Table:
    """`arms` maps arms to the names of their rows."""
    found = {(c["first"], c["baseline"], c["metric"]): c for c in results["study"]["comparisons"]}
    rows = []
    for first, name in arms.items():
        cells = []
        for source in SOURCES:
            fd, recall = (found.get((first, baseline, f"images/{source}/{s}")) for s in ("fd", "recall@10"))
            cells += [format_contrast(fd, scale=1, decimals=2), format_contrast(recall, scale=100, decimals=1)]
        rows.append([name, *cells])
    heads = [f"{head}, against {label(results, baseline)}"]
    heads += [text for source in SOURCES for text in (f"{source}: FD ratio", f"{source}: R@10 difference")]
    return Table(heads, rows, "Ratios and differences are paired on items and seeds [95 % interval].")


def format_contrast(found: Mapping[str, Any] | None, *, scale: float, decimals: int) -> str:
    if found is None:
        return DASH
    return format_interval(Interval(found["value"], found["low"], found["high"]), scale=scale, decimals=decimals)


def _prediction(results: Results) -> list[str | Table]:
    found = {(c["metric"], c["score"]): c for c in results["study"]["analysis"]["correlations"]}
    metrics = list(dict.fromkeys(metric for metric, _ in found))
    scores = list(dict.fromkeys(score for _, score in found))
    rows = [[metric_label(results, m), *(format_interval(found[m, s], decimals=2) for s in scores)] for m in metrics]
    head = ["", *(f"{s.split('/')[1]}: {_head(s.split('/')[2])}" for s in scores)]
    note = (
        "Rank correlation over arms between a metric of the space and a score of its images. A metric that predicts "
        "good images has a correlation near -1 with FD (for the gap: 1) and near 1 with R@10 (for the gap: -1)."
    )
    return [Table(head, rows, note)]


def answer(results: Results) -> list[str]:
    lines = []
    chosen = results["study"]["analysis"]["chosen"]
    if chosen:
        contrast = {(c["first"], c["baseline"], c["metric"]): c for c in results["study"]["comparisons"]}
        fd = format_contrast(contrast.get((chosen, INFONCE, "images/text/fd")), scale=1, decimals=2)
        recall = format_contrast(contrast.get((chosen, INFONCE, "recall@1")), scale=100, decimals=1)
        lines.append(
            f"Chosen on the validation split: {label(results, chosen)}. Its text -> image FD is {fd} times that of "
            f"InfoNCE, and its R@1 differs by {recall} points."
        )
    for c in results["study"]["analysis"]["correlations"]:
        if c["score"] == "images/text/fd":
            rho = format_interval(c, decimals=2)
            lines.append(f"Rank correlation of {c['metric']} with text -> image FD over arms: {rho}.")
    return lines
