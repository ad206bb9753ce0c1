"""Test that copies of one matrix under two names are detected at any precision and scale."""

import numpy as np
import pytest
import torch
from spaces import checked, healthy, serious, unit

from unialign.diagnostics._copies import compare_copies

ITEMS, DIM = 300, 48


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return (rng.standard_normal((ITEMS, DIM)) * rng.uniform(0.5, 2, (ITEMS, 1))).astype(np.float32)


def compare(a, b):
    raw = tuple(np.asarray(x.float() if isinstance(x, torch.Tensor) else x, np.float64) for x in (a, b))
    z = tuple(torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True)) for x in raw)
    return compare_copies(("a", "b"), z, raw, random_cosine=float((z[0].mean(0) * z[1].mean(0)).sum()))


def test_each_kind_of_copy_is_named_with_its_precision(rows):
    scale = np.abs(rows).max()
    low, high = rows.min(0), rows.max(0)
    for b, kind, copy, precision in (
        (rows, "same", "", ""),
        (unit(rows), "same", "", ""),  # Regression test: this copy and the following copies were not detected.
        (rows.astype(np.float64) / 3, "same", "", ""),
        (rows * 1e-30, "same", "", ""),
        (torch.from_numpy(rows).bfloat16(), "rounded", "b", "bfloat16"),
        (torch.from_numpy(unit(rows)).bfloat16(), "rounded", "b", "bfloat16"),
        (rows.astype(np.float16), "rounded", "b", "float16"),
        (np.round(rows / scale * 127), "quantized", "b", "distinct values"),
        (np.round(rows / np.abs(rows).max(1, keepdims=True) * 127), "quantized", "b", "distinct values"),
        (np.round((rows - low) / (high - low) * 255), "quantized", "b", "distinct values"),
        (np.round(rows / scale * 7), "quantized", "b", "distinct values"),
        (np.sign(rows), "binary", "b", "1 bit"),
        (rows > 0, "binary", "b", "1 bit"),
        (rows + 1e-3 * np.roll(rows, 1, axis=0), "recomputed", "", ""),
    ):
        for names, (first, second) in {"ab": (rows, b), "ba": (b, rows)}.items():
            found = compare(first, second)
            assert (found.kind, found.copy) == (kind, copy and "ab"[names.index("b")]), (names, kind, precision)
            assert precision in found.precision


def test_modalities_that_agree_well_are_no_copies(rows):
    rng = np.random.default_rng(1)
    for other in (
        unit(rows) + 0.05 / DIM**0.5 * rng.standard_normal(rows.shape),
        -rows,
        rows[::-1],
        rows[:, ::-1],
        np.round(rng.standard_normal(rows.shape) * 20),
        np.sign(rng.standard_normal(rows.shape)),
    ):
        found = compare(rows, other)
        assert (found.kind, found.fraction) == ("", 0.0)
    narrow = [unit(0.01 * z + 1) for z in healthy(("image", "text")).values()]
    assert compare(*narrow).kind == ""  # The rows are collapsed, so all cosines are near 1.


def test_the_comparison_equals_a_direct_computation(rows):
    codes = np.round(rows / np.abs(rows).max() * 7)
    found = compare(rows, codes)
    x, y = (z.astype(np.float64) / np.linalg.norm(z.astype(np.float64), axis=1, keepdims=True) for z in (rows, codes))
    cosine_n = (x * y).sum(1)
    assert found.cosine == pytest.approx(cosine_n.mean(), abs=1e-12)
    assert found.lowest_cosine == pytest.approx(cosine_n.min(), abs=1e-12)
    nearest = [np.argsort(-(z @ z.T - 9 * np.eye(ITEMS)), axis=1)[:, :10] for z in (x, y)]
    assert found.same_first == pytest.approx((nearest[0][:, 0] == nearest[1][:, 0]).mean(), abs=0.01)
    overlap = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*nearest, strict=True)])
    assert found.same_ten == pytest.approx(overlap, abs=0.01)


def test_a_scaled_copy_is_a_problem_and_a_rounded_one_is_compared(rows):
    diagnosis = checked({"a": rows, "b": unit(rows)})
    assert serious(diagnosis) == [("duplicate_modality", "problem", ("a", "b"))]
    diagnosis = checked({"a": rows, "b": rows.astype(np.float16)})
    assert serious(diagnosis) == [("copied_modality", "warning", ("a", "b"))]
    (finding,) = diagnosis.findings_with("copied_modality")
    assert "b is a with lower precision (float16)" in finding.text
    assert "of the nearest 10 rows are the same" in finding.text
    assert diagnosis.numbers["pairs"]["a-b"]["copy"]["precision"] == "float16"
    for code in ("pairing", "retrieval", "gap", "hubness", "match_cosine"):
        assert not diagnosis.findings_with(code)


def test_the_other_pairs_are_judged_beside_a_copy():
    space = healthy(("image", "text"))
    space["half"] = space["image"].astype(np.float16)
    diagnosis = checked(space)
    assert serious(diagnosis) == [("copied_modality", "warning", ("image", "half"))]
    assert "the other 4 directions" in diagnosis.findings_with("retrieval")[0].text


def test_rows_that_stand_in_for_missing_ones_are_a_warning():
    space = healthy(("image", "text"))
    space["text"][:60] = 3 * space["image"][:60]
    (found,) = serious(checked(space))
    assert found == ("duplicate_modality", "warning", ("image", "text"))


def test_unsigned_codes_are_named_as_such_and_not_as_a_collapsed_training(rows):
    low, high = rows.min(0), rows.max(0)
    codes = np.round((rows - low) / (high - low) * 255).astype(np.float32)
    diagnosis = checked({"codes": codes, "text": unit(rows + np.roll(rows, 1, axis=0))})
    (finding,) = [f for f in diagnosis.findings if f.modalities == ("codes",) and f.severity != "ok" and f.advice]
    assert finding.code == "anisotropy"
    assert "subtract the zero point" in finding.advice


def test_a_mirrored_copy_is_named():
    space = healthy(("image", "text"))
    space["text"] = -space["image"]
    (finding,) = checked(space).findings_with("not_aligned")
    assert "one is a rotated or mirrored copy of the other" in finding.text
