"""Measure conflict by number of modalities, and its rank correlation with retrieval and gap."""

import random
from collections.abc import Hashable, Sequence
from typing import Any

from research._closed_forms import closed_form_arms, closed_form_family
from research._conflict_page import COMPARED, MOST, OBJECTIVES, OUTCOMES, answer, page
from research._estimates import rank_correlation
from research._plan import Arm, EvalHook, Options, Plan, Study
from research._read import Results, completed, runs_of
from research._settings import ANCHORS, OBJECTIVE_TRIALS, base, registered
from unialign.losses import display_name as objective_label

__all__ = ["STUDY"]

EPOCHS = 40
POINTS = 8
TRAJECTORY = ("image", "text", "speech")
POOLS = {
    "digits": ("fou", "fac", "kar", "zer", "mor"),
    "emoji": (
        *("image", "drawing", "keywords", "speech"),
        *(f"name_{code}" for code in ("de", "fr", "es", "pt", "pl", "ru", "el", "ar", "hi", "ja", "ko", "zh")),
    ),
}
PREDICTORS = ("zeta", "zeta_neg", "zeta_neg_tan", "chi", "net_ratio")
# The index of the early evaluation, which is the third of eight and occurs after 8 % of the steps.
EARLY = 2


def plan(options: Options) -> Plan:
    epochs = options.epochs or EPOCHS
    arms = [
        _sweep(data, m, objective, epochs, options)
        for data, most in MOST.items()
        for m in range(2, most + 1)
        for objective in OBJECTIVES
    ]
    arms += [
        Arm(
            key=f"trajectory-{name}",
            label=objective_label(name),
            data="emoji",
            train=base("emoji", name, TRAJECTORY, epochs=epochs),
            factors={"part": "trajectory", "objective": name, "M": 3, "data": "emoji"},
            anchor=ANCHORS["emoji"],
            trials=OBJECTIVE_TRIALS[name],
            eval_hook=EvalHook("conflict", {"anchor": ANCHORS["emoji"]}, points=POINTS),
        )
        for name in registered()
    ]
    anchor = ANCHORS["emoji"]
    arms += closed_form_arms(
        "emoji",
        TRAJECTORY,
        factors={"part": "closed", "M": 3, "data": "emoji"},
        anchor=anchor,
        eval_hook=EvalHook("conflict", {"anchor": anchor}, points=1),
    )
    return Plan(arms=tuple(arms), families=tuple(closed_form_family(first) for first in COMPARED))


def order(data: str, seed: int) -> tuple[str, ...]:
    pool = list(POOLS[data])
    random.Random(f"{data}/{seed}").shuffle(pool)
    return tuple(pool)


def _sweep(data: str, m: int, objective: str, epochs: int, options: Options) -> Arm:
    anchor, most = ANCHORS[data], MOST[data]
    largest = f"{data}-{objective}-M{most}"
    key = f"{data}-{objective}-M{m}"

    def modalities(seed: int) -> list[str]:
        return [anchor, *order(data, seed)[: m - 1]]

    seeds = (*options.seeds, *options.tuning_seeds)
    return Arm(
        key=key,
        label=f"{objective_label(objective)}, {data}, M = {m}",
        data=data,
        train=base(data, objective, tuple(modalities(options.seeds[0])), epochs=epochs),
        factors={"part": "sweep", "objective": objective, "M": m, "data": data},
        anchor=anchor,
        # Tune only with all modalities, so that differences in conflict are due to M and not to the settings.
        trials=OBJECTIVE_TRIALS[objective] if key == largest else (),
        tuned_as=None if key == largest else largest,
        per_seed={seed: {"modalities": modalities(seed)} for seed in seeds},
        eval_hook=EvalHook("conflict", {"anchor": anchor}, points=POINTS),
    )


# --- analysis across arms -------------------------------------------------------------------------------------------


def analyse(results: Results) -> dict[str, Any]:
    arms = completed(results)
    parts = {
        part: [a for a in arms if results["study"]["factors"][a]["part"] == part] for part in ("sweep", "trajectory")
    }
    return {
        "correlations": [
            {
                "part": part,
                "when": when,
                "predictor": predictor,
                "outcome": outcome,
                **_correlation(results, keys, when, predictor, outcome),
            }
            for part, keys in parts.items()
            for when in ("early", "end")
            for predictor in PREDICTORS
            for outcome in OUTCOMES
        ]
    }


def _correlation(results: Results, arms: Sequence[str], when: str, predictor: str, outcome: str) -> dict[str, Any]:
    cells: dict[Hashable, list[tuple[float, float]]] = {}
    for arm in arms:
        factors = results["study"]["factors"][arm]
        for run in runs_of(results, arm):
            evaluation = run["evaluations"][min(EARLY, len(run["evaluations"]) - 1) if when == "early" else -1]
            pair = (evaluation.get(f"conflict/{predictor}"), run["metrics"].get(outcome))
            cells.setdefault((factors["data"], factors["M"]), []).append(pair)
    return rank_correlation(cells)


STUDY = Study(
    name="conflict",
    title="Conflict against the number of modalities",
    plan=plan,
    analyse=analyse,
    page=page,
    answer=answer,
    epochs=EPOCHS,
)
