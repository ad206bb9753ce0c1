"""Test image scores in cases with known results, and the resampling of scores by item weights."""

import itertools

import pytest
import torch
from torch import Tensor

from unialign.errors import ConfigError, DataError, NonFiniteError, ShapeError
from unialign.evaluation import resample
from unialign.evaluation._statistics import ItemMean
from unialign.generation._distances import frechet_distance, kernel_distance
from unialign.generation._extractors import pixels
from unialign.generation._images import resize_bilinear
from unialign.generation._scores import SCORES, GenerationScores, Reference, score
from unialign.geometry import median_bandwidth, mmd2
from unialign.metrics import percentile_interval, resample_weights

ITEMS, SIZE = 24, 8
EXTRACTOR = pixels(4)


def random_images(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


TRUE, TRAINING = random_images(ITEMS, seed=0), random_images(80, seed=1)
NOISE = random_images(2, ITEMS, seed=2)
CLOSE = 0.8 * TRUE + 0.2 * NOISE


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.fit(TRUE, TRAINING, extractor=EXTRACTOR, components=10)


@pytest.fixture(scope="module")
def close(reference: Reference) -> GenerationScores:
    return score(CLOSE, reference, extractor=EXTRACTOR, self_scores=score(NOISE, reference, extractor=EXTRACTOR))


def test_true_images_score_best(reference: Reference) -> None:
    numbers = score(TRUE, reference, extractor=EXTRACTOR).numbers
    assert set(numbers) == set(SCORES) - {"fd_self", "diversity"}
    assert list(numbers) == [name for name in SCORES if name in numbers]
    assert numbers["fd"] == pytest.approx(0, abs=1e-9)
    assert [numbers[name] for name in ("recall@1", "recall@10", "mrr", "l1")] == [1, 1, 1, 0]
    assert numbers["cosine"] == pytest.approx(1)
    # Pairs of equal images are included across the sets but not within them, so the unbiased estimate is below 0.
    assert numbers["kid"] < 0
    assert numbers["mmd"] < 0


def test_one_image_for_all_scores_chance(reference: Reference) -> None:
    numbers = score(NOISE[0, :1].expand(ITEMS, -1, -1, -1), reference, extractor=EXTRACTOR).numbers
    assert numbers["recall@1"] == pytest.approx(1 / ITEMS)
    assert numbers["recall@10"] == pytest.approx(10 / ITEMS)
    assert numbers["spread"] == pytest.approx(0, abs=1e-9)
    assert numbers["fd"] > 20


def test_every_number_by_its_definition(reference: Reference) -> None:
    """Compare the scores with direct computations from raw features, in loops over noises and items."""
    made = 0.12 * TRUE + 0.88 * NOISE
    scores = score(made, reference, extractor=EXTRACTOR, self_scores=score(NOISE, reference, extractor=EXTRACTOR))
    train, true = EXTRACTOR(TRAINING).double(), EXTRACTOR(TRUE).double()
    mean = train.mean(0)
    values, axes = torch.linalg.eigh((train - mean).mT.cov())
    axes = axes[:, -10:] * (100 / values[-10:].sum()).sqrt()
    true_unit = torch.nn.functional.normalize(true - mean)
    found: dict[str, list[float]] = {name: [] for name in SCORES}
    sets = [EXTRACTOR(x).double() for x in made]
    units = [torch.nn.functional.normalize(x - mean) for x in sets]
    tau = median_bandwidth({"true": true - mean})
    for v, (x, unit) in enumerate(zip(sets, units, strict=True)):
        found["fd"].append(frechet_distance((x - mean) @ axes, (true - mean) @ axes))
        found["fd_self"].append(frechet_distance(x @ axes, EXTRACTOR(NOISE[v]).double() @ axes))
        standard = [(z - mean) / train.std(0) for z in (x, true)]
        found["kid"].append(100 * kernel_distance(*standard))
        found["mmd"].append(float(mmd2(x - mean, true - mean, bandwidth=tau, unbiased=True)))
        cosines = [true_unit @ query for query in unit]
        ranks = [1 + int((cosines[i] > cosines[i][i]).sum()) for i in range(ITEMS)]
        found["recall@1"] += [float(rank <= 1) for rank in ranks]
        found["recall@10"] += [float(rank <= 10) for rank in ranks]
        found["mrr"] += [1 / rank for rank in ranks]
        found["cosine"] += (unit * true_unit).sum(1).tolist()
        found["l1"].append(float((made[v] - TRUE).abs().mean()))
        found["spread"] += [1 - float(a @ b) for a, b in itertools.permutations(unit, 2)]
    found["diversity"] = (1 - (units[0] * units[1]).sum(1)).tolist()
    numbers = scores.numbers
    assert set(numbers) == set(SCORES)
    assert numbers["recall@1"] < numbers["recall@10"] < 1, "all ranks are 1, which shows nothing"
    for name, number in numbers.items():
        assert number == pytest.approx(sum(found[name]) / len(found[name]), rel=1e-5, abs=1e-7), name
    assert (scores.noises, scores.items, scores.extractor) == (2, ITEMS, "pixels, 4 px")
    for name, value_N in scores.per_item.items():
        assert float(value_N.mean()) == pytest.approx(numbers[name])


def test_only_training_images_set_the_scale(reference: Reference) -> None:
    train = EXTRACTOR(TRAINING).double()
    assert float(reference.components(train).var(0).sum()) == pytest.approx(100)
    torch.testing.assert_close(reference.standardized(train).std(0), torch.ones(48).double())
    other = Reference.fit(NOISE[0], TRAINING, extractor=EXTRACTOR, components=10)
    assert torch.equal(other.axes_FC, reference.axes_FC)
    assert torch.equal(other.deviation_F, reference.deviation_F)


@pytest.mark.parametrize("blue", [0.0, 1e-4])
def test_a_feature_that_hardly_varies_decides_nothing(blue: float) -> None:
    """Division of this feature by its standard deviation would make the feature dominant or infinite."""
    training = TRAINING.clone()
    training[:, 2] = 0.5 + blue * (TRAINING[:, 2] - 0.5)
    reference = Reference.fit(TRUE, training, extractor=EXTRACTOR, components=10)
    deviation_F = EXTRACTOR(training).double().std(0)
    torch.testing.assert_close(reference.deviation_F[:32], deviation_F[:32])
    least = 0.25 * deviation_F[deviation_F > 1e-6].median()
    torch.testing.assert_close(reference.deviation_F[32:], least.expand(16))
    numbers = score(CLOSE, reference, extractor=EXTRACTOR).numbers
    assert all(torch.isfinite(torch.tensor(list(numbers.values()))))


def test_order_of_the_items_does_not_matter(close: GenerationScores) -> None:
    order = torch.randperm(ITEMS, generator=torch.Generator().manual_seed(0))
    reference = Reference.fit(TRUE[order], TRAINING, extractor=EXTRACTOR, components=10)
    numbers = score(CLOSE[:, order], reference, extractor=EXTRACTOR).numbers
    assert numbers == pytest.approx({name: close.numbers[name] for name in numbers}, rel=1e-6)


def test_shuffled_images_keep_distances_and_lose_retrieval(close: GenerationScores, reference: Reference) -> None:
    """FD does not change if the images are assigned to other items, so retrieval is also measured."""
    shuffled = score(CLOSE.roll(1, 1), reference, extractor=EXTRACTOR).numbers
    assert shuffled["fd"] == pytest.approx(close.numbers["fd"])
    assert close.numbers["recall@1"] == 1
    assert shuffled["recall@1"] < 0.2
    assert shuffled["cosine"] < close.numbers["cosine"] / 2


def test_true_images_of_another_size_are_resized(close: GenerationScores) -> None:
    true = TRUE.repeat_interleave(2, 2).repeat_interleave(2, 3)
    reference = Reference.fit(true, TRAINING, extractor=EXTRACTOR, components=10)
    expected = float((CLOSE - resize_bilinear(true, SIZE)).abs().mean())
    assert score(CLOSE, reference, extractor=EXTRACTOR).numbers["l1"] == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(close.numbers["l1"], rel=0.5)


def test_resampled_scores_are_those_of_the_drawn_rows(close: GenerationScores, reference: Reference) -> None:
    """FD is computed over the resampled items, but retrieval always searches all true images."""
    weights = resample_weights(ITEMS, resamples=5, seed=3)
    for r, w in enumerate(weights.long()):
        rows = torch.arange(ITEMS).repeat_interleave(w)
        true = reference.components(reference.features_NF[rows])
        made = [reference.components(x[rows].double()) for x in close.features_VNF]
        expected = sum(frechet_distance(x, true) for x in made) / 2
        assert float(close.statistics["fd"].evaluate(weights)[r]) == pytest.approx(expected, rel=1e-9)
        for name, value_N in close.per_item.items():
            assert float(close.statistics[name].evaluate(weights)[r]) == pytest.approx(float(value_N[rows].mean()))


def test_differences_of_two_rows_are_paired_by_the_resampling_of_evaluation(
    close: GenerationScores, reference: Reference
) -> None:
    """One call of `resample` with both statistics gives a paired interval, which is narrower."""
    worse = score(0.75 * TRUE + 0.25 * NOISE, reference, extractor=EXTRACTOR)
    groups = torch.arange(ITEMS) // 2
    for name in ("fd", "cosine", "kid"):
        rows = {"close": close, "worse": worse}
        statistics = {row: (scores.statistics[name], scores.numbers[name]) for row, scores in rows.items()}
        values = resample(statistics, groups, resamples=400)
        difference = worse.numbers[name] - close.numbers[name]
        low, high = percentile_interval(values["worse"] - values["close"], estimate=difference)
        other = resample({"worse": statistics["worse"]}, groups, resamples=400, seed=9)["worse"]
        apart_low, apart_high = percentile_interval(other - values["close"], estimate=difference)
        assert low <= difference <= high
        assert high - low < (apart_high - apart_low) / 1.5, name
        assert (low > 0) if SCORES[name].better == "lower" else (high < 0)


def test_a_statistic_weighs_as_the_others_of_evaluation_do(close: GenerationScores) -> None:
    weights = resample_weights(ITEMS, resamples=7, seed=0)
    expected = ItemMean(close.per_item["mrr"][None]).evaluate(weights)
    torch.testing.assert_close(close.statistics["mrr"].evaluate(weights), expected)
    for name, statistic in close.statistics.items():
        assert statistic.evaluate(weights).shape == (7,), name
        assert statistic.evaluate(weights).dtype == torch.float64, name


def test_self_is_at_0_from_itself(reference: Reference) -> None:
    own = score(NOISE, reference, extractor=EXTRACTOR)
    assert score(NOISE, reference, extractor=EXTRACTOR, self_scores=own).numbers["fd_self"] == pytest.approx(
        0, abs=1e-9
    )


def test_invalid_input_raises(reference: Reference, close: GenerationScores) -> None:
    one = score(TRUE, reference, extractor=EXTRACTOR)
    with pytest.raises(
        ConfigError, match="extractor must be that of the reference, 'pixels, 4 px', got 'pixels, 2 px'"
    ):
        score(TRUE, reference, extractor=pixels(2))
    with pytest.raises(ShapeError, match=r"generated images have shape \(23, 3, 8, 8\); expected \(24, 3, S, S\)"):
        score(TRUE[:-1], reference, extractor=EXTRACTOR)
    with pytest.raises(ShapeError, match=r"have shape \(0, 24, 3, 8, 8\)"):
        score(NOISE[:0], reference, extractor=EXTRACTOR)
    with pytest.raises(ShapeError, match="self_scores must have 2 noises and 24 items, got 1 noises and 24 items"):
        score(NOISE, reference, extractor=EXTRACTOR, self_scores=one)
    other = Reference.fit(TRUE, TRAINING, extractor=pixels(2), components=2)
    with pytest.raises(ConfigError, match="self_scores must use the extractor 'pixels, 2 px', got 'pixels, 4 px'"):
        score(NOISE, other, extractor=pixels(2), self_scores=close)
    bad = TRUE.clone()
    bad[5, 0, 0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="generated images, row 5"):
        score(bad, reference, extractor=EXTRACTOR)
    with pytest.raises(ShapeError, match="true images, row 0, has values from 0 to 2"):
        Reference.fit(TRUE * 0 + torch.tensor([0, 2.0]).repeat(4), TRAINING, extractor=EXTRACTOR)
    with pytest.raises(ShapeError, match=r"features of the true images.*at least 2"):
        Reference.fit(TRUE[:1], TRAINING, extractor=EXTRACTOR, components=10)
    with pytest.raises(DataError, match=r"8 training images by pixels, 4 px vary in 7 directions.*at most 7"):
        Reference.fit(TRUE, TRAINING[:8], extractor=EXTRACTOR, components=8)
    with pytest.raises(ConfigError, match="components"):
        Reference.fit(TRUE, TRAINING, extractor=EXTRACTOR, components=0)


def test_a_notebook_shows_a_table(close: GenerationScores) -> None:
    page = close._repr_html_()
    assert page.count("<tr") == len(close.numbers)
    assert "Fréchet distance" in page
