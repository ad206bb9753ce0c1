"""Implementation of `unialign data`."""

from pathlib import Path

from unialign import named_data
from unialign._plain_text import count, table_lines
from unialign.cli._console import echo, shown
from unialign.cli._fix_list import read_removed
from unialign.cli._sources import check_sources
from unialign.data import list_datasets, load_dataset, without_items


def show_all() -> int:
    rows = []
    for name in named_data.names():
        data = named_data.find(name)
        installed = "yes" if data.installed else "no" if data.install else "--source"
        rows.append((name, installed, data.license, data.title))
    echo("\n".join(table_lines(("name", "installed", "license", "data"), rows)))
    echo(f"Embeddings that ship with unialign-datasets: {', '.join(list_datasets())}")
    return 0


def show(name: str) -> int:
    data = named_data.find(name)
    echo(f"{name}: {data.title}")
    echo(f"License: {data.license}")
    if data.install:
        echo(f"Folder: {data.folder} ({'installed' if data.installed else 'not installed'})")
        echo(f"Install: {data.install}")
    else:
        echo(f"Folder: provided by you, with {data.layout}: unialign data prepare {name} --source DIR")
    if data.counts:
        echo(f"Version {data.version}: {', '.join(f'{number:,} {key}' for key, number in data.counts.items())}")
    return 0


def prepare_table(name: str, source: Path | None, out: Path | None, seed: int) -> int:
    data = named_data.find(name)
    items = named_data.prepare(name, source=source, seed=seed)
    target = Path("tables") / name.replace(":", "-") if out is None else out
    items.save(target, overwrite="replace")
    echo(f"{count(len(items), 'item')}, license {data.license}")
    present = [(modality, kind, f"{int(items.present(modality).sum()):,}") for modality, kind in items.kinds.items()]
    echo("\n".join(table_lines(("modality", "kind", "items"), present)))
    parts = ((items.split == code).sum() for code in range(3))
    which = "of the source" if data.keeps_split else "by groups"
    echo("Split {}: {:,} train, {:,} val, {:,} test".format(which, *map(int, parts)))
    if data.count is not None:
        echo(", ".join(f"{key}: {number:,}" for key, number in data.counted(items).items()))
    for line in data.differences(items):
        echo(f"Warning: the counts differ from those of the known version: {line}")
    echo(f"Item table: {shown(target)}")
    return 0


def drop_items(source: str, keys: Path, out: Path) -> int:
    """Write a store without the items of a list."""
    check_sources([source])
    store = load_dataset(source)
    new = without_items(store, read_removed(keys)).save(out)
    echo(f"{shown(out)}: {count(new.items, 'item')}, {count(store.items - new.items, 'item')} left out")
    return 0
