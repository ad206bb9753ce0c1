"""Implementation of `unialign index`."""

import argparse
import json
from pathlib import Path
from typing import Any

from unialign._datasets import list_datasets
from unialign._plain_text import count
from unialign.cli._console import echo, shown
from unialign.cli._fix_list import read_removed
from unialign.cli._index_source import column_encoders, described, open_index, space_for, space_of_data
from unialign.cli._items import open_items
from unialign.cli._media import is_media
from unialign.cli._quiet import progress_mode
from unialign.cli._sources import check_sources
from unialign.data import EmbeddingStore, load_dataset, without_items
from unialign.embedding import embed
from unialign.errors import ConfigError
from unialign.evaluation import accepted_licenses, encoders_for_items
from unialign.index import Index
from unialign.space import Space

_DEFAULT_OUT = Path("runs") / "index"


def make_index(options: argparse.Namespace) -> int:
    """Create an index of data, or continue it."""
    out = options.out or _DEFAULT_OUT
    space = None if options.space is None else Space.from_pretrained(options.space)
    store, space = _store_and_space(options, options.data, space, out)
    if options.without is not None:
        store = without_items(store, read_removed(options.without))
    if (out / "index.sqlite").exists():
        index = open_index(out, mode="w")
    elif space is not None:
        names = [name for name in space.modalities if name in store.columns]
        index = Index.create(out, space=space, modalities=names, info={"data": store.name})
    else:
        dims = {store.dim(name) for name in store.modalities}
        if len(dims) > 1:
            listed = ", ".join(f"{name} {store.dim(name)}" for name in store.modalities)
            raise ConfigError(
                f"the modalities have different dims ({listed}); specify the space that embeds them with --space"
            )
        index = Index.create(out, dim=dims.pop(), modalities=store.modalities, info={"data": store.name})
    with index:
        _add(index, store, options, on_conflict=options.on_conflict or "skip")
        echo(f"{shown(out)}: {described(index)}")
        echo(f"correction: {index.calibration.method} ({index.calibration.reason})")
    texts = [name for name, one in column_encoders(store, space).items() if one.problem is None]
    query = '--text "..."' if texts else "--item KEY"
    echo(f"search it: unialign search {shown(out)} {query}; or on a page: unialign serve {shown(out)}")
    return 0


def change_index(options: argparse.Namespace) -> int:
    """Apply the changes in the order: add, delete, calibrate, compact, approximate; then the checks."""
    path = Path(options.data[0])
    if options.salvage:
        return _salvaged(path, options.salvage)
    changes = ("add", "delete", "delete_where", "delete_listed", "calibrate", "compact", "approximate")
    mode: Any = "w" if any(getattr(options, name) for name in changes) else "r"
    with open_index(path, mode=mode) as index:
        if options.add:
            store = _added_store(options, index, path)
            _add(index, store, options, on_conflict=options.on_conflict or "error")
        if options.delete:
            echo(f"deleted {count(index.delete(keys=options.delete).deleted, 'item')}")
        if options.delete_where:
            echo(f"deleted {count(index.delete(where=options.delete_where).deleted, 'item')}")
        if options.delete_listed:
            listed = [key for key in read_removed(options.delete_listed) if key in index]
            echo(f"deleted {count(index.delete(keys=listed).deleted if listed else 0, 'item')}")
        if options.calibrate:
            fitted = index.calibrate(method=options.calibrate)
            echo(f"correction: {fitted.method} ({fitted.reason})")
        if options.compact:
            before = index.stats()["dead_items"]
            index.compact(everything=before > 0)
            echo(f"removed {count(before, 'deleted item')} from the parts")
        if options.approximate:
            info = index.build_approximate(kind=options.approximate, target=options.target)
            echo(f"{info.kind} for {info.target}: recall@10 {info.recall:.3f}, built in {info.seconds:.1f} s")
        if options.stats:
            echo(json.dumps(index.stats(), indent=2))
        elif not options.verify:
            echo(f"{path}: {described(index)}, correction {index.calibration.method}, generation {index.generation}")
        return _verified(index) if options.verify else 0


def _salvaged(path: Path, out: Path) -> int:
    """Copy the intact items to a new index; a damaged index cannot be opened, so its files are only read."""
    found = Index.salvage(path, out)
    for problem in found.problems:
        echo(problem)
    echo(
        f"copied {count(found.items, 'item')} to {shown(out)}; {len(found.lost):,} are lost and "
        f"{len(found.incomplete):,} lack some rows"
    )
    return 0


def _verified(index: Index) -> int:
    problems = index.verify()
    for problem in problems:
        echo(problem)
    echo(f"{count(len(problems), 'problem')} found" if problems else "all files match their checksums")
    return 1 if problems else 0


def _add(index: Index, store: EmbeddingStore, options: argparse.Namespace, *, on_conflict: Any) -> None:
    done = index.add(store, rows=options.split or "all", on_conflict=on_conflict)
    skipped = store.items - done.added - done.replaced
    echo(
        f"added {count(done.added, 'item')}, replaced {done.replaced:,}"
        + (
            f", skipped {skipped:,} that are already indexed, in another split or without any modality"
            if skipped
            else ""
        )
    )


def _added_store(options: argparse.Namespace, index: Index, path: Path) -> EmbeddingStore:
    """Return features for the space of the index, or embeddings if the index has no space."""
    if is_media(options.add, options) or index.space is not None:
        return _store_and_space(options, options.add, index.space, path)[0]
    check_sources(options.add)
    return load_dataset(options.add if len(options.add) > 1 else options.add[0], id=options.id)


def _store_and_space(
    options: argparse.Namespace, sources: list[str], space: Space | None, out: Path
) -> tuple[EmbeddingStore, Space | None]:
    # Results folders contain files that would be taken for media.
    if len(sources) == 1 and sources[0] not in list_datasets():
        found = space_of_data(Path(sources[0]))
        if found is not None:
            return found[0], found[1] if space is None else space
    if is_media(sources, options):
        if space is None:
            raise ConfigError("media need a space with encoders; specify it with --space")
        items = open_items(sources, options)
        for note in items.notes:
            echo(note)
        encoders = encoders_for_items(space, items)
        target = out.with_name(f"{out.name}-features")
        echo(f"embedding {count(len(items), 'item')} into {shown(target)}")
        licenses = accepted_licenses(encoders.values())
        chosen = items.select(tuple(encoders))
        return embed(chosen, encoders, target, accept_licenses=licenses, progress=progress_mode()), space
    check_sources(sources)
    store = load_dataset(sources if len(sources) > 1 else sources[0], id=options.id)
    return store, space_for(store, sources[0]) if space is None else space
