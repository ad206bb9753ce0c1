"""Does a better aligned space make better pictures, and what does that cost in retrieval?

Every objective aligns drawing, text and speech of emoji to the frozen, whitened picture; decoders that know nothing of
them make pictures of held-out concepts from each modality and two mixtures. UniAlign's uniformity weight is swept, and
the setting for generation is chosen on the validation split alone.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unialign.data import EmbeddingStore
from unialign.generation._evaluate import CONTROLS
from unialign.generation._scores import SCORES, marks
from unialign.report import Figure, Section, Table
from unialign.report._numbers import DASH
from unialign.report._plot import Mark, scatter, sheet
from unialign.studies._estimates import rank_correlation
from unialign.studies._figures import known, label, metric_label, run_metric, sound
from unialign.studies._grids import OBJECTIVE_TRIALS, base
from unialign.studies._pictures import SHOWN, train_decoders
from unialign.studies._plan import Arm, Contrast, Look, Options, Plan, Study
from unialign.studies._sweeps import between, failed_sections, mean_of

__all__ = ["STUDY"]

EPOCHS = 60
MODALITIES = ("image", "drawing", "text", "speech")
ANCHOR = "image"
SOURCES = ("text", "drawing", "speech", "text+speech", "text+drawing")
WEIGHTS = (0.0, 0.03, 0.1, 0.3, 1.0)
DECODER_SEEDS = (0, 1, 2)
# The recipe for a CPU, as it stands.
DECODER: dict[str, Any] = {}
# Of a quick look, whose numbers mean nothing.
_QUICK_STEPS = 20
INFONCE, GRAM, ONLY = "infonce", "gram", "unialign-u0"
# The embedding may be worse than InfoNCE's on validation by no more than this, in R@1.
_LOSS = 0.01
# One setting of each rival, the first of its trials in the other studies; Triangle is for three modalities.
_RIVALS = ("symile", "pmrl", "sigmoid", "cs_aligner", "modgap", "cua", "align_uniform")


def plan(options: Options) -> Plan:
    arms = [
        _arm(
            _weight(weight),
            f"UniAlign, uniformity {weight:g}" if weight else "alignment only",
            "unialign",
            options,
            preset="frozen_anchor",
            uniformity_weight=weight,
        )
        for weight in WEIGHTS
    ]
    arms.append(_arm("unialign-balanced", "UniAlign, balanced", "unialign", options))
    arms += [
        _arm(
            INFONCE if t == 0.07 else f"{INFONCE}-t{t:g}",
            f"InfoNCE, temperature {t:g}",
            INFONCE,
            options,
            temperature=t,
        )
        for t in (0.05, 0.07, 0.1)
    ]
    arms.append(_arm(GRAM, "GRAM, warm start 0.5", GRAM, options, warm_start=0.5, temperature=0.07))
    for name in _RIVALS:
        settings = dict(OBJECTIVE_TRIALS[name][0])
        warm = settings.pop("warm_start", 0.0)
        given = {key.removeprefix("objective_options."): value for key, value in settings.items()}
        said = f", warm start {warm:g}" if warm else ""
        arms.append(_arm(name, f"{name}{said}", name, options, warm_start=warm, **given))
    ours = [_weight(weight) for weight in WEIGHTS]
    contrasts = [
        Contrast(first, rival, f"pictures/{source}/{score}", "ratio" if score == "fd" else "difference")
        for first in ours
        for rival in (INFONCE, GRAM)
        for source in SOURCES
        for score in ("fd", "recall@10")
    ]
    contrasts += [Contrast(first, INFONCE, "recall@1") for first in ours]
    return Plan(arms=tuple(arms), contrasts=tuple(contrasts), keep=("recall@10", "true_pair_cosine", "modality_gap"))


def _weight(weight: float) -> str:
    return f"unialign-u{weight:g}"


def _arm(key: str, label: str, objective: str, options: Options, *, warm_start: float = 0.0, **given: Any) -> Arm:
    epochs = EPOCHS if options.epochs is None else options.epochs
    train = base("emoji", objective, MODALITIES, epochs=epochs, **given)
    chosen = dict(train.objective_options)
    if "anchor" in chosen:
        chosen["anchor"] = ANCHOR
    body = train.to_dict() | {"objective_options": chosen, "frozen": {ANCHOR: "whiten"}, "warm_start": warm_start}
    return Arm(
        key=key,
        label=label,
        data="emoji",
        train=type(train).from_dict(body),
        factors={"objective": objective, "weight": given.get("uniformity_weight")},
        anchor=ANCHOR,
        look=Look(
            "generation",
            {
                "decoder": decoder(options),
                "seeds": list(DECODER_SEEDS),
                "anchor": ANCHOR,
                "sources": list(SOURCES),
                "extractor": "lite2" if options.epochs is None else "pixels",
                "controls": "yes" if key == INFONCE else "no",
            },
            points=1,
        ),
    )


def decoder(options: Options) -> dict[str, Any]:
    """Settings of the decoders; a quick look has quick ones."""
    return DECODER if options.epochs is None else {**DECODER, "steps": _QUICK_STEPS, "width": 32, "depth": 1}


def prepare(options: Options, folder: Path, stores: Mapping[str, EmbeddingStore], workers: int) -> None:
    """Train the decoders once; no objective has a say in them."""
    train_decoders(stores["emoji"], decoder(options), DECODER_SEEDS, folder, image=ANCHOR, workers=workers)


def analyse(results: Mapping[str, Any]) -> dict[str, Any]:
    """The weight for generation, chosen on validation; what goes with good pictures across objectives."""
    arms = sound(results, results["study"]["factors"])
    embedding = {arm: _mean(results, arm, "val/recall@1") for arm in arms}
    distance = {arm: _mean(results, arm, "val/text/fd") + _mean(results, arm, "val/drawing/fd") for arm in arms}
    ours = [arm for arm in (_weight(weight) for weight in WEIGHTS) if arm in arms]
    least = embedding.get(INFONCE, math.nan) - _LOSS
    fair = [arm for arm in ours if not embedding[arm] < least]
    chosen = min(fair, key=lambda arm: distance[arm], default=None)
    with_pictures = [arm for arm in arms if math.isfinite(_mean(results, arm, "pictures/text/fd"))]
    return {
        "chosen": chosen,
        "validation": {arm: {"recall@1": embedding[arm], "fd": distance[arm] / 2} for arm in arms},
        "correlations": [
            {
                "metric": metric,
                "score": f"pictures/{source}/{score}",
                **rank_correlation(
                    {
                        0: [
                            (_mean(results, arm, metric), _mean(results, arm, f"pictures/{source}/{score}"))
                            for arm in with_pictures
                        ]
                    }
                ),
            }
            for metric in ("true_pair_cosine", "modality_gap_debiased", "recall@1", "recall@10", "label_map")
            for source in ("text", "drawing", "speech")
            for score in ("fd", "recall@10")
        ],
    }


def _mean(results: Mapping[str, Any], arm: str, metric: str) -> float:
    values = [known(value) for value in run_metric(results, arm, metric)]
    return math.fsum(values) / len(values) if values else math.nan


# --- the page -------------------------------------------------------------------------------------------------------


def page(results: Mapping[str, Any]) -> list[Section]:
    arms = sound(results, results["study"]["factors"])
    chosen = results["study"]["analysis"]["chosen"]
    said = (
        f"Chosen on the validation split: {label(results, chosen)}, the least FD of text and drawing among weights "
        f"whose R@1 there is at most {100 * _LOSS:.0f} point below InfoNCE's."
        if chosen
        else "No weight keeps the embedding's R@1 near InfoNCE's on the validation split."
    )
    return [
        Section("pictures", "Pictures of held-out concepts, by objective", [said, *_tables(results, arms)]),
        Section("controls", "What the scores mean: controls", _controls(results)),
        Section("front", "Retrieval against pictures", [_front(results, arms)]),
        Section("ratios", "The uniformity weight against InfoNCE and GRAM", _ratios(results)),
        Section("prediction", "What goes with good pictures?", _prediction(results)),
        *failed_sections(results),
    ]


def _tables(results: Mapping[str, Any], arms: Sequence[str]) -> list[Table]:
    controls = _control_numbers(results)
    tables = []
    for source in SOURCES:
        rows = []
        for arm in arms:
            numbers = {s: _mean(results, arm, f"pictures/{source}/{s}") for s in SHOWN}
            beaten = marks(numbers, controls)
            rows.append(
                [
                    label(results, arm),
                    *(_cell(results, arm, f"pictures/{source}/{s}", s, beaten.get(s, ())) for s in SHOWN),
                ]
            )
        note = (
            f"From {source}: mean over {len(results['protocol']['seeds'])} alignment and {len(DECODER_SEEDS)} decoder "
            "seeds [95 % interval over groups of items and alignment seeds]. *: a control that does not know what is "
            "shown (shuffled, random, random picture) scores as well, so the number says little."
        )
        tables.append(Table([f"{source} -> picture", *map(_head, SHOWN)], rows, note))
    rows = [
        [label(results, arm), *(between(_summary(results, arm, m), **_look(results, m)) for m in _EMBEDDING)]
        for arm in arms
    ]
    tables.append(Table(["embedding", *(metric_label(results, m) for m in _EMBEDDING)], rows, "The spaces themselves."))
    return tables


_EMBEDDING = ("recall@1", "recall@10", "true_pair_cosine", "modality_gap_debiased")
# A copy of a training picture beats any decoder of a thousand pictures on nearly all scores: it would mark everything.
_BLIND = ("shuffled", "random", "random picture")


def _head(score: str) -> str:
    return SCORES[score].label + (", %" if SCORES[score].unit == "percent" else "")


def _summary(results: Mapping[str, Any], arm: str, metric: str) -> Mapping[str, float | None]:
    found: Mapping[str, float | None] | None = results["summary"][arm].get(metric)
    mean = _mean(results, arm, metric)
    return found if found is not None else {"mean": mean, "low": None, "high": None}


def _look(results: Mapping[str, Any], metric: str) -> dict[str, Any]:
    percent = results["metrics"][metric]["unit"] == "percent"
    return {"scale": 100.0 if percent else 1.0, "decimals": 1 if percent else 3}


def _written(found: Mapping[str, float | None], score: str) -> str:
    percent = SCORES[score].unit == "percent"
    return between(found, scale=100.0 if percent else 1.0, decimals=1 if percent or score in ("fd", "kid") else 3)


def _cell(results: Mapping[str, Any], arm: str, metric: str, score: str, beaten: Sequence[str]) -> str:
    text = _written(_summary(results, arm, metric), score)
    return f"{text} *" if any(control in _BLIND for control in beaten) else text


def _control_numbers(results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The same for every space; those of the arm that measured them, mean over its seeds."""
    return {name: {s: _mean(results, INFONCE, f"pictures/{name}/{s}") for s in SHOWN} for name in CONTROLS}


