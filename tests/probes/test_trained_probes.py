"""Compare the linear and the k-nearest-neighbor probe with scikit-learn, and test edge cases of classes and splits."""

import warnings

import numpy as np
import pytest
import torch

from unialign import probes
from unialign.errors import ConfigError, DataError, NonFiniteError, ShapeError
from unialign.metrics import resample_weights

CLASSES = 7


def problem(items=240, dim=12, classes=CLASSES, seed=0, noise=1.2):
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=items)
    centers = rng.normal(size=(classes, dim))
    # Columns of different scale and offset show whether they are standardized on the training items.
    z = (centers[y] + noise * rng.normal(size=(items, dim))) * np.geomspace(0.01, 100, dim) + np.arange(dim)
    split = rng.choice(["train", "val", "test"], size=items, p=[0.5, 0.2, 0.3])
    return z, y, split


@pytest.mark.parametrize(("classes", "factor"), [(7, 1), (2, 2)])
@pytest.mark.parametrize("strength", [1e-3, 1.0, 100.0])
def test_linear_equals_scikit_learn(classes, factor, strength):
    linear_model = pytest.importorskip("sklearn.linear_model")
    z, y, split = problem(classes=classes)
    found = probes.linear(z, y, split, C=strength, max_steps=5000)
    train, test = split == "train", split == "test"
    mean, deviation = z[train].mean(0), z[train].std(0)
    x = (z - mean) / deviation
    model = linear_model.LogisticRegression(C=strength * factor, tol=1e-10, max_iter=20000).fit(x[train], y[train])
    assert found.settings["converged"]
    assert np.array_equal(found.rows.numpy(), np.flatnonzero(test))
    assert np.array_equal(np.array(found.classes)[found.predictions.numpy()], model.predict(x[test]))
    assert found.metrics["top1"] == pytest.approx(model.score(x[test], y[test]), abs=1e-12)
    order = np.argsort(-model.predict_proba(x[test]), axis=1)[:, :5]
    if classes > 2:
        assert np.array_equal(found.top.numpy(), order)
        assert found.metrics["top5"] == pytest.approx((order == y[test][:, None]).any(1).mean(), abs=1e-12)
    recall = pytest.importorskip("sklearn.metrics").balanced_accuracy_score(y[test], model.predict(x[test]))
    assert found.metrics["class_mean"] == pytest.approx(recall, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 5])
def test_softmax_weights_equal_scikit_learn(classes):
    linear_model = pytest.importorskip("sklearn.linear_model")
    from unialign.probes._logistic import fit_softmax

    z, y, _ = problem(classes=classes)
    x = (z - z.mean(0)) / z.std(0)
    found = fit_softmax(torch.from_numpy(x), torch.from_numpy(y), classes, strength=0.5, steps=5000, tolerance=1e-8)
    factor = 2 if classes == 2 else 1
    model = linear_model.LogisticRegression(C=0.5 * factor, tol=1e-12, max_iter=50000).fit(x, y)
    weight = found.weight.numpy()
    if classes == 2:
        assert np.allclose(weight[:, 1] - weight[:, 0], model.coef_[0], atol=1e-5)
        assert np.allclose(weight.sum(1), 0, atol=1e-9)
    else:
        assert np.allclose(weight.T, model.coef_, atol=1e-5)
        assert np.allclose(found.bias.numpy() - found.bias.numpy().mean(), model.intercept_, atol=1e-5)


def test_gradient_of_the_softmax_fit_is_zero():
    """The minimum is checked without L-BFGS: the gradient in closed form vanishes."""
    from unialign.probes._logistic import fit_softmax

    z, y, _ = problem()
    x = torch.from_numpy((z - z.mean(0)) / z.std(0))
    labels = torch.from_numpy(y)
    found = fit_softmax(x, labels, CLASSES, strength=3.0, steps=5000, tolerance=1e-8)
    residual = torch.softmax(found.scores(x), 1) - torch.nn.functional.one_hot(labels, CLASSES)
    assert (x.T @ residual + found.weight / 3.0).abs().max() < 1.1e-8 * len(x)
    assert residual.sum(0).abs().max() < 1.1e-8 * len(x)


