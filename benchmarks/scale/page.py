"""Write the tables of the page "Scale"."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.pages import RESULTS
from benchmarks.scale.billion import constants
from benchmarks.scale.billion_tables import billion_sections
from benchmarks.scale.encoders import (
    EFFICIENCY,
    GPU,
    IMAGE,
    TEXT,
    Transformer,
    activation_bytes,
    parameters,
    step_flops,
)
from benchmarks.scale.model import Costs, costs
from benchmarks.scale.numbers import number
from benchmarks.scale.objectives import OBJECTIVES, Objective
from benchmarks.scale.parts import Setting
from research.pages import Section, Table, markdown_page, replace_blocks

__all__ = ["deviations", "inputs", "page", "sections"]

M, D, W = 3, 512, 768
PLACES = ((32_768, 8), (131_072, 64), (1_048_576, 1024))
BATCHES = (32_768, 131_072, 524_288, 1_048_576)
# Objectives that every process computes in full.
FULL = ("gram", "triangle", "symile")
# Objectives that are counted, but have nearly the costs of another one.
SAME = ("infonce-learned", "cuaxu")
CLOSE = (*SAME, "unialign-centroid", "infonce-weighted", "sigmoid-weighted")
COUNTED = ("flops", "sent", "kept", "peak")


def inputs() -> dict[str, Any]:
    """Results of other benchmarks, by name."""
    names = ("embed", "index_storage", "search")
    return {name: json.loads((RESULTS / f"{name}.json").read_text("utf-8")) for name in names}


def page(results: Mapping[str, Any], others: Mapping[str, Any], there: str | None) -> str:
    made = sections(results, others)
    return markdown_page("Scale", made) if there is None else replace_blocks(there, made, name="scale.md")


def sections(results: Mapping[str, Any], others: Mapping[str, Any]) -> list[Section]:
    return [
        Section("costs", "Costs of an objective", [_costs(deviations(results))]),
        Section("check", "Check", [_check(results)]),
        Section("steps", "Steps", [_steps()]),
        Section("encoders", "Encoders", list(_encoders(results))),
        Section("memory", "Memory", [_memory()]),
        Section("cache", "Gradient cache", [_cache()]),
        *billion_sections(constants({**others, "scale": results})),
    ]


def _costs(deviation: Mapping[str, Mapping[str, float]]) -> Table:
    rows = []
    items, processes = 2**20, 2**6
    product, everything = 2.0 * items * D, 4.0 * M * items * D
    for key, objective in ((key, each) for key, each in OBJECTIVES.items() if key not in SAME):
        one = _by_width(objective, Setting(M, items, D))
        many = _by_width(objective, Setting(M, items, D, processes, "gpu"))
        # Memory for so many processes that the rows of one of them do not matter.
        rest = _by_width(objective, Setting(M, items, D, 2**12, "gpu"))
        unit = product * items if key in FULL else product * items / processes
        products = _sum([found.flops / unit for found in many])
        rows.append(
            [
                objective.label,
                _sum([found.flops / (product * items) for found in one]),
                f"{products} P" if key in FULL else products,
                str(len(many[1].sent)),
                _sum([found.kept / everything for found in rest], "{:.1f}"),
                _sum([(found.peak or 0) / everything for found in rest], "{:.1f}"),
                " / ".join(f"{100 * deviation[key][name]:.1f}" for name in ("flops", "kept", "peak")),
            ]
        )
    head = ["objective, M = 3", "products, one CPU process", "products, each of P GPUs", "collectives", "kept", "peak"]
    note = (
        "w = W / D. Memory in units of 4 M B D bytes, for many processes. Last column: largest deviation of the counts "
        "from the model in percent, of flops / kept / peak."
    )
    return Table([*head, "check, %"], rows, note)


def _by_width(objective: Objective, s: Setting) -> tuple[Costs, Costs]:
    """Costs without features, and with features of width D."""
    with_features = Setting(s.modalities, s.items, s.dim, s.processes, s.device, width=s.dim)
    return costs(objective, s), costs(objective, with_features)


def _sum(values: Sequence[float], form: str = "") -> str:
    """`a + b w`, given the values a for w = 0 and a + b for w = 1."""
    plain, slope = values[0], values[1] - values[0]
    texts = [form.format(x) if form else number(round(x, 2)) for x in (plain, slope)]
    return texts[0] if slope < 0.05 else f"{texts[0]} + {texts[1]} w"


def _check(results: Mapping[str, Any]) -> str:
    found = deviations(results)
    names = ("processes", "modalities", "items", "dim", "width")
    used = sorted({tuple(case[name] for name in names) for case in results["cases"]})
    listed = "; ".join(f"P = {p}, M = {m}, B = {b:,}, D = {d}, W = {w}" for p, m, b, d, w in used)
    equal = "equals" if all(row["messages"] for row in found.values()) else "does not always equal"
    worst = {name: _percent(max(row[name] for row in found.values())) for name in COUNTED}
    return (
        f"The number of collectives {equal} that of the model. The largest deviations of all {len(found)} objectives "
        f"are {worst['flops']} (flops), {worst['sent']} (bytes sent), {worst['kept']} (kept) and {worst['peak']} "
        f"(peak, only for P > 1). Counted: {listed}."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def deviations(results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Largest |count / model - 1| of each objective, and `messages`: 1 if the numbers of collectives are equal."""
    found: dict[str, dict[str, float]] = {}
    for case in results["cases"]:
        s = Setting(case["modalities"], case["items"], case["dim"], case["processes"], width=case["width"])
        model = costs(OBJECTIVES[case["objective"]], s)
        sent = [*case["sent"], *case["sent_backward"]]
        here = {
            "flops": abs((case["forward"] + case["backward"]) / model.flops - 1),
            "sent": abs(sum(sent) / sum(model.sent) - 1) if model.sent else 0.0,
            "kept": abs(case["kept"] / model.kept - 1),
            "peak": 0.0 if model.peak is None else abs(case["peak"] / model.peak - 1),
            "messages": float(len(sent) == len(model.sent)),
        }
        known = found.setdefault(case["objective"], dict.fromkeys(here, 0.0) | {"messages": 1.0})
        for name, value in here.items():
            known[name] = min(known[name], value) if name == "messages" else max(known[name], value)
    return found


