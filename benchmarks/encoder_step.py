"""Time a training step of encoders with an adapter: whole batches, and micro-batches with the gradient cache.

`python -m benchmarks.encoder_step` writes `benchmarks/results/encoder_step.json`. Each arm is measured in alternation,
in CPU seconds of one thread, after the first epoch, when all prepared arrays are in memory.
"""

import contextlib
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unialign.config import EmbedConfig
from unialign.encoders import wrap
from unialign.io import describe_environment
from unialign.items import Items
from unialign.train import TrainConfig, fit

RESULT = Path(__file__).parent / "results" / "encoder_step.json"
ITEMS, BATCH, MICRO, TOKENS, WIDTH, LAYERS = 128, 64, 16, 32, 128, 4
LORA = {"mode": "lora", "r": 8, "targets": ["query", "key", "value", "output"]}
ARMS: dict[str, dict[str, Any]] = {
    "lora, whole batch": {"tune": LORA, "micro_batch_size": None},
    "lora, gradient cache": {"tune": LORA, "micro_batch_size": MICRO},
    "all weights, whole batch": {"tune": "all", "micro_batch_size": None},
}


class Block(nn.Module):
    """A transformer block with one linear layer per projection."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        heads = [part(h).unflatten(2, (4, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)]
        mixed = nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        x = x + self.output(mixed)
        found: Tensor = x + self.narrow(nn.functional.gelu(self.wide(self.second(x))))
        return found


class Transformer(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.blocks(x.float()).mean(1)
        return found


def tokens(vector: Any) -> dict[str, Any]:
    """Expand a short vector to tokens."""
    return {"x": np.sin(np.outer(np.arange(1, TOKENS + 1), np.resize(vector, WIDTH))).astype(np.float32)}


def step_seconds(settings: dict[str, Any], *, steps: int) -> float:
    """Return the median CPU seconds of a step."""
    rng = np.random.default_rng(0)
    records = [{name: rng.normal(size=8).tolist() for name in ("signal", "echo")} for _ in range(ITEMS)]
    items = Items.from_records(records, kinds={"signal": "array", "echo": "array"}).with_split(["train"] * ITEMS)
    encoders = {
        name: wrap(Transformer(seed), media="array", dim=WIDTH, prepare=tokens)
        for seed, name in enumerate(("signal", "echo"))
    }
    times: list[float] = []

    def after_step(info: Any) -> None:
        times.append(time.process_time())
        if len(times) > steps + 2:
            raise KeyboardInterrupt

    config = TrainConfig(
        objective="infonce",
        batch_size=BATCH,
        micro_batch_size=settings["micro_batch_size"],
        epochs=1000,
        logging_steps=10**6,
        monitor_steps=10**6,
        tune=dict.fromkeys(encoders, settings["tune"]),
    )
    with contextlib.suppress(KeyboardInterrupt):
        fit(
            items,
            config,
            encoders=encoders,
            embedding=EmbedConfig(workers=0, threads=1, max_broken=0),
            device="cpu",
            progress="none",
            on_step=after_step,
        )
    return median(np.diff(times)[2:].tolist())


def main(*, rounds: int = 5, steps: int = 6) -> dict[str, Any]:
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for _ in range(rounds):
        for arm, settings in ARMS.items():
            seconds[arm].append(step_seconds(settings, steps=steps))
    whole, cached, full = (np.array(seconds[arm]) for arm in ARMS)
    rounds_of = {
        "gradient cache / whole batch, with an adapter": (cached / whole).tolist(),
        "adapter with gradient cache / all weights on the whole batch": (cached / full).tolist(),
    }
    return {
        "environment": describe_environment(),
        "setting": {
            "encoders": f"2 transformers of {LAYERS} blocks, width {WIDTH}, {TOKENS} tokens",
            "batch": BATCH,
            "micro_batch": MICRO,
            "adapter": LORA,
            "threads": 1,
            "rounds": rounds,
            "steps": steps,
        },
        "ratios": {name: median(values) for name, values in rounds_of.items()},
        "rounds": rounds_of,
    }


if __name__ == "__main__":
    found = main()
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, ratio in found["ratios"].items():
        print(f"{name}: {ratio:.3f}")