def test_the_penalty_is_chosen_on_validation_items_only():
    z, y, split = problem(noise=3.0)
    found = probes.linear(z, y, split)
    assert len(found.validation) == 10
    best = max(record["top1"] for record in found.validation)
    assert found.settings["C"] == min(record["C"] for record in found.validation if record["top1"] == best)
    # Labels and rows of test items do not change the choice, and only the rows of test items change the predictions.
    shuffled = y.copy()
    shuffled[split == "test"] = np.random.default_rng(1).permutation(y[split == "test"])
    again = probes.linear(z, shuffled, split)
    assert again.validation == found.validation
    assert torch.equal(again.predictions, found.predictions)
    changed = z.copy()
    changed[split == "val"] += 1e3 * np.random.default_rng(1).normal(size=changed[split == "val"].shape)
    fixed = probes.linear(z, y, split, C=1.0)
    assert torch.equal(probes.linear(changed, y, split, C=1.0).predictions, fixed.predictions)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_knn_equals_scikit_learn(k, temperature):
    neighbors = pytest.importorskip("sklearn.neighbors")
    z, y, split = problem()
    z = (z - z.mean(0)) / z.std(0)
    found = probes.knn(z, y, split, k=k, temperature=temperature, batch_size=7)
    train, test = split == "train", split == "test"

    def weights(distances):
        return np.exp((1 - distances) / temperature)

    model = neighbors.KNeighborsClassifier(k, metric="cosine", weights=weights, algorithm="brute")
    model.fit(z[train], y[train])
    votes = model.predict_proba(z[test])
    assert np.array_equal(found.predictions.numpy(), votes.argmax(1))
    assert found.metrics["top1"] == pytest.approx(model.score(z[test], y[test]), abs=1e-12)
    assert torch.equal(found.predictions, probes.knn(z, y, split, k=k, temperature=temperature).predictions)


def test_knn_settings_are_chosen_on_validation_items():
    z, y, split = problem(noise=2.0)
    z = (z - z.mean(0)) / z.std(0)
    found = probes.knn(z, y, split, k=(20, 5, 1), temperature=(0.07, 1.0))
    assert [(record["k"], record["temperature"]) for record in found.validation] == [
        (k, t) for k in (1, 5, 20) for t in (0.07, 1.0)
    ]
    best = max(found.validation, key=lambda record: record["top1"])
    assert (found.settings["k"], found.settings["temperature"]) == (best["k"], best["temperature"])
    alone = probes.knn(z, y, split, k=best["k"], temperature=best["temperature"])
    assert torch.equal(alone.predictions, found.predictions)


def both(z, y, split, **options):
    return [probes.linear(z, y, split, C=1.0, **options), probes.knn(z, y, split, k=5, **options)]


def test_classes_that_are_absent_from_a_split():
    z, y, split = problem()
    # Class 3 has no training item, class 4 no test item, class 5 no validation item.
    for number, name in ((3, "train"), (4, "test"), (5, "val")):
        split[(y == number) & (split == name)] = ""
    for found in both(z, y, split):
        assert found.classes == (0, 1, 2, 4, 5, 6)
        assert found.unknown == (3,)
        unknown = int(((y == 3) & (split == "test")).sum())
        assert found.counts["test_of_unknown_class"] == unknown > 0
        # Test items of the unknown class count as errors.
        named = np.array([0, 1, 2, 4, 5, 6])[found.predictions.numpy()]
        right = named == y[split == "test"]
        assert found.metrics["top1"] == pytest.approx(right.mean(), abs=1e-12)
        tested = [number for number in range(7) if number != 4]
        means = [right[y[split == "test"] == number].mean() for number in tested]
        assert found.metrics["class_mean"] == pytest.approx(np.mean(means), abs=1e-12)
        assert [record["class"] for record in found.per_class()] == [0, 1, 2, 5, 6, 3]
        assert found.per_class()[-1]["top1"] == 0
    assert len(probes.linear(z, y, split).validation) == 10


