"""Test the model card of a space: encoders, licenses, counts, evaluation, and the parts that are replaced."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import raw_spaces
from raw_spaces import make_space, store
from unialign import closed_form, fit
from unialign.config import TrainConfig
from unialign.space import Space


def card_of(space: Space, folder: Path) -> str:
    space.save_pretrained(folder)
    return (folder / "README.md").read_text("utf-8")


def front_matter(card: str) -> dict[str, Any]:
    _, text, _ = card.split("---\n", 2)
    return yaml.safe_load(text)


def with_licenses(*licenses: str) -> Space:
    references = {
        name: {**raw_spaces.encoder(name).reference, "license": license}
        for name, license in zip(raw_spaces.ENCODERS, licenses, strict=True)
    }
    return make_space(encoders=references)


def test_the_card_of_a_space_of_features(tmp_path: Path) -> None:
    card = card_of(Space({"a|b": 2, "c": 3}, dim=2), tmp_path)
    assert front_matter(card) == {"library_name": "unialign", "tags": ["multimodal", "embeddings"]}
    assert "| a\\|b | 2 |\n" in card
    assert "It maps features of frozen encoders, not raw media." in card
    assert 'space.encode({"a|b": features})' in card


def test_the_card_names_the_encoders(tmp_path: Path) -> None:
    card = card_of(make_space(), tmp_path)
    assert "| text | 32 | `builtin:chars` | Apache-2.0 |\n" in card
    assert 'space.encode({"text": ["a text", "another text"], "image": ["photo.png", None]})' in card
    assert "tags" in front_matter(card)
    assert front_matter(card)["license"] == "apache-2.0"
    assert "base_model" not in front_matter(card)
    bare = make_space(encoders={"text": raw_spaces.encoder("text").reference})
    assert "| image | 320 | features only |  |\n" in card_of(bare, tmp_path / "bare")


@pytest.mark.parametrize(
    ("licenses", "expected"),
    [
        (("MIT", "Apache-2.0", "BSD-3-Clause"), "mit"),
        (("MIT", "MPL-2.0", "MIT"), "mpl-2.0"),
        (("MIT", "CC-BY-SA-4.0", "MPL-2.0"), "cc-by-sa-4.0"),
        (("CC-BY-NC-ND-4.0", "GPL-3.0", "MIT"), "cc-by-nc-nd-4.0"),
        (("CC-BY-NC-4.0", "unknown", "MIT"), "unknown"),
    ],
)
def test_the_strictest_license(licenses: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    assert front_matter(card_of(with_licenses(*licenses), tmp_path))["license"] == expected


@pytest.mark.parametrize("method", ["fit", "gcca", "ridge"])
def test_spaces_of_a_store_have_its_encoders_and_counts(method: str, tmp_path: Path) -> None:
    data = store()
    if method == "fit":
        space = fit(data, TrainConfig(epochs=1, batch_size=8, dim=4, hidden=8, save_steps=None), progress="none").space
    else:
        space = getattr(closed_form, method)(data, dim=4, regularization=0.1)
    assert {name: found["fingerprint"] for name, found in space.encoders.items()} == {
        name: raw_spaces.encoder(name).fingerprint for name in raw_spaces.ENCODERS
    }
    raw = {name: values[:6] for name, values in raw_spaces.raw().items()}
    found = space.encode(raw)
    expected = space.encode(
        {name: data.array(name)[:6] for name in raw}, present={name: data.present(name)[:6] for name in raw}
    )
    assert all((found[name] - expected[name]).abs().max() < 1e-6 for name in raw)
    card = card_of(space, tmp_path)
    assert "## Training data" in card
    assert "| text, image, sensor | 13 |\n| text, sensor | 3 |\n" in card
    assert "License of the data: CC0-1.0." in card
    assert "License of the data: unknown." in card_of(
        make_space(metadata={"data": {"combinations": []}}), tmp_path / "x"
    )


def test_the_evaluation(tmp_path: Path) -> None:
    metrics = [{"name": "recall@1", "value": 0.5, "low": 0.25, "high": 0.75}, {"name": "gap", "value": 0.125}]
    space = make_space(metadata={"evaluation": {"split": "test", "items": 8, "metrics": metrics}})
    card = card_of(space, tmp_path)
    assert "On 8 items of the split `test`:" in card
    assert "| recall@1 | 0.500 | 0.250 to 0.750 |\n| gap | 0.125 |  |\n" in card
    assert Space.from_pretrained(tmp_path).metadata["evaluation"]["metrics"] == metrics


def test_many_combinations(tmp_path: Path) -> None:
    counts = [{"modalities": ["text"], "items": place} for place in range(23)]
    card = card_of(make_space(metadata={"data": {"combinations": counts}}), tmp_path)
    assert "| text | 19 |\n| 3 other combinations |  |\n" in card


def test_malformed_metadata_gives_a_card(tmp_path: Path) -> None:
    for place, metadata in enumerate(
        (
            {"evaluation": {"metrics": [3]}, "data": {"combinations": "x"}},
            {"evaluation": [], "data": 3, "training": "x", "closed_form": 1},
            {"evaluation": {"metrics": [{"name": "a\n|b"}]}, "data": {"combinations": [{}]}},
        )
    ):
        assert "# A shared embedding space" in card_of(make_space(metadata=metadata), tmp_path / str(place))


def test_only_marked_parts_of_a_card_are_replaced(tmp_path: Path) -> None:
    make_space(head="linear").save_pretrained(tmp_path)
    path = tmp_path / "README.md"
    card = path.read_text()
    edited = card.replace("---\n# unialign: start", "---\ndatasets: [mine]\n# unialign: start").replace(
        "\n<!-- unialign: start", "\nBefore.\n\n<!-- unialign: start"
    )
    path.write_text(edited + "\nAfter.\n")
    make_space(dim=4).save_pretrained(tmp_path)
    text = path.read_text()
    assert front_matter(text)["datasets"] == ["mine"]
    assert "\nBefore.\n" in text
    assert text.endswith("\nAfter.\n")
    assert "4 dimensions" in text
    assert "head `linear`" not in text
    plain = text.replace("datasets: [mine]\n", "").replace("Before.\n\n", "").replace("\nAfter.\n", "")
    assert plain == card_of(make_space(dim=4), tmp_path / "new")


def test_a_card_without_markers_is_kept(tmp_path: Path) -> None:
    for place, card in enumerate(
        ("", "mine", "# unialign: start\n", "<!-- unialign: end -->\n<!-- unialign: start -->\n")
    ):
        folder = tmp_path / str(place)
        folder.mkdir()
        (folder / "README.md").write_text(card)
        assert card_of(make_space(), folder) == card
    (tmp_path / "0" / "README.md").write_bytes(b"\xff\xfe")
    make_space().save_pretrained(tmp_path / "0")
    assert (tmp_path / "0" / "README.md").read_bytes() == b"\xff\xfe"
