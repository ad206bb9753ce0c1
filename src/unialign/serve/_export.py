"""Route `/export`: items as JSON, CSV, Parquet or a store."""

import csv
import io
import json
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response

from unialign._optional import optional_module
from unialign.errors import ConfigError
from unialign.index import Index
from unialign.serve._errors import ApiError
from unialign.serve._queries import encoded, make_query
from unialign.serve._schemas import ExportRequest
from unialign.serve._search import search_options
from unialign.serve._service import Service

__all__ = ["csv_bytes", "routes"]

_TYPES = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "store.zip": "application/zip",
}
_COLUMNS = ("key", "name", "label", "modalities", "score")
# Spreadsheet programs run cells that start with these characters as formulas.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_PAGE = 1000


def routes(service: Service) -> APIRouter:
    """Return the route of exports."""
    router = APIRouter()

    @router.post("/export", summary="Items as JSON, CSV, Parquet or a store")
    async def export(body: ExportRequest) -> Any:
        _, index = service.index(body.index)
        content = await service.compute(_export, service, index, body)
        name = f"unialign-{body.what}.{body.format}"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(content, headers=headers, media_type=_TYPES[body.format])

    return router


def _export(service: Service, index: Index, body: ExportRequest) -> bytes:
    rows = _results(service, index, body) if body.what == "results" else _selection(service, index, body)
    if body.format == "store.zip":
        return _store(index, [row["key"] for row in rows])
    if body.format == "csv":
        return csv_bytes(rows)
    if body.format == "parquet":
        return _parquet(rows)
    return json.dumps({"items": rows, "generation": index.generation}, ensure_ascii=False, allow_nan=False).encode()


def _results(service: Service, index: Index, body: ExportRequest) -> list[dict[str, Any]]:
    if body.search is None:
        raise ApiError(422, "bad_request", "the export of results needs `search`", field="search")
    if body.keys is not None or body.where is not None:
        raise ApiError(422, "bad_request", "an export of results takes neither keys nor where", field="keys")
    settings = service.settings
    if body.search.k > settings.k or body.search.offset + body.search.k > settings.depth:
        raise ApiError(422, "too_many_results", f"k is larger than {settings.k}", field="search.k", limit=settings.k)
    query = make_query(index, body.search.parts, {}, settings)
    found = index.search(encoded(index, [query]), **search_options(service, index, body.search))[0]
    return [
        {
            "key": hit.key,
            "name": hit.name,
            "label": hit.label,
            "modalities": [name for name in index.modalities if name not in hit.missing],
            "score": hit.score,
            "metadata": dict(hit.metadata),
        }
        for hit in found.hits[body.search.offset :]
    ]


def _selection(service: Service, index: Index, body: ExportRequest) -> list[dict[str, Any]]:
    limit = service.settings.export_items
    if body.keys is not None:
        if len(body.keys) > limit:
            raise _too_many(limit)
        if missing := [key for key in body.keys if key not in index][:1]:
            raise ApiError(422, "unknown_item", f"the index has no item {missing[0][:100]!r}", field="keys")
        return [_row(index.get(key, with_rows=False)) for key in dict.fromkeys(body.keys)]
    rows: list[dict[str, Any]] = []
    after = None
    while True:
        try:
            page = index.items(where=body.where, after=after, limit=_PAGE)
        except ConfigError as error:
            raise ApiError(422, "bad_filter", str(error), field="where") from None
        rows += map(_row, page)
        if len(rows) > limit:
            raise _too_many(limit)
        if len(page) < _PAGE:
            return rows
        after = page[-1].key


def _too_many(limit: int) -> ApiError:
    return ApiError(413, "too_many_items", f"an export has at most {limit:,} items; choose fewer", limit=limit)


def _row(item: Any) -> dict[str, Any]:
    return {
        "key": item.key,
        "name": item.name,
        "label": item.label,
        "modalities": list(item.modalities),
        "score": None,
        "metadata": dict(item.metadata),
    }


def _flat(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    fields = sorted({name for row in rows for name in row["metadata"]})
    columns = [*_COLUMNS, *(name if name not in _COLUMNS else f"metadata.{name}" for name in fields)]
    table = [
        [row["key"], row["name"], row["label"], " ".join(row["modalities"]), row["score"]]
        + [row["metadata"].get(name) for name in fields]
        for row in rows
    ]
    return columns, table


def csv_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a CSV table; cells that a spreadsheet program would run as formulas are prefixed with a quote."""
    columns, table = _flat(rows)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_cell(name) for name in columns])
    writer.writerows([_cell(value) for value in line] for line in table)
    return out.getvalue().encode("utf-8")


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    arrow = optional_module("pyarrow", "exports as Parquet", "parquet")
    parquet = optional_module("pyarrow.parquet", "exports as Parquet", "parquet")
    columns, table = _flat(rows)
    arrays = {}
    for place, name in enumerate(columns):
        values = [line[place] for line in table]
        if len({_cell_kind(value) for value in values if value is not None}) > 1:
            values = [None if value is None else str(value) for value in values]
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        if any(isinstance(value, float) for value in numbers):
            # Arrow rejects large integers in a column of floats.
            values = [float(value) if value is not None else None for value in values]
        arrays[name] = arrow.array(values)
    out = io.BytesIO()
    parquet.write_table(arrow.table(arrays), out)
    return out.getvalue()


def _cell_kind(value: Any) -> type:
    return bool if isinstance(value, bool) else float if isinstance(value, int | float) else str


def _store(index: Index, keys: Sequence[str]) -> bytes:
    if not keys:
        raise ApiError(422, "no_items", "there are no items to export", field="keys")
    with tempfile.TemporaryDirectory(prefix="unialign-export-") as folder:
        path = Path(folder) / "store"
        index.to_store(path, keys=list(keys))
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(path.rglob("*")):
                if file.is_file():
                    archive.write(file, Path("store") / file.relative_to(path))
    return out.getvalue()
