"""Test that diagnoses of few items, few captions, rare modalities and extreme scales give no unsupported findings."""

import warnings

import numpy as np
import pytest
import torch
from spaces import DIM, ITEMS, checked, healthy, serious, shifted, unit

from unialign.diagnostics._estimate import estimate_mean, estimate_rate
from unialign.diagnostics._near_rows import connect_near, find_near_rows
from unialign.diagnostics._pair import _gap_z
from unialign.metrics import resample_weights


def captions(count, items, *, noise=0.0, seed=0):
    """Return images that share `count` captions, and the caption of each image; `noise` makes equal captions differ."""
    rng = np.random.default_rng(seed)
    caption, which = unit(rng.standard_normal((count, 64))), rng.integers(0, count, items)
    image = unit(caption[which] + 0.15 * rng.standard_normal((items, 64)))
    return {"image": image, "text": unit(caption[which] + noise * rng.standard_normal((items, 64)))}, which


def assert_bounded(numbers):
    most = {"modality_gap_debiased": 2.0}
    for part in (*numbers["pairs"].values(), *numbers["directions"].values(), *numbers["modalities"].values()):
        for key, value in part.items():
            if isinstance(value, dict) and "low" in value and value["low"] == value["low"] and key != "norm":
                assert -1 <= value["low"] <= value["mean"] <= value["high"] <= most.get(key, 1.0), (key, value)


def test_few_distinct_captions_are_no_hubs():
    """Regression test: 40 captions that 3,000 images share were reported as hubs."""
    space, which = captions(40, 3000)
    diagnosis = checked(space, sample=1024)
    assert serious(diagnosis) == [("duplicates", "warning", ("text",))]
    assert not diagnosis.findings_with("hubness")
    assert "40 distinct values" in diagnosis.findings_with("duplicates")[0].advice
    assert len(np.unique(np.stack([diagnosis.proposed_ids, which]), axis=1).T) == 40
    assert serious(checked(space, sample=300, ids=diagnosis.proposed_ids)) == []


def test_nearly_equal_captions_are_found_and_count_as_right_answers():
    """Captions that differ only by rounding, as after encoding in several batches, count as correct results."""
    space, which = captions(40, 400, noise=1e-5)
    diagnosis = checked(space)
    assert serious(diagnosis) == [("near_duplicates", "warning", ("text",))]
    assert "360 of 400 sampled rows (90.0 %)" in diagnosis.findings_with("near_duplicates")[0].text
    assert diagnosis.numbers["directions"]["image->text"]["recall@1"]["mean"] == 1.0
    assert len(np.unique(np.stack([diagnosis.proposed_ids, which]), axis=1).T) == 40
    assert serious(checked(space, ids=diagnosis.proposed_ids)) == []
    assert len(np.unique(np.stack([checked(space, sample=150).proposed_ids, which]), axis=1).T) == 40


def test_a_few_nearly_equal_rows_are_reported_and_change_no_recall():
    space = healthy(("image", "text"), noise=0.9)
    before = checked(space).numbers["directions"]
    space["text"][1:21:2] = unit(space["text"][0:20:2] + 1e-6)
    diagnosis = checked(space)
    assert serious(diagnosis) == [("near_duplicates", "warning", ("text",))]
    assert "scored as incorrect answers" in diagnosis.findings_with("near_duplicates")[0].advice
    assert diagnosis.numbers["directions"]["image->text"]["hubness"]["candidates"] == ITEMS
    assert diagnosis.numbers["directions"]["image->text"]["chance"] == before["image->text"]["chance"]
    assert len(np.unique(diagnosis.proposed_ids)) == ITEMS - 10


def test_one_row_for_unreadable_inputs_is_no_caption():
    space = healthy(("image", "text"))
    space["text"][3:300:10] = unit(np.ones((1, DIM)))
    diagnosis = checked(space)
    assert serious(diagnosis) == [("duplicates", "warning", ("text",))]
    (finding,) = diagnosis.findings_with("duplicates")
    assert "does not match its items (cosine" in finding.text
    assert "present.text" in finding.advice
    assert diagnosis.proposed_ids is None


