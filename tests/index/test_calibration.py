"""Calibrations of an index: choice, few rows, files, quantiles and probabilities, numbers of parts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unialign as ua
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError
from unialign.index._calibration import fit_calibration, load_calibration, save_calibration
from unialign.index._derived import derive
from unialign.index._probability import LEVELS, Curves, fit_logistic
from unialign.index._snapshot import Part

NAMES = ("image", "text", "speech")


def space_rows(
    items: int, *, gap: float = 0.0, noise: float = 0.6, dim: int = 16, seed: int = 0
) -> dict[str, np.ndarray]:
    """Unit rows of paired items, to which a constant vector per modality is added."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(items, dim))
    rows = {}
    for name in NAMES:
        z = shared + noise * rng.normal(size=shared.shape)
        shift = rng.normal(size=dim)
        z = z / np.linalg.norm(z, axis=1, keepdims=True) + gap * shift / np.linalg.norm(shift)
        rows[name] = (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)
    return rows


def test_planted_gap_is_corrected_and_its_size_reported() -> None:
    z = space_rows(300, gap=1.2)
    found = fit_calibration(z, NAMES)
    assert found.method != "none"
    pairs = found.summary["pairs"][1:]
    assert [pair["pair"] for pair in pairs] == ["image-text", "image-speech", "text-speech"]
    for pair in pairs:
        assert pair["before"]["gap"] > 0.5 > 0.2 > pair["after"]["gap"]
        assert pair["after"]["cross"]["mean"] > pair["before"]["cross"]["mean"] + 0.2
        assert abs(pair["after"]["share"]["mean"] - 1) < abs(pair["before"]["share"]["mean"] - 1)
    assert found.summary["rows"] == dict.fromkeys(NAMES, 300)
    assert set(found.summary["methods"]) == {"none", "center", "coral", "center_csls"}
    assert found.reason.startswith("highest balanced NDCG@10")


def test_planted_gap_loses_nothing_in_search() -> None:
    """R@10 in a mixed gallery is within a point of that of the space without a gap, and the share is nearly fair."""
    recall, shares = [], []
    for gap in (0.0, 1.2):
        z = space_rows(800, gap=gap, noise=1.2, dim=64)
        calibration = fit_calibration({name: rows[:500] for name, rows in z.items()}, NAMES, method="center")
        modality = np.random.default_rng(1).integers(3, size=300)
        present = {name: modality == m for m, name in enumerate(NAMES)}
        held = {name: rows[500:] for name, rows in z.items()}
        store = EmbeddingStore.from_arrays(held, present=present, names=[str(i) for i in range(300)])
        index = ua.Index.from_store(store, calibrate=False)
        index._storage.set_calibration(calibration)
        asked = [(i, name) for name in NAMES for i in range(300) if not present[name][i]]
        queries = [ua.query(vector=held[name][i], modality=name) for i, name in asked]
        found, plain = index.search(queries, k=10), index.search(queries, k=10, correction="none")
        hit, hit_plain = (
            np.mean([str(i) in f.keys for (i, _), f in zip(asked, each, strict=True)]) for each in (found, plain)
        )
        recall.append(hit)
        own = [np.mean([present[name][int(key)] for key in f.keys]) for (_, name), f in zip(asked, found, strict=True)]
        shares.append(np.mean(own) / np.mean([present[name].mean() for _, name in asked]))
        if gap:
            assert hit_plain < hit - 0.3
    assert abs(recall[0] - recall[1]) < 0.01
    assert all(0.6 < share < 1.6 for share in shares)


def test_centering_changes_nothing_where_means_are_zero() -> None:
    half = space_rows(100)
    z = {name: np.concatenate([rows, -rows]) for name, rows in half.items()}
    found = fit_calibration(z, NAMES, method="center")
    for name, rows in z.items():
        torch.testing.assert_close(found.correct(name, torch.from_numpy(rows)).float(), torch.from_numpy(rows))


