"""Hostile cells of tables."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from media.hostile_case import ABSENT, Cases, nothing
from media.media_files import PIXELS, image_bytes

__all__ = ["CASES"]

CASES = Cases()
_png = image_bytes(PIXELS, "PNG")
_noise = np.random.default_rng(0).bytes(50_000)


def _table(columns: dict[str, Any], suffix: str, **options: Any) -> bytes:
    data, table = io.BytesIO(), pa.table(columns)
    if suffix == "parquet":
        pq.write_table(table, data, **options)
    else:
        with (pa.ipc.new_file if suffix == "arrow" else pa.ipc.new_stream)(data, table.schema) as writer:
            writer.write_table(table, **options)
    return data.getvalue()


_COLUMNS = {
    "image": [
        {"bytes": _png, "path": "a.png"},
        {"bytes": None, "path": "target.png"},
        None,
        {"bytes": b"no", "path": None},
    ],
    "text": ["a", " ", None, "d"],
    "vector": pa.array([[1.0, 2.0], None, [float("nan"), 1.0], [3.0, 4.0]], pa.list_(pa.float32())),
    "when": pa.array([1, 2, 3, 4], pa.timestamp("s")),
}
for _suffix in ("parquet", "arrow", "stream"):
    _name = f"table.{_suffix}"
    CASES.add(_name, "image", PIXELS, _table(_COLUMNS, _suffix), {"table": _name, "column": "image", "row": 0})
    for _kind, _column, _row, _expected in (
        ("image", "image.bytes", 0, PIXELS),
        ("image", "image", 1, PIXELS),
        ("image", "image", 2, ABSENT),
        ("image", "image", 3, "undecodable"),
        ("text", "text", 0, "a"),
        ("text", "text", 1, ABSENT),
        ("text", "text", 2, ABSENT),
        ("text", "vector", 0, "undecodable"),
        ("image", "text", 0, "undecodable"),
        ("array", "vector", 3, np.float32([3, 4])),
        ("array", "vector", 2, "not-finite"),
        ("array", "vector", 1, ABSENT),
        ("array", "when", 1, "wrong-shape"),
        ("array", "nothing", 0, "missing-file"),
        ("array", "vector", 4, "wrong-shape"),
    ):
        CASES.add(
            f"{_column}-{_row}-{_kind}.{_suffix}",
            _kind,
            _expected,
            nothing,
            {"table": _name, "column": _column, "row": _row},
        )
    CASES.add(
        f"cut.{_suffix}",
        "text",
        "undecodable",
        _table(_COLUMNS, _suffix)[:-2500],
        {"table": f"cut.{_suffix}", "column": "text", "row": 3},
    )
CASES.add(
    "noise.parquet",
    "text",
    "undecodable",
    b"PAR1" + _noise + b"PAR1",
    {"table": "noise.parquet", "column": "a", "row": 0},
)
CASES.add("noise.arrow", "text", "undecodable", _noise, {"table": "noise.arrow", "column": "a", "row": 0})
