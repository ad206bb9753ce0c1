"""Generate images from aligned spaces by objective and uniformity weight, and compare image scores with retrieval."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from research._estimates import rank_correlation
from research._generation_page import (
    DECODER_SEEDS,
    GRAM,
    INFONCE,
    MAX_LOSS,
    SOURCES,
    WEIGHTS,
    answer,
    mean_over_seeds,
    page,
    weight_arm,
)
from research._image_scores import train_decoders
from research._plan import Arm, EvalHook, Options, PairedComparison, Plan, Study
from research._read import Results, completed
from research._settings import OBJECTIVE_TRIALS, base
from unialign.data import EmbeddingStore

__all__ = ["STUDY"]

EPOCHS = 60
MODALITIES = ("image", "drawing", "text", "speech")
ANCHOR = "image"
# The settings of the decoder; no entry means the defaults.
DECODER: dict[str, Any] = {}
_SMOKE_DECODER = {"steps": 20, "latents": 128, "width": 32, "depth": 1}
# Each baseline has the settings of its first trial. Triangle is excluded, since it requires three modalities.
_BASELINES = ("symile", "pmrl", "sigmoid", "cs_aligner", "modgap", "cua", "align_uniform")


def plan(options: Options) -> Plan:
    arms = [
        _arm(
            weight_arm(weight),
            f"UniAlign, uniformity {weight:g}" if weight else "alignment only",
            "unialign",
            options,
            preset="frozen_anchor",
            # The default of the preset when this study was made; the study `frozen_anchor` varies it.
            alignment_weight=1.0,
            uniformity_weight=weight,
        )
        for weight in WEIGHTS
    ]
    arms.append(_arm("unialign-balanced", "UniAlign, balanced", "unialign", options))
    for t in (0.05, 0.07, 0.1):
        key = INFONCE if t == 0.07 else f"{INFONCE}-t{t:g}"
        arms.append(_arm(key, f"InfoNCE, temperature {t:g}", INFONCE, options, temperature=t))
    arms.append(_arm(GRAM, "GRAM, InfoNCE warmup 0.5", GRAM, options, infonce_warmup_ratio=0.5, temperature=0.07))
    for name in _BASELINES:
        settings = dict(OBJECTIVE_TRIALS[name][0])
        warm = settings.pop("infonce_warmup_ratio", 0.0)
        given = {key.removeprefix("objective_options."): value for key, value in settings.items()}
        suffix = f", InfoNCE warmup {warm:g}" if warm else ""
        arms.append(_arm(name, f"{name}{suffix}", name, options, infonce_warmup_ratio=warm, **given))
    ours = [weight_arm(weight) for weight in WEIGHTS]
    comparisons = [
        PairedComparison(first, baseline, f"images/{source}/{score}", "ratio" if score == "fd" else "difference")
        for first in ours
        for baseline in (INFONCE, GRAM)
        for source in SOURCES
        for score in ("fd", "recall@10")
    ]
    comparisons += [PairedComparison(first, INFONCE, "recall@1") for first in ours]
    return Plan(
        arms=tuple(arms), comparisons=tuple(comparisons), keep=("recall@10", "true_pair_cosine", "modality_gap")
    )


def make_arm(
    key: str,
    label: str,
    objective: str,
    options: Options,
    *,
    controls: bool,
    validation: bool = True,
    decoder_seeds: Sequence[int] | None = None,
    factors: Mapping[str, Any],
    infonce_warmup_ratio: float = 0.0,
    **given: Any,
) -> Arm:
    """Align the other modalities with the frozen, whitened anchor, and score generated images at the end."""
    train = base("emoji", objective, MODALITIES, epochs=options.epochs or EPOCHS, **given)
    anchor = {"objective_options.anchor": ANCHOR} if "anchor" in train.objective_options else {}
    arguments = {
        "decoder": decoder(options),
        "seeds": list(DECODER_SEEDS if decoder_seeds is None else decoder_seeds),
        "anchor": ANCHOR,
        "sources": list(SOURCES),
        "extractor": "lite2" if options.epochs is None else "pixels",
        "controls": "yes" if controls else "no",
    }
    arguments |= {} if validation else {"validation": "no"}
    return Arm(
        key=key,
        label=label,
        data="emoji",
        train=train.override({**anchor, "frozen": {ANCHOR: "whiten"}, "infonce_warmup_ratio": infonce_warmup_ratio}),
        factors=factors,
        anchor=ANCHOR,
        eval_hook=EvalHook("generation", arguments, points=1),
    )


def _arm(key: str, label: str, objective: str, options: Options, **given: Any) -> Arm:
    factors = {"objective": objective, "weight": given.get("uniformity_weight")}
    return make_arm(key, label, objective, options, controls=key == INFONCE, factors=factors, **given)


def decoder(options: Options) -> dict[str, Any]:
    return DECODER if options.epochs is None else DECODER | _SMOKE_DECODER


def prepare(options: Options, folder: Path, stores: Mapping[str, EmbeddingStore], workers: int) -> None:
    train_decoders(stores["emoji"], decoder(options), DECODER_SEEDS, folder, image=ANCHOR, workers=workers)


def analyse(results: Results) -> dict[str, Any]:
    arms = completed(results)
    embedding = {arm: mean_over_seeds(results, arm, "val/recall@1") for arm in arms}
    distance = {
        arm: mean_over_seeds(results, arm, "val/text/fd") + mean_over_seeds(results, arm, "val/drawing/fd")
        for arm in arms
    }
    ours = [arm for arm in (weight_arm(weight) for weight in WEIGHTS) if arm in arms]
    least = embedding.get(INFONCE, math.nan) - MAX_LOSS
    # Without an InfoNCE arm, no weight is chosen. Weights without scores are excluded.
    eligible = [arm for arm in ours if embedding[arm] >= least and math.isfinite(distance[arm])]
    chosen = min(eligible, key=lambda arm: distance[arm], default=None)
    metrics = ("true_pair_cosine", "modality_gap_debiased", "recall@1", "recall@10", "label_map")
    scores = [f"images/{source}/{score}" for source in ("text", "drawing", "speech") for score in ("fd", "recall@10")]
    pairs = {
        (m, s): [(mean_over_seeds(results, arm, m), mean_over_seeds(results, arm, s)) for arm in arms]
        for m in metrics
        for s in scores
    }
    return {
        "chosen": chosen,
        "validation": {arm: {"recall@1": embedding[arm], "fd": distance[arm] / 2} for arm in arms},
        "correlations": [{"metric": m, "score": s, **rank_correlation({0: own})} for (m, s), own in pairs.items()],
    }


STUDY = Study(
    name="generation",
    title="Image generation from aligned spaces",
    plan=plan,
    page=page,
    analyse=analyse,
    answer=answer,
    prepare=prepare,
    epochs=EPOCHS,
)
