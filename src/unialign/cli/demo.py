"""`unialign demo`: the tuned comparison on the shipped emoji set, and pictures made in each objective's space."""

from argparse import Namespace

from unialign.cli._demo_images import add_images
from unialign.cli.compare import run_comparison
from unialign.experiments import recipe

__all__ = ["run"]


def run(options: Namespace) -> int:
    config = recipe("emoji")
    if options.seeds:
        config = config.replace(seeds=tuple(options.seeds))
    return run_comparison(config, options.out, options.workers, also=add_images)
