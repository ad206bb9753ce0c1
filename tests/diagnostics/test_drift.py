"""Test that comparing two versions of the same embeddings gives the correct verdict for each planted difference."""

import json

import numpy as np
import pytest
import torch

from unialign.cli import main
from unialign.diagnostics import DriftReport, diagnose
from unialign.diagnostics._drift_sample import measure_sample, nearest_old
from unialign.errors import ConfigError, DataError

ITEMS, DIM = 400, 32


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def rows(seed=0, *, items=ITEMS, dim=DIM):
    """Return unit rows in clusters with a common component, which resemble the embeddings of encoders."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((40, dim))
    return unit(
        centers[rng.integers(0, 40, items)] + rng.standard_normal((items, dim)) * np.linspace(2, 0.5, dim) + 0.5
    )


def turn(seed=1, *, dim=DIM):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]


def pooled(padding, *, seed=0):
    """Return mean-pooled token vectors; `padding` is the number of padding tokens that are pooled by mistake."""
    rng = np.random.default_rng(seed)
    tokens = rng.standard_normal((ITEMS, 6, DIM)) + rng.standard_normal((ITEMS, 1, DIM))
    pad = rng.standard_normal(DIM)
    return unit(tokens.sum(1) + np.asarray(padding)[:, None] * pad)


def noise(scale, *, seed=2):
    return scale * np.random.default_rng(seed).standard_normal((ITEMS, DIM))


OLD = rows()
ORDER = np.random.default_rng(3).permutation(ITEMS)
FEW_PADDED = np.where(np.arange(ITEMS) % 20 == 3, 4, 0)
VERSIONS = {
    "identical": ("identical", OLD),
    "other kernel": ("same", OLD + noise(1e-7).astype(np.float32)),
    "scaled": ("same", 3 * OLD),
    "not normalized": ("same", OLD * np.linspace(0.5, 2, ITEMS, dtype=np.float32)[:, None]),
    "float16": ("rounded", OLD.astype(np.float16)),
    "bfloat16": ("rounded", torch.from_numpy(OLD).bfloat16().float().numpy()),
    "int8": ("rounded", np.round(OLD / np.abs(OLD).max() * 127).astype(np.int8)),
    "signs": ("rounded", np.where(OLD > 0, 1, -1).astype(np.float32)),
    "run in bfloat16": ("rounded", unit(OLD + noise(0.003))),
    "prefix": ("truncated", OLD[:, :20]),
    "normalized prefix": ("truncated", unit(OLD[:, :20])),
    "more columns": ("truncated", np.concatenate([OLD, 0.1 * OLD[:, :4]], 1)),
    "another order": ("reordered", OLD[ORDER]),
    "one row late": ("reordered", np.roll(OLD, 1, axis=0)),
    "centered": ("shifted", unit(OLD - OLD.mean(0))),
    "rotated": ("rotated", (OLD @ turn()).astype(np.float32)),
    "mirrored": ("rotated", OLD * np.where(np.arange(DIM) % 2, 1, -1).astype(np.float32)),
    "columns in another order": ("rotated", OLD[:, ::-1].copy()),
    "centered and rotated": ("rotated", unit((OLD - OLD.mean(0)) @ turn())),
    "another prompt": ("changed", unit(OLD + noise(0.1))),
    "another model": ("different", rows(9)),
    "another model of another width": ("different", unit(np.tanh(8 * OLD @ rows(5, items=48).T))),
}


def compared(new, old, **options):
    return diagnose(new, against=old, resamples=100, **options)


@pytest.mark.parametrize("name", VERSIONS)
def test_each_difference_gets_its_verdict(name):
    kind, new = VERSIONS[name]
    report = compared({"text": new}, {"text": OLD})
    verdict = report.verdicts["text"]
    assert verdict.kind == kind, verdict.text
    assert report.answer.startswith("text ")
    assert bool(verdict.advice) == (kind not in ("identical", "same") or "norm" in name or name == "scaled")
    json.dumps(report.to_dict())


@pytest.mark.parametrize("seed", range(6))
def test_rounding_alone_never_fires_another_verdict(seed):
    old = rows(10 + seed, items=150 + 40 * seed, dim=16 * (1 + seed))
    rng = np.random.default_rng(seed)
    for new in (old.astype(np.float16), torch.from_numpy(old).bfloat16().float().numpy()):
        assert compared({"x": new}, {"x": old}).verdicts["x"].kind == "rounded"
    other = compared({"x": rng.standard_normal(old.shape).astype(np.float32)}, {"x": old})
    assert other.verdicts["x"].kind == "different"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (np.arange(100, 130), "rows 100 to 129"),
        (np.array([7]), "(row 7)"),
        (np.arange(3, ITEMS, 40), "first rows 3, 43, 83, 123, 163, ..."),
    ],
)
def test_rows_with_other_preprocessing_are_counted_and_listed(changed, words):
    new = OLD.astype(np.float16).astype(np.float32)
    new[changed] = unit(OLD[changed] + noise(0.1)[changed])
    report = compared({"text": new}, {"text": OLD})
    verdict, numbers = report.verdicts["text"], report.numbers["text"]
    assert (verdict.kind, verdict.severity) == ("partly_changed", "problem")
    assert words in verdict.text
    assert numbers["changed"] == len(changed)
    assert {row["new_row"] for row in numbers["worst"][: len(changed)]} <= set(changed.tolist())
    assert [row["cosine"] for row in numbers["worst"]] == sorted(row["cosine"] for row in numbers["worst"])


@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e-10, 1e200])
def test_the_scale_of_the_rows_does_not_change_the_verdict(scale):
    old = OLD.astype(np.float64)
    verdict = compared({"x": old * scale}, {"x": old}).verdicts["x"]
    assert verdict.kind == "same"
    assert f"{scale:.2g} times as long" in verdict.text
    for name in ("another prompt", "another model", "signs"):
        kind, new = VERSIONS[name]
        assert compared({"x": new * np.float64(scale)}, {"x": old}).verdicts["x"].kind == kind
    assert (
        compared({"x": old * scale}, {"x": old / scale if scale > 1e-300 else 1e300 * old}).verdicts["x"].kind == "same"
    )


@pytest.mark.parametrize("dim", [2, 3])
def test_rows_with_near_rows_by_chance_are_not_reordered(dim):
    rng = np.random.default_rng(dim)
    old, other = (rng.standard_normal((300, dim)).astype(np.float32) for _ in range(2))
    assert compared({"x": other}, {"x": old}).verdicts["x"].kind == "different"
    order = rng.permutation(300)
    assert compared({"x": old[order]}, {"x": old}).verdicts["x"].kind == "reordered"
    old[::2] = old[1::2]  # Equal rows do not count as rows that are similar by chance.
    assert compared({"x": old[order]}, {"x": old}).verdicts["x"].kind == "reordered"


def test_pooled_padding_is_found_in_the_padded_rows_only():
    new, old = pooled(FEW_PADDED), pooled(np.zeros(ITEMS))
    report = compared({"text": new}, {"text": old})
    assert report.verdicts["text"].kind == "partly_changed"
    assert report.numbers["text"]["changed"] == (FEW_PADDED > 0).sum()
    assert compared({"text": pooled(np.full(ITEMS, 4))}, {"text": old}).verdicts["text"].kind in ("changed", "shifted")


def test_a_block_in_another_order_is_told_from_other_preprocessing():
    new = OLD.copy()
    new[50:90] = OLD[50:90][::-1]
    text = compared({"x": new}, {"x": OLD}).verdicts["x"].text
    assert "stored at other positions" in text
    new[50:90] = unit(OLD[50:90] + noise(0.1)[50:90])
    assert "stored at other positions" not in compared({"x": new}, {"x": OLD}).verdicts["x"].text


def test_ids_match_rows_in_any_order_and_rows_without_counterpart_are_left_out():
    ids = np.array([f"item{i}" for i in range(ITEMS)])
    new = {"ids": ids[ORDER][: ITEMS - 30], "text": OLD[ORDER][: ITEMS - 30]}
    report = compared(new, {"ids": ids, "text": OLD})
    assert report.verdicts["text"].kind == "identical"
    assert report.numbers["text"]["items"] == ITEMS - 30
    assert "30 items are only in" in " ".join(report.notes)
    new["text"] = new["text"].copy()
    new["text"][11] = -new["text"][11]
    worst = compared(new, {"ids": ids, "text": OLD}).numbers["text"]["worst"][0]
    assert worst == {
        "old_row": int(ORDER[11]), "new_row": 11, "id": f"item{ORDER[11]}", "cosine": pytest.approx(-1, abs=1e-6),
    }  # fmt: skip


def test_a_shift_of_rows_names_its_size():
    assert "1 row later" in compared({"x": np.roll(OLD, -1, 0)}, {"x": OLD}).verdicts["x"].text
    assert "3 rows earlier" in compared({"x": np.roll(OLD, 3, 0)}, {"x": OLD}).verdicts["x"].text
    assert "3 rows later" in compared({"x": np.roll(OLD, -3, 0)}, {"x": OLD}).verdicts["x"].text


def test_modalities_are_matched_by_name_and_the_answer_names_each_difference():
    old = {"image": OLD, "text": rows(4), "audio": rows(5)}
    report = compared({"text": rows(4), "image": OLD[ORDER]}, old)
    assert report.severity == "problem"
    assert report.answer == "image has its rows in a different order; text is identical in both versions."
    with pytest.raises(DataError, match="no modality of the same name"):
        compared({"a": OLD, "b": OLD}, {"c": OLD, "d": OLD})


def test_numbers_equal_a_direct_computation():
    new = unit(OLD + noise(0.02))
    numbers = compared({"x": new}, {"x": OLD}).numbers["x"]
    a, b = OLD.astype(np.float64), new.astype(np.float64)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert numbers["cosine"]["0.5"] == pytest.approx(np.median(cosine), abs=1e-7)
    assert numbers["cosine"]["0.0"] == pytest.approx(cosine.min(), abs=1e-7)
    shared = []
    for i in range(ITEMS):
        others = np.delete(np.arange(ITEMS), i)
        old, later = (set(others[np.argsort(-(z[others] @ z[i]))[:10]]) for z in (a, b))
        shared.append(len(old & later) / 10)
    assert numbers["overlap@10"]["mean"] == pytest.approx(np.mean(shared), abs=1e-9)
    low, high = numbers["overlap@10"]["low"], numbers["overlap@10"]["high"]
    half = 1.96 * np.std(shared) / np.sqrt(ITEMS)
    assert (high - low) / 2 == pytest.approx(half, rel=0.3)


def test_copies_of_a_row_do_not_lower_the_overlap():
    old = np.repeat(rows(6, items=20), 20, axis=0)
    sample = measure_sample(old, old.astype(np.float16), resamples=100, seed=0)
    assert sample.overlap.mean == 1


def test_the_nearest_old_row_equals_a_direct_search():
    probes, at = rows(7, items=5), None
    at, cosine = nearest_old(probes.astype(np.float64), [(0, OLD[:150]), (150, OLD[150:])])
    table = probes @ OLD.T
    np.testing.assert_array_equal(at, table.argmax(1))
    np.testing.assert_allclose(cosine, table.max(1), atol=1e-6)


def test_invalid_and_absent_rows_are_counted_and_excluded():
    new, old = OLD.copy(), OLD.copy()
    new[3], new[4, 0], old[5, 1] = 0, np.nan, np.inf
    present = np.arange(ITEMS) >= 2
    report = compared({"x": new, "present.x": present}, {"x": old})
    numbers, verdict = report.numbers["x"], report.verdicts["x"]
    assert (numbers["items"], numbers["absent"], numbers["invalid_new"], numbers["invalid_old"]) == (ITEMS - 5, 2, 2, 1)
    assert (verdict.kind, verdict.severity, numbers["lost"], numbers["gained"]) == ("missing_rows", "problem", 4, 1)
    assert "(rows 0, 1, 3, 4)" in " ".join(report.text().split())
    assert "1 row is valid only in the new version (row 5)" in " ".join(report.text().split())
    assert report.answer == "x lacks rows that the old version has."


def test_lost_rows_are_a_problem_in_addition_to_every_other_difference():
    present = np.arange(ITEMS) != 7
    for kind, new in (("rotated", (OLD @ turn()).astype(np.float32)), ("rounded", OLD.astype(np.float16))):
        assert compared({"x": new}, {"x": OLD}).verdicts["x"].kind == kind
        verdict = compared({"x": new, "present.x": present}, {"x": OLD}).verdicts["x"]
        assert (verdict.kind, verdict.severity) == ("missing_rows", "problem")
        assert verdict.text.startswith("1 row of the old version is absent, zero or not finite")
    verdict = compared({"x": rows(9), "present.x": present}, {"x": OLD}).verdicts["x"]
    assert verdict.kind == "different"
    assert "(row 7)" in verdict.text
    lost = compared({"x": np.full_like(OLD, np.nan)}, {"x": OLD}).verdicts["x"]
    assert (lost.kind, lost.text.endswith("No row is valid in both versions.")) == ("missing_rows", True)


def test_rows_that_were_invalid_before_are_not_lost():
    old, present = OLD.copy(), np.arange(ITEMS) != 7
    old[7] = np.nan
    assert compared({"x": OLD, "present.x": present}, {"x": old}).verdicts["x"].kind == "identical"
    assert compared({"x": old}, {"x": OLD, "present.x": present}).verdicts["x"].kind == "identical"
    gained = compared({"x": OLD}, {"x": old}).verdicts["x"]
    assert (gained.kind, gained.severity) == ("same", "ok")
    assert "1 row is valid only in the new version (row 7)." in gained.text


def test_a_sample_that_does_not_fit_into_memory_is_rejected(monkeypatch):
    monkeypatch.setattr("unialign.diagnostics._drift.MAX_REQUESTED", 100)
    with pytest.raises(ConfigError, match="sample must be at most 100 for a comparison of two versions"):
        compared({"x": OLD}, {"x": OLD}, sample=300)
    assert compared({"x": OLD[:60]}, {"x": OLD[:60]}, sample=300).verdicts["x"].kind == "identical"


@pytest.mark.parametrize("items", [1, 2, 3, 12, 49])
def test_few_items(items):
    assert compared({"x": OLD[:items]}, {"x": OLD[:items]}).verdicts["x"].kind == "identical"
    other = compared({"x": rows(8)[:items]}, {"x": OLD[:items]})
    assert other.verdicts["x"].kind == "too_few"
    assert other.severity == "note"


def test_no_valid_row_in_common():
    first = np.arange(ITEMS) < 100
    report = compared({"x": OLD, "present.x": first}, {"x": OLD, "present.x": ~first})
    assert report.verdicts["x"].text.endswith("No row is valid in both versions.")
    assert report.numbers["x"]["lost"] == ITEMS - 100
    assert "nan" not in report.text()


def test_wrong_input_is_refused_with_advice():
    with pytest.raises(DataError, match="store the array `ids` in both files"):
        compared({"x": OLD[:-1]}, {"x": OLD})
    ids = np.arange(ITEMS) // 2
    with pytest.raises(DataError, match="ids repeat in"):
        compared({"x": OLD, "ids": ids}, {"x": OLD, "ids": ids[::-1]})
    with pytest.raises(DataError, match="no common value"):
        compared({"x": OLD, "ids": np.arange(ITEMS)}, {"x": OLD, "ids": np.arange(ITEMS) + 1000})
    with pytest.raises(ConfigError, match="labels cannot be combined with against"):
        diagnose({"x": OLD}, against={"x": OLD}, labels=np.zeros(ITEMS, int))


def test_stored_files_are_compared_like_arrays(tmp_path):
    """The cases are a streamed archive, a memory map, and rows that are matched by ids."""
    new = unit(OLD + noise(0.02))
    np.savez_compressed(tmp_path / "old.npz", x=OLD, ids=np.arange(ITEMS))
    np.savez(tmp_path / "new.npz", x=new[ORDER], ids=ORDER)
    np.save(tmp_path / "plain_old.npy", OLD)
    np.save(tmp_path / "plain_new.npy", new)
    expected = compared({"x": new}, {"x": OLD})
    stored = compared(tmp_path / "plain_new.npy", tmp_path / "plain_old.npy")
    matched = compared(tmp_path / "new.npz", tmp_path / "old.npz")
    for report in (stored, matched):
        (numbers,) = report.numbers.values()
        assert numbers["cosine"] == pytest.approx(expected.numbers["x"]["cosine"], abs=1e-7)
        assert numbers["overlap@10"] == pytest.approx(expected.numbers["x"]["overlap@10"], abs=1e-3)


def test_the_command_writes_a_results_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez("old.npz", **{"text": OLD, "image<b>": rows(4)})
    np.savez("new.npz", **{"text": OLD[ORDER], "image<b>": rows(4)})
    quick = ["--resamples", "100", "--out", "check"]
    assert main(["diagnose", "new.npz", "--against", "old.npz", *quick]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("text has its rows in a different order; image<b> is identical in both versions.")
    assert sorted(p.name for p in (tmp_path / "check").iterdir()) == [
        "config.yaml", "log.txt", "report.html", "results.json",
    ]  # fmt: skip
    results = json.loads((tmp_path / "check/results.json").read_text())
    assert results["verdicts"]["text"]["kind"] == "reordered"
    assert results["answer"] in printed
    page = (tmp_path / "check/report.html").read_text()
    assert "image&lt;b&gt;" in page
    assert "image<b>" not in page
    assert "a different order" in page
    np.save("small.npy", OLD.astype(np.float64) * 1e-10)
    np.save("large.npy", OLD.astype(np.float64) * 1e200)
    for new, old, ratio in (("small", "large", "1e-210"), ("large", "small", "1e+210")):
        assert main(["diagnose", f"{new}.npy", "--against", f"{old}.npy", "--resamples", "100", "--out", "scaled"]) == 0
        assert f"{ratio} to {ratio}" in (tmp_path / "scaled/report.html").read_text()
    capsys.readouterr()
    assert main(["diagnose", "--against", "old.npz", "new.npz"]) == 2
    assert "pass the new file first" in capsys.readouterr().err
    assert main(["diagnose", "--config", "check/config.yaml", "--out", "again", "--fail-on", "problem"]) == 1
    again = json.loads((tmp_path / "again/results.json").read_text())
    assert again["numbers"] == results["numbers"]
    python = diagnose("new.npz", against="old.npz", resamples=100)
    assert isinstance(python, DriftReport)
    assert python.answer == results["answer"]
