"""An MCP server: tools with which an agent searches an index and checks its embeddings."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import numpy as np

from unialign._optional import optional_module
from unialign._version import __version__
from unialign.errors import ConfigError, UniAlignError
from unialign.index import Index, Query, modality_of_kind, query

_MOST = 100
# Items that `diagnose` reads.
_SAMPLE = 5000
_Answer = TypeVar("_Answer")


def mcp_server(index: Index, *, name: str = "unialign") -> Any:
    """Return an MCP server with the tools `search`, `similar` and `diagnose`; `.run()` serves it on standard input.

    Args:
        index: the index to search; the tools only read it.
        name: name of the server, which clients display.

    Returns:
        An `mcp.server.MCPServer`.

    Raises:
        MissingDependencyError: mcp is not installed.
    """
    library = optional_module("mcp.server", "an MCP server", "mcp")
    errors = optional_module("mcp.server.mcpserver.exceptions", "an MCP server", "mcp")
    described = ", ".join(
        f"{modality} ({'texts' if index.can_encode(modality) is None else 'items only'})"
        for modality in index.modalities
    )
    server = library.MCPServer(
        name,
        version=__version__,
        instructions=(
            f"Search {len(index)} items, each with any subset of the modalities {', '.join(index.modalities)}. Text "
            f"queries need an encoder: {described}."
        ),
    )

    def answered(compute: Callable[[], _Answer]) -> _Answer:
        try:
            return compute()
        except UniAlignError as error:
            raise errors.ToolError(str(error)) from error

    @server.tool()  # type: ignore[untyped-decorator]
    def search(text: str, k: int = 10, target: str = "any", where: str | None = None) -> dict[str, Any]:
        """Find the items that match a text.

        `target` is `any`, `best` or the modality in which items are compared. `where` filters items, for example
        `label = 'car' and has(audio)`.
        """
        return answered(lambda: _search(index, _text_query(index, text), k, target, where))

    @server.tool()  # type: ignore[untyped-decorator]
    def similar(
        key: str, k: int = 10, target: str = "any", source: list[str] | None = None, where: str | None = None
    ) -> dict[str, Any]:
        """Find the items that are similar to an item of the index.

        `source` lists the modalities of the item to search with; by default, all that it has. `target` and `where` are
        as for `search`.
        """
        return answered(lambda: _search(index, query(item=key, modalities=source), k, target, where))

    @server.tool()  # type: ignore[untyped-decorator]
    def diagnose() -> dict[str, Any]:
        """Check the embeddings of the index for faults: mispaired items, duplicates, hubs, modality gaps."""
        return answered(lambda: _diagnose(index))

    return server


def _search(index: Index, asked: Any, k: int, target: str | Literal["any"], where: str | None) -> dict[str, Any]:
    if not 1 <= k <= _MOST:
        raise ConfigError(f"k must be from 1 to {_MOST}, got {k}")
    found: dict[str, Any] = index.search(asked, k=k, target=target, where=where).to_dict()
    return found


def _text_query(index: Index, text: str) -> Query:
    """Return a query of the modality that encodes texts, `text` if there are several."""
    name = modality_of_kind(index.encoders, "text")
    if name is None:
        raise ConfigError("the index has no encoder of texts; use the tool `similar` with the key of an item")
    inputs: dict[str, Any] = {name: text}
    return query(**inputs)


def _diagnose(index: Index) -> dict[str, Any]:
    from unialign.diagnostics import diagnose

    sample = index.embeddings(limit=_SAMPLE)
    known = sorted({label for label in sample.labels if label is not None})
    # Negative numbers are unlabeled items.
    codes = [known.index(label) if label is not None else -1 for label in sample.labels]
    report = diagnose(sample.z, present=sample.present, labels=np.array(codes) if known else None)
    return {"items": len(sample.keys), "report": report.text()}