def test_unlabeled_items_and_texts_as_labels():
    z, y, split = problem()
    names = np.array(list("abcdefg"))[y]
    reference = both(z, y, split)
    for found, numbers in zip(both(z, names, split), reference, strict=True):
        assert found.classes == tuple("abcdefg")
        assert torch.equal(found.predictions, numbers.predictions)
    hidden = np.arange(len(y)) % 4 == 1
    kept = np.where(hidden, "", split)
    for labels in (np.where(hidden, -1, y), np.where(hidden, "", names)):
        for found, without in zip(both(z, labels, split), both(z, y, kept), strict=True):
            assert torch.equal(found.predictions, without.predictions)
            assert torch.equal(found.rows, without.rows)
            assert found.metrics == without.metrics


def test_labels_may_be_large_numbers():
    z, y, split = problem()
    for found, without in zip(both(z, y.astype(np.int64) + 10**15, split), both(z, y, split), strict=True):
        assert torch.equal(found.predictions, without.predictions)
        assert found.classes == tuple(name + 10**15 for name in without.classes)
    with pytest.raises(ShapeError, match=r"expected integers below 2\*\*63"):
        both(z, y.astype(np.uint64) + np.uint64(2**63), split)


def test_codes_and_names_of_splits():
    z, y, split = problem()
    codes = np.array([["train", "val", "test"].index(name) for name in split], np.int8)
    for found, numbers in zip(both(z, y, split), both(z, y, torch.from_numpy(codes)), strict=True):
        assert torch.equal(found.predictions, numbers.predictions)


def test_tied_scores_count_by_chance():
    # All rows are equal, so a linear probe predicts class frequencies, and a nearest neighbor is the first item.
    flat = np.ones((60, 4))
    balanced = np.concatenate([np.arange(30) % 3, np.arange(30) % 3])
    halves = np.repeat(["train", "test"], 30)
    found = probes.linear(flat, balanced, halves, C=1.0)
    assert found.metrics["top1"] == pytest.approx(1 / 3, abs=1e-12)
    assert set(found.predictions.tolist()) == {0}
    # With equal votes for all classes, the expected accuracy is 1/3 too.
    found = probes.knn(flat, balanced, halves, k=30)
    assert found.metrics["top1"] == pytest.approx(1 / 3, abs=1e-12)
    assert set(found.predictions.tolist()) == {0}


def test_constant_columns_change_nothing():
    z, y, split = problem()
    wide = np.concatenate([z, np.full((len(z), 2), 0.1)], 1)
    wide[split == "test", -1] = 3.0  # constant in the training items only
    first, second = probes.linear(z, y, split, C=1.0), probes.linear(wide, y, split, C=1.0)
    assert torch.equal(first.predictions, second.predictions)


def test_intervals():
    z, y, split = problem()
    found = probes.linear(z, y, split, C=1.0)
    labels, right = found.labels.numpy(), (found.predictions == found.labels).numpy()
    rng = np.random.default_rng(0)
    draws = rng.integers(len(labels), size=(4000, len(labels)))
    values = right[draws].mean(1)
    interval = found.interval("top1", resamples=4000, seed=3)
    assert interval.estimate == found.metrics["top1"]
    assert np.allclose([*interval], np.quantile(values, [0.025, 0.975]), atol=0.012)
    by_class = [
        np.mean([right[draw][labels[draw] == c].mean() for c in np.unique(labels[draw])]) for draw in draws[:2000]
    ]
    interval = found.interval("class_mean", resamples=4000, seed=3)
    assert np.allclose([*interval], np.quantile(by_class, [0.025, 0.975]), atol=0.012)
    # Copies of an item in one group add no information.
    twice = [np.concatenate([a, a]) for a in (z, y, np.where(split == "test", "test", split))]
    groups = np.tile(np.arange(len(z)), 2)
    doubled = probes.knn(*twice, k=5, groups=groups)
    single = probes.knn(*twice, k=5)
    wide, narrow = doubled.interval("top1"), single.interval("top1")
    assert wide.high - wide.low > 1.2 * (narrow.high - narrow.low)
    assert doubled.interval("top1", groups=np.arange(2 * len(z))) == narrow


