"""`unialign demo`: run the tuned comparison on the emoji data set, and generate images in each objective's space."""

import argparse

from unialign.cli._command import Command, add_out
from unialign.cli._settings import add_settings, given_settings
from unialign.cli.compare import add_workers
from unialign.config import CompareConfig

_EXAMPLES = """\
  unialign demo
  unialign demo --seeds 0 --out runs/quick"""


def run(options: argparse.Namespace) -> int:
    from unialign.cli._compare import run_comparison
    from unialign.cli._console import echo, shown
    from unialign.cli._demo_images import add_images
    from unialign.experiments import recipe

    config = recipe("emoji").override(given_settings(options, CompareConfig))
    status = run_comparison(config, options.out, options.workers, extend=add_images)
    if status == 0:
        echo(f"Search, map and mix its items on a page: unialign serve {shown(options.out)}")
    return status


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, CompareConfig, only=("seeds",))
    add_workers(parser)
    add_out(parser, "demo")


COMMAND = Command(
    name="demo",
    summary="train UniAlign and its baselines on the emoji data set, compare them, generate images, write the report",
    usage="[options]",
    examples=_EXAMPLES,
    add_options=_add_options,
    run=run,
)
