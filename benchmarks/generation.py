"""Score the images that decoders generate for held-out emoji, with controls, and draw a grid of them.

    python -m benchmarks.generation [decoder folder ...]

Every number is the mean over the given decoders, by default only that of the data. Requires `unialign[lite,generate]`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

import unialign as ua
from research._image_bench import make_bench, scores_of
from unialign.evaluation import resample
from unialign.generation import (
    SCORES,
    FlowDecoder,
    GenerationScores,
    Reference,
    frechet_distance,
    grid,
    kernel_distance,
    lite2,
    load_decoder,
    load_space,
    nearest_training,
    read_thumbnails,
    write_png,
)
from unialign.io import describe_environment
from unialign.metrics import percentile_interval, retrieval

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("text", "drawing", "speech", "text+drawing", "text+speech")
COLUMNS = ("fd", "fd_self", "kid", "recall@10", "mrr", "cosine")
SHOWN = 16
RESAMPLED, RESAMPLES = ("fd", "recall@10"), 300


def table(rows: dict[str, dict[str, float]], intervals: dict[str, dict[str, list[float]]]) -> str:
    head = [""] + [SCORES[c].label + (", %" if SCORES[c].unit == "percent" else "") for c in COLUMNS]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * len(COLUMNS)]
    for name, numbers in rows.items():
        cells = []
        for column in COLUMNS:
            if column not in numbers:
                cells.append("–")
                continue
            percent = SCORES[column].unit == "percent"
            decimals = 1 if percent or column in ("fd", "fd_self", "kid") else 3
            scale = 100 if percent else 1
            cell = f"{scale * numbers[column]:.{decimals}f}"
            if ends := intervals.get(name, {}).get(column):
                cell += f" [{scale * ends[0]:.{decimals}f}, {scale * ends[1]:.{decimals}f}]"
            cells.append(cell)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def image_grid() -> None:
    store, space, decoder = ua.data.load_dataset("emoji"), load_space("emoji"), load_decoder("emoji")
    test = store.rows("test")
    rows = test[np.linspace(0, len(test) - 1, 2 * SHOWN).round().astype(int)]
    z = space.encode({name: store.array(name)[rows] for name in space.modalities})
    made = {name: ua.generation.decode(space, decoder, z[name]) for name in ("image", "drawing", "text", "speech")}
    near = nearest_training(space, store, z["drawing"], anchor="image").rows[:, 0].tolist()
    true, copies = (read_thumbnails(store, "image", wanted, decoder.size) for wanted in (rows, near))
    lines: list[list[torch.Tensor | None]] = []
    for start in (0, SHOWN):
        part = slice(start, start + SHOWN)
        lines += [list(images[part]) for images in (true, *made.values(), copies)]
        lines.append([None] * SHOWN)
    write_png(ROOT / "docs" / "images" / "generated.png", grid(lines[:-1], scale=2))
    print("grid of", [store.item_names[row] for row in rows])


def main() -> None:
    torch.set_num_threads(1)
    store, space = ua.data.load_dataset("emoji"), load_space("emoji")
    decoders = [FlowDecoder.from_pretrained(path) for path in sys.argv[1:]] or [load_decoder("emoji")]
    bench = make_bench(store, decoders, anchor="image", extractor=lite2())
    controls = bench.controls(space)
    own = bench.score(controls["self"])
    scores: dict[str, GenerationScores] = {name: bench.score(x, self_scores=own) for name, x in controls.items()}
    scores |= scores_of(bench, space, {source: source.split("+") for source in SOURCES}, self_scores=own)
    rows = {name: found.numbers for name, found in scores.items()}
    rows["two halves"] = score_halves(bench.reference)
    made = {name: found for name, found in scores.items() if name not in ("nearest image", "random image")}
    per_decoder = {name: recall_by_decoder(found, bench.reference) for name, found in made.items()}
    drawn = resample(
        {
            (name, score): (found.statistics[score], found.numbers[score])
            for name, found in made.items()
            for score in RESAMPLED
        },
        store.groups[bench.rows],
        resamples=RESAMPLES,
    )
    intervals: dict[str, dict[str, list[float]]] = {name: {} for name in made}
    for (name, score), values in drawn.items():
        found_interval = percentile_interval(values, 0.95, estimate=rows[name][score])
        intervals[name][score] = [found_interval.low, found_interval.high]
    results = {
        "environment": describe_environment(),
        "data": {"name": store.name, "fingerprint": store.fingerprint, "items": len(bench.rows), "split": "test"},
        "judge": bench.extractor.name,
        "decoders": [vars(decoder.config) for decoder in decoders if isinstance(decoder, FlowDecoder)],
        "scores": rows,
        "intervals": intervals,
        "recall@10 by decoder": per_decoder,
    }
    target = ROOT / "benchmarks" / "results" / "generation.json"
    target.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    print(table(rows, intervals))
    print(json.dumps(per_decoder))
    image_grid()


def score_halves(reference: Reference) -> dict[str, float]:
    """Scores of N / 2 perfect images. FD decreases with the number of images, so N perfect images would score lower."""
    order_N = torch.randperm(len(reference.features_NF), generator=torch.Generator().manual_seed(0))
    one_NF, other_NF = (reference.features_NF[half_N] for half_N in order_N.chunk(2))
    return {
        "fd": frechet_distance(reference.components(one_NF), reference.components(other_NF)),
        "kid": 100 * kernel_distance(reference.standardized(one_NF), reference.standardized(other_NF)),
    }


def recall_by_decoder(scores: GenerationScores, reference: Reference) -> list[float]:
    true_NF = reference.directions(reference.features_NF)
    return [retrieval(reference.directions(x_NF.double()), true_NF, k=(10,)).recall[10] for x_NF in scores.features_VNF]


if __name__ == "__main__":
    main()