def test_without_pairs_rows_are_centered_with_the_reason() -> None:
    z = space_rows(200, gap=1.0)
    present = {name: np.arange(200) % 3 == m for m, name in enumerate(NAMES)}
    found = fit_calibration(z, NAMES, present=present)
    assert found.method == "center"
    assert "two modalities" in found.reason
    for name in NAMES:
        mean = z[name][present[name]].astype(np.float64).mean(0)
        np.testing.assert_allclose(found.bias[name].numpy(), -mean, atol=1e-7)


def test_few_rows() -> None:
    z = space_rows(300, gap=1.0)
    few = fit_calibration({name: rows[:49] for name, rows in z.items()}, NAMES)
    assert few.method == "none"
    assert "49 rows" in few.reason
    with pytest.raises(ConfigError, match=r"'coral'.*49 rows"):
        fit_calibration({name: rows[:49] for name, rows in z.items()}, NAMES, method="coral")
    assert fit_calibration({name: rows[:49] for name, rows in z.items()}, NAMES, method="center").method == "center"
    one = fit_calibration({"image": z["image"]}, NAMES)
    assert one.method == "none"
    assert "at least two modalities" in one.reason


@pytest.mark.parametrize(("rows", "centered"), [(20, True), (9, False)])
@pytest.mark.parametrize("method", ["auto", "coral", "center_csls"])
def test_modality_with_few_rows_does_not_switch_the_correction_off(method: str, rows: int, centered: bool) -> None:
    z = space_rows(300, gap=1.0)
    present = {"speech": np.arange(300) < rows}
    found = fit_calibration(z, NAMES, present=present, method=method)
    assert found.method != "none"
    assert found.few_rows == ["speech"]
    mean = z["speech"][:rows].astype(np.float64).mean(0)
    expected = -mean if centered else np.zeros(16)
    np.testing.assert_allclose(found.bias["speech"].numpy(), expected, atol=1e-6)
    assert ("speech" in found.reference) == (found.method == "center_csls")


def test_calibration_never_reads_rows_of_the_test_split() -> None:
    z = space_rows(400, gap=1.0)
    split = np.repeat([0, 2], [300, 100])
    changed = {name: rows.copy() for name, rows in z.items()}
    for rows in changed.values():
        rows[300:] = np.roll(rows[300:], 5, axis=1)
    found = [
        ua.Index.from_store(EmbeddingStore.from_arrays(each, split=split), rows="all").calibration
        for each in (z, changed)
    ]
    assert found[0].method == found[1].method != "none"
    for name in NAMES:
        torch.testing.assert_close(found[0].bias[name], found[1].bias[name], rtol=0, atol=0)
        torch.testing.assert_close(found[0].weight.get(name), found[1].weight.get(name), rtol=0, atol=0)


@pytest.mark.parametrize("method", ["none", "center", "coral", "center_csls"])
def test_saved_calibration_is_the_same(method: str, tmp_path: Path) -> None:
    z = space_rows(220, gap=0.8)
    found = fit_calibration(z, NAMES, method=method)
    assert found.method == method
    save_calibration(found, tmp_path)
    loaded = load_calibration(tmp_path)
    assert (loaded.method, loaded.reason, loaded.modalities) == (method, found.reason, NAMES)
    assert loaded.summary == found.summary
    rows = torch.from_numpy(z["text"])
    torch.testing.assert_close(loaded.correct("text", rows), found.correct("text", rows), rtol=0, atol=0)
    assert loaded.curves is not None
    assert found.curves is not None
    for part in ("quantiles", "logistic", "tail"):
        np.testing.assert_array_equal(getattr(loaded.curves, part), getattr(found.curves, part))


@pytest.mark.parametrize("file", ["calibration.json", "curves.safetensors", "repair/model.safetensors"])
def test_damaged_calibration(file: str, tmp_path: Path) -> None:
    save_calibration(fit_calibration(space_rows(220), NAMES, method="center"), tmp_path)
    content = bytearray((tmp_path / file).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / file).write_bytes(content if file != "calibration.json" else content[:-20])
    with pytest.raises(DataError):
        load_calibration(tmp_path)