def test_rows_that_fill_a_space_densely_are_not_nearly_equal():
    rng = np.random.default_rng(0)
    angle = np.arange(800) * (2 * np.pi / 800) + 1e-3 * rng.random(800)
    everywhere = rng.standard_normal((800, 3))
    manifold = np.stack([np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle)], 1)
    for z in (np.stack([np.cos(angle), np.sin(angle)], 1), everywhere, manifold, 0.01 * everywhere + 1):
        z_nD = torch.from_numpy(z / np.linalg.norm(z, axis=1, keepdims=True))
        near = find_near_rows(z_nD, torch.ones(800, dtype=torch.bool), np.arange(800, dtype=np.uint64), np.arange(800))
        assert (near.repeats, near.radius) == (0, 0.0)


def test_groups_of_near_rows_are_connected_components():
    z_uD = torch.tensor(
        [[1.0, 0.0], [0.0, 1.0], [1.0, 1e-4], [0.0, 1.0], [-1.0, 0.0], [1.0, 2e-4]], dtype=torch.float64
    )
    z_uD /= torch.linalg.vector_norm(z_uD, dim=1, keepdim=True)
    assert connect_near(z_uD, 0.01).tolist() == [0, 1, 0, 1, 4, 0]
    # A chain of near rows is one group in any order of its rows, even if a later row connects two earlier groups.
    many = np.concatenate([np.random.default_rng(0).permutation(60) * 0.9, 200 + np.arange(3)[[2, 0, 1]] * 0.9])
    for steps, groups in ((np.array([0, 1.8, 0.9]), [0, 0, 0]), (many, [0] * 60 + [60] * 3)):
        angle_u = torch.from_numpy(steps * 0.01)
        assert connect_near(torch.stack([angle_u.cos(), angle_u.sin()], 1), 0.01).tolist() == groups


def test_a_rare_modality_is_named_and_its_intervals_stay_in_range():
    """Regression test: with 30 items, the interval of a recall reached 100.3 %."""
    space = healthy(noise=0.9)
    present = np.zeros(ITEMS, bool)
    present[::14] = True
    diagnosis = checked(space | {"present.audio": present})
    assert serious(diagnosis) == []
    assert "audio has only 29 rows" in diagnosis.findings_with("few_items")[0].text
    assert "among 29 sampled candidates, chance 3.4 %" in diagnosis.findings_with("retrieval")[0].text
    assert_bounded(diagnosis.numbers)
    assert diagnosis.answer.endswith("2 notes below.")
    (finding,) = checked(space | {"present.audio": np.arange(ITEMS) < 5}).findings_with("undecidable")
    assert "Only 5 items have both image and audio, or text and audio. Judging" in finding.text


def test_a_recall_of_few_items_has_an_interval_even_if_all_are_right():
    weights = resample_weights(np.arange(30), resamples=100, seed=0)
    every, none = torch.ones(30, dtype=torch.float64), torch.zeros(30, dtype=torch.float64)
    assert estimate_rate(every, weights, units=30).low == pytest.approx(0.025 ** (1 / 30))  # 88.4 %
    assert estimate_rate(none, weights, units=30).high == pytest.approx(1 - 0.025 ** (1 / 30))
    mixed = torch.arange(30).double() / 29
    assert estimate_rate(mixed, weights, units=30).to_dict() == estimate_mean(mixed, weights).to_dict()
    assert estimate_rate(every, weights, units=200).low == 1.0


def test_tiny_sets_give_no_false_findings():
    for items in (1, 2, 3, 5, 9, 12, 20):
        diagnosis = checked({name: z[:items] for name, z in healthy(noise=0.3).items()})
        allowed = {"undecidable"} if 2 <= items < 10 else set()
        assert {code for code, _, _ in serious(diagnosis)} <= allowed, items
        assert not diagnosis.findings_with("low_rank")
        assert diagnosis.findings_with("few_items")
        assert_bounded(diagnosis.numbers)
        if items < 10:
            assert not diagnosis.findings_with("gap")  # Regression test: "no gap" was reported for two items.
    assert (
        "There is only 1 item" in checked({k: z[:1] for k, z in healthy().items()}).findings_with("few_items")[0].text
    )
    assert ", as far as few items can show: 12 items" in checked({k: z[:12] for k, z in healthy().items()}).answer


