"""What `evaluate`, `retrieval` and their intervals refuse: always an error of the package that names the argument."""

from typing import Any

import numpy as np
import pytest
import torch

import unialign as ua
from unialign.errors import ConfigError, ShapeError, UniAlignError

ITEMS = 6
DRAW = torch.Generator().manual_seed(0)
Z = {name: torch.randn(ITEMS, 4, generator=DRAW) for name in ("a", "b")}

LABELS: dict[str, Any] = {
    "too few": [0, 1],
    "too many": list(range(7)),
    "texts": list("abcdef"),
    "floats": torch.arange(6.0),
    "booleans": [True] * 6,
    "ragged": [[0], [1, 2], [], [3], [4], [5]],
    "beyond 64 bits": [10**30] * 6,
    "a text": "abcdef",
    "a number": 5,
    "objects": np.array([None] * 6, dtype=object),
    "sparse": torch.arange(6).to_sparse(),
    "meta": torch.arange(6, device="meta"),
}


@pytest.mark.parametrize("what", ["labels", "ids"])
@pytest.mark.parametrize("case", LABELS)
def test_labels_and_ids_that_are_no_integers_of_the_items(what: str, case: str) -> None:
    with pytest.raises(ShapeError, match=what):
        ua.evaluate(Z, **{what: LABELS[case]})


@pytest.mark.parametrize("make", [list, np.array, torch.tensor, lambda x: np.array(x, dtype=">i4")])
def test_labels_and_ids_of_any_array_kind(make: Any) -> None:
    found = ua.evaluate(Z, labels=make([0, 0, 1, 1, 2, -1]), ids=make([0, 1, 2, 3, 4, 4]))
    assert found.metrics == ua.evaluate(Z, labels=torch.tensor([0, 0, 1, 1, 2, -1]), ids=[0, 1, 2, 3, 4, 4]).metrics


@pytest.mark.parametrize("k", [5, (1.5,), (), "15", None, [0], [-1], [True], True, ["a"], [[1]], 1.0])
def test_cut_offs_that_are_no_positive_integers(k: Any) -> None:
    for call in (lambda: ua.evaluate(Z, k=k), lambda: ua.metrics.retrieval(Z["a"], Z["b"], k=k)):
        with pytest.raises(ConfigError, match="k must be"):
            call()


def test_a_single_cut_off_is_told_how_to_be_written() -> None:
    with pytest.raises(ConfigError, match=r"write k=\(5,\)"):
        ua.evaluate(Z, k=5)  # type: ignore[arg-type]


def test_cut_offs_of_numpy() -> None:
    assert "recall@3" in ua.evaluate(Z, k=np.array([3])).metrics  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", ["a", None, 1.5, -1, True, 2**64, [1]])
def test_seeds(seed: Any) -> None:
    found = ua.evaluate(Z)
    ranked = ua.metrics.retrieval(Z["a"], Z["b"])
    for call in (
        ua.evaluate,
        lambda _, seed: found.interval("mrr", seed=seed),
        lambda _, seed: ranked.interval(seed=seed),
    ):
        with pytest.raises(ConfigError, match="seed must be an integer"):
            call(Z, seed=seed)


@pytest.mark.parametrize("anchor", [5, ["a"], "c", np.array(["a", "b"])])
def test_anchors(anchor: Any) -> None:
    with pytest.raises(ConfigError, match="no modality here"):
        ua.evaluate(Z, anchor=anchor)


@pytest.mark.parametrize(
    "groups", [[0, 1], 5, "abcdef", [[0], [1, 2], [], [3], [4], [5]], torch.arange(6.0), [None] * 6]
)
def test_groups_of_an_interval(groups: Any) -> None:
    with pytest.raises(ShapeError, match=r"groups .*expected integers or text of shape \(6,\)"):
        ua.evaluate(Z).interval("mrr", groups=groups)


@pytest.mark.parametrize(
    "options",
    [{"metric": 5}, {"metric": ["mrr"]}, {"metric": None}, {"level": "a"}, {"level": None}, {"level": True}]
    + [{"resamples": value} for value in ("a", None, 1.5, True, 0)],
)
def test_options_of_an_interval(options: dict[str, Any]) -> None:
    for kind in (ua.evaluate(Z), ua.metrics.retrieval(Z["a"], Z["b"])):
        with pytest.raises(ConfigError, match=next(iter(options))):
            kind.interval(**({"metric": "mrr"} | options))


@pytest.mark.parametrize("ids", [*LABELS.values(), torch.zeros(6, dtype=torch.bfloat16)])
def test_ids_of_retrieval(ids: Any) -> None:
    if isinstance(ids, list) and len(ids) == ITEMS and not isinstance(ids[0], list) and ids[0] != 10**30:
        return  # texts and truth values are labels to retrieval
    with pytest.raises(ShapeError, match="query_ids"):
        ua.metrics.retrieval(Z["a"], Z["b"], query_ids=ids, gallery_ids=torch.arange(6))