def _steps() -> Table:
    rows = []
    for objective in (each for key, each in OBJECTIVES.items() if key not in CLOSE):
        cells = [objective.label]
        for items, processes in PLACES:
            found = costs(objective, Setting(M, items, D, processes, "gpu", W))
            cells += [number(found.flops / 1e12), number((found.peak or 0) / 1e9)]
        rows.append(cells)
    head = ["objective"]
    for items, processes in PLACES:
        head += [f"B = {items:,}, P = {processes:,}", "GB"]
    return Table(head, rows, f"TFLOP and peak memory of the loss on each GPU. M = {M}, D = {D}, W = {W}.")


def _encoders(results: Mapping[str, Any]) -> list[str | Table]:
    rows = []
    columns = [("unialign-all", 64), ("joint_queries", 64), ("infonce-all", 64)]
    columns += [("gram", processes) for processes in (8, 64, 1024)]
    for items in BATCHES:
        gathered = 4.0 * M * D * items
        cells = [f"{items:,}", number(gathered / 1e9), f"{1000 * gathered / GPU.network:.0f}"]
        for key, processes in columns:
            found = costs(OBJECTIVES[key], Setting(M, items, D, processes, "gpu", W))
            cells.append(f"{number(100 * found.flops / (items / processes * step_flops(M)))} %")
        rows.append(cells)
    measured = results["transformer"]
    layer = Transformer(measured["layers"], measured["width"], measured["tokens"]).flops()
    equal = {key: _equal_batch(key) for key in ("unialign-all", "infonce-all", "gram")}
    text = (
        f"ViT-B/16 takes {number(IMAGE.flops() / 1e9)} GFLOP per image, and the text tower of CLIP with this name "
        f"{number(TEXT.flops() / 1e9)} GFLOP per text; the formula deviates from torch's count of a layer by "
        f"{_percent(abs(measured['flops'] / layer - 1))}. A training step of M = {M} towers, two of them ViT-B/16, "
        f"takes {step_flops(M) / 1e9:.0f} GFLOP per item, and the all-reduce of their gradients sends "
        f"{number(2 * 4 * parameters(M) / 1e9)} GB from each process. The loss takes the flops of the encoders at "
        f"B = {number(equal['unialign-all'] / 1e6)} million for UniAlign, {number(equal['infonce-all'] / 1e6)} million "
        f"for InfoNCE over all pairs, and {number(equal['gram'] / 1e6)} million divided by P for GRAM. In float32 "
        f"without TF32, the products of the loss run at 1 / {GPU.bfloat16 / GPU.float32:.0f} of the rate of bfloat16, "
        "so that these batches are smaller by this factor."
    )
    head = ["B", "GB gathered", "ms at 50 GB/s", "UniAlign", "`joint_queries`", "InfoNCE, `all`"]
    head += [f"GRAM, P = {processes:,}" for key, processes in columns if key == "gram"]
    note = f"Flops of the loss in percent of those of the encoders on each GPU. M = {M}, D = {D}, W = {W}."
    return [text, Table(head, rows, note)]


def _equal_batch(key: str) -> float:
    """Batch at which a loss takes the flops of the encoders; divided by P for a loss that is not shared."""
    s = Setting(M, 2**20, D, 64, "gpu")
    flops = costs(OBJECTIVES[key], s).flops
    return s.items * step_flops(M) * (s.items if key in FULL else s.own) / flops


def _memory() -> Table:
    items, processes = 262_144, 64
    shown = ("unialign-all", "joint_queries", "infonce-all", "sigmoid", "gram")
    rows = []
    for modalities in (2, 3, 5, 8):
        cells = [str(modalities)]
        for dim in (256, 512, 1024):
            s = Setting(modalities, items, dim, processes, "gpu", W)
            cells.append(" / ".join(number(round((costs(OBJECTIVES[key], s).peak or 0) / 1e9, 1)) for key in shown))
        rows.append(cells)
    note = (
        "Peak GB of the loss on each GPU: UniAlign / `joint_queries` / InfoNCE / Sigmoid / GRAM. "
        f"B = {items:,}, P = {processes}, W = {W}."
    )
    return Table(["M", "D = 256", "D = 512", "D = 1,024"], rows, note)


def _cache() -> str:
    each, micro = activation_bytes(IMAGE), 64
    return (
        f"ViT-B/16 keeps about {each / 1e6:.0f} MB of activations in 16 bits per image, so that "
        f"{GPU.memory / 1e9:.0f} GB hold those of at most {number(GPU.memory / each)} images. With micro-batches of "
        f"{micro}, they take {number(micro * each / 1e9)} GB for any B, and the step of the encoders takes "
        f"{step_flops(M, grad_cache=True) / step_flops(M):.2f} times the flops. The loss takes the same memory as "
        f"without the cache. At {100 * EFFICIENCY:.0f} % of the peak rate, the {M} towers take "
        f"{1000 * step_flops(M) / (GPU.bfloat16 * EFFICIENCY):.2f} ms per item and GPU in bfloat16."
    )
