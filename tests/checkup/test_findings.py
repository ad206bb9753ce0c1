"""Each known fault is named, at the right modality and with the right severity, and nothing else is."""

import numpy as np
import pytest
from spaces import ITEMS, WIDTH, collapsed, healthy, rotated, shifted, shuffled, unit

from unialign.checkup import diagnose
from unialign.errors import ConfigError


def checked(space, **options):
    return diagnose(space, resamples=100, **options)


def serious(checkup):
    return [(f.code, f.severity, f.about) for f in checkup.findings if f.severity in ("problem", "warning")]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("modalities", [2, 3, 5])
def test_a_healthy_space_has_nothing_wrong(seed, modalities):
    checkup = checked(healthy([f"m{i}" for i in range(modalities)], seed=seed))
    assert checkup.severity == "ok"
    assert checkup.answer == f"Nothing wrong with these embeddings: {ITEMS} items in {modalities} modalities."
    assert {f.code for f in checkup.findings} == {
        "values", "duplicates", "norms", "pairing", "collapse", "gap", "retrieval", "hubs",
    }  # fmt: skip
    assert all(f.severity == "ok" and not f.advice for f in checkup.findings)
    assert "| healthy |" in checkup.line


def test_a_collapsed_modality_is_the_only_fault_and_says_what_it_does_in_each_direction():
    checkup = checked(collapsed())
    assert serious(checkup) == [("collapsed", "problem", ("text",))]
    text = checkup.about("collapsed")[0].text
    assert "asking with it" in text
    assert "asking for it" in text
    # The gap of a collapsed modality follows from the collapse.
    assert checkup.about("gap")[0].severity == "ok"
    assert checkup.numbers["modalities"]["text"]["mean_cosine"]["mean"] > 0.99


def test_a_narrow_cone_in_which_ranks_still_work_is_a_note_that_explains_cosines():
    space = {name: unit(z + 1.2 * np.eye(WIDTH)[0]) for name, z in healthy(noise=0.3).items()}
    checkup = checked(space)
    assert serious(checkup) == []
    assert [f.about for f in checkup.about("narrow_cone")] == [("image",), ("text",), ("audio",)]
    assert "judge cosines against" in checkup.about("narrow_cone")[0].advice


def test_a_flat_modality_is_told_by_its_effective_rank():
    space = healthy()
    space["text"] = unit(np.random.default_rng(0).standard_normal((ITEMS, 2)) @ np.eye(WIDTH)[:2])
    assert ("low_rank", "warning", ("text",)) in serious(checked(space))


def test_a_shifted_modality_is_named_with_what_the_gap_costs():
    checkup = checked(shifted())
    codes = serious(checkup)
    assert codes[0] == ("shifted", "problem", ("audio",))
    assert {code for code, _, _ in codes} <= {"shifted", "hubs", "uneven_retrieval", "weak_retrieval", "narrow_cone"}
    assert "subtracting each modality's mean lifts R@1" in checkup.about("shifted")[0].text
    # Asking with the shifted modality is what suffers: the gallery's rows near the offset answer everything.
    directions = checkup.numbers["directions"]
    assert directions["audio->image"]["recall@1"]["mean"] < directions["image->audio"]["recall@1"]["mean"]
    centred = checkup.numbers["pairs"]["image-audio"]["centred_recall@1"]["audio->image"]["mean"]
    assert centred > directions["audio->image"]["recall@1"]["mean"]


def test_a_gap_between_two_modalities_blames_neither():
    space = healthy(("image", "text"))
    space["text"] = unit(space["text"] + 0.5 * np.eye(WIDTH)[0])
    (finding,) = checked(space).about("gap")
    assert finding.severity in ("warning", "problem")
    assert finding.about == ("image", "text")


def test_a_rotated_modality_is_not_aligned_though_its_rows_are_paired():
    checkup = checked(rotated())
    assert serious(checkup) == [("not_aligned", "problem", ("audio",))]
    assert checkup.numbers["pairs"]["image-audio"]["structure_p"] < 0.01


def test_shuffled_rows_are_not_paired():
    checkup = checked(shuffled())
    assert serious(checkup) == [("not_paired", "problem", ("audio",))]
    assert checkup.numbers["pairs"]["image-audio"]["structure_p"] > 0.01
    assert "bring all files into one order" in checkup.about("not_paired")[0].advice


