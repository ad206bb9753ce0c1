"""Studies: questions about objectives that are answered by many trainings, and end as a page with figures.

A study is a file here, a line in `STUDIES`, and an object `STUDY = Study(...)` (see `_plan.py`) of three functions:

    plan(options) -> Plan                   the arms, and which of them are compared
    analyse(results) -> dict                numbers that need several arms (optional), for results["study"]["analysis"]
    page(results) -> list[Section]          words, tables and figures, from the content of results.json alone

An `Arm` is one way to train: data, `TrainConfig`, and what tells it from the others (`factors`, plain values that pages
group by). What an arm may ask for besides:

    trials=({setting: value}, ...)          tuning on the validation split; every tuned arm of a study has as many
    tuned_as="arm"                          takes the settings that were chosen for another arm
    per_seed={0: {setting: value}, ...}     settings that a seed has of its own, such as its modalities
    change=Change("name", {...})            a store made from the data, by a function of `_changes.py`
    start="arm"                             continues the space of another arm of the same seed
    look=Look("name", {...}, points=8)      measured while training and at its end, by a function of `_measures.py`

`run_study` does the rest: trials and runs in worker processes, one file for each finished one, so that an interrupted
study continues; intervals over groups of items and seeds; Holm-corrected verdicts for each `Family` of the plan;
results.json, figures, page.md, report.html. Arms travel to the workers as plain values: changes and measures are named,
never passed. `ablation.py` is the example to follow; `_figures.py` has the usual tables and figures, `_sweeps.py` those
of a setting that is varied.

Importing this module imports nothing heavy: the command line lists the studies without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from unialign._checks import check_choice

if TYPE_CHECKING:
    from research._plan import Study

__all__ = ["COSTS", "STUDIES", "load_study"]

STUDIES = {
    "ablation": "which of UniAlign's terms earn their place, and where it wins, ties or loses against every rival",
    "anchor": "every modality, all pairs and the centroid as the target: retrieval with it, without it, and at worst",
    "conflict": "zeta and chi against the number of modalities and over training, beside the theory's bounds",
    "continued": "an InfoNCE space continued at small learning rates, the paper's setting",
    "divergence": "Hölder divergence by estimator and bandwidth over training, its upper bound, what it goes with",
    "generation": "pictures from every modality by objective and uniformity weight, with controls; what predicts them",
    "missing": "30, 60 and 90 % of the entries missing in training, or two modalities that never meet",
    "partition_mix": "what lies between InfoNCE and UniAlign",
    "temperature": "sensitivity of UniAlign, InfoNCE and GRAM to the temperature",
    "weights": "sensitivity of UniAlign to the weights of its four terms",
}

# Trainings with all seeds, and minutes on two cores.
COSTS = {
    "ablation": (252, 8),
    "anchor": (65, 3),
    "conflict": (235, 7),
    "continued": (75, 2),
    "divergence": (90, 5),
    "generation": (85, 50),
    "missing": (272, 5),
    "partition_mix": (110, 4),
    "temperature": (140, 3),
    "weights": (175, 4),
}


def load_study(name: str) -> "Study":
    """A study by name; `ConfigError` lists the names."""
    check_choice("study", name, STUDIES)
    study: Study = import_module(f"research.{name}").STUDY
    return study
