"""Train with missing entries, or with two modalities that never occur together."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from research._estimates import seed_interval
from research._figures import format_seeds, metric_lines, metric_table, trials_table, verdict_table
from research._plan import Arm, DataTransform, Family, Options, Plan, Study
from research._read import PRIMARY, Results, completed, mean_recall, seed_count
from research._settings import OBJECTIVE_TRIALS, base
from research._transforms import transformed
from research.pages import Dot, Mark, Panel, Section, Table, dots, figure
from unialign.experiments import open_store
from unialign.losses import display_name as objective_label

__all__ = ["STUDY"]

EPOCHS = 30
MODALITIES = ("image", "drawing", "text")
DROPPED = (0.0, 0.3, 0.6, 0.9)
PAIRS = {"image-drawing": ("image", "drawing"), "image-text": ("image", "text")}
# Key -> objective, label and options.
TRAINED: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "unialign": ("unialign", "UniAlign", {}),
    "unialign-all": ("unialign", "UniAlign, all pairs", {"anchor": "all"}),
    "infonce": ("infonce", "InfoNCE", {}),
    "infonce-all": ("infonce", "InfoNCE, all pairs", {"anchor": "all"}),
    **{name: (name, objective_label(name), {}) for name in ("gram", "triangle", "symile", "cs_aligner")},
}
# These objectives use only items with all modalities.
COMPLETE_ONLY = ("triangle", "symile")


def conditions() -> dict[str, DataTransform | None]:
    points = {f"drop{100 * s:.0f}": DataTransform("drop_entries", {"fraction": s}) if s else None for s in DROPPED}
    return {**points, **{f"never-{key}": DataTransform("no_overlap", {"pair": list(p)}) for key, p in PAIRS.items()}}


def plan(options: Options) -> Plan:
    epochs = options.epochs or EPOCHS
    arms = [
        Arm(
            key=_key(trained, condition),
            label=title if condition == "drop0" else f"{title}, {_condition_title(condition)}",
            data="emoji",
            train=base("emoji", objective, MODALITIES, epochs=epochs, **settings),
            factors={"trained": trained, "condition": condition},
            anchor="text",
            trials=OBJECTIVE_TRIALS[objective] if condition == "drop0" else (),
            tuned_as=None if condition == "drop0" else _key(trained, "drop0"),
            transform=transform,
        )
        for condition, transform in conditions().items()
        for trained, (objective, title, settings) in TRAINED.items()
    ]
    families = [
        Family(condition, _key("unialign", condition), tuple(_key(t, condition) for t in TRAINED if t != "unialign"))
        for condition in conditions()
    ]
    return Plan(arms=tuple(arms), families=tuple(families))


def _key(trained: str, condition: str) -> str:
    return f"{trained}-{condition}"


def _condition_title(condition: str) -> str:
    kind, _, pair = condition.partition("-")
    return f"no {' with '.join(PAIRS[pair])}" if kind == "never" else f"{condition.removeprefix('drop')} % dropped"


# --- analysis across arms -------------------------------------------------------------------------------------------


def analyse(results: Results) -> dict[str, Any]:
    options = results["study"]["options"]
    store = open_store(options["stores"].get("emoji", "emoji"), MODALITIES, options["fingerprints"].get("emoji"))
    kept: dict[str, dict[str, float]] = {}
    for condition, transform in conditions().items():
        counts: dict[str, list[int]] = {}
        for seed in options["seeds"]:
            there = transformed(store, transform, seed)
            rows = there.rows("train")
            has = {name: there.present(name)[rows] for name in MODALITIES}
            modalities = np.sum(list(has.values()), 0)
            counts.setdefault("items", []).append(len(rows))
            counts.setdefault("complete", []).append(int((modalities == len(MODALITIES)).sum()))
            counts.setdefault("at_least_two", []).append(int((modalities >= 2).sum()))
            for m, n in itertools.combinations(MODALITIES, 2):
                counts.setdefault(f"{m}-{n}", []).append(int((has[m] & has[n]).sum()))
        kept[condition] = {name: sum(values) / len(values) for name, values in counts.items()}
    return {"kept": kept}


# --- the page -------------------------------------------------------------------------------------------------------


def page(results: Results) -> list[Section]:
    marks = {trained: Mark(title, i) for i, (trained, (_, title, _)) in enumerate(TRAINED.items())}
    points = {mark: {100 * s: _key(t, f"drop{100 * s:.0f}") for s in DROPPED} for t, mark in marks.items()}
    panels = metric_lines(
        results,
        points,
        (*PRIMARY, "true_pair_cosine"),
        x_label="entries dropped, %",
        x_ticks=[100 * s for s in DROPPED],
    )
    sections = [
        Section("kept", "Remaining training data", [_kept(results)]),
        Section(
            "dropped",
            "Entries dropped at random",
            [
                figure(
                    "missing-dropped",
                    "Metrics against the fraction of dropped entries",
                    "Image, drawing and text of emoji, complete test set, anchor text unless stated otherwise; "
                    f"{seed_count(results)}; 95 % intervals over items and seeds.",
                    panels,
                    columns=3,
                    legend=list(marks.values()),
                )
            ],
        ),
        Section("never", "Modalities that never occur together", _never(results)),
    ]
    for condition in conditions():
        own = completed(results, (_key(t, condition) for t in TRAINED))
        parts = [
            metric_table(results, own, family=condition, first_column="objective"),
            verdict_table(results, condition),
        ]
        title = "Complete data" if condition == "drop0" else _condition_title(condition).capitalize()
        sections.append(Section(f"table-{condition}", title, parts))
    chosen = trials_table(results, [_key(t, "drop0") for t in TRAINED])
    return [*sections, Section("tuning", "Tuned settings, on complete data", [chosen])]


def _kept(results: Results) -> Table:
    kept = results["study"]["analysis"]["kept"]
    pairs = list(itertools.combinations(MODALITIES, 2))
    rows = []
    for condition in conditions():
        found = kept[condition]
        percent = 100 * found["complete"] / found["items"]
        cells = [f"{found['complete']:.0f} ({percent:.1f} %)", f"{found['at_least_two']:.0f}"]
        cells += [f"{found[f'{m}-{n}']:.0f}" for m, n in pairs]
        rows.append(["complete data" if condition == "drop0" else _condition_title(condition), *cells])
    only = " and ".join(objective_label(name) for name in COMPLETE_ONLY)
    return Table(
        ["training data", "items with all three", "with two or more", *(f"{m} and {n}" for m, n in pairs)],
        rows,
        f"Means over seeds, out of {kept['drop0']['items']:.0f} items. An item that would lose all entries keeps one "
        f"of them. {only} use only items with all three modalities and skip batches without such items.",
    )


def _never(results: Results) -> list[Any]:
    panels: list[Panel] = []
    rows = []
    for pair_key, pair in PAIRS.items():
        both = [pair, pair[::-1]]
        others = [p for p in itertools.permutations(MODALITIES, 2) if p not in both]
        found: dict[tuple[str, str, str], list[float]] = {}
        for trained, condition in itertools.product(TRAINED, ("drop0", f"never-{pair_key}")):
            for which, directions in (("pair", both), ("others", others)):
                values = mean_recall(results, _key(trained, condition), directions)
                found[trained, condition, which] = values if _key(trained, condition) in results["summary"] else []
        for which, title in (
            ("pair", f"{pair[0].capitalize()} and {pair[1]}"),
            ("others", "The other pairs"),
        ):
            drawn = []
            for trained, (_, name, _) in TRAINED.items():
                at = seed_interval(found[trained, f"never-{pair_key}", which]).scaled(100)
                drawn.append(Dot(name, *at, number=0 if which == "pair" else 1))
            panels.append(dots(f"{title}, R@1, %", drawn, write=lambda value: f"{value:.1f}"))
        for trained in TRAINED:
            cells = [
                format_seeds(found[trained, condition, which], scale=100, decimals=1)
                for which in ("pair", "others")
                for condition in ("drop0", f"never-{pair_key}")
            ]
            rows.append([f"{TRAINED[trained][1]}: {' and '.join(pair)}", *cells])
    warm = [title for t, (_, title, _) in TRAINED.items() if _warm(results, t)]
    return [
        *(
            [f"As selected by tuning, {', '.join(warm)} begin with InfoNCE, which uses every available pair."]
            if warm
            else []
        ),
        f"The chance level is {100 / results['study']['data']['emoji']['test_items']:.1f} %.",
        figure(
            "missing-never",
            "R@1 of a pair that never occurs together in training, and of the other pairs",
            "Both directions of a pair; means with 95 % t-intervals over seeds.",
            panels,
            heading="Pairs that never occur together in training",
        ),
        Table(
            ["R@1, %", "the pair, complete data", "never together", "the others, complete data", "never together"],
            rows,
            "Means over seeds [95 % t-interval].",
        ),
    ]


def _warm(results: Results, trained: str) -> bool:
    return bool(results["objectives"][_key(trained, "drop0")]["settings"]["infonce_warmup_ratio"] > 0)


STUDY = Study(
    name="missing",
    title="Training with missing entries or unpaired modalities",
    plan=plan,
    analyse=analyse,
    page=page,
    epochs=EPOCHS,
)