def _controls(results: Mapping[str, Any]) -> list[str | Table]:
    rows = [
        [
            f"{name}: {CONTROLS[name]}",
            *(_written({"mean": v, "low": None, "high": None}, s) for s, v in numbers.items()),
        ]
        for name, numbers in _control_numbers(results).items()
    ]
    judge = "EfficientNet-Lite2, which no alignment saw; it shares family and training set with the anchor's Lite0"
    return [
        f"All rows: the same {results['protocol']['pool']['emoji']} held-out concepts, the same noise, the same judge "
        f"({judge}). FD and KID see sharpness and style; only retrieval sees what is shown.",
        Table(["control", *map(_head, SHOWN)], rows),
    ]


def _front(results: Mapping[str, Any], arms: Sequence[str]) -> Figure:
    factors = results["study"]["factors"]
    kinds = {"UniAlign": 0, "InfoNCE": 1, "GRAM": 2, "others": 3}

    def kind(arm: str) -> str:
        return {"unialign": "UniAlign", "infonce": "InfoNCE", "gram": "GRAM"}.get(factors[arm]["objective"], "others")

    panels = []
    for source in ("text", "drawing"):
        for score in ("fd", "recall@10"):
            scale = 100 if SCORES[score].unit == "percent" else 1
            points = {
                Mark(name, number): [
                    (100 * mean_of(results, arm, "recall@1"), scale * _mean(results, arm, f"pictures/{source}/{score}"))
                    for arm in arms
                    if kind(arm) == name
                ]
                for name, number in kinds.items()
            }
            points = {mark: own for mark, own in points.items() if own}
            panels.append(
                scatter(f"{source}: {_head(score)}", points, x_label="embedding R@1, %", y_label=_head(score))
            )
    legend = [Mark(name, number) for name, number in kinds.items()]
    title = "Embedding retrieval against pictures"
    note = "A point an arm, mean over seeds. Right is better; low FD and high R@10 are better."
    return Figure("generation-front", title, sheet("generation-front", title, panels, legend=legend), note)


