"""Implementation of `unialign serve`."""

import argparse
import contextlib
import os
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Any

from unialign.cli._console import echo
from unialign.cli._index_source import Source, described, open_index, open_source
from unialign.errors import ConfigError, UniAlignError
from unialign.generation import load_decoder, load_space
from unialign.index import Index
from unialign.serve import Address, app, mcp_server, new_token, read_tokens, run

_TOKEN = "UNIALIGN_TOKEN"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Exit status of a command that was stopped by SIGTERM.
_TERMINATED = 143
# Maximum number of spaces of other objectives on the page, since each takes seconds to open.
_MOST_OTHERS = 2


def serve(options: argparse.Namespace) -> int:
    """Open the sources, print the link, and serve until SIGINT or SIGTERM."""
    token, write_token = _tokens(options)
    sources = [_opened(source, options) for source in options.sources]
    indexes: dict[str, Index] = {}
    for source in sources:
        for name, index in source.indexes.items():
            indexes[_free(name, indexes)] = index
    for source in sources if len(sources) == 1 else ():
        for name, opened in list(source.others.items())[:_MOST_OTHERS]:
            indexes[_free(name, indexes)] = opened()
    settings: dict[str, Any] = {"writable": options.writable}
    if options.name or options.host not in _LOOPBACK:
        own = () if options.host in ("0.0.0.0", "::") else (options.host,)
        settings["hosts"] = (*_LOOPBACK, *own, *options.name)
    if options.origin:
        settings["origins"] = tuple(options.origin)
    made = app(indexes, token=token, write_token=write_token, **_decoder(sources[0], options), **settings)
    for name, index in indexes.items():
        echo(f"{name}: {described(index)}, correction {index.calibration.method}")
    first = next(iter(indexes.values()))
    try:
        run(made, host=options.host, port=options.port, token=token, ready=lambda found: _ready(found, first, options))
    except SystemExit as error:
        # SIGTERM, which uvicorn raises again after the requests in progress have ended.
        if error.code != _TERMINATED:
            raise
    echo("stopped")
    return 0


def serve_mcp(options: argparse.Namespace) -> int:
    """Serve the tools for agents on standard input and output; messages are printed to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        source = open_source(options.sources[0], space=options.space, id=options.id)
        index = next(iter(source.indexes.values()))
        server = mcp_server(index)
    server.run()
    return 0


def _opened(source: str, options: argparse.Namespace) -> Source:
    if options.writable and (Path(source) / "index.sqlite").exists():
        return Source({Path(source).resolve().name: open_index(Path(source), mode="w")})
    if options.writable:
        raise ConfigError(f"{source} is not the folder of an index, so it cannot be changed; omit --writable")
    return open_source(source, space=options.space, id=options.id)


def _free(name: str, taken: dict[str, Index]) -> str:
    number, found = 2, name
    while found in taken:
        found, number = f"{name}-{number}", number + 1
    return found


def _tokens(options: argparse.Namespace) -> tuple[str, str | None]:
    if options.token_file is not None:
        return read_tokens(options.token_file)
    given = os.environ.get(_TOKEN)
    if given is not None:
        return given, None
    if options.host not in _LOOPBACK:
        raise ConfigError(
            f"other computers can reach the service at {options.host}, so a fixed token is required; specify a "
            f"file with --token-file, or set {_TOKEN}"
        )
    return new_token(), None


def _decoder(source: Source, options: argparse.Namespace) -> dict[str, Any]:
    """Return the decoder given by --decoder, or the decoder of the data set whose results are served."""
    if options.decoder is not None:
        return {"decoder": load_decoder(options.decoder), "store": source.store}
    if source.decoder_data is None or source.generation_space is None:
        return {}
    try:
        decoder = load_decoder(source.decoder_data)
    except ConfigError:
        return {}
    space = load_space(source.generation_space)
    return {"decoder": decoder, "generation_space": space, "store": source.store}


def _ready(address: Address, index: Index, options: argparse.Namespace) -> None:
    # Load the encoders in advance, since this takes seconds and would delay the first search.
    threading.Thread(target=_load_encoders, args=(index,), daemon=True).start()
    echo(f"serving at {address.link}")
    echo("press Ctrl+C to stop")
    if not options.no_browser:
        # Without a browser this prints nothing and returns False.
        webbrowser.open(address.link)


def _load_encoders(index: Index) -> None:
    for name, encoder in index.encoders.items():
        if encoder.kind == "text" and encoder.problem is None:
            # Errors of the encoder are reported by the first search.
            with contextlib.suppress(UniAlignError):
                index.encode({name: ["text"]})
