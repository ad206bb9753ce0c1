"""Implementation of `unialign search`."""

import argparse
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from unialign.cli._console import echo, shown
from unialign.cli._index_source import open_source
from unialign.cli._terminal_images import image_escape, image_protocol
from unialign.errors import ConfigError, DataError
from unialign.index import Found, Hit, Index, Query, query
from unialign.io import open_regular, read_npy_header, replace_file

# Kinds of media of the options.
_MEDIA = ("text", "image", "audio", "video")
_IMAGE_ROWS = 4


def search(options: argparse.Namespace) -> int:
    """Search, and print or write the items."""
    source = open_source(options.source_data, space=options.space, id=options.id)
    index = next(iter(source.indexes.values()))
    target: Any = options.target[0] if len(options.target) == 1 else options.target
    found = index.search(
        _query(index, options),
        k=options.k,
        target=target,
        where=options.where,
        correction="none" if options.no_correction else "auto",
        min_probability=options.min_probability,
    )
    if options.csv is not None:
        replace_file(options.csv, _csv(found), error=DataError)
    if options.json:
        for record in found.to_dict()["results"]:
            echo(json.dumps(record, ensure_ascii=False))
        return 0
    _print(index, found, options)
    if options.csv is not None:
        echo(f"written to {shown(options.csv)}")
    return 0


def _query(index: Index, options: argparse.Namespace) -> Query:
    weights = options.weight or [1.0] * len(options.parts)
    parts = [
        _part(index, kind, value, options) * weight
        for (kind, value), weight in zip(options.parts, weights, strict=True)
    ]
    total: Query = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _part(index: Index, kind: str, value: str, options: argparse.Namespace) -> Query:
    if kind.startswith("minus-"):
        return -_part(index, kind.removeprefix("minus-"), value, options)
    if kind == "item":
        return query(item=value, modalities=options.source)
    if kind == "vector":
        modality, _, file = value.partition("=")
        return query(vector=_vector(file or value), modality=modality if file else "")
    inputs: dict[str, Any] = {_modality(index, kind, options): value if kind == "text" else Path(value)}
    return query(**inputs)


def _vector(file: str) -> np.ndarray[Any, Any]:
    try:
        with open_regular(Path(file)) as opened:
            header = read_npy_header(opened)
            found = np.frombuffer(opened.read(), header.dtype).reshape(header.shape)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"--vector {file} cannot be read ({error}); expected MODALITY=FILE.npy") from None
    if found.ndim == 2 and len(found) == 1:
        found = found[0]
    return np.asarray(found)


def _modality(index: Index, kind: str, options: argparse.Namespace) -> str:
    """Return the modality that encodes a kind of media, with a readable error if there is none or several."""
    names = [name for name, encoder in index.encoders.items() if encoder.kind == kind]
    if options.modality is not None:
        return str(options.modality)
    if kind in names or len(names) == 1:
        return kind if kind in names else names[0]
    if names:
        raise ConfigError(f"several modalities encode {kind} ({', '.join(names)}); choose one with --modality")
    reason = index.can_encode(kind) if kind in index.modalities else None
    known = ", ".join(f"{name} ({encoder.kind})" for name, encoder in index.encoders.items()) or "none"
    raise ConfigError(
        f"--{kind} cannot be encoded: {reason or f'no modality of the space has an encoder of {kind}'}; encoders: "
        f"{known}. Search with --item KEY or --vector instead"
    )


def _print(index: Index, found: Found, options: argparse.Namespace) -> None:
    if not found:
        where = f" that satisfies {options.where!r}" if options.where else ""
        echo(f"no item found{where}: {found.scanned:,} items compared")
        for warning in found.warnings:
            echo(f"note: {warning}")
        return
    protocol = None if options.no_images else image_protocol()
    width = max(len(hit.name) for hit in found)
    width = min(max(width, 4), 40)
    echo(f"{'':>4} {'item':<{width}} {'score':>7} {'prob.':>6}  {'matched':<10} missing")
    for rank, hit in enumerate(found, 1):
        probability = "" if hit.probability is None else f"{100 * hit.probability:.0f} %"
        echo(
            f"{rank:>3}. {hit.name[:width]:<{width}} {hit.score:>7.3f} {probability:>6}  {hit.modality:<10} "
            f"{', '.join(hit.missing)}".rstrip()
        )
        picture = _picture(index, hit) if protocol is not None else None
        if protocol is not None and picture is not None:
            echo(image_escape(picture, protocol, rows=_IMAGE_ROWS))
    seconds = sum(found.seconds.values())
    how = "exact" if found.exact else "approximate"
    echo(f"{found.scanned:,} items compared ({how}), correction {found.correction}, {1000 * seconds:.0f} ms")
    for warning in found.warnings:
        echo(f"note: {warning}")


def _picture(index: Index, hit: Hit) -> bytes | None:
    for modality in (hit.modality, *index.modalities):
        preview = index.preview(hit.key, modality)
        if preview is not None and preview[0].startswith("image/"):
            return preview[1]
    return None


def _csv(found: Found) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(("rank", "key", "name", "score", "probability", "modality", "missing", "label"))
    for rank, hit in enumerate(found, 1):
        row = (rank, hit.key, hit.name, hit.score, hit.probability, hit.modality, " ".join(hit.missing), hit.label)
        writer.writerow([_safe(value) for value in row])
    return out.getvalue()


def _safe(value: object) -> object:
    """Quote texts that a spreadsheet would interpret as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
