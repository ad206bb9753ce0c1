"""Implementation of `unialign embed`."""

import argparse
import sys
from collections.abc import Mapping

from unialign._plain_text import count, duration, percent, table_lines
from unialign.cli._console import echo, shown
from unialign.cli._items import open_items
from unialign.cli._media import with_defaults
from unialign.cli._quiet import progress_mode
from unialign.config import EmbedConfig
from unialign.embedding import EmbedOutcome, Plan, embed_with
from unialign.items import Items


def embed_source(config: EmbedConfig, choices: Mapping[str, str], options: argparse.Namespace) -> int:
    items = open_items(options.source, options)
    for note in items.notes:
        echo(note)
    if options.modalities:
        items = items.select(options.modalities)
    if options.limit is not None:
        items = items.rows_of(range(min(options.limit, len(items))))
    outcome = embed_with(
        config,
        items,
        with_defaults(choices, items.kinds),
        options.out,
        ray_address=options.ray_address,
        resume=options.resume,
        overwrite="replace" if options.overwrite else "never",
        reuse=options.reuse,
        accept_licenses=options.accept_license,
        keep_parts=options.keep_parts,
        device=options.device,
        offline=True if options.offline else None,
        progress=progress_mode(),
        on_plan=_print_plan,
    )
    _print_outcome(outcome, items, options)
    return 0


def _print_plan(plan: Plan, resumed: int, reused: int) -> None:
    total = sum(map(plan.parts, plan.columns))
    echo(f"{count(plan.rows, 'item')}, {count(total, 'part')}, {plan.settings.device_type}")
    for name, column in plan.columns.items():
        reference = column.reference
        echo(
            f"  {name}: {count(column.cells, 'cell')} by {reference['kind']}:{reference['name']}, dim {column.dim}, "
            f"license {reference.get('license', 'unknown')}"
        )
    if resumed:
        echo(f"continuing: {resumed:,} of {count(total, 'part')} are finished")
    if reused:
        echo(f"reusing {reused:,} of {count(total, 'part')} from a finished store")
    sys.stdout.flush()


def _print_outcome(outcome: EmbedOutcome, items: Items, options: argparse.Namespace) -> None:
    store = outcome.store
    rows = []
    for name, column in outcome.plan.columns.items():
        broken = store.provenance["columns"][name]["input"]["broken"]
        codes = ", ".join(f"{number:,} {code}" for code, number in broken.items())
        present = int(store.present(name).sum())
        share = percent(present / store.items)
        rows.append((name, f"{column.cells:,}", f"{present:,} ({share})", codes or "none"))
    echo()
    for line in table_lines(("modality", "cells", "items", "broken cells"), rows):
        echo(line)
    total = sum(outcome.seconds.values())
    if not total:
        echo("The store was already complete; nothing was encoded.")
    elif outcome.computed:
        words = {"wait": outcome.waiting, "encode": "encoding", "write": "writing"}
        parts = ", ".join(f"{words[stage]} {100 * spent / total:.0f} %" for stage, spent in outcome.seconds.items())
        echo(f"Time: {duration(total)} ({parts})")
    if "broken.jsonl" in store.assets:
        echo(f"Broken cells: {shown(options.out / 'assets' / 'broken.jsonl')}")
    if not items.has_split:
        echo(
            "All items are in the split `train`, since the table has no split; `unialign inspect SOURCE --save TABLE` "
            "suggests one"
        )
    echo(f"Store: {shown(options.out)}")