def test_small_dims_have_no_low_rank():
    """Regression test: an effective rank of 2 in two dimensions was reported as low."""
    for dim in (2, 3, 4):
        diagnosis = checked(healthy(("image", "text"), items=200, dim=dim, noise=0.1))
        assert serious(diagnosis) == []
        assert not diagnosis.findings_with("low_rank")
        assert_bounded(diagnosis.numbers)


def test_random_rows_of_few_items_are_not_called_paired_or_apart():
    for items in (12, 25, 40):
        for seed in range(3):
            rng = np.random.default_rng(seed)
            diagnosis = checked({name: rng.standard_normal((items, 32)) for name in ("image", "text")})
            assert {code for code, _, _ in serious(diagnosis)} <= {"undecidable", "not_paired"}
            assert {f.severity for f in diagnosis.findings_with("gap")} <= {"ok"}
            assert not diagnosis.findings_with("retrieval")


def test_a_gap_counts_classes_and_not_items():
    rng = np.random.default_rng(0)
    z = []
    for _ in range(100):
        class_n = np.arange(600) % 12
        z.append(_gap_z(torch.from_numpy(rng.standard_normal((12, 20))[class_n]), class_n))
    assert np.quantile(z, 0.99) < 4
    assert _gap_z(torch.from_numpy(rng.standard_normal((400, 20)) + 0.3), np.arange(400)) > 20
    assert checked(shifted()).findings_with("modality_gap")
    space, which = captions(12, 400)
    assert checked(space, ids=which).findings_with("gap")[0].severity == "ok"


def test_few_captions_are_neither_a_cone_nor_of_low_rank():
    """With two distinct captions, half of the pairs of rows are equal, so the mean cosine is near 0.5."""
    for count in (2, 3, 5):
        space, which = captions(count, 400)
        codes = {f.code for f in checked(space, ids=which).findings if f.severity != "ok"}
        assert codes == {"undecidable"}, count
    (finding,) = checked(space, ids=which).findings_with("undecidable")
    assert "too few distinct items" in finding.text


def test_a_constant_modality_is_a_problem_with_any_ids():
    space = healthy(("image", "text"))
    space["text"][:] = space["text"][0]
    assert ("constant", "problem", ("text",)) in serious(checked(space, ids=np.zeros(ITEMS, np.int64)))


def test_extreme_scales_change_norms_only():
    space = {name: z.astype(np.float64) for name, z in healthy().items()}
    plain = checked(space).numbers
    scales = {"image": 1e200, "text": 1e-200, "audio": 1.0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        diagnosis = checked({name: z * scales[name] for name, z in space.items()})
    numbers = diagnosis.numbers
    for name, factor in scales.items():
        # Regression test: the medians were limited to the range of float32.
        norm, expected = numbers["modalities"][name]["norm"], plain["modalities"][name]["norm"]
        assert norm["median"] == pytest.approx(factor * expected["median"], rel=1e-6)
        assert norm["deviation"] == pytest.approx(factor * expected["deviation"], abs=1e-6 * factor)
    assert numbers["directions"]["image->text"]["recall@1"] == plain["directions"]["image->text"]["recall@1"]
    assert [code for code, _, _ in serious(diagnosis)] == ["norm_range", "norm_range"]
    assert "median norm 1e-200" in diagnosis.findings_with("norm_range")[1].text


def test_intervals_of_healthy_spaces_are_unchanged():
    """If all rows differ, the handling of bounds, copies and classes must not change the intervals."""
    numbers = checked(healthy(("image", "text"))).numbers
    pair, direction = numbers["pairs"]["image-text"], numbers["directions"]["image->text"]
    held = {"mean": 0.01555717948932212, "low": 0.0007094286894328838, "high": 0.040105685512521784}
    assert pair["modality_gap_debiased"] == pytest.approx(held, rel=1e-9)
    assert direction["recall@1"] == pytest.approx({"mean": 0.9825, "low": 0.970025, "high": 0.9938375}, rel=1e-9)
    assert (direction["hubness"]["queries"], direction["hubness"]["candidates"]) == (ITEMS, ITEMS)
    assert pair["distinct_items"] == ITEMS
    assert numbers["modalities"]["image"]["possible_rank"] == DIM
