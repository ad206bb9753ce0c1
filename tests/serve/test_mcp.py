"""Test the MCP server with a client of the MCP library, in memory and on standard input."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unialign as ua

pytestmark = pytest.mark.integrations
pytest.importorskip("mcp")

KEYS = [f"item-{number}" for number in range(60)]


def example() -> Any:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(60, 16))
    arrays = {name: (shared + 0.3 * rng.normal(size=(60, 16))).astype(np.float32) for name in ("image", "text")}
    return ua.data.EmbeddingStore.from_arrays(arrays, names=KEYS)


def call(server: Any, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    import anyio
    from mcp.client import Client

    async def main() -> list[Any]:
        async with Client(server) as client:
            tools = await client.list_tools()
            return [tools, *[await client.call_tool(name, arguments) for name, arguments in calls]]

    return anyio.run(main)


def test_a_client_lists_and_calls_the_tools() -> None:
    server = ua.serve.mcp_server(ua.Index.from_store(example()))
    tools, similar, diagnosis, unknown, text = call(
        server,
        ("similar", {"key": "item-3", "k": 5, "source": ["text"], "target": "image"}),
        ("diagnose", {}),
        ("similar", {"key": "item-333"}),
        ("search", {"text": "a red car"}),
    )
    assert {tool.name for tool in tools.tools} == {"search", "similar", "diagnose"}
    expected = ua.Index.from_store(example()).search(ua.query(item="item-3", modalities=["text"]), k=5, target="image")
    assert [hit["key"] for hit in similar.structured_content["results"]] == list(expected.keys)
    assert diagnosis.structured_content["items"] == 60
    assert unknown.is_error
    assert "item-333" in unknown.content[0].text
    assert text.is_error
    assert "no encoder of texts" in text.content[0].text


def test_the_command_serves_standard_input(tmp_path: Path) -> None:
    from mcp import StdioServerParameters

    example().save(tmp_path / "store")
    command = ["-m", "unialign", "serve", str(tmp_path / "store"), "--mcp"]
    tools, similar = call(
        # By default, the client passes only a few variables on, without the path of the library.
        StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ)),
        ("similar", {"key": "item-3", "k": 2}),
    )
    assert len(tools.tools) == 3
    assert len(similar.structured_content["results"]) == 2
