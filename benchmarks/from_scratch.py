"""Measure the collapse of UniAlign in a first training loop, and remedies, and write the page.

python -m benchmarks.from_scratch          about 120 short trainings, 8 CPU minutes
python -m benchmarks.from_scratch table    only the tables and the figure
"""

import json
from typing import Any

import numpy as np
import torch

from benchmarks.pages import RESULTS, ROOT, measure_and_write
from benchmarks.scratch.arms import AUTO, INFONCE, UNIALIGN
from benchmarks.scratch.measure import FINAL, measure
from research.pages import Mark, Panel, Point, Series, figure, lines
from unialign.io import replace_file

PAGE = ROOT / "docs" / "findings" / "from_scratch.md"
FIGURE = ROOT / "docs" / "images" / "from-scratch.svg"
_MODELS = {"plain": "plain CNN + EmbeddingBag", "builtin": "`builtin:conv` + `builtin:bag`"}
_SHORT = {UNIALIGN: "UniAlign, balanced", AUTO: "UniAlign, adaptive (default)", INFONCE: "InfoNCE"}
_STEPS = (0, 2, 5, 10, 20, 40, 60, 80)


def table(results: dict[str, Any]) -> str:
    data, settings = results["data"], results["settings"]
    sections = [
        ("", "", _mechanism(results)),
        ("", "", f"![Mean cosines, common gradient and recall during training](../images/{FIGURE.name})\n"),
        (
            "Remedies",
            f"Each loss was trained in the same loop on three random 75 % of the groups of the "
            f"{settings['selectable_items']} training and\nvalidation items, and evaluated on the rest. "
            "Test items were not used.",
            _selection(results),
        ),
        (
            "Test",
            f"The {data['test_items']} test items were evaluated once, after training on the {data['training_items']} "
            f"training items with {len(settings['seeds'])} seeds:\nmean [95 % interval over groups of items and "
            "seeds]. Differences are paired. Mean cosine and effective rank are means over both\nmodalities.",
            _test(results),
        ),
        (
            "Frozen features",
            "`fit` with its other default settings on the stores of the demo, five seeds, test split. Heads on "
            "standardized features start outside a\nnarrow cone, but enter one in the first epochs: the last column is "
            "the largest mean cosine of a batch.",
            _elsewhere(results),
        ),
    ]
    parts = []
    for title, text, body in sections:
        parts += [f"## {title}\n", f"{text}\n"] if title else []
        parts.append(body)
    return "\n".join(parts)


def drawing(results: dict[str, Any]) -> str:
    panels = [
        _panel(results, "Mean cosine of different pictures", "cosine/image"),
        _panel(results, "Mean cosine of different captions", "cosine/text"),
        _panel(results, "Share of the gradient common to all captions", "common/text"),
        _panel(results, "R@10 on held-out items, %", "recall", scale=100),
    ]
    marks = [Mark(_SHORT[arm], number) for number, arm in enumerate(FINAL)]
    made = figure(FIGURE.stem, "A first training loop", "", panels, columns=2, legend=marks)
    return f"{made.drawing}\n"


def _panel(results: dict[str, Any], title: str, key: str, *, scale: float = 1.0) -> Panel:
    series = []
    for number, arm in enumerate(FINAL):
        records = [
            x for x in results["trace"][arm] if key in x and x["step"] % 4 in ((0, 2) if key == "recall" else (0,))
        ]
        series.append(Series(Mark(_SHORT[arm], number), [Point(x["step"], scale * x[key]) for x in records]))
    return lines(title, series, x_label="step")


def _mechanism(results: dict[str, Any]) -> str:
    lines = [
        "| step | mean cosine, pictures | mean cosine, captions | cosine of true pairs | rank, pictures "
        "| force of uniformity | force of alignment | common share | common share, InfoNCE |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    contrast = {x["step"]: x["common/text"] for x in results["trace"][INFONCE]}
    for x in results["trace"][UNIALIGN]:
        if x["step"] in _STEPS:
            cells = [str(x["step"])]
            cells += [f"{x[key]:.3f}" for key in ("cosine/image", "cosine/text", "pair_cosine")]
            cells += [f"{x[key]:.1f}" for key in ("rank/image", "force/uniformity/image", "force/alignment/image")]
            cells += [f"{100 * share:.1f} %" for share in (x["common/text"], contrast[x["step"]])]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _selection(results: dict[str, Any]) -> str:
    lines = ["| loss | R@10 on held-out items, % | mean cosine | effective rank |", "|---|---:|---:|---:|"]
    for arm, found in results["selection"].items():
        lines.append(
            f"| {results['labels'][arm]} | {100 * np.mean(found['recall']):.1f} | {np.mean(found['cosine']):.2f} "
            f"| {np.mean(found['rank']):.1f} |"
        )
    return "\n".join(lines) + "\n"


def _test(results: dict[str, Any]) -> str:
    lines = [
        "| encoders | loss | image to text, R@10, % | text to image, R@10, % | mean | mean cosine | effective rank |",
        "|---|---|---|---|---|---:|---:|",
    ]
    for model, found in results["test"].items():
        for arm in FINAL:
            shape = found["geometry"][arm]
            cells = [_cell(found["recall"][arm][name]) for name in ("image->text", "text->image", "mean")]
            cells += [f"{shape['cosine']:.2f}", f"{shape['rank']:.1f}"]
            lines.append(f"| {_MODELS[model]} | {_SHORT[arm]} | {' | '.join(cells)} |")
    lines += ["", "| encoders | difference of the means of R@10, % | |", "|---|---|---|"]
    for model, found in results["test"].items():
        for other, label in ((UNIALIGN, "adaptive - balanced"), (INFONCE, "adaptive - InfoNCE")):
            lines.append(
                f"| {_MODELS[model]} | {label} | {_cell(found['difference'][f'{AUTO} - {other}']['mean'], '+')} |"
            )
    return "\n".join(lines) + "\n"


def _elsewhere(results: dict[str, Any]) -> str:
    metrics = {
        "recall@1": "R@1, %",
        "joint_recall@1": "joint R@1, %",
        "label_map": "label mAP, %",
        "modality_gap_debiased": "100 x debiased gap",
    }
    lines = [f"| data, epochs | preset | {' | '.join(metrics.values())} | mean cosine |", f"|---|---|{'---|' * 4}---:|"]
    for name, found in results["elsewhere"].items():
        for epochs in (key for key in found if key != "fingerprint"):
            own = found[epochs]
            for arm, preset in ((UNIALIGN, "balanced"), (AUTO, "adaptive")):
                cells = [f"{100 * own['metrics'][metric][arm]['mean']:.1f}" for metric in metrics]
                cells.append(f"{own['largest_mean_cosine'][arm]:.2f}")
                lines.append(f"| {name}, {epochs} | {preset} | {' | '.join(cells)} |")
            cells = [_cell(own["metrics"][metric]["difference"], "+") for metric in metrics]
            lines.append(f"| {name}, {epochs} | difference | {' | '.join(cells)} | |")
    return "\n".join(lines) + "\n"


def _cell(found: dict[str, float], sign: str = "") -> str:
    mean, low, high = (f"{100 * found[name]:{sign}.1f}" for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


if __name__ == "__main__":
    torch.set_num_threads(1)
    measure_and_write(RESULTS / "from_scratch.json", measure, {PAGE: table})
    replace_file(FIGURE, drawing(json.loads((RESULTS / "from_scratch.json").read_text("utf-8"))))
