"""Test the findings about mixed galleries, distributions, cut-offs and truncation on planted and on healthy spaces."""

import numpy as np
import pytest
from spaces import DIM, checked, healthy, shifted, unit

from benchmarks.diagnosis import PLANTED, interval
from unialign.diagnostics._details import measured_items


def planted(code, seed=5):
    return PLANTED[code](np.random.default_rng(seed))


def only(report, code):
    (finding,) = report.findings_with(code)
    return finding


@pytest.mark.parametrize("seed", [1, 2])
def test_a_healthy_space_has_none_of_the_new_findings(seed):
    report = checked(healthy(("a", "b"), items=150, noise=1.0, seed=seed))
    assert not {finding.code for finding in report.findings if finding.severity != "ok"} & set(PLANTED)
    assert "do not prefer their own modality" in only(report, "modality_bias").text


def test_private_directions_are_a_distribution_gap_that_centering_does_not_remove():
    report = checked(planted("distribution_gap"))
    finding = only(report, "distribution_gap")
    assert finding.severity in ("note", "warning")
    assert finding.modalities == ("a", "b")
    assert "unialign repair" in finding.advice
    assert not report.findings_with("gap") or only(report, "gap").severity == "ok"
    # This finding mentions the bias, which is not reported a second time.
    assert not report.findings_with("modality_bias")
    pair = report.numbers["pairs"]["a-b"]
    assert pair["centered_mixed_pool"]["modality_share"]["low"] > 1.5
    assert pair["distribution_gap"]["low"] > 0
    assert pair["distribution_gap_p"] <= 0.005
    assert pair["covariance_mismatch"]["mean"] > 0.5


def test_weak_retrieval_explains_a_bias_that_is_then_not_reported():
    rng = np.random.default_rng(0)
    latent, zero = rng.normal(size=(300, 4)), np.zeros((300, 16))
    noisy = [latent + 1.3 * rng.normal(size=(300, 4)) for _ in range(2)]
    own = [4 * rng.normal(size=(300, 16)) for _ in range(2)]
    turn = np.linalg.qr(rng.normal(size=(36, 36)))[0]
    parts = {"a": [noisy[0], own[0], zero], "b": [noisy[1], zero, own[1]]}
    space = {name: unit(np.hstack(columns) @ turn) for name, columns in parts.items()}
    report = checked(space)
    assert report.numbers["pairs"]["a-b"]["mixed_pool"]["modality_share"]["mean"] > 1.8
    assert report.findings_with("weak_retrieval")
    assert not report.findings_with("distribution_gap")
    assert not report.findings_with("modality_bias")


def test_a_narrow_cone_with_a_small_gap_has_a_bias_that_centering_removes():
    report = checked(planted("modality_bias"))
    assert only(report, "modality_bias").severity == "warning"
    pair = report.numbers["pairs"]["a-b"]
    assert pair["mixed_pool"]["modality_share"]["low"] > 1.8
    assert pair["centered_mixed_pool"]["modality_share"]["high"] < 1.1
    assert pair["centered_mixed_pool"]["ndcg@10"]["mean"] > pair["mixed_pool"]["ndcg@10"]["mean"] + 0.2


def test_a_gap_states_its_effect_on_a_mixed_gallery_and_names_the_command():
    report = checked(shifted())
    finding = only(report, "modality_gap")
    assert "as frequent among the first 10 results" in finding.text
    assert "unialign repair" in finding.advice
    assert not report.findings_with("modality_bias")


def test_a_common_offset_is_a_shared_component():
    report = checked(planted("shared_component"))
    assert only(report, "shared_component").severity == "note"
    # The offset has the length c, and other rows are unrelated, so the fraction is c^2 / (1 + c^2).
    z = {name: unit(rows + 1.5 * np.eye(DIM)[0]) for name, rows in healthy(("a", "b"), noise=0.2).items()}
    assert checked(z).numbers["shared_component"]["mean"] == pytest.approx(1.5**2 / (1 + 1.5**2), abs=0.02)


def test_a_modality_of_few_large_directions_has_sharper_cosines():
    report = checked(planted("uneven_sharpness"))
    assert only(report, "uneven_sharpness").modalities == ("b", "a")
    deviations = report.numbers["deviations"]
    assert deviations["b"]["low"] > 1.5 * deviations["a"]["high"]


def test_a_common_offset_of_two_modalities_requires_another_cutoff():
    report = checked(planted("uneven_cutoffs"))
    finding = only(report, "uneven_cutoffs")
    assert finding.severity == "note"
    assert {"c", "d"} <= set(finding.modalities)


def test_a_moderate_difference_between_directions_is_a_note():
    report = checked(planted("asymmetry"))
    assert only(report, "asymmetry").severity == "note"
    directions = report.numbers["directions"]
    difference = report.numbers["pairs"]["a-b"]["asymmetry"]
    assert difference["mean"] == pytest.approx(
        directions["a->b"]["recall@1"]["mean"] - directions["b->a"]["recall@1"]["mean"]
    )
    assert difference["low"] > 0
    assert not report.findings_with("uneven_retrieval")


def test_empty_first_coordinates_are_worth_less_than_principal_directions():
    report = checked(planted("truncation"))
    assert only(report, "truncation").severity == "note"
    reduced = {(found["kind"], found["dim"]): found for found in report.numbers["truncation"]["reduced"]}
    assert reduced["principal", 12]["recall@1_loss"]["high"] < 0.02
    assert reduced["first", 12]["recall@1_loss"]["low"] > 0.05


def test_few_items_absent_rows_and_other_dims_are_measured_or_left_out():
    tiny = checked(healthy(("a", "b"), items=12)).numbers
    assert "mixed_pool" not in tiny["pairs"]["a-b"]
    assert "truncation" not in tiny
    space = healthy(items=80)
    space["present.text"] = np.arange(80) < 5
    numbers = checked(space).numbers
    assert numbers["pairs"]["image-audio"]["mixed_pool"]["items"] == 80
    assert "mixed_pool" not in numbers["pairs"]["image-text"]
    space = healthy(("a", "b"), items=80) | {"c": healthy(("c",), items=80, dim=8)["c"]}
    numbers = checked(space).numbers
    assert numbers["pairs"]["a-b"]["mixed_pool"]["items"] == 80
    assert "shared_component" not in numbers


def test_the_number_of_items_shrinks_with_the_number_of_pairs():
    assert [measured_items(pairs) for pairs in (0, 1, 3, 8, 276)] == [256, 256, 256, 156, 128]


def test_the_interval_of_a_rate_is_that_of_clopper_and_pearson():
    assert interval(0, 200) == pytest.approx([0.0, 1 - 0.025 ** (1 / 200)], abs=1e-9)
    assert interval(200, 200) == pytest.approx([0.025 ** (1 / 200), 1.0], abs=1e-9)
    assert interval(5, 50) == pytest.approx([0.03327509, 0.21813538], abs=1e-6)
