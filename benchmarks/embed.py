"""Compare `embed` with its encoder alone, on images and sound clips: `python -m benchmarks.embed`.

The encoder alone computes prepared batches in memory, with the same batch size and threads in the same process, before
and after `embed` (A/B/A). `embed` reads and decodes files, and writes the store. Only ratios are kept, because they do
not depend on the machine. Run it on an idle machine with at least two cores; it needs the extra `media`, the packages
of the encoders, and 1 GB for files.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.pages import RESULTS, ROOT, write_block, write_results
from unialign import encoders
from unialign.config import EmbedConfig
from unialign.embedding import embed_with
from unialign.io import describe_environment
from unialign.items import Items
from unialign.media import load_cell

RESULT, PAGE = RESULTS / "embed.json", ROOT / "docs" / "how-to" / "embed.md"
BATCH, ROUNDS = 64, 3
# Distinct prepared batches of the encoder alone, which are repeated.
PREPARED = 8
# Small inputs, so that reading, decoding and writing are a large share of the time.
CASES = {"images": "package:efficientnet-lite0?size=96", "clips": "package:whisper-tiny?window=1"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embed", allow_abbrev=False)
    parser.add_argument("--count", type=int, default=5000, help="images, and clips")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", nargs="+", choices=tuple(CASES), default=tuple(CASES))
    parser.add_argument("--folder", type=Path, help="for the files (default: a temporary folder)")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {"schema": 1}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for case in options.only:
            items = (
                write_images(Path(folder), options.count)
                if case == "images"
                else write_clips(Path(folder), options.count)
            )
            found[case] = measure(items, CASES[case], Path(folder), options.workers, options.rounds)
            print(case, json.dumps(found[case]))
    found["environment"] = describe_environment()
    write_results(options.out, found)
    if options.out == RESULT:
        write_block(PAGE, RESULT, f"\n{table(found)}\n")


def write_images(folder: Path, count: int) -> Items:
    """Write JPEG files of 320 x 240 pixels, with smooth shapes and noise."""
    root = folder / "images"
    root.mkdir()
    y, x = np.mgrid[:240, :320].astype(np.float32)
    for i in range(count):
        draw = np.random.default_rng(i)
        waves = [127 + 90 * np.sin(x / draw.uniform(5, 60) + y / draw.uniform(5, 60)) for _ in range(3)]
        pixels = np.stack(waves, -1) + draw.normal(0, 12, (240, 320, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{i:05d}.jpg", quality=90)
    return Items.from_records([{"image": f"{i:05d}.jpg"} for i in range(count)], kinds={"image": "image"}, root=root)


def write_clips(folder: Path, count: int) -> Items:
    """Write WAV files of 1 second at 22,050 Hz, with tones and noise."""
    import soundfile

    root = folder / "clips"
    root.mkdir()
    time_T = np.arange(22050) / 22050
    for i in range(count):
        draw = np.random.default_rng(i)
        tone = 0.3 * np.sin(2 * np.pi * draw.uniform(80, 4000) * time_T)
        soundfile.write(root / f"{i:05d}.wav", tone + draw.normal(0, 0.02, len(time_T)), 22050, subtype="PCM_16")
    return Items.from_records([{"clip": f"{i:05d}.wav"} for i in range(count)], kinds={"clip": "audio"}, root=root)


WRITERS = {"images": write_images, "clips": write_clips}


def measure(items: Items, name: str, folder: Path, workers: int, rounds: int) -> dict[str, Any]:
    (modality,) = items.modalities
    encoder = encoders.create(name, media=items.kinds[modality])
    encoder.reference  # noqa: B018  computes features of a fixed input, once
    cells, _ = items.column(modality)
    media = [
        load_cell(cells[i], encoder.media, roots=items.roots, decoding=encoder.decoding)
        for i in range(min(PREPARED * BATCH, len(cells)))
    ]
    prepared = [encoder.prepare(value) for value in media]
    config = EmbedConfig(batch_size=BATCH, threads=1, workers=workers)
    ratios, shares = [], []
    for number in range(rounds):
        before = alone(encoder, prepared, len(cells))
        start = time.perf_counter()
        outcome = embed_with(config, items, {modality: encoder}, folder / f"{modality}-{number}", progress="lines")
        whole = time.perf_counter() - start
        after = alone(encoder, prepared, len(cells))
        assert outcome.store.present(modality).all()
        ratios.append((before + after) / 2 / whole)
        total = sum(outcome.seconds.values())
        shares.append({stage: round(spent / total, 3) for stage, spent in outcome.seconds.items()})
        print(f"round {number + 1}: {ratios[-1]:.3f}; encoder alone after / before {after / before:.3f}; {shares[-1]}")
    return {
        "encoder": name,
        "cells": len(cells),
        "batch_size": BATCH,
        "threads": 1,
        "workers": workers,
        "speed of embed / speed of the encoder alone": round(statistics.median(ratios), 3),
        "rounds": [round(ratio, 3) for ratio in ratios],
        "shares of the time of embed": shares,
    }


def alone(encoder: encoders.Encoder, prepared: list[Any], count: int) -> float:
    """Return the seconds to encode prepared batches."""
    start = time.perf_counter()
    done = 0
    while done < count:
        place = done % len(prepared)
        batch = prepared[place : place + min(BATCH, count - done)]
        encoders.encode_prepared(encoder, batch, batch_size=BATCH)
        done += len(batch)
    return time.perf_counter() - start


def table(found: dict[str, Any]) -> str:
    lines = ["| media | encoder | speed of `embed` / speed of the encoder alone |", "|---|---|---|"]
    for case, row in found.items():
        if case in CASES:
            ratio = row["speed of embed / speed of the encoder alone"]
            lines.append(f"| {row['cells']:,} {case} | `{row['encoder']}` | {ratio:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
