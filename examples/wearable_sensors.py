"""Train a network for acceleration windows end to end with heart rate and descriptions, from random weights.

Run with `python examples/wearable_sensors.py [--epochs 15] [--out runs/wearables]`. The windows are synthetic. For your
own recordings, replace `records` by rows of your arrays, and `MotionNet` by your network.

Shapes: `B` windows, `C` channels, `T` samples.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import unialign as ua

RATE, SAMPLES, AXES = 32, 128, 3  # windows of four seconds
# Steps per second, strength, and rise of the heart rate.
ACTIVITIES = {
    "resting": (0.2, 0.05, 0),
    "walking": (1.8, 0.8, 25),
    "climbing stairs": (1.5, 1.1, 55),
    "cycling": (1.2, 0.4, 45),
    "running": (2.7, 2.2, 80),
}
PACES = {"slowly": 0.8, "": 1.0, "fast": 1.25}


def records(windows: int = 1200, persons: int = 20, seed: int = 0) -> list[dict[str, Any]]:
    """Return synthetic windows of several persons. A fifth have no heart rate, and a third have no description."""
    rng = np.random.default_rng(seed)
    seconds = np.arange(SAMPLES) / RATE
    resting = rng.normal(65, 5, persons)
    found = []
    for i in range(windows):
        person, activity, pace = i % persons, str(rng.choice(list(ACTIVITIES))), str(rng.choice(list(PACES)))
        steps, strength, rise = ACTIVITIES[activity]
        steps, strength = steps * PACES[pace] * rng.normal(1, 0.04), strength * PACES[pace] * rng.lognormal(0, 0.1)
        wave = sum(np.sin(2 * np.pi * k * steps * seconds + rng.uniform(0, 6.28)) / k for k in (1, 2, 3))
        axes = rng.normal([1.0, 0.6, 0.3], 0.1)
        gravity = rng.normal([0.0, 0.0, 1.0], 0.15)
        turned, _ = np.linalg.qr(rng.normal(size=(AXES, AXES)))  # the sensor is worn in any orientation
        motion = turned @ (strength * np.outer(axes, wave) + gravity[:, None]) + 0.1 * rng.normal(size=(AXES, SAMPLES))
        heart = resting[person] + rise * PACES[pace] + rng.normal(0, 3) + rng.normal(0, 1, 8)
        text = f"{activity} {pace}, {60 * steps:.0f} cycles per minute, pulse {heart.mean():.0f}"
        found.append(
            {
                "id": f"window {i}",
                "group": f"person {person}",  # all windows of a person are in the same part of the split
                "label": activity,
                "motion": motion.ravel().astype(np.float32),
                "heart": None if rng.random() < 0.2 else heart.astype(np.float32),
                "text": None if rng.random() < 0.33 else text,
            }
        )
    return found


class MotionNet(nn.Module):
    """Convolutions over time; the mean over time does not depend on the phase of the steps."""

    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(AXES, 32, 9, stride=2, padding=4),
            nn.GroupNorm(4, 32),
            nn.GELU(),
            nn.Conv1d(32, dim, 9, stride=2, padding=4),
            nn.GroupNorm(4, dim),
            nn.GELU(),
            nn.Conv1d(dim, dim, 9, stride=2, padding=4),
            nn.GELU(),
        )

    def forward(self, motion: Tensor) -> Tensor:
        """Return features (B, D) of windows (B, C, T)."""
        features: Tensor = self.layers(motion).mean(2)
        return features


def prepare(window: Any) -> dict[str, Any]:
    """Return the input of `MotionNet` for one window."""
    return {"motion": np.asarray(window, np.float32).reshape(AXES, SAMPLES)}


def motion_encoder(seed: int = 0) -> ua.encoders.Encoder:
    """Return an encoder of windows with new weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = MotionNet()
    decoding = ua.media.Decoding(dim=AXES * SAMPLES)
    return ua.encoders.wrap(module, media="array", dim=64, prepare=prepare, decoding=decoding, name="motion net")


def main(arguments: list[str] | None = None) -> ua.evaluation.Evaluation:
    """Train, save and load a space, and return its scores on windows of persons who were not in training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("runs/wearables"))
    options = parser.parse_args(arguments)

    windows = records()
    items = ua.data.Items.from_records(windows, name="wearables (synthetic)")
    items = items.with_split(ua.data.random_split(len(items), groups=items.groups))
    config = ua.TrainConfig(
        objective_options={"anchor": "all"},
        # The descriptions and the heart rate have frozen encoders.
        encoders={"text": "builtin:chars", "heart": "builtin:identity"},
        # The weights of the network are random, so its learning rate is that of the heads.
        tune={"motion": {"mode": "all", "lr": 1e-3}},
        dim=32,
        epochs=options.epochs,
        batch_size=128,
    )
    embedding = ua.config.EmbedConfig(workers=0)  # vectors need no decoding
    ua.fit(items, config, encoders={"motion": motion_encoder()}, embedding=embedding, out=options.out, resume="auto")

    # The saved space contains the trained weights, but not the code of the network.
    space = ua.Space.from_pretrained(options.out / "space").with_encoders({"motion": motion_encoder()})
    test = items.rows_of(items.split == 2)
    found = ua.evaluate(items, space, embedding=embedding)
    print(f"{len(test)} windows of {len(set(test.groups))} persons who were not in training")
    for direction in ("text->motion", "motion->text", "heart->motion"):
        print(f"{direction}: R@10 {100 * found.directions[direction]['recall@10']:.1f} %")
    low, high = found.interval("label_map")
    print(f"label mAP {found.metrics['label_map']:.2f} [{low:.2f}, {high:.2f}]")

    new = [window["motion"] for window, split in zip(windows, items.split, strict=True) if split == 2]
    z = space.encode({"motion": new, "text": list(ACTIVITIES)})
    named = np.array(list(ACTIVITIES))[(z["motion"] @ z["text"].T).argmax(1)]
    correct = float((named == np.array(items.label_names)[test.labels]).mean())
    print(f"nearest activity of a window, by its name: {100 * correct:.0f} % are correct")
    return found


if __name__ == "__main__":
    main()
