"""Find a named data set and list its items."""

import os
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from unialign._checks import check_choice
from unialign.data import random_split
from unialign.errors import DataError
from unialign.io import checked_path
from unialign.items import Items, content_codes, joined_groups, text_codes
from unialign.media import Kind

FRACTIONS = (0.7, 0.08, 0.22)


@dataclass(frozen=True, kw_only=True)
class NamedData:
    """Description of a named data set.

    Attributes:
        name: name for `prepare`.
        title: short description of the data.
        license: SPDX identifier.
        install: command that installs the package with the data; "" for data that no package provides.
        folder: folder in which the package installs the data.
        version: version of the package that `counts` were taken from.
        counts: number of items, and of present cells of each modality, in that version.
        equal_texts: modalities in which items with equal texts get the same id and group.
        equal_files: modalities in which items with equal files get the same group.
        read: function that lists the items of the folder, without groups and split.
        keeps_split: whether `read` returns the split of the source, which is kept.
        count: function of the items that returns the numbers for `counts`. None: items, and present cells by modality.
        layout: files of the folder, for messages.
    """

    name: str
    title: str
    license: str
    install: str
    folder: Path
    version: str
    counts: Mapping[str, int]
    equal_texts: tuple[str, ...]
    equal_files: tuple[str, ...]
    read: Callable[[Path], Items]
    keeps_split: bool = False
    count: Callable[[Items], Mapping[str, int]] | None = None
    layout: str = ""

    @property
    def installed(self) -> bool:
        """Whether the folder of the package exists."""
        return bool(self.install) and self.folder.is_dir()

    def counted(self, items: Items) -> Mapping[str, int]:
        """Return the numbers to compare with `counts`."""
        if self.count is not None:
            return self.count(items)
        return {"items": len(items), **{name: int(items.present(name).sum()) for name in items.modalities}}

    def differences(self, items: Items) -> list[str]:
        """Return one sentence per count that differs from `counts`."""
        found = self.counted(items)
        return [
            f"{name}: {found.get(name, 0):,}, {number:,} in version {self.version}"
            for name, number in self.counts.items()
            if found.get(name, 0) != number
        ]


def table(data: NamedData, records: Sequence[Mapping[str, Any]], kinds: Mapping[str, Kind], folder: Path) -> Items:
    if not records:
        raise DataError(
            f"{folder} has no items of {data.name}; pass the folder that contains its files as source (--source)"
        )
    present = {name: kind for name, kind in kinds.items() if any(record.get(name) for record in records)}
    items = Items.from_records(records, kinds=present, root=folder, name=data.name, license=data.license)
    return items.select(list(present))


def names() -> tuple[str, ...]:
    """Return the names of all data sets."""
    package = import_module("unialign.named_data")
    modules = (module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(sorted(name for module in modules if not module.startswith("_") for name in _sets(module)))


def find(name: str) -> NamedData:
    """Return the description of a data set; raise ConfigError for an unknown name."""
    check_choice("named data", name, names())
    return _sets(name.partition(":")[0])[name]


def _sets(module: str) -> dict[str, NamedData]:
    """Return the data sets of a module, by name."""
    found = import_module(f"unialign.named_data.{module}").DATA
    return {found.name: found} if isinstance(found, NamedData) else dict(found)


def prepare(name: str, *, source: str | os.PathLike[str] | None = None, seed: int = 0) -> Items:
    """List the items of an installed data set, with groups and a split by groups.

    No file is copied. Items with equal texts have equal ids, so they are never negatives of each other. Near-duplicates
    are in one group: items with equal texts or, depending on the data set, equal files. The split has 70 % training,
    8 % validation and 22 % test items, unless the data set defines a split.

    Args:
        name: name of a data set (see `names`).
        source: folder of the data, if they are not in the folder of the package.
        seed: seed of the split.

    Raises:
        ConfigError: unknown name.
        DataError: the data are not installed (the message contains the command), or the folder has another layout or
            cannot be read.
    """
    data = find(name)
    folder = data.folder if source is None else checked_path(source, "the folder of the data", error=DataError)
    if not data.install and (source is None or not folder.is_dir()):
        raise DataError(f"pass the folder of {name} with {data.layout} as source (--source); no package has these data")
    if not folder.is_dir():
        raise DataError(
            f"{name} is not in {folder}; install it with `{data.install}`, or pass its folder as source (--source)"
        )
    items = data.read(folder)
    texts = [text_codes(items, modality) for modality in data.equal_texts if modality in items.modalities]
    files = [content_codes(items, modality) for modality in data.equal_files if modality in items.modalities]
    group_N = joined_groups([items.groups, *texts, *files], len(items))
    if data.keeps_split:
        return items
    split_N = random_split(len(items), fractions=FRACTIONS, groups=group_N, seed=seed)
    if texts:
        items = items.with_ids([str(items.keys[row]) for row in joined_groups(texts, len(items)).tolist()])
    return items.with_groups([str(items.keys[row]) for row in group_N.tolist()]).with_split(split_N)
