"""Test pairings that are correct for only some of the rows."""

import numpy as np
import pytest
import torch
from spaces import checked, healthy, rotated, row_statistics, serious, unit

import unialign as ua
from unialign.diagnostics._row_alignment import align_rows, pair_percentiles

NAMES = {2: ("image", "audio"), 3: ("image", "text", "audio")}
KEYS = {2: "image-audio", 3: "audio"}
CODES = {"row_offset", "misaligned_block", "random_pairs"}


def permuted(space, rows, seed=0):
    rows = np.asarray(rows)
    space["audio"][rows] = space["audio"][np.random.default_rng(seed).permutation(rows)]
    return space


@pytest.mark.parametrize(("modalities", "rows"), [(2, 60), (2, 450), (3, 60), (3, 150), (3, 300), (3, 450)])
def test_a_block_of_permuted_rows_is_found_with_its_rows_and_its_modality(modalities, rows):
    diagnosis = checked(permuted(healthy(NAMES[modalities], items=600, seed=rows), np.arange(rows)))
    about = ("audio",) if modalities == 3 else NAMES[2]
    assert serious(diagnosis) == [("misaligned_block", "problem", about)]
    (finding,) = diagnosis.findings_with("misaligned_block")
    (first, last), *more = diagnosis.numbers["row_alignment"][KEYS[modalities]]["blocks"]
    assert not more
    assert first <= 3
    assert abs(last - rows + 1) <= 3
    assert f"Rows {first} to {last} of " in finding.text
    assert not diagnosis.findings_with("pairing")


def test_several_blocks_are_separated_and_a_sample_locates_them_approximately():
    space = healthy(NAMES[3], items=20_000)
    permuted(permuted(space, np.arange(4000, 8000)), np.arange(12_000, 14_000))
    diagnosis = checked(space, sample=1000)
    ((a, b), (c, d)) = diagnosis.numbers["row_alignment"]["audio"]["blocks"]
    assert np.abs(np.array([a, b, c, d]) - [4000, 7999, 12_000, 13_999]).max() < 200
    assert serious(diagnosis) == [("misaligned_block", "problem", ("audio",))]
    assert diagnosis.findings_with("misaligned_block")[0].text.startswith("About the rows 4,0")


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize(("rows", "severity"), [(60, "warning"), (120, "warning"), (300, "problem"), (450, "problem")])
def test_scattered_permuted_rows_are_counted(modalities, rows, severity):
    for seed in range(3):
        scattered = np.random.default_rng(seed).choice(600, rows, replace=False)
        space = permuted(healthy(NAMES[modalities], items=600, seed=seed), scattered)
        alignment = row_statistics(space)[0][("audio",) if modalities == 3 else NAMES[2]]
        assert alignment.random_fraction == pytest.approx(rows / 600, abs=0.05)
        assert not alignment.blocks
    diagnosis = checked(space)
    assert serious(diagnosis) == [("random_pairs", severity, ("audio",) if modalities == 3 else NAMES[2])]
    assert diagnosis.numbers["row_alignment"][KEYS[modalities]]["random_fraction"] == alignment.random_fraction


@pytest.mark.parametrize(("modalities", "by"), [(2, -1), (2, 3), (3, -2), (3, -1), (3, 1), (3, 3)])
def test_an_offset_from_the_middle_on_is_found_with_row_and_direction(modalities, by):
    space = healthy(NAMES[modalities], items=600)
    half = np.arange(300, 600)
    space["audio"][half] = space["audio"][np.clip(half - by, 0, 599)]
    diagnosis = checked(space)
    assert serious(diagnosis)[0] == ("row_offset", "problem", ("audio",) if modalities == 3 else NAMES[2])
    assert {code for code, _, _ in serious(diagnosis)} <= {"row_offset", "duplicates"}
    (shift,) = diagnosis.numbers["pairs"]["image-audio"]["row_offsets"]
    assert shift["offset"] == by
    assert abs(shift["start"][0] - 300) <= 4
    assert shift["stop"] is None
    assert shift["cosine"] > 0.6 > 0.1 > shift["cosine_unshifted"]
    text = diagnosis.findings_with("row_offset")[0].text
    other = "the other modalities" if modalities == 3 else "image"
    assert f"row i {'+' if by > 0 else '-'} {abs(by)} matches row i of {other}" in text
    assert "from about row " in text


def test_the_shifted_modality_is_named_at_any_position():
    """If the shifted modality is the first of its pair, the measured offset has the opposite sign."""
    space = healthy(("audio", "image", "text"), items=600)
    space["audio"] = np.roll(space["audio"], 1, axis=0)
    diagnosis = checked(space)
    assert serious(diagnosis) == [("row_offset", "problem", ("audio",))]
    assert diagnosis.findings_with("row_offset")[0].text.startswith(
        "audio is shifted by 1 row: its row i + 1 matches row i"
    )