ROWS: list[Any] = [
    None,
    5,
    "ab",
    [[1.0], [1.0, 2.0]],
    Z["a"].to_sparse(),
    Z["a"].to("meta"),
    np.array([[None]]),
    object(),
]


@pytest.mark.parametrize("rows", [*ROWS, np.ones((6, 4), dtype=np.longdouble)], ids=lambda x: type(x).__name__)
@pytest.mark.parametrize(
    "measure",
    [
        lambda x: ua.metrics.retrieval(x, Z["b"]),
        lambda x: ua.metrics.retrieval(Z["a"], x),
        lambda x: ua.metrics.kmeans(x, 2, seed=0),
        lambda x: ua.metrics.kmeans(x, 2, seed=0, geometry="euclidean"),
        lambda x: ua.geometry.modality_gap(x, Z["b"]),
        lambda x: ua.geometry.modality_gap_debiased(Z["b"], x),
        lambda x: ua.geometry.true_pair_cosine(x, Z["b"]),
        ua.geometry.effective_rank,
    ],
)
def test_rows_that_are_no_matrix(measure: Any, rows: Any) -> None:
    with pytest.raises(ShapeError, match="expected"):
        measure(rows)


@pytest.mark.parametrize("dtype", [">f4", ">f8"])
def test_foreign_byte_order(dtype: str) -> None:
    found = ua.geometry.effective_rank(Z["a"].numpy().astype(dtype))
    assert float(found) == pytest.approx(float(ua.geometry.effective_rank(Z["a"])))


@pytest.mark.parametrize(
    "value",
    [None, [Z["a"], Z["b"]], 5, {"a": Z["a"].to_sparse(), "b": Z["b"]}, {n: z.to("meta") for n, z in Z.items()}],
)
@pytest.mark.parametrize("measure", [ua.evaluate, lambda z: ua.geometry.conflict(z, anchor="a")])
def test_embeddings_that_are_no_mapping_of_matrices(measure: Any, value: Any) -> None:
    with pytest.raises(ShapeError, match=r"expected|must be"):
        measure(value)


MEASURES: dict[str, Any] = {
    "evaluate": lambda z, has: sorted(ua.evaluate(z, present=has).metrics.items()),
    "conflict": lambda z, has: ua.geometry.conflict(z, anchor="a", present=has).zeta.tolist(),
    "conflict_over_anchors": lambda z, has: ua.geometry.conflict_over_anchors(z, present=has).means()["chi"],
    "holder_divergence": lambda z, has: float(ua.geometry.holder_divergence(z, bandwidth="median", present=has)),
    "holder_upper_bound": lambda z, has: float(
        ua.geometry.holder_upper_bound(z, bandwidth=1.0, anchor="a", present=has)
    ),
    "gcsd": lambda z, has: float(ua.geometry.gcsd(z, present=has)),
    "median_bandwidth": lambda z, has: ua.geometry.median_bandwidth(z, present=has),
    "effective_neighbours": lambda z, has: ua.geometry.effective_neighbours(z, bandwidth=1.0, present=has),
    "divergence_profile": lambda z, has: ua.geometry.divergence_profile(z, bandwidths=(1.0,), present=has),
}


@pytest.mark.filterwarnings("ignore::unialign.geometry.DivergenceWarning")
@pytest.mark.parametrize("measure", MEASURES)
def test_mappings_of_arrays_measure_like_tensors(measure: str) -> None:
    """`Space.encode` and the diagnostics of two matrices took arrays, those of a mapping refused them."""
    present = torch.tensor([True] * 5 + [False])
    arrays = {name: z.numpy() for name, z in Z.items()}
    for made in (arrays, {name: z.tolist() for name, z in arrays.items()}, {"a": Z["a"], "b": arrays["b"]}):
        found = MEASURES[measure](made, {"b": present.numpy()})
        assert repr(found) == repr(MEASURES[measure](Z, {"b": present}))


@pytest.mark.parametrize("measure", MEASURES)
def test_arrays_that_are_no_embeddings_name_their_modality(measure: str) -> None:
    for wrong in (np.array([["a"]]), np.ones((ITEMS, 4), dtype=int), np.ones(4), np.full((ITEMS, 4), np.nan)):
        with pytest.raises(UniAlignError, match="'b'"):
            MEASURES[measure]({"a": Z["a"].numpy(), "b": wrong}, None)


def test_conflict_of_no_items() -> None:
    with pytest.raises(ShapeError, match="at least one item"):
        ua.geometry.conflict({name: z[:0] for name, z in Z.items()}, anchor="a")
    with pytest.raises(UniAlignError):
        ua.evaluate({name: z[:0] for name, z in Z.items()})


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": None},
        {"temperature": True},
        {"temperature": 10**400},
        {"direction": ["forward"]},
        {"anchor": None},
    ],
)
def test_options_of_conflict(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"temperature must|unknown direction|None is no modality"):
        ua.geometry.conflict(Z, **({"anchor": "a"} | options))
