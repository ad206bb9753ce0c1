"""Compare zero-shot classification with a float64 loop, for raw media, features and embeddings, and test its errors."""

import numpy as np
import pytest
import torch

import raw_spaces
from unialign import probes
from unialign.errors import ConfigError, DataError, NonFiniteError, ShapeError

NAMES = ("red cat", "blue ship", "green tree", "grey house", "white cat", "black ship", "red ship")
TEMPLATES = ("A {}.", "a {} and a {}", "the {}")


@pytest.fixture(scope="module")
def space():
    return raw_spaces.make_space()


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def embed(space, name, values):
    return unit(space.encode({name: values})[name].double().numpy())


def reference_classes(space, names=NAMES, templates=TEMPLATES):
    rows = []
    for name in names:
        prompts = [template.replace("{}", name) for template in templates]
        mean = sum(embed(space, "text", [prompt])[0] for prompt in prompts) / len(prompts)
        rows.append(mean / np.sqrt((mean**2).sum()))
    return np.array(rows)


def test_classes_are_normalized_means_of_unit_rows(space):
    found = probes.class_embeddings(space, NAMES, templates=TEMPLATES)
    assert np.allclose(found.numpy(), reference_classes(space), atol=1e-6)
    assert np.allclose(found.norm(dim=1).numpy(), 1, atol=1e-12)
    # Rows of different lengths would give another mean.
    features = {name: 5 * np.arange(1, 4)[:, None] * np.ones((3, 32)) for name in NAMES}
    same = probes.class_embeddings(space, features)
    assert np.allclose(same.numpy(), same[:1].numpy())


def test_raw_media_features_and_embeddings_agree(space):
    images = raw_spaces.raw()["image"]
    rows = [row for row, image in enumerate(images) if image is not None]
    features = raw_spaces.store().array("image")
    present = raw_spaces.store().present("image")
    labels = np.arange(len(images)) % len(NAMES)
    labels[1] = -1
    raw = probes.zero_shot(space, images, NAMES, templates=TEMPLATES, labels=labels)
    of_features = probes.zero_shot(space, features, NAMES, templates=TEMPLATES, labels=labels, present=present)
    z = np.zeros((len(images), space.dim))
    z[rows] = embed(space, "image", features[rows])
    of_rows = probes.zero_shot(space, 3 * z, NAMES, templates=TEMPLATES, labels=labels, present=present)
    scores = z[rows] @ reference_classes(space).T
    order = np.argsort(-scores, 1)[:, :5]
    kept = labels[rows] >= 0
    for found in (raw, of_features, of_rows):
        assert found.rows.tolist() == rows
        assert np.array_equal(found.top.numpy(), order)
        assert np.array_equal(found.predictions.numpy(), order[:, 0])
        expected = (order[:, 0] == labels[rows])[kept].mean()
        assert found.metrics["top1"] == pytest.approx(expected, abs=1e-12)
        five = (order == labels[rows][:, None]).any(1)[kept].mean()
        assert found.metrics["top5"] == pytest.approx(five, abs=1e-12)
        classes = [(order[:, 0] == c)[labels[rows] == c].mean() for c in np.unique(labels[rows][kept])]
        assert found.metrics["class_mean"] == pytest.approx(np.mean(classes), abs=1e-12)
        assert found.counts == {"items": len(rows), "absent": len(images) - len(rows), "labeled": int(kept.sum())}
    names = np.array(["" if label < 0 else NAMES[label] for label in labels])
    named = probes.zero_shot(space, images, NAMES, templates=TEMPLATES, labels=names)
    assert named.metrics == raw.metrics
    low, high = raw.interval("top1")
    assert low <= raw.metrics["top1"] <= high
    without = probes.zero_shot(space, images, NAMES, templates=TEMPLATES)
    assert (without.metrics, without.labels) == ({}, None)
    assert torch.equal(without.top, raw.top)
    assert "metrics" not in without.to_dict()
    with pytest.raises(DataError, match="without labels"):
        without.per_class()


