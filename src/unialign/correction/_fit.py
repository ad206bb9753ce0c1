"""Fit a repair to embeddings."""

from collections.abc import Mapping, Sequence
from typing import Any

from unialign._checks import check_choice, check_number, check_seed
from unialign._version import __version__
from unialign.correction._candidates import (
    Candidate,
    bootstrap_weights,
    choose,
    describe,
    measure_candidates,
)
from unialign.correction._given import made_repair
from unialign.correction._layers import AFFINE, METHODS, MIN_ROWS, Method, fit_layers
from unialign.correction._repair import Repair
from unialign.correction._rows import ItemRows, groups_of, merged_rows, present_counts, read_rows, split_items
from unialign.data import Sources, open_collection
from unialign.errors import ConfigError, ShapeError
from unialign.space import Space


def repair(
    source: Sources | Space,
    data: Sources | None = None,
    *,
    modalities: Sequence[str] | None = None,
    present: Mapping[str, Any] | None = None,
    ids: Any = None,
    labels: Any = None,
    id: str | None = None,
    methods: Sequence[str] | str = "auto",
    holdout: float = 0.5,
    seed: int = 0,
) -> Repair:
    """Remove the gap between the modalities of existing embeddings, without training.

    Each method fits one affine map per modality to its unit rows, which need not be paired: `none`, `center` (subtract
    the mean), `coral` (also align the covariances) and, for an index only, `center_csls` (center, and correct scores
    for hubs). The methods are measured on held-out items with two modalities or more by mixed-pool retrieval
    (`ua.metrics.mixed_pool`), and the one with the highest balanced score is chosen. A method other than `none` needs a
    significant gain. It is rejected if its label precision is significantly lower than that of `none`, and lower by
    more than a point. Items of the same group (array `groups` of the data) or id are held out together and resampled
    together. The chosen method is fitted again to all sampled items; items of a test split are never read. With fewer
    than 50 rows of a modality, `coral` and `center_csls` are not candidates.

    Args:
        source: embeddings, as a mapping of modality -> (N, D), a store, files or several of these (see `ua.diagnose`);
            or a space, whose embeddings of `data` are repaired.
        data: features for the modalities of a space, as a mapping of arrays, a store or files.
        modalities: names of the modalities to repair; None: all that are in the data and the space.
        present: modality -> (N,) bool; a missing name means that all rows are present.
        ids: (N,) integers or strings; items with the same id match each other.
        labels: (N,) integers (negative: unlabeled) or strings.
        id: name of the array or column of ids that joins the files.
        methods: names of the methods to compare, or `auto` for all. Without `none`, no gain is required.
        holdout: fraction of the items held out for the choice, in (0, 1); a split `val` is used instead if it exists.
        seed: seed of the held-out items, the pools and the bootstrap.

    Returns:
        The repair, with the measurements on the held-out items in `table` and `candidates`.

    Raises:
        DataError: a source cannot be read, there are fewer than four items with two modalities, or all rows of a
            modality are equal.
        ShapeError: the modalities have different dims, or there is only one.
        NonFiniteError: a sampled row is not finite or has no direction.
        ConfigError: unknown names, or an option out of range.
    """
    check_number("holdout", holdout, "in (0, 1)", lambda x: 0 < x < 1)
    check_seed(seed)
    listed = _check_methods(methods)
    space, data_source = _space_and_data(source, data)
    if space is not None and modalities is None:
        found = open_collection(data_source, present=None, id=id)
        modalities = [name for name in found.modalities if name in space.modalities]
        if not modalities:
            raise ConfigError(
                f"no modality is in both the data ({', '.join(found.modalities)}) and the space "
                f"({', '.join(space.modalities)})"
            )
    collection = open_collection(data_source, modalities=modalities, present=present, ids=ids, labels=labels, id=id)
    if len(collection.modalities) < 2:
        raise ShapeError(
            f"a repair needs at least two modalities, got {', '.join(collection.modalities)}; a gap is a difference "
            "between modalities"
        )
    groups_N = groups_of(collection)
    fit_items, held_items = split_items(collection, groups_N, holdout, seed)
    fit, held = (read_rows(collection, groups_N, items_n, space) for items_n in (fit_items, held_items))
    usable = _usable(listed, fit)
    candidates = measure_candidates(usable, fit.rows(), held, seed=seed)
    details = {
        "data": {"name": collection.name, "items": collection.items, "kinds": list(collection.kinds)},
        "fitted": {"fit_items": len(fit_items), "held_out_items": len(held_items)},
        "settings": {"methods": list(listed), "holdout": holdout, "seed": seed},
        "version": __version__,
    }
    return _chosen(candidates, usable, fit, held, seed=seed, details=details)


def _chosen(
    candidates: Mapping[Method, Candidate],
    usable: Sequence[Method],
    fit: ItemRows,
    held: ItemRows,
    *,
    seed: int,
    details: Mapping[str, Any],
) -> Repair:
    weights_Rn = bootstrap_weights(held, seed)
    affine = [method for method in usable if method in AFFINE]
    choice, reasons = choose(candidates, affine, weights_Rn)
    index_choice, index_reasons = choose(candidates, usable, weights_Rn)
    compared = measure_candidates(tuple(dict.fromkeys(("none", choice))), fit.rows(), held, seed=seed, pairs=True)
    before, after = compared["none"], compared[choice]
    rows = merged_rows(fit, held)
    metadata = {
        **details,
        "rows": present_counts(rows),
        "choice": choice,
        "index_choice": index_choice,
        "table": [
            {
                "pair": pair or "all",
                "before": describe(before, pair, weights_Rn),
                "after": describe(after, pair, weights_Rn),
            }
            for pair in (None, *after.results[0].pairs)
        ],
        "candidates": {
            method: describe(candidate, None, weights_Rn)
            | {"reason": index_reasons.get(method, "") if method not in AFFINE else reasons.get(method, "")}
            for method, candidate in candidates.items()
        },
    }
    return made_repair(choice, index_choice, rows, fit_layers(choice, rows), metadata)


def _space_and_data(source: Sources | Space, data: Sources | None) -> tuple[Space | None, Sources]:
    if isinstance(source, Space):
        if data is None:
            raise ConfigError("a space needs features to repair its embeddings; pass them as `ua.repair(space, data)`")
        return source, data
    if data is not None:
        raise ConfigError(
            "`data` are features of a space, but the first argument is not a Space; pass several sources as a list"
        )
    return None, source


def _check_methods(methods: Sequence[str] | str) -> tuple[Method, ...]:
    if isinstance(methods, str) and methods == "auto":
        return METHODS
    if isinstance(methods, str) or not isinstance(methods, Sequence) or not methods:
        raise ConfigError(f"methods must be 'auto' or a list of names such as ['none', 'center'], got {methods!r}")
    for name in methods:
        check_choice("method", name, METHODS)
    listed = tuple(method for method in METHODS if method in methods)
    if not set(listed) & set(AFFINE):
        raise ConfigError("methods must contain `none`, `center` or `coral`, since `center_csls` is for an index only")
    return listed


def _usable(methods: Sequence[Method], fit: ItemRows) -> list[Method]:
    if min(present_counts(fit.rows()).values()) >= MIN_ROWS:
        return list(methods)
    few: list[Method] = [method for method in methods if method in ("none", "center")]
    return few or ["center"]
