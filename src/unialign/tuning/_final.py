"""Read the test split once: a comparison of the chosen settings with the default on the same items.

This is the only module of the package that passes a store with test rows to training or evaluation.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from unialign.config import CompareConfig, ComparisonEntry, TrainConfig
from unialign.data import EmbeddingStore
from unialign.experiments import compare, make_entry
from unialign.io import replace_file
from unialign.space import Space
from unialign.tuning._choose import DEFAULT, finalists
from unialign.tuning._search import Search

FOLDER = "comparison"
CHOSEN, SHIPPED = "tuned", "default"
# The smallest number with which one comparison can be significant after correction.
_LEAST_RESAMPLES = 400


def compare_with_default(
    search: Search, store: EmbeddingStore, data: str, chosen: int, on_run: Callable[..., None] | None = None
) -> dict[str, Any]:
    """Train the chosen settings and the default with new seeds, and return the results on the test split.

    The comparison is in the folder `comparison`, whose `config.yaml` repeats it. The seeds are those after the seeds of
    the search, which were used to choose. A finished comparison of the same settings is read back.
    """
    config, first = search.config, search.seeds[-1] + 1
    # With little time, the settings were trained with fewer seeds than the configuration has.
    seeds = len(search.common_seeds(finalists(search)))
    numbers = {CHOSEN: chosen}
    if chosen != DEFAULT and search.first(DEFAULT).state == "complete":
        numbers[SHIPPED] = DEFAULT
    entries = {key: _entry(key, search.first(number).train) for key, number in numbers.items()}
    comparison = CompareConfig(
        data=data,
        fingerprint=store.fingerprint,
        entries=entries,
        seeds=tuple(range(first, first + seeds)),
        resamples=max(config.resamples, _LEAST_RESAMPLES),
        selection=f"`unialign tune`: {', '.join(config.metric)} on the validation split",
    )
    _set_aside(search.folder, comparison)
    return compare(comparison, search.folder / FOLDER, workers=search.workers, on_run=on_run)


def earlier_comparisons(folder: Path) -> list[str]:
    """Return the folders of tests of settings that were chosen before the search was continued with more trials."""
    return sorted(path.name for path in folder.glob(f"{FOLDER}-*") if path.is_dir())


def _set_aside(folder: Path, comparison: CompareConfig) -> None:
    """Rename a comparison of other settings; the page counts how often the test split was read."""
    path = folder / FOLDER
    if (path / "config.yaml").exists() and CompareConfig.read(path / "config.yaml") != comparison:
        path.rename(folder / f"{FOLDER}-{len(earlier_comparisons(folder)) + 1}")


def publish_chosen(folder: Path, seed: int) -> Space:
    """Copy the space of the chosen settings to `space/`, and their settings to `train.yaml`."""
    run = folder / FOLDER / "runs" / f"{CHOSEN}-seed{seed}"
    Space.from_pretrained(run / "space").save_pretrained(folder / "space")
    replace_file(folder / "train.yaml", (run / "config.yaml").read_bytes())
    return Space.from_pretrained(folder / "space")


def _entry(key: str, train: TrainConfig) -> ComparisonEntry:
    entry = make_entry(train)
    word = "Tuned" if key == CHOSEN else "Default"
    return entry.replace(label=f"{word}: {entry.label}")
