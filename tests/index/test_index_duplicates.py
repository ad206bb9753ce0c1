"""Groups of duplicate items are those of a comparison of all pairs in float64."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from tests.index_cases import correction_of, unit_rows
from unialign.errors import ConfigError
from unialign.index import DuplicateGroup
from unialign.index._calibration import fit_calibration, uncorrected
from unialign.index._duplicates import find_duplicates

NAMES = ("audio", "image", "text")


def brute_force(z: Any, present: Any, calibration: Any, threshold: float, within: str) -> set[frozenset[int]]:
    """Connected components of the items, by repeated merging."""
    items = len(next(iter(z.values())))
    unit = {name: calibration.correct(name, torch.from_numpy(rows)).numpy() for name, rows in z.items()}
    groups = [{item} for item in range(items)]
    for i in range(items):
        for j in range(i):
            for a, b in itertools.product(z, z):
                is_compared = (a == b) == (within == "modality") and present[a][i] and present[b][j]
                if is_compared and unit[a][i] @ unit[b][j] >= threshold:
                    one = next(group for group in groups if i in group)
                    other = next(group for group in groups if j in group)
                    if one is not other:
                        one |= other
                        groups.remove(other)
    return {frozenset(group) for group in groups if len(group) > 1}


@pytest.mark.parametrize("within", ["modality", "across"])
@pytest.mark.parametrize("method", ["none", "center", "coral", "center_csls"])
def test_groups_are_those_of_all_pairs(method: str, within: Any) -> None:
    rng = np.random.default_rng(1)
    calibration = correction_of(method, rng, 8)
    z = {name: unit_rows(rng, 40, 8) for name in NAMES}
    for name in NAMES:
        z[name][20:26] = unit_rows(rng, 6, 8) * 0.02 + z["image"][3]
        z[name][20:26] /= np.linalg.norm(z[name][20:26], axis=1, keepdims=True)
    present = {name: rng.random(40) < 0.7 for name in NAMES}
    keys = [str(i) for i in range(40)]
    for threshold in (0.7, 0.95):
        found = find_duplicates(keys, z, present, calibration, threshold=threshold, within=within)
        expected = brute_force(z, present, calibration, threshold, within)
        assert {frozenset(map(int, group.keys)) for group in found} == expected
        assert expected or threshold > 0.9
        assert [len(group.keys) for group in found] == sorted((len(group.keys) for group in found), reverse=True)
        assert all(group.similarity >= threshold for group in found)


def test_causes_across_the_blocks_of_a_comparison() -> None:
    rng = np.random.default_rng(2)
    z = {"text": unit_rows(rng, 2500, 24)}
    z["text"][2400] = z["text"][5]
    turned = z["text"][1500].astype(np.float64) * (1 + 1e-7 * rng.normal(size=24))
    z["text"][10] = turned.astype(np.float32)
    near = z["text"][2000] + 0.1 * unit_rows(rng, 1, 24)[0]
    z["text"][1999] = near / np.linalg.norm(near)
    present = {"text": np.ones(2500, bool)}
    keys = [str(i) for i in range(2500)]
    same = not (z["text"][10] == z["text"][1500]).all()
    assert same
    found = find_duplicates(keys, z, present, uncorrected(("text",), ""), threshold=0.98)
    assert {(group.keys, group.cause) for group in found} == {
        (("5", "2400"), "equal_bytes"),
        (("10", "1500"), "equal_direction"),
        (("1999", "2000"), "near"),
    }
    assert all(group.modalities == ("text",) for group in found)
    # Without a calibration and a threshold, only equal rows are found.
    found = find_duplicates(keys, z, present, uncorrected(("text",), ""))
    assert {group.keys for group in found} == {("5", "2400"), ("10", "1500")}


def test_default_threshold_finds_copies_and_no_unrelated_rows() -> None:
    rng = np.random.default_rng(3)
    shared = rng.normal(size=(600, 48))
    z = {}
    for name in ("image", "text"):
        rows = shared + 0.5 * rng.normal(size=shared.shape) + 0.5
        rows[500:503] = rows[:3] + 0.15 * rng.normal(size=(3, 48))
        z[name] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    present = {name: np.ones(600, bool) for name in z}
    calibration = fit_calibration({name: rows[:400] for name, rows in z.items()}, ("image", "text"))
    found = find_duplicates([str(i) for i in range(600)], z, present, calibration)
    assert sorted(group.keys for group in found) == [("0", "500"), ("1", "501"), ("2", "502")]
    assert all(isinstance(group, DuplicateGroup) and group.cause == "near" for group in found)
    assert {group.modalities for group in found} == {("image", "text")}


def test_same_row_of_one_item_in_two_modalities_is_no_duplicate() -> None:
    rows = unit_rows(np.random.default_rng(4), 20, 8)
    z, present = {"image": rows, "text": rows.copy()}, {name: np.ones(20, bool) for name in ("image", "text")}
    assert (
        find_duplicates([str(i) for i in range(20)], z, present, uncorrected(("image", "text"), ""), within="across")
        == []
    )
    z["text"] = np.roll(rows, 1, axis=0)
    found = find_duplicates(
        [str(i) for i in range(20)], z, present, uncorrected(("image", "text"), ""), within="across"
    )
    assert [len(group.keys) for group in found] == [20]
    assert found[0].cause == "equal_bytes"


def test_errors() -> None:
    z, present = {"text": unit_rows(np.random.default_rng(5), 4, 8)}, {"text": np.ones(4, bool)}
    keys = list("abcd")
    with pytest.raises(ConfigError, match="within"):
        find_duplicates(keys, z, present, uncorrected(("text",), ""), within="both")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="threshold"):
        find_duplicates(keys, z, present, uncorrected(("text",), ""), threshold=1.5)
    with pytest.raises(ConfigError, match="only one modality"):
        find_duplicates(keys, z, present, uncorrected(("text",), ""), within="across")