# --- quantiles and probabilities ---


def test_logistic_regression_is_the_maximum_of_the_likelihood() -> None:
    """Against full Newton steps on all scores in float64."""
    rng = np.random.default_rng(0)
    paired, unpaired = rng.normal(0.6, 0.15, 200), rng.normal(0.1, 0.2, 20_000)
    x, y = np.concatenate([paired, unpaired]), np.repeat([1.0, 0.0], [200, 20_000])
    slope, intercept = 0.0, float(np.log(0.01))
    for _ in range(100):
        p = 1 / (1 + np.exp(-(slope * x + intercept)))
        gradient = np.array([(y - p) @ x, (y - p).sum()])
        w = p * (1 - p)
        step = np.linalg.solve([[w @ x**2, w @ x], [w @ x, w.sum()]], gradient)
        slope, intercept = slope + 0.5 * step[0], intercept + 0.5 * step[1]
    found = fit_logistic(paired, unpaired)
    np.testing.assert_allclose(found, (slope, intercept), rtol=0.01)


def test_scores_that_separate_pairs_have_a_finite_curve() -> None:
    slope, intercept = fit_logistic(np.full(30, 0.9), np.linspace(-0.5, 0.2, 900))
    assert np.isfinite([slope, intercept]).all()
    assert slope * 0.9 + intercept > 0 > slope * 0.2 + intercept
    assert fit_logistic(np.full(30, -0.9), np.linspace(-0.5, 0.2, 900))[0] == 0


def test_probabilities_are_those_of_held_out_pairs() -> None:
    """Among held-out pairs of rows with a probability near p, a fraction near p is of one item."""
    z = space_rows(2000, noise=0.4)
    found = fit_calibration({name: rows[:1000] for name, rows in z.items()}, NAMES, method="center")
    assert found.curves is not None
    new = slice(1000, 1500)  # As many rows as in the half of the sample that determines the curves.
    cosine = (
        found.correct("image", torch.from_numpy(z["image"][new]))
        @ found.correct("text", torch.from_numpy(z["text"][new])).T
    )
    slope, intercept = found.curves.logistic[NAMES.index("image"), NAMES.index("text")]
    p = 1 / (1 + np.exp(-(slope * cosine.numpy() + intercept)))
    for low, high in ((0.1, 0.4), (0.4, 0.7), (0.7, 1.0)):
        chosen = (p >= low) & (p < high)
        assert abs(np.eye(500)[chosen].mean() - p[chosen].mean()) < 0.12, (low, high, chosen.sum())
    quantile = [found.judge([1, 0, 0], "text", float(c))[1] for c in cosine[0, 1:200]]
    assert 0.35 < np.mean(quantile) < 0.65


def test_judge() -> None:
    z = space_rows(300, gap=0.5)
    found = fit_calibration(z, NAMES, method="center_csls")
    probability, quantile = found.judge([0.0, 1.0, 0.0], "image", 0.4)
    assert probability is not None
    assert quantile is not None
    assert 0 < probability < 1
    assert 0 <= quantile <= 1
    assert found.judge([1.0, 0.0, 0.0], "image", 0.4)[0] is None
    mixed = found.judge([0.0, 0.5, 0.5], "image", 0.4)[0]
    speech = found.judge([0.0, 0.0, 1.0], "image", 0.4)[0]
    assert mixed is not None
    assert speech is not None
    assert mixed == pytest.approx((probability + speech) / 2)
    scores = np.linspace(-2, 2, 41)
    judged = [found.judge([0.0, 1.0, 0.0], "image", float(s)) for s in scores]
    for column in zip(*judged, strict=True):
        assert (np.diff([float(value) for value in column if value is not None]) >= 0).all()


def test_curves_of_modalities_with_few_rows_are_missing() -> None:
    z = space_rows(300)
    found = fit_calibration(z, NAMES, present={"speech": np.arange(300) < 60}, method="center")
    assert found.curves is not None
    assert found.curves.modalities == ("image", "text")
    assert found.judge([0, 0, 1], "text", 0.5) == (None, None)
    assert found.near("speech", "text", 100) is None