def test_the_mean_over_classes_leaves_out_classes_without_an_item_in_a_resample():
    z, y, split = problem(items=60)
    found = probes.knn(z, y, split, k=3)
    labels, right = found.labels.numpy(), (found.predictions == found.labels).numpy()
    values = []
    for weights in resample_weights(len(labels), resamples=200, seed=5).numpy():
        drawn = np.repeat(np.arange(len(labels)), weights.astype(int))
        values.append(np.mean([right[drawn][labels[drawn] == c].mean() for c in np.unique(labels[drawn])]))
    interval = found.interval("class_mean", resamples=200, seed=5)
    assert np.allclose([*interval], np.quantile(values, [0.025, 0.975]), atol=1e-12)


def test_reports_of_a_result():
    z, y, split = problem()
    found = probes.linear(z, y, split)
    values = found.to_dict()
    assert values["metrics"]["top1"]["mean"] == found.metrics["top1"]
    assert values["metrics"]["top1"]["low"] <= found.metrics["top1"] <= values["metrics"]["top1"]["high"]
    assert values["counts"] == {name: int((split == name).sum()) for name in ("train", "val", "test")}
    assert values["chance"] == 1 / CLASSES
    assert sum(record["items"] for record in values["per_class"]) == values["counts"]["test"]
    assert "class_mean" in found.text()
    assert "chance 14.3 %" in found.text()
    assert "top1" in found._repr_html_()


def test_invalid_input():
    z, y, split = problem()
    bad = z.copy()
    row = int(np.flatnonzero(split == "val")[3])
    bad[row, 2] = np.nan
    cases = [
        (bad, y, split, {}, NonFiniteError, f"z row {row} holds nan at column 2"),
        (z.astype(int), y, split, {}, ShapeError, "expected floating-point rows"),
        (z[0], y, split, {}, ShapeError, "expected floating-point rows"),
        (z, y[:-1], split, {}, ShapeError, "y is int64"),
        (z, y.astype(float), split, {}, ShapeError, "y is float64"),
        (z, y, split[:-1], {}, ShapeError, "split is"),
        (z, y, np.full(len(y), 3), {}, ConfigError, "the split of row 0 is 3"),
        (z, y, np.full(len(y), "dev"), {}, ConfigError, "the split of row 0 is 'dev'"),
        (z, y, np.where(split == "train", "", split), {}, DataError, "the split 'train' has no items"),
        (z, y, np.where(split == "test", "", split), {}, DataError, "the split 'test' has no items"),
        (z, np.where(split == "test", -1, y), split, {}, DataError, "the split 'test' has 80 items, all without"),
        (z, np.zeros(len(y), int), split, {}, DataError, r"the training items have 1 class \(0\)"),
    ]
    for rows, labels, splits, options, error, message in cases:
        for probe in (probes.linear, probes.knn):
            if "80 items" in message:
                message = f"the split 'test' has {int((split == 'test').sum())} items, all without a label"
            with pytest.raises(error, match=message):
                probe(rows, labels, splits, **options)
    no_val = np.where(split == "val", "", split)
    with pytest.raises(DataError, match="the split 'val' has no items, so C cannot be chosen"):
        probes.linear(z, y, no_val)
    with pytest.raises(DataError, match="k or temperature cannot be chosen"):
        probes.knn(z, y, no_val, k=(1, 2))
    assert probes.linear(z, y, no_val, C=1.0).counts["val"] == 0
    for options in ({"C": 0.0}, {"C": ()}, {"C": "1"}, {"max_steps": 0}):
        with pytest.raises(ConfigError):
            probes.linear(z, y, split, **options)
    for options in ({"k": 0}, {"k": ()}, {"k": 1000}, {"temperature": 0.0}, {"temperature": ()}):
        with pytest.raises(ConfigError):
            probes.knn(z, y, split, **options)
    flat = z.copy()
    flat[row] = 0
    with pytest.raises(NonFiniteError, match="norm zero"):
        probes.knn(flat[split == "val"], y[split == "val"], np.resize(["train", "test"], (split == "val").sum()), k=1)
    with pytest.raises(ConfigError, match="unknown metric 'recall'"):
        probes.knn(z, y, split, k=5).interval("recall")


def test_a_fit_that_does_not_converge_warns():
    z, y, split = problem()
    with pytest.warns(UserWarning, match="has not converged after 2 steps"):
        probes.linear(z, y, split, C=1.0, max_steps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probes.linear(z, y, split)