def test_an_offset_in_many_rows_is_found_in_the_sampled_windows():
    space = healthy(NAMES[2], items=30_000)
    space["audio"][10_000:] = space["audio"][9_999:-1].copy()
    diagnosis = checked(space, sample=512)
    assert [code for code, _, _ in serious(diagnosis)] == ["row_offset"]
    ((low, high),) = [shift["start"] for shift in diagnosis.numbers["pairs"]["image-audio"]["row_offsets"]]
    assert low <= 10_000 <= high
    assert high - low < 3000


def test_two_lost_rows_are_two_offsets():
    space = healthy(NAMES[2], items=1200)
    audio = space["audio"]
    space["audio"] = np.concatenate([audio[:400], audio[399:799], audio[797:-3]])[:1200]
    shifts = checked(space).numbers["pairs"]["image-audio"]["row_offsets"]
    assert [shift["offset"] for shift in shifts] == [1, 3]


def lognormal(rng, items, noise, spread):
    """Draw items with log-normal noise levels, so that some items are much harder to match than others."""
    own = noise * np.exp(spread * rng.standard_normal((items, 1)))
    latent = rng.standard_normal((items, 32))
    return {name: unit(latent + own * rng.standard_normal((items, 32))) for name in NAMES[2]}


def by_class(rng, items, classes, within, noise):
    label = np.sort(rng.integers(0, classes, items))
    latent = rng.standard_normal((classes, 32))[label] + within * rng.standard_normal((items, 32))
    return {name: unit(latent + noise * rng.standard_normal((items, 32))) for name in NAMES[2]}


def film(rng, items, noise):
    """Draw a random walk, so that neighboring rows are similar."""
    latent = np.cumsum(rng.standard_normal((items, 32)), 0) * 0.3
    return {name: unit(latent + noise * rng.standard_normal((items, 32))) for name in NAMES[2]}


HEALTHY = {
    **{f"noise {noise}": lambda rng, noise=noise: healthy(NAMES[2], items=600, noise=noise, seed=rng.integers(9**9))
       for noise in (0.1, 0.6, 1.0, 1.5, 2.0, 3.0)},
    **{f"uneven {spread}": lambda rng, spread=spread: lognormal(rng, 600, 0.8, spread) for spread in (0.3, 0.6)},
    **{f"{k} classes, {within}, {noise}": lambda rng, k=k, within=within, noise=noise: by_class(
        rng, 600, k, within, noise) for k in (3, 10, 50) for within, noise in ((0.0, 0.6), (0.3, 0.6), (0.3, 2.0))},
    "film": lambda rng: film(rng, 600, 1.0),
}  # fmt: skip


@pytest.mark.parametrize("kind", HEALTHY)
def test_healthy_rows_in_any_order_raise_no_alarm(kind):
    """Noise, hard items, sorted classes and similar neighbors must not be reported as faults."""
    for seed in range(4):
        space = HEALTHY[kind](np.random.default_rng(seed))
        alignments, offsets = row_statistics(space)
        if offsets or any(a.blocks or a.random_fraction for a in alignments.values()):
            assert not {f.code for f in checked(space).findings} & CODES, seed


def test_adjacent_captions_of_one_image_are_no_offset():
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((120, 32))
    ids = np.arange(600) // 5
    space = {"image": unit(latent + 0.3 * rng.standard_normal(latent.shape))[ids]}
    space["text"] = unit(latent[ids] + 0.6 * rng.standard_normal((600, 32)))
    assert not {f.code for f in checked(space | {"ids": ids}).findings} & CODES


def test_rotated_rows_and_the_shipped_emoji_are_no_blocks():
    """Emoji are sorted by subject, and unrelated encoders may place different subjects close together by chance."""
    assert not {f.code for f in checked(rotated()).findings} & CODES
    assert not {f.code for f in checked("emoji", modalities=["image", "text"], sample=600).findings} & CODES


def test_a_space_trained_on_emoji_raises_no_alarm():
    store = ua.data.load_dataset("emoji")
    names = ["image", "text", "speech"]
    config = ua.TrainConfig(
        objective="unialign", objective_options={"anchor": "text"}, modalities=names, epochs=1, dim=32
    )
    z = ua.fit(store, config).space.encode({name: np.asarray(store.array(name)) for name in names})
    assert not {f.code for f in checked({name: z[name] for name in names}, sample=1200).findings} & CODES
    for some in (names[:2], names[1:], names[::2]):
        assert not {f.code for f in checked({name: z[name] for name in some}, sample=600).findings} & CODES, some


def test_percentiles_are_uniform_for_random_counterparts_and_blind_to_a_gap():
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(unit(rng.standard_normal((1500, 16)) + 2)).double() for _ in range(2))
    percentile = pair_percentiles(x, y, np.arange(1500), seed=0)
    assert np.abs(np.sort(percentile) - (np.arange(1500) + 0.5) / 1500).max() < 1.63 / 1500**0.5  # KS test, 1 %
    moved = pair_percentiles(x + 3.0, y - 1.0, np.arange(1500), seed=0)
    np.testing.assert_allclose(moved, percentile, atol=1e-4)


def test_few_items_give_no_result():
    few = align_rows(np.arange(60), np.zeros(60), np.full(60, 0.5))
    assert (few.blocks, few.random_fraction) == ((), 0.0)
