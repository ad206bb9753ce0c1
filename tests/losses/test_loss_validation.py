"""Test the input validation of objectives and functionals: constructor options and call tensors."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from loss_cases import OBJECTIVES, draw_batch, make_objective, with_anchor
from unialign import functional
from unialign.errors import ConfigError, ShapeError
from unialign.losses import create

ITEMS = 6
BAD_IDS: dict[str, Any] = {
    "a text": "abcdef",
    "texts": list("abcdef"),
    "ragged": [[0], [1, 2], [], [3], [4], [5]],
    "objects": np.array([None] * ITEMS, dtype=object),
    "beyond 64 bits": [10**30] * ITEMS,
    "one beyond 64 bits": 10**30,
    "sparse": torch.arange(ITEMS).to_sparse(),
    "meta": torch.arange(ITEMS, device="meta"),
    "floats": np.arange(6.0),
}
BAD_MASKS: dict[str, Any] = {
    "none": None,
    "a text": "x",
    "ragged": [[True], [True, False]],
    "short": [True],
    "integers": np.ones(ITEMS, dtype=int),
    "objects": np.array([None] * ITEMS, dtype=object),
}
BAD_ROWS: dict[str, Any] = {
    "sparse": lambda z: z.to_sparse(),
    "sparse rows": lambda z: z.to_sparse(1),
    "meta": lambda z: z.to("meta"),
    "array": lambda z: z.numpy(),
    "none": lambda z: None,
}


@pytest.fixture
def batch() -> dict[str, Tensor]:
    return draw_batch(0, 3, ITEMS, 5)


def test_text_ids_raise(batch: dict[str, Tensor]) -> None:
    texts = list("aabcde")[:ITEMS]
    for ids in (texts, tuple(texts), np.array(texts), np.array(texts, dtype=object)):
        with pytest.raises(ShapeError, match=r"ids are strings; .*; map strings to integers, .*return_inverse=True"):
            make_objective("infonce")(batch, ids=ids)
    assert make_objective("infonce")(batch, ids=np.unique(texts, return_inverse=True)[1]).total.isfinite()


def test_invalid_ids(batch: dict[str, Tensor]) -> None:
    for case in OBJECTIVES:
        for ids in BAD_IDS:
            with pytest.raises(ShapeError, match=r"ids .*expected integers"):
                make_objective(case)(batch, ids=BAD_IDS[ids])


def test_invalid_masks(batch: dict[str, Tensor]) -> None:
    for mask in BAD_MASKS:
        calls = [make_objective("balanced"), functional.gram_volume, functional.centroids]
        for call in calls:
            with pytest.raises(ShapeError, match=r"present\['m0'\] .*expected .*bool"):
                call(batch, present={"m0": BAD_MASKS[mask]})  # type: ignore[operator]


def test_masks_of_several_array_types(batch: dict[str, Tensor]) -> None:
    for make in [np.array, list, torch.tensor]:
        mask = [True, False, True, True, False, True]
        expected = make_objective("balanced")(batch, present={"m1": torch.tensor(mask)}).total
        assert torch.equal(make_objective("balanced")(batch, present={"m1": make(mask)}).total, expected)


def test_read_only_masks_do_not_warn(batch: dict[str, Tensor], recwarn: Any) -> None:
    mask = np.ones(ITEMS, dtype=bool)
    mask.flags.writeable = False
    make_objective("balanced")(batch, present={"m1": mask})  # type: ignore[dict-item]
    assert not recwarn.list


def test_invalid_rows(batch: dict[str, Tensor]) -> None:
    for case in OBJECTIVES:
        for rows in BAD_ROWS:
            with pytest.raises(ShapeError, match=r"'m0' .*expected|'m0' must be"):
                make_objective(case)({name: BAD_ROWS[rows](z) for name, z in batch.items()})


def test_rows_of_functionals(batch: dict[str, Tensor]) -> None:
    for rows in BAD_ROWS:
        for call in [
            lambda z: functional.uniformity(z["m0"]),
            lambda z: functional.alignment(z, anchor="m0"),
            functional.centroids,
            functional.gram_volume,
        ]:
            with pytest.raises(ShapeError, match=r"expected|must be"):
                call({name: BAD_ROWS[rows](z) for name, z in batch.items()})


def test_ids_of_uniformity(batch: dict[str, Tensor]) -> None:
    for ids in BAD_IDS:
        with pytest.raises(ShapeError, match=r"ids .*expected integers"):
            functional.uniformity(batch["m0"], ids=BAD_IDS[ids])


ODD: list[Any] = ["x", True, [1], {"a": 1}, 2**63, 10**400, float("nan"), np.ones(2), 3 + 1j]
NUMBERS: dict[str, tuple[str, ...]] = {
    "unialign": (
        "temperature",
        "uniformity_weight",
        "alignment_weight",
        "alignment_scale",
        "partition_mix",
        "centroid_weight",
        "centroid_temperature",
        "volume_weight",
        "volume_eps",
    ),
    "infonce": ("temperature", "label_smoothing"),
    "gram": ("temperature", "label_smoothing", "eps"),
    "triangle": ("temperature", "label_smoothing", "eps"),
    "symile": ("temperature", "seed", "max_bytes"),
    "pmrl": ("intra_temperature", "inter_temperature"),
    "sigmoid": ("scale", "bias", "scale_bounds", "bias_bounds"),
    "cs_aligner": ("temperature", "contrast_weight", "divergence_weight", "bandwidth"),
    "modgap": ("temperature", "contrast_weight", "t"),
    "cua": ("temperature", "contrast_weight", "t"),
    "align_uniform": ("alpha", "t", "uniformity_weight"),
}
TEXTS: dict[str, tuple[str, ...]] = {
    "unialign": ("anchor", "preset", "kernel", "reduction", "weighting", "distance", "stop_gradient"),
    "infonce": ("anchor", "pairs", "temperature_mode"),
    "gram": ("anchor", "temperature_mode"),
    "triangle": ("anchor", "form", "temperature_mode"),
    "symile": ("negatives", "temperature_mode"),
    "sigmoid": ("anchor", "mode", "sharing"),
    "cs_aligner": ("anchor", "temperature_mode", "divergence"),
    "modgap": ("anchor", "temperature_mode"),
    "cua": ("anchor", "temperature_mode", "cross_term"),
    "align_uniform": ("anchor",),
}


def test_invalid_numbers() -> None:
    for value in ODD:
        for name, option in [(key, option) for key in NUMBERS for option in NUMBERS[key]]:
            odd = {"a": "x"} if isinstance(value, dict) and option == "temperature" else value
            with pytest.raises(ConfigError, match=option):
                create(name, **(with_anchor(name) | {option: odd}))


def test_invalid_texts() -> None:
    for value in [5, True, [1], ["a"], {"a": 1}, np.array(["a", "b"]), 3 + 1j, 1.5]:
        for name, option in [(key, option) for key in TEXTS for option in TEXTS[key]]:
            with pytest.raises(ConfigError, match=option):
                create(name, **(with_anchor(name) | {option: value}))


def test_temperature_bounds() -> None:
    for bounds in [5, "ab", [1], [0.1, "x"], (True, 1.0), None, {"a": 1}, (10**400, 1)]:
        with pytest.raises(ConfigError, match="temperature_bounds"):
            create("infonce", temperature_bounds=bounds)


def test_names_of_objectives() -> None:
    for name in [["a"], None, 5, {}, "x"]:
        with pytest.raises(ConfigError, match=r"unknown objective|objective must be a name or"):
            create(name)


def test_options_of_functionals(batch: dict[str, Tensor]) -> None:
    cases: list[tuple[str, str, tuple[Any, ...]]] = [
        ("alignment", "scale", ("x", None, True, float("inf"), [1])),
        ("uniformity", "order", ("a", None, True, float("inf"), [1])),
        ("gram_volume", "eps", ("a", None, True, -1.0, [1])),
        ("uniformity", "temperature", ("a", None, True, [1])),
        ("uniformity", "kernel", (5, None, ["clip"])),
    ]
    for function, option, value in (
        (function, option, value) for function, option, values in cases for value in values
    ):
        given: dict[str, Any] = {"anchor": "m0"} if function == "alignment" else {}
        rows = batch["m0"] if function == "uniformity" else batch
        with pytest.raises(ConfigError, match=option):
            getattr(functional, function)(rows, **given, **{option: value})
