"""Data sets of the study `front`, and development splits, which contain no test row.

Shapes: `N` items of a store, `n` items of its training and validation splits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unialign._plain_text import count
from unialign.data import EmbeddingStore, list_datasets, random_split
from unialign.errors import DataError
from unialign.experiments import open_store

__all__ = [
    "DATA",
    "HELD_OUT",
    "FrontData",
    "development_store",
    "missing_data",
    "open_data",
    "rows_of",
    "transfer_store",
]

# Fraction of the development rows on which settings are compared, and of the validation rows for the choice of weights.
HELD_OUT, VALIDATION = 0.25, 0.1
_STAMPS = "runs/tuxpaint/stamps-store"
_EMBED_STAMPS = ("python -m benchmarks.tuxpaint",)


@dataclass(frozen=True)
class FrontData:
    """A data set of the study.

    Attributes:
        source: name of a built-in data set, or folder of a store.
        anchor: anchor of GRAM and of the measures of conflict.
        dropout: dropout of linear heads.
        commands: commands that write the store.
        transfer: folder of a store of which all items are test items; "": the test items of the source.
    """

    title: str
    source: str
    modalities: tuple[str, ...]
    anchor: str
    dropout: float = 0.5
    commands: tuple[str, ...] = ()
    transfer: str = ""


def _embedded(name: str, modalities: str, *encoders: str) -> tuple[str, ...]:
    chosen = " ".join(f"--encode '{encoder}'" for encoder in encoders)
    return (
        f"unialign data prepare {name} --out runs/front/tables/{name}",
        f"unialign embed runs/front/tables/{name} --out runs/front/stores/{name} --modalities {modalities} {chosen}",
    )


DATA: Mapping[str, FrontData] = {
    "emoji": FrontData("Emoji", "emoji", ("image", "drawing", "text", "keywords", "speech"), "text"),
    # Dropout could remove all six columns of `mor`.
    "digits": FrontData("Digits", "digits", ("fou", "fac", "kar", "pix", "zer", "mor"), "pix", dropout=0.0),
    "tuxpaint3": FrontData(
        "Tux Paint, three modalities", _STAMPS, ("text", "image", "speech_fr"), "text", commands=_EMBED_STAMPS
    ),
    "tuxpaint8": FrontData(
        "Tux Paint, eight modalities",
        _STAMPS,
        ("text", "image", "speech_fr", "speech_es", "speech_ca", "speech_bg", "speech_ro", "speech_ru"),
        "text",
        commands=_EMBED_STAMPS,
    ),
    "fillets": FrontData(
        "Fish Fillets dialogues",
        "runs/front/stores/fillets",
        ("text", "text_cs", "text_de", "text_nl", "speech_cs", "speech_nl"),
        "text",
        commands=_embedded(
            "fillets",
            "text text_cs text_de text_nl speech_cs speech_nl",
            "text=package:minilm-l6",
            "text_*=builtin:chars",
            "speech_*=package:whisper-tiny",
        ),
    ),
    "molecules": FrontData(
        "Molecules",
        "runs/front/stores/molecules",
        ("name", "smiles", "fingerprint", "properties"),
        "smiles",
        dropout=0.0,
        commands=_embedded(
            "molecules", "name smiles fingerprint properties", "name=builtin:chars", "smiles=builtin:chars"
        ),
    ),
    "qabcs": FrontData(
        "From Tux Paint to qABCs",
        _STAMPS,
        ("text", "image", "sound"),
        "text",
        commands=(
            *_EMBED_STAMPS,
            *_embedded(
                "qabcs",
                "image text sound",
                "image=package:efficientnet-lite0",
                "text=package:minilm-l6",
                "sound=package:whisper-tiny",
            ),
        ),
        transfer="runs/front/stores/qabcs",
    ),
}


def missing_data(name: str, stores: Mapping[str, str]) -> str:
    """Return why a data set cannot be opened, with the commands that write it; "" if it can."""
    data = DATA[name]
    needed = [stores.get(name, data.source), *([data.transfer] if data.transfer and name not in stores else [])]
    absent = [place for place in needed if place not in list_datasets() and not (Path(place) / "store.json").exists()]
    return f"there is no store {' or '.join(absent)}; run {' && '.join(data.commands)}" if absent else ""


def open_data(name: str, stores: Mapping[str, str], fingerprint: str | None = None) -> EmbeddingStore:
    """Raise DataError if the store is missing or has another fingerprint."""
    if missing := missing_data(name, stores):
        raise DataError(f"{name}: {missing}")
    return open_store(stores.get(name, DATA[name].source), DATA[name].modalities, fingerprint)


def transfer_store(name: str, stores: Mapping[str, str]) -> EmbeddingStore | None:
    data = DATA[name]
    if not data.transfer or name in stores:
        return None
    store = EmbeddingStore.open(data.transfer).select(data.modalities)
    return rows_of(store, np.arange(store.items), np.full(store.items, 2, np.int8))


def development_store(store: EmbeddingStore, k: int, *, validation: bool = False) -> EmbeddingStore:
    """Return the training and validation rows of a store, split again by groups; test rows are not in the result.

    A quarter of the rows are held out. They are the validation split of the result; with `validation`, a tenth of all
    rows are the validation split, and the same held-out rows have the code of a test split.

    Args:
        k: number of the split, at least 0.
    """
    rows_n = np.sort(np.concatenate([store.rows("train"), store.rows("val")]))
    groups_n = store.groups[rows_n]
    code_n = random_split(len(rows_n), fractions=(1 - HELD_OUT, HELD_OUT, 0), groups=groups_n, seed=k)
    if validation:
        kept = np.flatnonzero(code_n == 0)
        share = VALIDATION / (1 - HELD_OUT)
        inner = random_split(len(kept), fractions=(1 - share, share, 0), groups=groups_n[kept], seed=1000 + k)
        code_n = np.full(len(rows_n), 2, np.int8)
        code_n[kept] = inner
    for code, part in enumerate(("train", "val", "test") if validation else ("train", "val")):
        if (found := int((code_n == code).sum())) < 2:
            raise DataError(
                f"development split {k} of {store.name!r} has {count(found, 'item')} in {part}; 2 are needed"
            )
    return rows_of(store, rows_n, code_n)


def rows_of(store: EmbeddingStore, rows_n: NDArray[np.int64], split_n: NDArray[np.int8]) -> EmbeddingStore:
    """Return a store in memory with these rows of the default modalities."""
    return EmbeddingStore.from_arrays(
        {name: np.ascontiguousarray(store.array(name)[rows_n]) for name in store.modalities},
        present={name: store.present(name)[rows_n] for name in store.modalities},
        ids=store.ids[rows_n] if store.has_ids else None,
        groups=store.groups[rows_n],
        labels=store.labels[rows_n],
        label_names=store.label_names or None,
        split=split_n,
        name=store.name,
    )