def test_other_modalities_and_embeddings_without_a_space(space):
    sensors = raw_spaces.raw()["sensor"]
    found = probes.zero_shot(space, sensors, NAMES, modality="sensor", templates=TEMPLATES)
    z = embed(space, "sensor", sensors[1:])
    classes = reference_classes(space)
    assert found.predictions.tolist() == (z @ classes.T).argmax(1).tolist()
    given = {name: classes[place : place + 1] for place, name in enumerate(NAMES)}
    alone = probes.zero_shot(None, z, given)
    assert torch.equal(alone.predictions, found.predictions)
    texts = {name: [template.replace("{}", name) for template in TEMPLATES] for name in NAMES}
    own = probes.zero_shot(space, sensors, texts, modality="sensor")
    assert torch.equal(own.predictions, found.predictions)


def test_equal_classes_share_the_accuracy():
    z = torch.eye(4, dtype=torch.float64)
    classes = {"a": z[:1], "b": z[:1], "c": z[1:2]}
    found = probes.zero_shot(None, z[[0, 0, 1, 2]], classes, labels=[0, 1, 2, 2])
    # Rows 0 and 1 are tied between two classes, row 3 between all three.
    assert torch.allclose(found.hits["top1"], torch.tensor([0.5, 0.5, 1.0, 1 / 3], dtype=torch.float64), atol=1e-12)
    assert found.predictions.tolist() == [0, 0, 2, 0]


def test_invalid_input(space):
    images = raw_spaces.raw()["image"]
    cases = [
        (images, "cat", {}, ConfigError, "class_names must be a list"),
        (images, ["cat"], {}, ConfigError, "at least 2 classes"),
        (images, ["cat", "dog", "cat"], {}, ConfigError, "has 'cat' twice"),
        (images, ["cat", 3], {}, ConfigError, "a class name must be a string"),
        (images, NAMES, {"templates": "a {}"}, ConfigError, "non-empty list of texts"),
        (images, NAMES, {"templates": ("a photo",)}, ConfigError, "has no placeholder for the class name"),
        (images, NAMES, {"templates": ()}, ConfigError, "non-empty list of texts"),
        (images, NAMES, {"modality": "video"}, ConfigError, "no modality 'video'; it has text, image and sensor"),
        (images, NAMES, {"text": "title"}, ConfigError, "no modality 'title'"),
        (images, NAMES, {"labels": np.full(24, 9)}, ConfigError, "the label of row 0 is 9, but class_names has 7"),
        (images, NAMES, {"labels": np.full(24, "owl")}, ConfigError, "row 0 is 'owl', which is not in class_names"),
        (images, NAMES, {"labels": np.zeros(3, int)}, ShapeError, "labels is int64 of shape"),
        (images, NAMES, {"labels": np.full(24, -1)}, DataError, "has a label"),
        (images, {"a": [], "b": ["x"]}, {}, ConfigError, "the class 'a' must be a non-empty list"),
        (images, {"a": [" "], "b": ["x"]}, {}, ConfigError, "a prompt is blank"),
        ([None] * 3, NAMES, {}, DataError, "no item has 'image'"),
        (np.ones((3, 7)), NAMES, {}, ShapeError, "'image' has shape"),
        (np.full((3, 6), np.nan), NAMES, {}, NonFiniteError, "'image' row 0 holds nan"),
        ("cat.png", NAMES, {}, ConfigError, "must be a list with one value per row"),
    ]
    for given, names, options, error, message in cases:
        with pytest.raises(error, match=message):
            probes.zero_shot(space, given, names, **options)
    with pytest.raises(ConfigError, match="which needs a space"):
        probes.zero_shot(None, np.eye(3), ["a", "b"])
    with pytest.raises(NonFiniteError, match="the prompts of the class 'a' have mean 0"):
        probes.zero_shot(None, np.eye(2), {"a": np.array([[1.0, 0], [-1, 0]]), "b": np.eye(2)})
    with pytest.raises(ShapeError, match="the classes have dim 2"):
        probes.zero_shot(None, np.eye(3), {"a": np.eye(2), "b": np.eye(2)})
    same = raw_spaces.make_space(dim=5, encoders={})
    with pytest.raises(ConfigError, match="pass inputs='features' or"):
        probes.zero_shot(same, np.ones((2, 5)), {"a": np.eye(5), "b": np.eye(5)}, modality="sensor", text="sensor")
    with pytest.raises(ConfigError, match="the space has no encoder of 'text'"):
        probes.zero_shot(same, np.ones((2, 5)), NAMES, modality="sensor")
