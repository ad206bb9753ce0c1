"""Test that the documented calls, the OpenAPI description and the routes are the same."""

import re
from collections.abc import Callable
from pathlib import Path

from serve_support import Client
from unialign.config import ServeConfig

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "http.md"


def test_the_table_of_calls_is_the_openapi_description(client: Callable[..., Client]) -> None:
    described = client()("GET", "/openapi.json").json
    found = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
    rows = re.findall(r"^\| `(GET|POST|PUT|PATCH|DELETE) (\S+)` \|", PAGE.read_text("utf-8"), re.M)
    assert len(rows) == len(set(rows))
    assert set(rows) == found


def test_the_fields_of_bodies_are_in_the_table(client: Callable[..., Client]) -> None:
    described = client()("GET", "/openapi.json").json
    rows = dict(re.findall(r"^\| `(\w+ \S+)` \| (.*?) \|", PAGE.read_text("utf-8"), re.M))
    for path, methods in described["paths"].items():
        for method, call in methods.items():
            schema = call.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            name = schema.get("$ref", "").rpartition("/")[2]
            row = rows[f"{method.upper()} {path}"]
            if not name or "as above" in row or "two indexes" in row or "rows or a polygon" in row:
                continue
            fields = set(described["components"]["schemas"][name]["properties"])
            assert fields <= set(re.findall(r"`([\w.]+)`", row)), path


def test_info_lists_all_limits(client: Callable[..., Client]) -> None:
    limits = client(k=17)("GET", "/api/v1/info").json["limits"]
    assert limits["k"] == 17
    hidden = {"hosts", "origins", "writable"}
    assert set(limits) | hidden == {entry.name for entry in ServeConfig.settings()}
