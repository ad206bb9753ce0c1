"""`unialign completion`: print the completion script for a shell."""

import argparse

from unialign.cli._command import Command

_EXAMPLES = """\
  unialign completion bash        in ~/.bashrc: source <(unialign completion bash)
  unialign completion zsh         into a file _unialign in a folder of $fpath
  unialign completion fish        into ~/.config/fish/completions/unialign.fish"""


def run(options: argparse.Namespace) -> int:
    from unialign.cli._completion import script
    from unialign.cli._main import parsers

    print(script(options.shell, parsers()), end="")
    return 0


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), metavar="SHELL", help="bash, zsh or fish")


COMMAND = Command(
    name="completion",
    summary="print the completion script for a shell",
    usage="{bash,zsh,fish}",
    examples=_EXAMPLES,
    add_options=_add_options,
    run=run,
)
