"""Test that invalid input of `evaluate`, `retrieval`, intervals and geometry raises errors that name it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

import unialign as ua
from unialign.errors import ConfigError, ShapeError, UniAlignError

ITEMS = 6
DRAW = torch.Generator().manual_seed(0)
Z = {name: torch.randn(ITEMS, 4, generator=DRAW) for name in ("a", "b")}


@contextmanager
def raised(kind: type[Exception], pattern: str, case: Any) -> Iterator[None]:
    """Expect an error, and add the case to the failure if it is not raised."""
    try:
        with pytest.raises(kind, match=pattern):
            yield
    except BaseException as failure:
        failure.add_note(f"case: {case!r}")
        raise


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


def test_labels_and_ids_must_be_one_integer_per_item() -> None:
    for what in ("labels", "ids"):
        for case, value in LABELS.items():
            with raised(ShapeError, what, case):
                ua.evaluate(Z, **{what: value})


@pytest.mark.parametrize("make", [list, np.array, torch.tensor, lambda x: np.array(x, dtype=">i4")])
def test_labels_and_ids_of_any_array_kind(make: Any) -> None:
    found = ua.evaluate(Z, labels=make([0, 0, 1, 1, 2, -1]), ids=make([0, 1, 2, 3, 4, 4]))
    assert found.metrics == ua.evaluate(Z, labels=torch.tensor([0, 0, 1, 1, 2, -1]), ids=[0, 1, 2, 3, 4, 4]).metrics


def test_cut_offs_must_be_positive_integers() -> None:
    values: list[Any] = [5, (1.5,), (), "15", None, [0], [-1], [True], True, ["a"], [[1]], 1.0]
    for k in values:
        with raised(ConfigError, "k must be", k):
            ua.evaluate(Z, k=k)
        with raised(ConfigError, "k must be", k):
            ua.metrics.retrieval(Z["a"], Z["b"], k=k)
    with pytest.raises(ConfigError, match=r"write k=\(5,\)"):
        ua.evaluate(Z, k=5)  # type: ignore[arg-type]
    assert "recall@3" in ua.evaluate(Z, k=np.array([3])).metrics  # type: ignore[arg-type]


def test_seeds_must_be_integers_of_64_bits() -> None:
    found, ranked = ua.evaluate(Z), ua.metrics.retrieval(Z["a"], Z["b"])
    values: list[Any] = ["a", None, 1.5, -1, True, 2**64, [1]]
    for seed in values:
        for call in (
            lambda seed: ua.evaluate(Z, seed=seed),
            lambda seed: found.interval("mrr", seed=seed),
            lambda seed: ranked.interval(seed=seed),
        ):
            with raised(ConfigError, "seed must be an integer", seed):
                call(seed)


def test_anchors_must_be_modalities() -> None:
    values: list[Any] = [5, ["a"], "c", np.array(["a", "b"])]
    for anchor in values:
        with raised(ConfigError, "not a modality", anchor):
            ua.evaluate(Z, anchor=anchor)


def test_options_of_an_interval() -> None:
    evaluation, ranked = ua.evaluate(Z), ua.metrics.retrieval(Z["a"], Z["b"])
    for groups in ([0, 1], 5, "abcdef", [[0], [1, 2], [], [3], [4], [5]], torch.arange(6.0), [None] * 6):
        with raised(ShapeError, r"groups .*expected integers or text of shape \(6,\)", groups):
            evaluation.interval("mrr", groups=groups)
    wrong = {"metric": (5, ["mrr"], None), "level": ("a", None, True), "resamples": ("a", None, 1.5, True, 0)}
    for name, values in wrong.items():
        for value in values:
            options: dict[str, Any] = {"metric": "mrr", name: value}
            for kind in (evaluation, ranked):
                with raised(ConfigError, name, value):
                    kind.interval(**options)


def test_ids_of_retrieval_must_be_integers_or_texts_of_the_rows() -> None:
    for case, ids in {**LABELS, "bfloat16": torch.zeros(6, dtype=torch.bfloat16)}.items():
        if case in ("texts", "booleans"):
            continue
        with raised(ShapeError, "query_ids", case):
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


def test_rows_must_be_a_matrix() -> None:
    measures: list[Any] = [
        lambda x: ua.metrics.retrieval(x, Z["b"]),
        lambda x: ua.metrics.retrieval(Z["a"], x),
        lambda x: ua.metrics.kmeans(x, 2, seed=0),
        lambda x: ua.geometry.modality_gap(x, Z["b"]),
        lambda x: ua.geometry.modality_gap_debiased(Z["b"], x),
        lambda x: ua.geometry.true_pair_cosine(x, Z["b"]),
        ua.geometry.effective_rank,
    ]
    for i, measure in enumerate(measures):
        for rows in [*ROWS, np.ones((6, 4), dtype=np.longdouble)]:
            with raised(ShapeError, "expected", (i, type(rows))):
                measure(rows)


@pytest.mark.parametrize("dtype", [">f4", ">f8"])
def test_foreign_byte_order(dtype: str) -> None:
    found = ua.geometry.effective_rank(Z["a"].numpy().astype(dtype))
    assert float(found) == pytest.approx(float(ua.geometry.effective_rank(Z["a"])))


def test_embeddings_must_be_a_mapping_of_matrices() -> None:
    meta = {name: z.to("meta") for name, z in Z.items()}
    values: list[Any] = [None, [Z["a"], Z["b"]], 5, {"a": Z["a"].to_sparse(), "b": Z["b"]}, meta]
    for i, value in enumerate(values):
        with raised(ShapeError, r"expected|must be", i):
            ua.evaluate(value)
        with raised(ShapeError, r"expected|must be", i):
            ua.geometry.conflict(value, anchor="a")


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
    "effective_neighbors": lambda z, has: ua.geometry.effective_neighbors(z, bandwidth=1.0, present=has),
    "divergence_profile": lambda z, has: ua.geometry.divergence_profile(z, bandwidths=(1.0,), present=has),
}


@pytest.mark.filterwarnings("ignore::unialign.geometry.DivergenceWarning")
@pytest.mark.parametrize("measure", MEASURES)
def test_mappings_of_arrays_measure_like_tensors(measure: str) -> None:
    """Regression test: arrays were accepted as two matrices but rejected in mappings."""
    present = torch.tensor([True] * 5 + [False])
    arrays = {name: z.numpy() for name, z in Z.items()}
    for made in (arrays, {name: z.tolist() for name, z in arrays.items()}, {"a": Z["a"], "b": arrays["b"]}):
        found = MEASURES[measure](made, {"b": present.numpy()})
        assert repr(found) == repr(MEASURES[measure](Z, {"b": present}))


def test_errors_of_wrong_arrays_name_the_modality() -> None:
    for name, measure in MEASURES.items():
        for wrong in (np.array([["a"]]), np.ones((ITEMS, 4), dtype=int), np.ones(4), np.full((ITEMS, 4), np.nan)):
            with raised(UniAlignError, "'b'", name):
                measure({"a": Z["a"].numpy(), "b": wrong}, None)


def test_conflict_of_no_items() -> None:
    with pytest.raises(ShapeError, match="at least one item"):
        ua.geometry.conflict({name: z[:0] for name, z in Z.items()}, anchor="a")
    with pytest.raises(UniAlignError):
        ua.evaluate({name: z[:0] for name, z in Z.items()})


def test_options_of_conflict() -> None:
    wrong: list[dict[str, Any]] = [{"temperature": None}, {"temperature": True}, {"temperature": 10**400}]
    for options in [*wrong, {"direction": ["forward"]}, {"anchor": None}]:
        with raised(ConfigError, r"temperature must|unknown direction|None is not a modality", options):
            ua.geometry.conflict(Z, **({"anchor": "a"} | options))
