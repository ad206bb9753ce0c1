"""Results of the study, as a JSON object.

Shapes: `N` items, `Q` queries, `R` resamples, `S` seeds.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

import unialign as ua
from benchmarks.scratch.arms import ARMS, AUTO, INFONCE, UNIALIGN
from benchmarks.scratch.loop import BATCH, DIRECTIONS, EPOCHS, LR, direction_hits, geometry, mean_recall, train
from benchmarks.scratch.models import DIM, MODELS, Stamps, read_stamps
from benchmarks.tuxpaint import RESAMPLES, summarize
from unialign.data import EmbeddingStore, load_dataset
from unialign.io import describe_environment
from unialign.metrics import resample_weights, weighted_mean

FOLDS = 3
SEEDS = (0, 1, 2, 3, 4)
FINAL = (UNIALIGN, AUTO, INFONCE)
TRAIN, VALIDATION, TEST = 0, 1, 2
# Stores of frozen features.
STORES = ("emoji", "digits")
ELSEWHERE_EPOCHS = (10, 50)
ELSEWHERE_METRICS = ("recall@1", "joint_recall@1", "label_map", "modality_gap_debiased")
ELSEWHERE_RESAMPLES = 500


def measure() -> dict[str, Any]:
    stamps = read_stamps()
    return {
        "data": {
            "name": stamps.items.name,
            "fingerprint": stamps.items.fingerprint,
            "training_items": len(stamps.rows(TRAIN)),
            "test_items": len(stamps.rows(TEST)),
        },
        "settings": {
            "epochs": EPOCHS,
            "batch_size": BATCH,
            "lr": LR,
            "dim": DIM,
            "folds": FOLDS,
            "seeds": SEEDS,
            "selectable_items": len(stamps.rows(TRAIN, VALIDATION)),
        },
        "labels": {key: arm.label for key, arm in ARMS.items()},
        "trace": traces(stamps),
        "selection": selection(stamps),
        "test": {model: test(stamps, model) for model in MODELS},
        "elsewhere": {name: elsewhere(name) for name in STORES},
        "environment": describe_environment(),
    }


def folds(stamps: Stamps) -> list[tuple[Tensor, Tensor]]:
    """Split the training and validation items by group, three times: 75 % for training, 25 % for evaluation."""
    rows_N = stamps.rows(TRAIN, VALIDATION)
    groups_N = stamps.items.groups[rows_N]
    found = []
    for k in range(FOLDS):
        names = np.unique(groups_N)
        held = np.random.default_rng(100 + k).permutation(names)[: len(names) // 4]
        held_N = torch.as_tensor(np.isin(groups_N, held))
        found.append((rows_N[~held_N], rows_N[held_N]))
    return found


def traces(stamps: Stamps) -> dict[str, list[dict[str, Any]]]:
    training_N, held_N = folds(stamps)[0]
    return {arm: train(stamps, arm, "plain", training_N, seed=0, watch=held_N)[1] for arm in FINAL}


def selection(stamps: Stamps) -> dict[str, dict[str, Any]]:
    """Train every arm on three folds of the training and validation items."""
    found = {}
    for arm in ARMS:
        nets = [(train(stamps, arm, "plain", own, seed=k)[0], held) for k, (own, held) in enumerate(folds(stamps))]
        shapes = [geometry(net, held) for net, held in nets]
        found[arm] = {
            "recall": [mean_recall(stamps, net, held) for net, held in nets],
            **{name: [shape[name] for shape in shapes] for name in shapes[0]},
        }
        print(f"{arm}: {100 * np.mean(found[arm]['recall']):.1f}", flush=True)
    return found


def test(stamps: Stamps, model: str) -> dict[str, Any]:
    """Train on the training items, and evaluate on the test items."""
    rows_N = stamps.rows(TEST)
    weights_RN = resample_weights(torch.as_tensor(stamps.items.groups[rows_N]), resamples=RESAMPLES)
    scores: dict[str, dict[str, tuple[Tensor, Tensor]]] = {}
    shapes: dict[str, list[dict[str, float]]] = {}
    for arm in FINAL:
        nets = [train(stamps, arm, model, stamps.rows(TRAIN), seed=seed)[0] for seed in SEEDS]
        shapes[arm] = [geometry(net, rows_N) for net in nets]
        hits = [direction_hits(stamps, net, rows_N) for net in nets]
        scores[arm] = {}
        for source, target in DIRECTIONS:
            name = f"{source}->{target}"
            points_S = torch.stack([found[name][0].mean() for found in hits])
            values_SR = torch.stack([weighted_mean(h, weights_RN[:, at]) for h, at in (own[name] for own in hits)])
            scores[arm][name] = points_S, values_SR
        pairs = list(zip(*scores[arm].values(), strict=True))
        scores[arm]["mean"] = torch.stack(pairs[0]).mean(0), torch.stack(pairs[1]).mean(0)
        print(f"{model}, {arm}: {100 * float(scores[arm]['mean'][0].mean()):.1f}", flush=True)
    return {
        "recall": {arm: {name: summarize(*x) for name, x in own.items()} for arm, own in scores.items()},
        "geometry": {
            arm: {name: float(np.mean([x[name] for x in own])) for name in own[0]} for arm, own in shapes.items()
        },
        "difference": {
            f"{AUTO} - {other}": {
                name: summarize(*(a - b for a, b in zip(scores[AUTO][name], scores[other][name], strict=True)))
                for name in scores[AUTO]
            }
            for other in (UNIALIGN, INFONCE)
        },
    }


def elsewhere(name: str) -> dict[str, Any]:
    """Compare the presets `adaptive` and `balanced` in `fit` on frozen features, with its other default settings."""
    store = load_dataset(name)
    rows = store.rows("test")
    weights_RN = resample_weights(torch.as_tensor(store.groups[rows]), resamples=ELSEWHERE_RESAMPLES)
    return {"fingerprint": store.fingerprint} | {
        str(epochs): _compared(store, weights_RN, epochs=epochs) for epochs in ELSEWHERE_EPOCHS
    }


def _compared(store: EmbeddingStore, weights_RN: Tensor, *, epochs: int) -> dict[str, Any]:
    points: dict[str, list[dict[str, float]]] = {AUTO: [], UNIALIGN: []}
    values: dict[str, list[dict[str, Tensor]]] = {AUTO: [], UNIALIGN: []}
    cosines: dict[str, float] = {}
    for arm, preset in ((AUTO, "adaptive"), (UNIALIGN, "balanced")):
        for seed in SEEDS:
            config = ua.TrainConfig(
                objective_options={"preset": preset}, epochs=epochs, seed=seed, monitor_steps=1, logging_steps=1
            )
            result = ua.fit(store, config, device="cpu", progress="none")
            health = [x for record in result.history for x in record["health"].items() if x[0].startswith("cosine/")]
            cosines[arm] = max([cosines.get(arm, -1.0), *(value for _, value in health)])
            found = ua.evaluate(store, result.space)
            points[arm].append({metric: found.metrics[metric] for metric in ELSEWHERE_METRICS})
            values[arm].append({metric: found.statistics[metric].evaluate(weights_RN) for metric in ELSEWHERE_METRICS})
    compared = {}
    for metric in ELSEWHERE_METRICS:
        points_AS = [
            torch.tensor([own[metric] for own in points[arm]], dtype=torch.float64) for arm in (AUTO, UNIALIGN)
        ]
        values_ASR = [torch.stack([own[metric] for own in values[arm]]) for arm in (AUTO, UNIALIGN)]
        compared[metric] = {
            AUTO: summarize(points_AS[0], values_ASR[0]),
            UNIALIGN: summarize(points_AS[1], values_ASR[1]),
            "difference": summarize(points_AS[0] - points_AS[1], values_ASR[0] - values_ASR[1]),
        }
    return {"metrics": compared, "largest_mean_cosine": cosines}
