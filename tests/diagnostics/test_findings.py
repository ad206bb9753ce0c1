"""Test that each known fault is reported for the right modality with the right severity, and without other findings."""

import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from spaces import DIM, ITEMS, checked, collapsed, healthy, rotated, serious, shifted, shuffled, unit

from unialign.diagnostics import diagnose
from unialign.diagnostics._finding import Code
from unialign.errors import ConfigError


@pytest.mark.parametrize(("modalities", "seed"), [(2, 0), (2, 1), (2, 2), (3, 0), (3, 3), (5, 1)])
def test_a_healthy_space_has_nothing_wrong(modalities, seed):
    diagnosis = checked(healthy([f"m{i}" for i in range(modalities)], seed=seed))
    assert diagnosis.severity == "ok"
    assert diagnosis.answer == f"No problems were found in these embeddings: {ITEMS} items in {modalities} modalities."
    assert {f.code for f in diagnosis.findings} == {
        "values", "duplicates", "norms", "pairing", "collapse", "gap", "retrieval", "match_cosine", "hubness",
        "modality_bias",
    }  # fmt: skip
    assert all(f.severity == "ok" and not f.advice for f in diagnosis.findings)
    assert "| healthy |" in diagnosis.issue_summary


def test_a_collapsed_modality_is_the_only_fault_and_its_effect_on_each_direction_is_reported():
    diagnosis = checked(collapsed())
    assert serious(diagnosis) == [("collapsed", "problem", ("text",))]
    text = diagnosis.findings_with("collapsed")[0].text
    assert "with this modality as the query" in text
    assert "with this modality as the gallery" in text
    # The gap to a collapsed modality is not reported separately.
    assert diagnosis.findings_with("gap")[0].severity == "ok"
    assert diagnosis.numbers["modalities"]["text"]["mean_cosine"]["mean"] > 0.99


def test_a_narrow_cone_in_which_ranks_still_work_is_a_note_that_explains_cosines():
    space = {name: unit(z + 1.2 * np.eye(DIM)[0]) for name, z in healthy(noise=0.3).items()}
    diagnosis = checked(space)
    assert serious(diagnosis) == []
    assert [f.modalities for f in diagnosis.findings_with("anisotropy")] == [("image",), ("text",), ("audio",)]
    assert "Compare cosines with" in diagnosis.findings_with("anisotropy")[0].advice


def test_a_modality_of_low_rank_is_found_by_its_effective_rank():
    space = healthy()
    space["text"] = unit(np.random.default_rng(0).standard_normal((ITEMS, 2)) @ np.eye(DIM)[:2])
    assert ("low_rank", "warning", ("text",)) in serious(checked(space))


def test_a_far_modality_is_named_with_the_cost_of_its_gap():
    diagnosis = checked(shifted())
    codes = serious(diagnosis)
    assert codes[0] == ("modality_gap", "problem", ("audio",))
    assert {code for code, _, _ in codes} <= {
        "modality_gap",
        "hubness",
        "uneven_retrieval",
        "weak_retrieval",
        "anisotropy",
    }
    assert "subtracting each modality's mean raises R@1" in diagnosis.findings_with("modality_gap")[0].text
    # Audio queries have a lower recall, since all of them retrieve the gallery rows near the offset.
    directions = diagnosis.numbers["directions"]
    assert directions["audio->image"]["recall@1"]["mean"] < directions["image->audio"]["recall@1"]["mean"]
    centered = diagnosis.numbers["pairs"]["image-audio"]["centered_recall@1"]["audio->image"]["mean"]
    assert centered > directions["audio->image"]["recall@1"]["mean"]


def test_a_gap_between_two_modalities_concerns_both():
    space = healthy(("image", "text"))
    space["text"] = unit(space["text"] + 0.5 * np.eye(DIM)[0])
    (finding,) = checked(space).findings_with("gap")
    assert finding.severity in ("warning", "problem")
    assert finding.modalities == ("image", "text")


def test_a_rotated_modality_is_paired_but_not_aligned():
    diagnosis = checked(rotated())
    assert serious(diagnosis) == [("not_aligned", "problem", ("audio",))]
    assert diagnosis.numbers["pairs"]["image-audio"]["cka_p"] < 0.01


def test_shuffled_rows_are_not_paired():
    diagnosis = checked(shuffled())
    assert serious(diagnosis) == [("not_paired", "problem", ("audio",))]
    assert diagnosis.numbers["pairs"]["image-audio"]["cka_p"] > 0.01
    assert "Sort all files by an id" in diagnosis.findings_with("not_paired")[0].advice


def test_two_groups_that_match_internally_are_one_finding():
    first, second = healthy(("image", "drawing")), healthy(("text", "words"), seed=7)
    diagnosis = checked(first | second)
    ((code, _, about),) = serious(diagnosis)
    assert code == "not_paired"
    assert set(about) == set(first) | set(second)
    assert "image with drawing and text with words" in diagnosis.findings_with(code)[0].text