def test_near_extrapolates_a_normal_tail() -> None:
    tail = np.full((1, 1, 2), np.nan)
    tail[0, 0] = [0.1 * 2.3263478740408408, 0.1 * 3.090232306167813]
    curves = Curves(("a",), np.zeros((1, 1, len(LEVELS))), np.full((1, 1, 2), np.nan), tail)
    for rows, deviations in ((1, 3.090232), (1000, 4.753424), (10**6, 5.997807)):
        assert curves.near("a", "a", rows) == pytest.approx(0.1 * deviations, rel=1e-4)
    assert curves.near("a", "b", 10) is None


# --- numbers of a part ---


@pytest.mark.parametrize("method", ["none", "center", "coral", "center_csls"])
def test_derived_numbers_are_those_of_float64(method: str) -> None:
    z = space_rows(320, gap=0.7)
    calibration = fit_calibration(z, NAMES, method=method)
    rng = np.random.default_rng(3)
    items = 5000  # More than one block.
    places: dict[str, Any] = {"image": None, "text": np.flatnonzero(rng.random(items) < 0.6).astype(np.int32)}
    rows = {}
    for name, at in places.items():
        x = rng.normal(size=(items if at is None else len(at), 16)) + 0.3
        rows[name] = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    found = derive(Part(1, items, rows, places), calibration)
    corrected = {}
    for name, each in rows.items():
        mapped = calibration.affine(name, torch.from_numpy(each))
        norm = torch.linalg.vector_norm(mapped, dim=1)
        np.testing.assert_allclose(found.inverse_norm[name], 1 / norm, rtol=2e-6)
        corrected[name] = mapped / norm[:, None]
        if method == "center_csls":
            for column, other in enumerate(NAMES):
                expected = calibration.local(name, corrected[name], other)
                np.testing.assert_allclose(found.local[name][:, column], expected, atol=3e-6)
    assert bool(found.local) == (method == "center_csls")
    full = torch.zeros(items, 16, dtype=torch.float64)
    full[torch.from_numpy(places["text"].astype(np.int64))] = corrected["text"]
    np.testing.assert_allclose(found.inner[:, 0], (full * corrected["image"]).sum(1), atol=1e-6)
    assert not found.inner[:, 1:].any()


def test_a_modality_that_comes_later_is_calibrated_when_it_has_enough_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(700, 12))
    rows = {name: shared + 0.5 * rng.normal(size=(700, 12)) + 3 * place for place, name in enumerate(("image", "text"))}
    keys = [f"item {number}" for number in range(700)]
    with ua.Index.create(tmp_path / "index", dim=12, modalities=["image", "text", "audio"]) as index:
        index.add(rows, keys=keys)
        first = index.calibration
        assert "audio" not in first.bias
        for number in range(5):
            index.update(keys[number], {"audio": shared[number] - 3})
        assert index.calibration is first
        found = index.search(ua.query(item=keys[9], modalities=["image"]), target="audio")
        assert any("gap of 'audio' is not corrected" in warning for warning in found.warnings)
        with index.batch():
            for number in range(5, 80):
                index.update(keys[number], {"audio": shared[number] - 3})
        assert "audio" in index.calibration.bias
        found = index.search(ua.query(item=keys[9], modalities=["image"]), target="audio")
        assert found.warnings == ("620 items have none of the target modalities audio",)


def test_a_method_that_was_chosen_by_hand_is_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with ua.Index.create(tmp_path / "index", dim=12, modalities=["image", "text"]) as index:
        index.add({name: rng.normal(size=(600, 12)) for name in ("image", "text")})
        index.calibrate(method="none")
        index.add({name: rng.normal(size=(2000, 12)) for name in ("image", "text")})
        assert index.calibration.method == "none"
        index.calibrate(items=600)
        fitted = index.calibration
        index.add({name: rng.normal(size=(100, 12)) for name in ("image", "text")})
        assert index.calibration is not fitted
