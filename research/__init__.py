"""Studies of the objectives, which run many trainings and summarize them on a page with tables and figures.

A study is a module of this package with an entry in `STUDIES` and an object `STUDY = Study(...)` with three functions:
`plan(options)` returns the arms and the comparisons between them, `analyse(results)` computes statistics over several
arms, and `page(results)` returns paragraphs, tables and figures. `ablation.py` is an example. A study that runs in
parts has an entry in `PARTED` instead, and functions `main` and `page`.

This module avoids heavy imports, so that `--help` lists the studies without torch.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from unialign._checks import check_choice

if TYPE_CHECKING:
    from research._plan import Study
    from research.pages import Section

__all__ = ["COSTS", "PARTED", "STUDIES", "load_page", "load_study"]

STUDIES = {
    "ablation": "contribution of each of UniAlign's terms, and comparison with every baseline and closed form",
    "anchor": "effect of the anchor (each modality, all pairs, the centroid) on retrieval in each direction",
    "conflict": "zeta and chi by number of modalities and during training, compared with their theoretical bounds",
    "continued": "continued training of an InfoNCE space at small learning rates, as in the paper",
    "divergence": "Hölder divergence during training by estimator and bandwidth, its upper bound and its correlations",
    "frozen_anchor": "images with the settings that were chosen on validation rows for a frozen anchor",
    "generation": "images generated from every modality, by objective and uniformity weight, with controls",
    "missing": "training with 30, 60 and 90 % of the entries missing, or with two modalities that never occur together",
    "partition_mix": "interpolation between InfoNCE and UniAlign",
    "recipe": "training from kernel GCCA, the closed forms themselves, and training from random weights",
    "search": "an index by correction of the modality gap, with missing modalities, and with fused queries",
    "temperature": "sensitivity of UniAlign, InfoNCE and GRAM to the temperature",
    "weights": "sensitivity of UniAlign to the weights of its four terms",
}

# Studies with a command line of their own, since they take hours and run in parts: `python -m research NAME --help`.
PARTED = {
    "front": "whole fronts of objectives that are tuned with equal budgets, on up to seven data sets",
}

# The total number of trainings, and the duration in minutes on two cores.
COSTS = {
    "ablation": (282, 9),
    "anchor": (80, 4),
    "conflict": (250, 8),
    "continued": (90, 3),
    "divergence": (120, 6),
    "frozen_anchor": (30, 12),
    "generation": (85, 50),
    "missing": (272, 5),
    "partition_mix": (125, 5),
    "recipe": (92, 6),
    "search": (30, 20),
    "temperature": (155, 4),
    "weights": (190, 5),
}


def load_study(name: str) -> "Study":
    check_choice("study", name, STUDIES)
    study: Study = import_module(f"research.{name}").STUDY
    return study


def load_page(name: str) -> "Callable[[Mapping[str, Any]], list[Section]]":
    """Return the function that makes the sections of a study's page from its results."""
    check_choice("study", name, (*STUDIES, *PARTED))
    module = import_module(f"research.{name}")
    made: Callable[[Mapping[str, Any]], list[Section]] = module.page if name in PARTED else module.STUDY.page
    return made
