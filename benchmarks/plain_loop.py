"""Compare `fit` with a plain torch loop that has the same heads and a hand-written loss, on one thread."""

import contextlib
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from unialign.data import EmbeddingStore
from unialign.train import TrainConfig, fit

__all__ = ["compare"]


def compare(*, rounds: int, steps: int) -> dict[str, Any]:
    def loss(z: list[Tensor]) -> Tensor:
        same, count = torch.eye(len(z[0]), dtype=torch.bool), len(z[0]) * (len(z[0]) - 1)
        spread = [torch.log(torch.exp((x @ x.T - 1) / 0.07).masked_fill(same, 0).sum() / count) for x in z]
        pairs = [(x - y).square().sum(1).mean() for i, x in enumerate(z) for y in z[i + 1 :]]
        return torch.stack(spread).mean() + torch.stack(pairs).mean()

    columns = {f"m{m}": np.random.default_rng(m).standard_normal((8192, 256), dtype=np.float32) for m in range(5)}

    def ours(batch_size: int) -> float:
        times: list[float] = []

        def after_step(info: Any) -> None:
            times.append(time.process_time())
            if len(times) > steps:
                raise KeyboardInterrupt

        config = TrainConfig(
            hidden=256,
            dim=128,
            batch_size=batch_size,
            epochs=100,
            logging_steps=10**6,
            monitor_steps=10**6,
        )
        with contextlib.suppress(KeyboardInterrupt):
            fit(EmbeddingStore.from_arrays(columns), config, device="cpu", progress="none", on_step=after_step)
        return float(np.median(np.diff(times)))

    def by_hand(batch_size: int) -> float:
        rows, times = torch.split(torch.randperm(8192).repeat(4), batch_size), []
        data = [torch.from_numpy(column) for column in columns.values()]
        heads = nn.ModuleList(
            nn.Sequential(nn.Dropout(0.0), nn.Linear(256, 256), nn.GELU(), nn.Dropout(0.0), nn.Linear(256, 128))
            for _ in data
        )
        optimizer = torch.optim.AdamW(heads.parameters(), lr=1e-3)
        for rows_B in rows[: steps + 1]:
            optimizer.zero_grad()
            total = loss([normalize(head(x[rows_B]), dim=1) for head, x in zip(heads, data, strict=True)])
            total.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(heads.parameters(), 1.0)
            optimizer.step()
            total.item()
            times.append(time.process_time())
        return float(np.median(np.diff(times)))

    found = {}
    for batch_size in (256, 512):
        pairs = np.array([(ours(batch_size), by_hand(batch_size)) for _ in range(rounds)])
        ours_ms, plain_ms = 1000 * np.median(pairs, axis=0)
        ratio = float(np.median(pairs[:, 0] / pairs[:, 1]))
        found[str(batch_size)] = {
            "ours_ms": round(ours_ms, 2),
            "plain_ms": round(plain_ms, 2),
            "ratio": round(ratio, 3),
        }
    return found
