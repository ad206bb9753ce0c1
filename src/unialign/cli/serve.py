"""`unialign serve`: serve an index over HTTP, with a web page."""

import argparse
from pathlib import Path

from unialign.cli._command import Command
from unialign.errors import ConfigError

_EXAMPLES = """\
  unialign serve runs/demo
  unialign serve my-index --port 8080 --writable
  unialign serve my-index --host 0.0.0.0 --token-file tokens.txt --name search.example.org
  unialign serve my-index --mcp

SOURCE is the folder of an index (`unialign index`), a results folder of `demo`, `compare` or `train`, a store or a data
set. The command prints a link with a token that is valid until the service stops, and opens the link in a browser. The
page searches, maps, checks and exports the items; `docs/reference/http.md` lists the calls of the service. The service
is reachable only from this computer, unless --host names another address, which needs --token-file or the variable
UNIALIGN_TOKEN. A token file has a line `read TOKEN` and, for changes of items, `write TOKEN`. --mcp serves the tools
`search`, `similar` and `diagnose` to an agent on standard input instead."""


def run(options: argparse.Namespace) -> int:
    """Serve until the command is stopped, and return the exit status."""
    if options.mcp and len(options.sources) != 1:
        raise ConfigError("--mcp serves one SOURCE")
    from unialign.cli._serve import serve, serve_mcp

    return serve_mcp(options) if options.mcp else serve(options)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="index, results folder, store or data set")
    parser.add_argument("--space", metavar="DIR", help="space of a store or data set")
    parser.add_argument("--id", metavar="NAME", help="array of ids in the files")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port, 0 for a free one (default: 8000)")
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="HOST",
        help="additional host name that clients may use; may be repeated",
    )
    parser.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="URL",
        help="origin of another web page that may call the service; may be repeated",
    )
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file with the tokens of clients")
    parser.add_argument("--writable", action="store_true", help="allow changes to the items")
    parser.add_argument("--decoder", metavar="DIR", help="decoder that generates images of mixtures")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.add_argument("--mcp", action="store_true", help="serve an agent (MCP) on standard input instead")


COMMAND = Command(
    name="serve",
    summary="serve an index over HTTP, with a web page to search, map and check it",
    usage="SOURCE ... [options]",
    examples=_EXAMPLES,
    add_options=_add_options,
    run=run,
)
