"""Implementation of `unialign inspect`."""

import argparse
import json

from unialign.cli._console import echo, shown
from unialign.cli._items import item_arguments, open_items
from unialign.experiments import open_run_dir, write_json
from unialign.inspection import inspect
from unialign.io import replace_file, write_yaml
from unialign.report import write_inspection_report

_SHOWN = 5


def inspect_source(options: argparse.Namespace) -> int:
    open_run_dir(options.out, "inspection")
    items = open_items(options.source, options)
    found = inspect(items, decode=options.decode, hash=options.hash, seed=options.seed)
    settings = {key: value for key, value in item_arguments(options).items() if value not in (None, False)}
    settings |= {"decode": "all" if options.decode is None else options.decode, "hash": options.hash}
    settings["root"] = None if options.root is None else str(options.root)
    plain = json.loads(json.dumps(settings))
    write_yaml(options.out / "config.yaml", {"items": list(options.source), "settings": plain})
    lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in found.broken)
    replace_file(options.out / "broken.jsonl", lines)
    write_json(options.out / "results.json", {**found.results, "broken": found.broken[:200]})
    report = write_inspection_report(options.out)
    echo(found.text())
    for row in found.broken[:_SHOWN]:
        echo(f"Broken: {row['modality']} of {', '.join(row['items'])}: {row['cell']}: {row['detail']} ({row['code']})")
    if len(found.broken) > _SHOWN:
        echo(f"All {len(found.broken):,} broken cells: {shown(options.out / 'broken.jsonl')}")
    if options.save is not None:
        found.items.save(options.save, overwrite="replace")
        echo(f"Item table: {shown(options.save)}")
    echo(f"Report: {shown(report)}")
    failed = ("broken" in options.fail_on and found.broken) or ("leak" in options.fail_on and found.leaking_groups)
    return 1 if failed else 0