def test_one_file_under_two_names_is_a_duplicate_modality():
    space = healthy(("image", "text"))
    space["copy"] = space["image"].copy()
    diagnosis = checked(space)
    assert serious(diagnosis) == [("duplicate_modality", "problem", ("image", "copy"))]


def test_repeated_rows_are_counted_and_never_count_as_wrong_answers():
    space = healthy(("image",), noise=0.1)
    space["image"][1::2] = space["image"][::2]
    space["text"] = unit(space["image"] + 0.01 * np.random.default_rng(0).standard_normal((ITEMS, DIM)))
    diagnosis = checked(space)
    assert serious(diagnosis) == [("duplicates", "warning", ("image",))]
    assert "200 of 400 rows (50.0 %)" in diagnosis.findings_with("duplicates")[0].text
    assert "0 and 1" in diagnosis.findings_with("duplicates")[0].text
    # Ties with a duplicate or with the other caption of the same image must not halve the recall.
    assert diagnosis.numbers["directions"]["text->image"]["recall@1"]["mean"] == 1.0
    assert diagnosis.numbers["directions"]["image->text"]["recall@1"]["mean"] == 1.0
    # If ids are given, equal rows with the same id are expected.
    known = checked(space | {"ids": np.arange(ITEMS) // 2})
    assert known.findings_with("duplicates")[0].severity == "ok"
    assert known.numbers["directions"]["text->image"]["chance"]["recall@1"] == pytest.approx(2 / ITEMS)


def test_a_few_copies_are_a_note():
    space = healthy()
    space["text"][7] = space["text"][3]
    (finding,) = checked(space).findings_with("duplicates")
    assert finding.severity == "note"


def test_a_constant_modality_is_a_problem_and_its_retrieval_is_not_judged():
    space = healthy()
    space["text"] = np.tile(space["text"][:1], (ITEMS, 1))
    diagnosis = checked(space)
    assert ("constant", "problem", ("text",)) in serious(diagnosis)
    assert {code for code, _, _ in serious(diagnosis)} == {"constant"}
    assert "image->text" not in diagnosis.numbers["directions"]


def test_pairing_is_checked_even_for_different_dims():
    space = healthy()
    space["audio"] = (space["audio"] @ np.random.default_rng(0).standard_normal((DIM, 48))).astype(np.float32)
    diagnosis = checked(space)
    (finding,) = diagnosis.findings_with("dim_mismatch")
    assert (finding.severity, finding.modalities) == ("note", ("audio",))
    assert serious(diagnosis) == []
    assert "Their rows are paired, though" in finding.text
    assert "image->audio" not in diagnosis.numbers["directions"]
    space["audio"] = space["audio"][::-1]
    (finding,) = checked(space).findings_with("dim_mismatch")
    assert finding.severity == "problem"
    assert "There is no evidence that the rows of" in finding.text


def test_broken_rows_are_counted_with_the_first_ones_and_leave_all_other_numbers():
    space = healthy()
    space["text"][[3, 17, 200]] = np.nan
    space["image"][5, 2] = np.inf
    space["audio"][9] = 0.0
    space["audio"][11] = 1e-40
    diagnosis = checked(space)
    assert serious(diagnosis) == [
        ("inf", "problem", ("image",)),
        ("nan", "problem", ("text",)),
        ("zero_rows", "problem", ("audio",)),
        ("zero_rows", "warning", ("audio",)),
    ]
    nan = diagnosis.findings_with("nan")[0]
    assert "3 of 400 rows (0.8 %) contain NaN (rows 3, 17, 200)" in nan.text
    assert "present.text" in nan.advice
    assert diagnosis.numbers["pairs"]["image-text"]["items"] == ITEMS - 4
    assert diagnosis.numbers["directions"]["image->text"]["recall@1"]["mean"] > 0.95


def test_many_broken_rows_show_the_first_five():
    space = healthy()
    space["text"][50:350] = np.nan
    text = checked(space).findings_with("nan")[0].text
    assert "300 of 400 rows (75.0 %)" in text
    assert "first rows 50, 51, 52, 53, 54, ..." in text


def test_a_modality_without_a_usable_row_does_not_stop_the_diagnosis():
    space = healthy()
    space["text"][:] = np.nan
    diagnosis = checked(space)
    assert [f.code for f in diagnosis.findings[:2]] == ["nan", "no_overlap"]
    assert diagnosis.numbers["directions"].keys() == {"image->audio", "audio->image"}
    assert "text" in diagnosis.text()


def test_absent_rows_may_hold_anything():
    space = healthy()
    space["text"][:100] = np.nan
    present = np.arange(ITEMS) >= 100
    for key in ("present.text", "present/text"):
        diagnosis = checked(space | {key: present})
        assert serious(diagnosis) == []
        assert "text 25.0 %" in diagnosis.findings_with("missing")[0].text
        assert diagnosis.numbers["pairs"]["image-text"]["items"] == 300


def test_modalities_without_a_common_item_are_reported():
    space = healthy()
    half = np.arange(ITEMS) < ITEMS // 2
    diagnosis = checked(space | {"present.image": half, "present.audio": ~half})
    assert serious(diagnosis) == [("no_overlap", "warning", ("image", "audio"))]


def test_norms_are_notes_since_cosines_do_not_depend_on_them():
    space = healthy()
    space["text"] *= 30
    assert checked(space).findings_with("norm_scale")[0].severity == "note"
    space["text"] *= np.random.default_rng(0).uniform(0.5, 1.5, (ITEMS, 1)).astype(np.float32)
    diagnosis = checked(space)
    assert serious(diagnosis) == []
    assert diagnosis.findings_with("norms")[0].modalities == ("text",)


def test_extreme_norms_are_warnings():
    space = healthy()
    space["text"][4] *= 50
    space["image"] *= 1e6
    space["audio"] *= 1e-6
    found = serious(checked(space))
    assert ("norm_outliers", "warning", ("text",)) in found
    assert ("norm_range", "warning", ("image",)) in found
    assert ("norm_range", "warning", ("audio",)) in found


def test_a_hub_is_found_and_its_row_named():
    space = healthy(("image", "text"))
    offset = 0.9 * np.eye(DIM)[0]
    space = {name: unit(z + offset) for name, z in space.items()}
    space["text"][123] = np.eye(DIM)[0]
    diagnosis = checked(space)
    assert ("hubness", "warning", ("text",)) in serious(diagnosis)
    assert "row 123 " in diagnosis.findings_with("hubness")[0].text


def test_constant_columns_are_counted():
    space = {name: np.pad(z, ((0, 0), (0, 8))) for name, z in healthy().items()}
    found = checked(space).findings_with("constant_columns")
    assert [(f.severity, f.modalities) for f in found] == [("warning", (name,)) for name in space]
    assert "8 columns of 40 are constant (32, 33, 34, 35, 36, ...)" in found[0].text


def test_weak_retrieval_is_reported_with_chance():
    diagnosis = checked(healthy(noise=3.0))
    (code, severity, _), *_ = serious(diagnosis)
    assert (code, severity) == ("weak_retrieval", "warning")
    assert "(chance 0.2 %" in diagnosis.findings_with("weak_retrieval")[0].text


def test_a_direction_with_much_worse_retrieval_is_named():
    space = healthy(("image", "text"))
    space["text"] = unit(space["text"] + 2.0 * np.eye(DIM)[0])
    diagnosis = checked(space)
    (finding,) = diagnosis.findings_with("uneven_retrieval")
    assert finding.text.startswith("Retrieval is much worse in one direction: R@1 of text->image is")
    assert not diagnosis.findings_with("retrieval")  # Retrieval does not work in every direction.


def test_consequences_of_a_far_modality_are_part_of_its_finding():
    """Regression test: anisotropy, uneven retrieval and hubs caused by a modality gap were separate warnings."""
    diagnosis = checked(shifted(by=2.0))
    assert serious(diagnosis) == [("modality_gap", "problem", ("audio",))]
    assert "This comes with a narrow cone" in diagnosis.findings_with("modality_gap")[0].text
    assert "works in one direction only" in diagnosis.findings_with("modality_gap")[0].text
    assert (
        not diagnosis.findings_with("retrieval")
        or "every direction" not in diagnosis.findings_with("retrieval")[0].text
    )


def test_nothing_else_is_judged_for_a_collapsed_modality():
    """Regression test: a collapsed modality was also reported as unpaired and as having no gap."""
    rng = np.random.default_rng(0)
    for names in (("image", "text"), ("image", "text", "audio")):
        space = healthy(names)
        space["text"] = unit(0.02 * rng.standard_normal((ITEMS, DIM)) + unit(np.ones((1, DIM))))
        diagnosis = checked(space)
        assert serious(diagnosis) == [("collapsed", "problem", ("text",))]
        assert (
            "Pairing, gap and retrieval of this modality cannot be judged"
            in diagnosis.findings_with("collapsed")[0].text
        )
        assert "effective rank" not in diagnosis.findings_with("collapsed")[0].text
        assert bool(diagnosis.findings_with("gap")) == bool(diagnosis.findings_with("pairing")) == (len(names) > 2)


def test_zero_rows_may_be_absent_or_broken_unless_presence_is_given():
    """Regression test: the zero rows that `encode` writes for absent items were reported as a problem."""
    space = healthy()
    space["text"][:100] = 0.0
    (finding,) = checked(space).findings_with("zero_rows")
    assert finding.severity == "warning"
    assert "absent or their embeddings are broken" in finding.text
    assert "present=" in finding.advice
    there = np.arange(ITEMS) >= 100
    known = checked(space, present={"text": torch.from_numpy(there)})
    assert serious(known) == []
    assert known.numbers == checked(space | {"present.text": there}).numbers
    broken = checked(space, present={"text": np.arange(ITEMS) >= 50})
    assert serious(broken) == [("zero_rows", "problem", ("text",))]


def test_ids_can_be_arguments():
    space, ids = healthy(), np.arange(ITEMS) // 2
    assert checked(space, ids=torch.from_numpy(ids)).numbers == checked(space | {"ids": ids}).numbers
    with pytest.raises(ConfigError, match=r"`present` has unknown keys: sound; the modalities are image, text, audio"):
        checked(space, present={"sound": np.ones(ITEMS, bool)})


def test_items_copied_in_every_modality_are_one_finding():
    space = {name: np.concatenate([z, z[:40]]) for name, z in healthy().items()}
    diagnosis = checked(space)
    assert serious(diagnosis) == [("duplicates", "warning", ())]
    assert "in every modality 40 of 440 rows" in diagnosis.findings_with("duplicates")[0].text


def test_uneven_norms_are_reported_only_if_they_change_the_first_results():
    space = healthy(noise=0.1)
    space["text"] *= np.random.default_rng(0).uniform(0.9, 1.1, (ITEMS, 1)).astype(np.float32)
    assert "norms" not in {f.code for f in checked(space).findings}


def test_the_guide_names_every_code_and_no_other():
    guide = (Path(__file__).parents[2] / "docs/how-to/diagnose.md").read_text("utf-8")
    table = guide[guide.index("## What to try") :]
    named = {code for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for code in re.findall(r"`(\w+)`", row)}
    assert named == set(get_args(Code))


def test_a_single_modality_is_diagnosed_as_far_as_possible():
    diagnosis = checked({"text": healthy()["text"]})
    assert serious(diagnosis) == []
    assert diagnosis.answer.startswith(
        "No problems were found in these embeddings, as far as one modality can show: 400 items in 1 modality."
    )
    assert diagnosis.findings_with("one_modality")[0].severity == "note"
    assert diagnosis.findings_with("collapse")[0].severity == "ok"
    assert diagnosis.summary.keys() == {"uniformity", "effective_rank"}


def test_a_handful_of_items_never_crashes():
    for items in (1, 2, 3, 7):
        diagnosis = checked({name: z[:items] for name, z in healthy().items()})
        assert diagnosis.findings_with("few_items")
        assert diagnosis.text().endswith(diagnosis.issue_summary)


def test_labels_are_compared_with_chance():
    space = healthy() | {"labels": np.arange(ITEMS) % 4}
    diagnosis = checked(space)
    assert diagnosis.numbers["label_map_chance"] == pytest.approx(0.25, abs=0.02)
    assert diagnosis.findings_with("labels")
    assert checked(healthy(), labels=torch.arange(ITEMS) % 4).numbers == diagnosis.numbers


def test_arrays_that_are_no_matrix_are_reported_as_not_used():
    diagnosis = checked(healthy() | {"scale": np.float32(3), "names": np.array(["a"] * ITEMS)})
    assert "scale" in diagnosis.findings_with("ignored")[0].text


def test_invalid_options_raise():
    for options in ({"sample": 3}, {"resamples": 5}, {"seed": -1}, {"modalities": "text"}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            diagnose(healthy(), **options)


def test_the_text_has_findings_then_numbers_then_the_issue_summary():
    diagnosis = checked(shuffled())
    text = diagnosis.text()
    assert text.isascii()
    assert max(len(line) for line in text.splitlines()[:20]) <= 100
    assert text.index("PROBLEM") < text.index("modality ") < text.index("To paste into an issue")
    assert text.splitlines()[-1] == diagnosis.issue_summary
    assert "\n" not in diagnosis.issue_summary


def test_a_notebook_shows_findings_and_escapes_names():
    report = checked({"<b>": healthy()["image"], "text": np.full((ITEMS, DIM), np.nan, np.float32)})
    page = report._repr_html_()
    assert page.count("<li ") == len(report.findings)
    assert "&lt;b&gt;" in page
    assert "<b>," not in page
    assert report.answer in repr(report)


def test_plain_values_hold_findings_and_numbers():
    report = checked(shuffled())
    plain = report.to_dict()
    assert plain.keys() == {"answer", "findings", "numbers", "issue_summary"}
    assert plain["findings"][0]["code"] == "not_paired"
    assert plain["findings"][0]["modalities"] == ("audio",)
    assert report.summary["recall@1"].keys() == {"mean", "low", "high"}
