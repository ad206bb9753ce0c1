"""`tune`: search for the best training settings of a data set."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unialign._checks import check_integer
from unialign._html import html_table
from unialign.config import HyperparameterSearchConfig, TrainConfig, differing_settings
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError
from unialign.evaluation import check_selection_metric, validation_rows
from unialign.experiments import DATA_FOLDER, RunRecord, open_run_dir, open_store, write_json
from unialign.io import lock_folder, write_yaml
from unialign.space import Space
from unialign.tuning._choose import Candidate, candidates, finalists
from unialign.tuning._final import compare_with_default, publish_chosen
from unialign.tuning._journal import FILE
from unialign.tuning._optuna import load_optuna
from unialign.tuning._propose import SearchSpace
from unialign.tuning._results import make_tuning_results
from unialign.tuning._scores import Goal
from unialign.tuning._search import OnTrial, Search
from unialign.tuning._search_store import discard_search_store, open_search_store
from unialign.tuning._shipped import shipped_settings
from unialign.tuning._trial import Trial


@dataclass(frozen=True)
class TuneResult:
    """Result of `tune`.

    Attributes:
        space: the space that was trained with the chosen settings, in eval mode.
        config: the chosen training settings.
        trials: all trials with the first seed, in order.
        front: numbers of the trials that no other trial is better than in all metrics, the best score first.
        results: content of `results.json`.
    """

    space: Space
    config: TrainConfig
    trials: tuple[Trial, ...]
    front: tuple[int, ...]
    results: dict[str, Any]

    def text(self) -> str:
        """Return the answer in sentences."""
        return str(self.results["answer"])

    def _repr_html_(self) -> str:
        rows = list(self.results["candidates"][0]["settings"].items())
        return html_table([(name, str(value)) for name, value in rows], caption=self.text())


def tune(
    data: str | os.PathLike[str] | EmbeddingStore,
    config: HyperparameterSearchConfig | None = None,
    *,
    out: str | os.PathLike[str],
    workers: int = 1,
    device: str = "auto",
    on_trial: OnTrial | None = None,
    on_run: Callable[[str, int, RunRecord], None] | None = None,
) -> TuneResult:
    """Choose objective, its options, head and training settings on the validation split, and test the choice once.

    The first trials are the shipped settings: the default of `fit` (or the recipe of a named data set), kernel heads
    from GCCA, closed forms and the presets of UniAlign. Half of the further trials are drawn at random, and half near
    the best trials so far; optuna may propose them instead. The `top` best settings and the default are trained with
    `seeds` seeds, and the settings with the best mean of the logarithms of the metrics are chosen. They can therefore
    not be worse than the default on the validation split. Then the chosen settings and the default are trained with new
    seeds and evaluated on the test split, which nothing before has read: trials get a copy of the data without test
    rows.

    The folder contains `trials.jsonl` (one line per trial), `results.json`, the chosen space in `space/`, `train.yaml`
    for `unialign train --config`, and `comparison/`, whose `config.yaml` is for `unialign compare --config`. Calling
    the function again continues a search that was killed, and `trials` and `minutes` may be raised. With `trials`, the
    trials do not depend on interruptions or on the number of workers.

    Examples:
        >>> import unialign as ua
        >>> config = ua.config.HyperparameterSearchConfig(metric=("recall@1", "label_map"), trials=40)
        >>> found = ua.tune("digits", config, out="runs/tune", workers=2)
        >>> print(found.text(), found.config.objective, found.space.dim)

    Args:
        data: name of a data set, path of a store, or a store; one in memory is saved in `out/data`. It needs the splits
            train, val and test.
        config: settings of the search; None: the defaults.
        out: results folder.
        workers: number of processes that train in parallel; 1 trains in the current process.
        device: device of training, as in `fit`.
        on_trial: function that is called with each finished trial.
        on_run: function that is called with entry, seed and record of each run of the final comparison.

    Raises:
        ConfigError: unknown metric, no validation split, or the folder contains a search with other settings or data.
        DataError: a metric is undefined for the validation items, too few test items, or no trial was successful.
        MissingDependencyError: `sampler="tpe"` without optuna.
    """
    folder, settings = Path(out), HyperparameterSearchConfig() if config is None else config
    path, store = _opened(data, folder, settings)
    if len(store.rows("test")) < 2:
        raise DataError(f"the test split of {store.name!r} has {len(store.rows('test'))} items; at least 2 are needed")
    with _opened_search(path, store, settings, folder, Options(workers, device, on_trial)) as search:
        found = choose(search)
        test = compare_with_default(search, store, path, found[0].number, on_run)
        space = publish_chosen(folder, test["protocol"]["seeds"][0])
        results = make_tuning_results(search, store, found, test, folder)
        write_json(folder / "results.json", results)
        discard_search_store(folder)
        trials = tuple(search.finished())
        return TuneResult(space, search.first(found[0].number).train, trials, tuple(results["front"]), results)


def choose_settings(
    data: str,
    config: HyperparameterSearchConfig,
    *,
    out: Path,
    workers: int = 1,
    on_trial: OnTrial | None = None,
) -> TrainConfig:
    """Return the settings that `tune` chooses among those of `config.objectives` only, without reading the test split.

    `compare --tune` gives every objective such a search with the same number of trials.
    """
    path, store = _opened(data, out, config)
    options = Options(workers, "auto", on_trial, with_default=False)
    with _opened_search(path, store, config, out, options) as search:
        chosen = choose(search)[0]
        discard_search_store(out)
        return search.first(chosen.number).train


@dataclass(frozen=True)
class Options:
    """Options of a search that do not affect its result."""

    workers: int
    device: str
    on_trial: OnTrial | None
    with_default: bool = True


def choose(search: Search) -> list[Candidate]:
    """Run the trials, train the best settings with more seeds, and return them, the chosen one first."""
    search.run()
    if not any(trial.state == "complete" for trial in search.finished()):
        raise DataError(
            f"none of {len(search.finished())} trials gave finite weights: {search.first(0).message}; inspect the data "
            f"with `unialign diagnose`"
        )
    search.repeat(finalists(search))
    return candidates(search)


def _opened(
    data: str | os.PathLike[str] | EmbeddingStore, folder: Path, config: HyperparameterSearchConfig
) -> tuple[str, EmbeddingStore]:
    """Return a name or path that other processes can open, and the store with the modalities of the search."""
    if isinstance(data, EmbeddingStore):
        chosen = data.modalities
        if data.path is None:
            target = folder / DATA_FOLDER
            open_run_dir(folder, "tuning")
            if not (target.exists() and EmbeddingStore.open(target).fingerprint == data.fingerprint):
                if (folder / FILE).exists():
                    raise ConfigError(f"{folder} has a search on other data; choose another out")
                data.save(target, overwrite="replace")
            data = str(target)
        else:
            data = str(data.path)
    else:
        chosen = None
    store = open_store(os.fspath(data), config.fixed.get("modalities", chosen), None)
    validation_rows(store, "a search")
    return os.fspath(data), store


@contextmanager
def _opened_search(
    data: str, store: EmbeddingStore, config: HyperparameterSearchConfig, folder: Path, options: Options
) -> Iterator[Search]:
    for name in config.metric:
        check_selection_metric(name, "metric")
    check_integer("workers", options.workers, low=1)
    if config.sampler == "tpe":
        load_optuna()
    space = SearchSpace(store.modalities, config.objectives, dict(config.fixed))
    shipped = shipped_settings(store, space, with_default=options.with_default)
    _open_folder(folder, {"path": data, "fingerprint": store.fingerprint}, config)
    with lock_folder(folder, doing="searching"):
        search = Search(
            config,
            folder,
            open_search_store(store, folder),
            space,
            shipped,
            Goal(config.metric, len(store.rows("val"))),
            options.workers,
            options.device,
            options.on_trial,
        )
        search.read()
        yield search


def _open_folder(folder: Path, data: Mapping[str, Any], config: HyperparameterSearchConfig) -> None:
    """Write `config.yaml`, in which a continued search may only change its budget."""
    settings = {"data": dict(data), "search": config.to_dict()}
    found = open_run_dir(folder, "tuning")
    if found is not None and (folder / FILE).exists():
        known = {name: value for name, value in settings["search"].items() if name not in config.bookkeeping()}
        before = {name: value for name, value in dict(found["search"]).items() if name not in config.bookkeeping()}
        differing = differing_settings({"data": found.get("data"), **before}, {"data": settings["data"], **known})
        if differing:
            listed = "; ".join(
                f"{name} is {old} in the folder, but {new} was given" for name, (old, new) in differing.items()
            )
            raise ConfigError(f"{folder} has another search: {listed}; choose another out or delete it")
    write_yaml(folder / "config.yaml", settings)
