"""Test approximate candidates: recall across modalities, changes after the build, filters, and damaged files."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unialign as ua
from unialign.errors import ConfigError
from unialign.index._approximate import Approximate, _smallest_effort

pytest.importorskip("faiss")

ITEMS, DIM = 3000, 16
KEYS = [f"key {number}" for number in range(ITEMS)]
KINDS: tuple[Any, ...] = ("hnsw", "ivf")


def rows() -> dict[str, np.ndarray[Any, Any]]:
    """Clustered items with a gap between the modalities."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(100, DIM))
    shared = centers[rng.integers(100, size=ITEMS)] + 0.5 * rng.normal(size=(ITEMS, DIM))
    return {
        name: shared + 0.3 * rng.normal(size=(ITEMS, DIM)) + 2 * place for place, name in enumerate(("image", "text"))
    }


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an index, which tests copy."""
    path = tmp_path_factory.mktemp("approximate") / "index"
    with ua.Index.create(path, dim=DIM, modalities=["image", "text"]) as index:
        index.add(rows(), present={"text": np.arange(ITEMS) % 3 != 0}, keys=KEYS)
    return path


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "index"))


def made(path: Path) -> ua.Index:
    return ua.Index.open(path, mode="w")


def queries() -> list[ua.index.Query]:
    return [ua.query(item=KEYS[number], modalities=["image"]) for number in range(1, 2000, 40)]


def overlap(found: list[ua.index.Found], expected: list[ua.index.Found]) -> float:
    return float(np.mean([len({*a.keys} & {*b.keys}) / len(b) for a, b in zip(found, expected, strict=True)]))


@pytest.mark.parametrize("kind", KINDS)
def test_recall_scores_and_answers_after_reopening(folder: Path, kind: Any) -> None:
    with made(folder) as index:
        info = index.build_approximate(kind=kind, recall=0.95)
        assert info.recall >= 0.95
        found, expected = (index.search(queries(), k=10, exact=exact) for exact in (False, True))
    assert overlap(found, expected) >= 0.93
    assert not found[0].exact
    assert found[0].scanned < expected[0].scanned
    known = {hit.key: hit.score for hit in expected[0]}
    for hit in found[0]:
        assert hit.score == pytest.approx(known.get(hit.key, hit.score), abs=1e-12)
    with ua.Index.open(folder) as again:
        assert [one.keys for one in again.search(queries(), k=10, exact=False)] == [one.keys for one in found]


@pytest.mark.parametrize("kind", KINDS)
def test_later_changes_are_searched_exactly(folder: Path, kind: Any) -> None:
    with made(folder) as index:
        index.build_approximate(kind=kind)
        own = rows()["image"][1]
        index.add({"image": own[None]}, keys=["new"])
        before = index.search(ua.query(vector=own, modality="image"), k=3, exact=False)
        assert before[0].key in ("new", KEYS[1])
        assert "new" in before.keys
        index.delete(keys=["new", KEYS[1]])
        after = index.search(ua.query(vector=own, modality="image"), k=50, exact=False)
        assert not {"new", KEYS[1]} & {*after.keys}
        assert len(after) == 50


def test_a_filter_of_few_items_is_exact_and_one_of_many_fills_k(folder: Path) -> None:
    with made(folder) as index:
        index.build_approximate()
        few = index.search(queries()[0], k=10, where="key in ('key 7', 'key 9')", exact=False)
        assert few.exact
        assert {*few.keys} == {"key 7", "key 9"}


def test_other_targets_and_another_calibration_are_exact(folder: Path) -> None:
    with made(folder) as index:
        index.build_approximate(target="text")
        assert not index.search(queries()[0], target="text", exact=False).exact
        for target in ("any", "image", "best"):
            assert index.search(queries()[0], target=target, exact=False).exact
        index.calibrate(method="none")
        assert index.search(queries()[0], target="text", exact=False).exact


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_file_is_reported_and_searches_are_exact(folder: Path, damage: str) -> None:
    with made(folder) as index:
        index.build_approximate(kind="ivf")
        expected = index.search(queries()[0], k=10)
    file = next((folder / "approximate").glob("*.faiss"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content if damage == "flipped" else content[:100])
    with ua.Index.open(folder) as index:
        with pytest.warns(UserWarning, match="build it again"):
            found = index.search(queries()[0], k=10, exact=False)
        assert found.exact
        assert found.keys == expected.keys


def test_invalid_options_raise(folder: Path) -> None:
    with made(folder) as index:
        for options in ({"kind": "tree"}, {"recall": 0.0}, {"recall": 1.5}, {"target": "sound"}):
            with pytest.raises(ConfigError):
                index.build_approximate(**options)
    with ua.Index.open(folder) as index, pytest.raises(ConfigError, match="open for reading"):
        index.build_approximate()


def test_parameters_of_a_search_do_not_change_the_shared_index(folder: Path) -> None:
    with made(folder) as index:
        index.build_approximate(kind="ivf")
        built = index._storage.approximate("any")
        assert isinstance(built, Approximate)
        query = rows()["image"][:1].astype(np.float32)
        wide = built.candidates(query, 10, effort=10_000)
        built.candidates(query, 10, effort=1)
        np.testing.assert_array_equal(built.candidates(query, 10, effort=10_000)[0], wide[0])


@pytest.mark.parametrize("needed", [1, 3, 16, 17, 40, 100, 2000])
def test_smallest_effort(needed: int) -> None:
    """The effort is at most an eighth above the smallest one with the target recall."""
    calls = []

    def recall_of(effort: int) -> float:
        calls.append(effort)
        return min(1.0, effort / needed)

    effort, measured = _smallest_effort(recall_of, 1.0, first=1, most=1000)
    if needed > 1000:
        assert (effort, measured) == (1000, 0.5)
    else:
        assert needed <= effort <= 1.15 * needed + 1
        assert measured == 1.0
    assert len(calls) <= 16
