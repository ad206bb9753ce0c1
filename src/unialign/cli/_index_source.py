"""Resolve the source of a search command: an index, results of a training, a data set, a store or files."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import yaml

from unialign._checks import suggestion
from unialign._datasets import list_datasets
from unialign.cli._console import echo, shown
from unialign.data import EmbeddingStore, encoder_fingerprint, load_dataset
from unialign.encoders import TextEncoder, find_projection, text_encoder
from unialign.errors import ConfigError, DataError
from unialign.experiments import open_store
from unialign.index import Index, QueryEncoder
from unialign.space import Space

_RUNS, _IMAGES = "runs", "images"
# Results of `unialign demo`, which `emoji` uses without --space.
_DEMO = Path("runs") / "demo"


@dataclass
class Source:
    """Indexes to search, and the inputs for generating images on the page.

    Attributes:
        indexes: name -> index, of which the first is the default.
        others: name -> function that opens another index.
        decoder_data: name of the data set whose decoder generates images, or None.
        generation_space: folder of the space for the decoder, or None.
        store: features of the items, or None.
    """

    indexes: dict[str, Index] = field(default_factory=dict)
    others: dict[str, Callable[[], Index]] = field(default_factory=dict)
    decoder_data: str | None = None
    generation_space: Path | None = None
    store: EmbeddingStore | None = None


def open_source(source: str, *, space: str | None = None, id: str | None = None) -> Source:
    """Open an index for reading, or build one in memory.

    Args:
        source: folder of an index, a results folder of `train`, `compare` or `demo`, or data as in other commands.
        space: folder or Hub name of the space of the data.
        id: name of the array of ids in files.

    Raises:
        ConfigError, DataError: the source is unknown, or needs a space.
    """
    path = Path(source)
    if (path / "index.sqlite").exists():
        if space is not None:
            raise ConfigError(f"{source} is an index, which has its own space; omit --space")
        return Source({path.resolve().name: open_index(path)})
    if (path / "results.json").is_file() and (path / "config.yaml").is_file() and space is None:
        found = _comparison(path)
        if found is not None:
            return found
    if (path / "space" / "config.json").is_file() and (path / "config.yaml").is_file() and space is None:
        return _training(path)
    store = load_dataset(source, id=id) if source in list_datasets() or path.exists() else _unknown(source)
    if space is None and source == "emoji" and (_DEMO / "results.json").is_file():
        echo(f"searching in {shown(_DEMO)}; use --space for another space")
        return _comparison(_DEMO) or Source()
    chosen = space_for(store, source) if space is None else Space.from_pretrained(space)
    index = Index.from_store(store, chosen, encoders=column_encoders(store, chosen))
    return Source({_name(store.name): index}, store=store)


def open_index(path: Path, *, mode: Literal["r", "w"] = "r") -> Index:
    """Open the folder of an index, with the encoders of the data set from which it was built."""
    index = Index.open(path, mode=mode)
    data = index.info.get("data")
    if data in list_datasets() and index.space is not None:
        index.set_encoders(column_encoders(load_dataset(str(data)), index.space))
    return index


def column_encoders(store: EmbeddingStore, space: Space | None) -> dict[str, QueryEncoder]:
    """Return the encoders of new texts for the columns of a shipped data set."""
    found: dict[str, QueryEncoder] = {}
    for column in store.columns if space is not None else ():
        if space is None or column not in space.modalities or column in space.encoders:
            continue
        try:
            projection = find_projection(store, column, encoder_fingerprint(store, column))
        except (ConfigError, DataError):
            continue
        missing = [name for name in (projection.module, "sentence_transformers") if find_spec(name) is None]
        problem = f"texts need {' and '.join(missing)}: pip install 'unialign[text]'" if missing else None
        found[column] = QueryEncoder("text", _LazyTexts(store, column), problem)
    return found


class _LazyTexts:
    """Encoder that is loaded for the first text, since this takes seconds; indexes of one store share the encoder."""

    def __init__(self, store: EmbeddingStore, column: str) -> None:
        self._store, self._column = store, column

    def __call__(self, texts: Sequence[str]) -> Any:
        return _loaded(self._store, self._column)(list(texts))


@lru_cache(maxsize=8)
def _loaded(store: EmbeddingStore, column: str) -> TextEncoder:
    return text_encoder(store, column)


def _comparison(path: Path) -> Source | None:
    found = _runs_of(path)
    if found is None:
        return None
    store, spaces = found
    first, *rest = spaces
    images = path / _IMAGES / first / "space"
    has_images = (images / "config.json").is_file()
    return Source(
        {first: _of_space(store, spaces[first])},
        {name: lambda folder=spaces[name]: _of_space(store, folder) for name in rest},  # type: ignore[misc]
        decoder_data=str(_settings(path)["data"]) if has_images else None,
        generation_space=images if has_images else None,
        store=store,
    )


def _runs_of(path: Path) -> tuple[EmbeddingStore, dict[str, Path]] | None:
    """Return the data and the spaces of the first seed of a comparison, the space of UniAlign first; None for other
    results.
    """
    settings = _settings(path)
    try:
        results = json.loads((path / "results.json").read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path / 'results.json'} cannot be read ({error}); run the command again") from None
    runs = [run for run in results.get("runs", []) if isinstance(run, Mapping) and run.get("folder")]
    data = settings.get("data")
    if not runs or data is None:
        return None
    store = _open_data(data, settings.get("fingerprint"))
    seed = min(int(run.get("seed", 0)) for run in runs)
    spaces = {
        _name(str(run["objective"])): path / str(run["folder"]) / "space"
        for run in sorted(runs, key=lambda run: run["objective"] != "unialign")
        if run.get("seed", 0) == seed
    }
    spaces = {name: folder for name, folder in spaces.items() if (folder / "config.json").is_file()}
    if not spaces:
        raise DataError(f"{path} has no saved spaces in {path / _RUNS}; run the comparison again")
    return store, spaces


def _training(path: Path) -> Source:
    store = _trained_data(path)
    return Source({_name(path.resolve().name): _of_space(store, path / "space")}, store=store)


def _trained_data(path: Path) -> EmbeddingStore:
    data = _settings(path).get("data")
    if (path / "store" / "store.json").is_file():
        data = str(path / "store")
    if data is None:
        raise DataError(
            f"{path / 'config.yaml'} does not name the data of its space; pass the data, and specify the space "
            "with --space"
        )
    return _open_data(data, None)


def _open_data(data: Any, fingerprint: Any) -> EmbeddingStore:
    """Open the data of a configuration, given as a name or path, or as a mapping with a fingerprint as written by
    `train`.
    """
    if isinstance(data, Mapping):
        data, fingerprint = data.get("path") or data.get("name"), data.get("fingerprint")
    return open_store(str(data), None, fingerprint)


def space_of_data(path: Path) -> tuple[EmbeddingStore, Space] | None:
    """Return the data and the space of a results folder of `train`, `compare` or `demo`; None for other paths."""
    if not (path / "config.yaml").is_file():
        return None
    if (path / "results.json").is_file():
        found = _runs_of(path)
        if found is not None:
            store, spaces = found
            return store, Space.from_pretrained(next(iter(spaces.values())))
    if (path / "space" / "config.json").is_file():
        return _trained_data(path), Space.from_pretrained(path / "space")
    return None


def _of_space(store: EmbeddingStore, folder: Path) -> Index:
    space = Space.from_pretrained(folder)
    return Index.from_store(store, space, encoders=column_encoders(store, space))


def space_for(store: EmbeddingStore, source: str) -> Space | None:
    """Return a space for features, fitted to them; None for embeddings, whose modalities have the same dim.

    The columns of named data sets are features.
    """
    dims = {store.dim(name) for name in store.modalities}
    if source in list_datasets() or len(dims) != 1:
        from unialign.closed_form import gcca

        echo(f"no --space is given, so a space is fitted to {store.name!r} by linear algebra (GCCA)")
        return gcca(store)
    return None


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load((path / "config.yaml").read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path / 'config.yaml'} cannot be read ({error})") from None
    return found if isinstance(found, dict) else {}


def _unknown(source: str) -> EmbeddingStore:
    known = list_datasets()
    raise ConfigError(
        f"{source!r} is neither a folder nor a data set ({', '.join(known)}){suggestion(source, known)}; pass an "
        "index, a results folder, a store or a data set"
    )


def _name(text: str) -> str:
    kept = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in text)
    return kept.strip("-.") or "index"


def described(index: Index) -> str:
    """Describe the content of an index in a phrase."""
    return f"{len(index):,} items, {len(index.modalities)} modalities ({', '.join(index.modalities)})"


__all__ = ["Source", "column_encoders", "described", "open_index", "open_source", "space_for", "space_of_data"]