def _ratios(results: Mapping[str, Any]) -> list[str | Table]:
    found = {(c["first"], c["rival"], c["metric"]): c for c in results["study"]["contrasts"]}
    tables: list[str | Table] = []
    for rival in (INFONCE, GRAM):
        rows = []
        for weight in WEIGHTS:
            first = _weight(weight)
            cells = []
            for source in SOURCES:
                fd, recall = (found.get((first, rival, f"pictures/{source}/{s}")) for s in ("fd", "recall@10"))
                cells += [_contrast(fd, scale=1, decimals=2), _contrast(recall, scale=100, decimals=1)]
            if first in results["summary"]:
                rows.append([f"{weight:g}", *cells])
        if rows and rival in results["summary"]:
            head = [f"weight, against {label(results, rival)}"]
            head += [text for source in SOURCES for text in (f"{source}: FD ratio", f"{source}: R@10 difference")]
            tables.append(Table(head, rows, "Paired on items and seeds [95 % interval]."))
    return tables


def _contrast(found: Mapping[str, Any] | None, *, scale: float, decimals: int) -> str:
    if found is None:
        return DASH
    return between({"mean": found["value"], "low": found["low"], "high": found["high"]}, scale=scale, decimals=decimals)


def _prediction(results: Mapping[str, Any]) -> list[str | Table]:
    found = {(c["metric"], c["score"]): c for c in results["study"]["analysis"]["correlations"]}
    metrics = list(dict.fromkeys(metric for metric, _ in found))
    scores = list(dict.fromkeys(score for _, score in found))
    rows = [[metric_label(results, m), *(between(found[m, s], decimals=2) for s in scores)] for m in metrics]
    head = ["", *(f"{s.split('/')[1]}: {_head(s.split('/')[2])}" for s in scores)]
    note = (
        "Rank correlation over arms of a number of the space with a score of its pictures. A metric that predicts good "
        "pictures has a correlation near -1 with FD (for the gap: 1) and near 1 with R@10 (for the gap: -1)."
    )
    return [Table(head, rows, note)]


def answer(results: Mapping[str, Any]) -> list[str]:
    """The chosen weight, what it costs, and what went with good pictures."""
    lines = []
    chosen = results["study"]["analysis"]["chosen"]
    if chosen:
        contrast = {(c["first"], c["rival"], c["metric"]): c for c in results["study"]["contrasts"]}
        fd = _contrast(contrast.get((chosen, INFONCE, "pictures/text/fd")), scale=1, decimals=2)
        recall = _contrast(contrast.get((chosen, INFONCE, "recall@1")), scale=100, decimals=1)
        lines.append(
            f"Chosen on validation: {label(results, chosen)}. Text -> picture FD {fd} times InfoNCE's; embedding R@1 "
            f"differs by {recall} points."
        )
    for c in results["study"]["analysis"]["correlations"]:
        if c["score"] == "pictures/text/fd":
            lines.append(
                f"Rank correlation of {c['metric']} with text -> picture FD over arms: {between(c, decimals=2)}."
            )
    return lines


STUDY = Study(
    name="generation",
    title="Does a better aligned space make better pictures?",
    plan=plan,
    page=page,
    analyse=analyse,
    answer=answer,
    prepare=prepare,
    epochs=EPOCHS,
)
