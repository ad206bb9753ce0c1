"""Test suspicions about single items on planted faults."""

import numpy as np
import pytest
import torch

from unialign.diagnostics import SuspiciousItem, suspicious_items
from unialign.errors import ConfigError, DataError


def matching(items=200, dim=16):
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((items, dim))
    return {name: shared + 0.05 * rng.standard_normal(shared.shape) for name in ("image", "text", "audio")}


def test_matching_items_are_no_swaps_or_copies():
    found = suspicious_items(matching())
    assert (found.items, found.untrusted) == (200, ())
    assert found.of("mispaired") == found.of("copy") == []


def test_swapped_copied_and_distant_rows_are_found():
    z = matching()
    z["text"][[3, 90]] = z["text"][[90, 3]]
    z["audio"][40] = z["audio"][12]
    found = suspicious_items(z, keys=[f"item-{n}" for n in range(200)])
    swapped = found.of("mispaired")[:2]
    assert {(one.key, one.partner) for one in swapped} == {("item-3", "item-90"), ("item-90", "item-3")}
    assert all(one.is_swap and one.modalities == ("text",) for one in swapped)
    assert {(one.key, one.partner, one.modalities) for one in found.of("copy")} == {
        ("item-12", "item-40", ("audio",)),
        ("item-40", "item-12", ("audio",)),
    }


def test_the_length_of_rows_and_the_kind_of_array_do_not_matter():
    z = matching()
    z["text"][[3, 90]] = z["text"][[90, 3]]
    expected = suspicious_items(z)
    scaled = suspicious_items({name: torch.from_numpy(8 * rows) for name, rows in z.items()})
    assert scaled.found == expected.found
    assert expected.of("mispaired")[0].key in ("3", "90")


def test_absent_rows_are_not_suspected_and_may_hold_anything():
    z = matching()
    z["text"][[3, 90]] = z["text"][[90, 3]]
    z["text"][3] = np.nan
    present = {"text": np.arange(200) != 3}
    found = suspicious_items(z, present=present)
    assert {one.key for one in found.of("mispaired")} == {"90"}
    assert not [one for one in found.found if one.key == "3" and "text" in one.modalities]


def test_a_suspicion_is_a_json_object():
    one = SuspiciousItem("copy", "a", ("image",), 1.0, "equal to 'b' in image", "b")
    assert one.to_dict() == {
        "key": "a", "modalities": ["image"], "value": 1.0, "text": "equal to 'b' in image", "partner": "b",
        "swap": False,
    }  # fmt: skip


def test_progress_counts_pairs_of_modalities():
    calls = []
    suspicious_items(matching(40), on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 9) for done in range(9)]


def test_wrong_input_is_named():
    z = matching(30)
    with pytest.raises(ConfigError, match="no modality"):
        suspicious_items({})
    with pytest.raises(ConfigError, match="present names smell"):
        suspicious_items(z, present={"smell": np.ones(30, bool)})
    with pytest.raises(DataError, match=r"'text' has the shape \(29, 16\); expected \(30, 16\)"):
        suspicious_items({"image": z["image"], "text": z["text"][1:]})
    with pytest.raises(DataError, match="got 2 keys for 30 items"):
        suspicious_items(z, keys=["a", "b"])
    with pytest.raises(DataError, match=r"present of 'text' .* expected \(30,\) bool"):
        suspicious_items(z, present={"text": np.ones(30)})
    z["text"][4, 2] = np.inf
    with pytest.raises(DataError, match="'text' row 4 holds NaN or infinity"):
        suspicious_items(z)
