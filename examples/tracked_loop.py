"""Log the loss and its terms of a loop in PyTorch to W&B, trackio, MLflow or TensorBoard.

Run with `python examples/tracked_loop.py TRACKER`, where TRACKER is wandb, trackio, mlflow or tensorboard. To train
with `unialign.fit`, pass the tracker as `on_step=tracker`, or name it in `TrainConfig(log_to=("jsonl", "mlflow"))`.
"""

import sys

import torch
from torch import nn

import unialign as ua
from unialign.integrations.tracking import MetricTracker


def main(tracker: object) -> None:
    """Train two linear heads for ten steps, and log each step to a tracker or to an existing run."""
    features = {"image": torch.randn(64, 32), "sensor": torch.randn(64, 12)}
    heads = nn.ModuleDict({"image": nn.Linear(32, 16), "sensor": nn.Linear(12, 16)})
    loss = ua.losses.InfoNCE(anchor="all")
    optimizer = torch.optim.AdamW([*heads.parameters(), *loss.parameters()], lr=1e-2)
    with MetricTracker(tracker, folder="runs/tracked-loop", settings={"lr": 1e-2}) as callback:
        for step in range(10):
            out = loss({name: heads[name](rows) for name, rows in features.items()})
            optimizer.zero_grad()
            out.total.backward()
            optimizer.step()
            callback.log(out, step=step)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tensorboard")