def test_two_groups_that_fit_among_themselves_are_one_finding():
    first, second = healthy(("image", "drawing")), healthy(("text", "words"), seed=7)
    checkup = checked(first | second)
    ((code, _, about),) = serious(checkup)
    assert code == "not_paired"
    assert set(about) == set(first) | set(second)
    assert "image with drawing and text with words" in checkup.about(code)[0].text


def test_the_same_file_twice_is_no_second_modality():
    space = healthy(("image", "text"))
    space["copy"] = space["image"].copy()
    checkup = checked(space)
    assert serious(checkup) == [("same_rows", "problem", ("image", "copy"))]


def test_repeated_rows_are_counted_and_never_count_as_wrong_answers():
    space = healthy(("image",), noise=0.1)
    space["image"][1::2] = space["image"][::2]  # each picture with two captions
    space["text"] = unit(space["image"] + 0.01 * np.random.default_rng(0).standard_normal((ITEMS, WIDTH)))
    checkup = checked(space)
    assert serious(checkup) == [("duplicates", "warning", ("image",))]
    assert "200 of 400 rows (50.0 %)" in checkup.about("duplicates")[0].text
    assert "0 and 1" in checkup.about("duplicates")[0].text
    # A tie with the copy would halve it, a caption of the same picture would too.
    assert checkup.numbers["directions"]["text->image"]["recall@1"]["mean"] == 1.0
    assert checkup.numbers["directions"]["image->text"]["recall@1"]["mean"] == 1.0
    # With ids, copies within an item are as they should be.
    known = checked(space | {"ids": np.arange(ITEMS) // 2})
    assert known.about("duplicates")[0].severity == "ok"
    assert known.numbers["directions"]["text->image"]["chance"]["recall@1"] == pytest.approx(2 / ITEMS)


def test_a_few_copies_are_a_note():
    space = healthy()
    space["text"][7] = space["text"][3]
    (finding,) = checked(space).about("duplicates")
    assert finding.severity == "note"


def test_a_constant_modality_is_a_problem_and_its_retrieval_is_not_judged():
    space = healthy()
    space["text"] = np.tile(space["text"][:1], (ITEMS, 1))
    checkup = checked(space)
    assert ("constant", "problem", ("text",)) in serious(checkup)
    assert {code for code, _, _ in serious(checkup)} == {"constant"}
    assert "image->text" not in checkup.numbers["directions"]


def test_unequal_widths_are_not_one_space_but_the_pairing_is_still_checked():
    space = healthy()
    space["audio"] = (space["audio"] @ np.random.default_rng(0).standard_normal((WIDTH, 48))).astype(np.float32)
    checkup = checked(space)
    assert serious(checkup) == [("widths", "problem", ("audio",))]
    assert "rows do belong together" in checkup.about("widths")[0].text
    assert "image->audio" not in checkup.numbers["directions"]
    space["audio"] = space["audio"][::-1]
    assert "No sign that the rows belong together" in checked(space).about("widths")[0].text


def test_broken_rows_are_counted_with_the_first_ones_and_leave_all_other_numbers():
    space = healthy()
    space["text"][[3, 17, 200]] = np.nan
    space["image"][5, 2] = np.inf
    space["audio"][9] = 0.0
    space["audio"][11] = 1e-40
    checkup = checked(space)
    assert serious(checkup) == [
        ("inf", "problem", ("image",)),
        ("nan", "problem", ("text",)),
        ("zero_rows", "problem", ("audio",)),
        ("zero_rows", "problem", ("audio",)),
    ]
    nan = checkup.about("nan")[0]
    assert "3 of 400 rows (0.8 %) hold NaN (rows 3, 17, 200)" in nan.text
    assert "present.text" in nan.advice
    assert checkup.numbers["pairs"]["image-text"]["items"] == ITEMS - 4
    assert checkup.numbers["directions"]["image->text"]["recall@1"]["mean"] > 0.95


def test_many_broken_rows_show_the_first_five():
    space = healthy()
    space["text"][50:350] = np.nan
    text = checked(space).about("nan")[0].text
    assert "300 of 400 rows (75.0 %)" in text
    assert "first rows 50, 51, 52, 53, 54, ..." in text


def test_a_modality_without_a_usable_row_stops_nothing():
    space = healthy()
    space["text"][:] = np.nan
    checkup = checked(space)
    assert [f.code for f in checkup.findings[:2]] == ["nan", "never_together"]
    assert checkup.numbers["directions"].keys() == {"image->audio", "audio->image"}
    assert "text" in checkup.text()


def test_absent_rows_may_hold_anything():
    space = healthy()
    space["text"][:100] = np.nan
    present = np.arange(ITEMS) >= 100
    for key in ("present.text", "present/text"):
        checkup = checked(space | {key: present})
        assert serious(checkup) == []
        assert "text 25.0 %" in checkup.about("missing")[0].text
        assert checkup.numbers["pairs"]["image-text"]["items"] == 300


def test_modalities_never_seen_together_are_said():
    space = healthy()
    half = np.arange(ITEMS) < ITEMS // 2
    checkup = checked(space | {"present.image": half, "present.audio": ~half})
    assert serious(checkup) == [("never_together", "warning", ("image", "audio"))]


def test_lengths_are_notes_since_cosines_do_not_see_them():
    space = healthy()
    space["text"] *= 30
    assert checked(space).about("norm_scale")[0].severity == "note"
    space["text"] *= np.random.default_rng(0).uniform(0.5, 1.5, (ITEMS, 1)).astype(np.float32)
    checkup = checked(space)
    assert serious(checkup) == []
    assert checkup.about("norms")[0].about == ("text",)


def test_lengths_far_off_are_warnings():
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
    offset = 0.9 * np.eye(WIDTH)[0]
    space = {name: unit(z + offset) for name, z in space.items()}
    space["text"][123] = np.eye(WIDTH)[0]  # the mean of all queries
    checkup = checked(space)
    assert ("hubs", "warning", ("text",)) in serious(checkup)
    assert "row 123 " in checkup.about("hubs")[0].text


def test_columns_that_never_move_are_counted():
    space = {name: np.pad(z, ((0, 0), (0, 8))) for name, z in healthy().items()}
    found = checked(space).about("still_columns")
    assert [(f.severity, f.about) for f in found] == [("warning", (name,)) for name in space]
    assert "8 columns of 40 never change (columns 32, 33, 34, 35, 36, ...)" in found[0].text


def test_weak_retrieval_is_said_with_chance():
    checkup = checked(healthy(noise=3.0))
    (code, severity, _), *_ = serious(checkup)
    assert (code, severity) == ("weak_retrieval", "warning")
    assert "(chance 0.2 %" in checkup.about("weak_retrieval")[0].text


def test_one_direction_that_suffers_is_named():
    checkup = checked(shifted(by=2.0))
    found = [f for f in checkup.about("uneven_retrieval") if "audio" in f.about]
    assert found
    assert all("audio->" in f.text.split(" has R@1")[0] for f in found)


def test_a_lone_modality_is_looked_at_and_says_what_a_second_would_tell():
    checkup = checked({"text": healthy()["text"]})
    assert serious(checkup) == []
    assert checkup.about("one_modality")[0].severity == "note"
    assert checkup.about("collapse")[0].severity == "ok"
    assert checkup.summary.keys() == {"uniformity", "effective_rank"}


@pytest.mark.parametrize("items", [1, 2, 3, 7])
def test_a_handful_of_items_never_crashes(items):
    checkup = checked({name: z[:items] for name, z in healthy().items()})
    assert checkup.about("few_items")
    assert checkup.text().endswith(checkup.line)


def test_labels_are_compared_with_chance():
    space = healthy() | {"labels": np.arange(ITEMS) % 4}
    checkup = checked(space)
    assert checkup.numbers["label_map_chance"] == pytest.approx(0.25, abs=0.02)
    assert checkup.about("labels")


def test_what_is_no_matrix_is_left_alone_and_said():
    checkup = checked(healthy() | {"scale": np.float32(3), "names": np.array(["a"] * ITEMS)})
    assert "scale" in checkup.about("ignored")[0].text


@pytest.mark.parametrize("options", [{"sample": 3}, {"resamples": 5}, {"seed": -1}, {"modalities": "text"}])
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError):
        diagnose(healthy(), **options)


def test_the_text_has_words_then_numbers_then_the_line():
    checkup = checked(shuffled())
    text = checkup.text()
    assert text.isascii()
    assert max(len(line) for line in text.splitlines()[:20]) <= 100
    assert text.index("PROBLEM") < text.index("modality ") < text.index("To paste into an issue")
    assert text.splitlines()[-1] == checkup.line
    assert "\n" not in checkup.line
