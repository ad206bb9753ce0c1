"""Test that damaged, dangerous and unusual files are listed by code, and that nothing else is lost."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embed_prepare
import unialign as ua
from embed_cases import Projection, content
from media.hostile_files import ABSENT, CASES, HostileCase, write_cases
from unialign.encoders import wrap
from unialign.errors import DataError
from unialign.items import Items
from unialign.media import CODES, KINDS, Decoding, MediaLimits

# A plan has one set of limits, and an encoder one set of options of decoding.
USED = {name: case for name, case in CASES.items() if (case.limits, case.decoding) == (MediaLimits(), Decoding())}
# Paths that an item table does not accept.
NOT_IN_TABLES = {"null.png", "absolute.png"}


def is_code(case: HostileCase) -> bool:
    return isinstance(case.expected, str) and case.expected in CODES


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Items:
    root = write_cases(tmp_path_factory.mktemp("hostile"))
    records = [{"id": name, case.kind: case.cell} for name, case in USED.items() if name not in NOT_IN_TABLES]
    return Items.from_records(records, kinds={kind: kind for kind in KINDS}, root=root)


def encoders() -> dict[str, Any]:
    return {
        kind: wrap(Projection(9, 4), media=kind, dim=4, prepare=embed_prepare.numbers, name=f"{kind} numbers")
        for kind in KINDS
    }


def test_every_hostile_file_is_listed_by_its_code(items: Items, tmp_path: Path) -> None:
    stores = [
        ua.embed(items, encoders(), tmp_path / f"{workers}", workers=workers, max_broken=1.0, progress="none")
        for workers in (0, 2)
    ]
    assert content(stores[0].path) == content(stores[1].path)
    store = stores[0]
    listed = {line["items"][0]: line["code"] for line in map(json.loads, store.asset("broken.jsonl").splitlines())}
    keys = items.keys.tolist()
    assert listed == {name: USED[name].expected for name in keys if is_code(USED[name])}
    assert len(listed) > 100
    for kind in KINDS:
        present = {keys[row] for row in np.flatnonzero(store.present(kind)).tolist()}
        own = {name for name in keys if USED[name].kind == kind}
        assert present == {name for name in own if not is_code(USED[name]) and USED[name].expected is not ABSENT} - set(
            listed
        )
    assert str(items.roots[0]) not in store.asset("broken.jsonl").decode()


@pytest.mark.parametrize("name", sorted(NOT_IN_TABLES))
def test_absolute_paths_are_not_in_tables(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError):
        Items.from_records([{"id": name, "image": USED[name].cell}], kinds={"image": "image"}, root=tmp_path)
