"""Check that the data set can be learned: one small head per column, pairwise InfoNCE, retrieval of test concepts.

Usage: check_probe.py [column|whole] [columns ...]. "column" scales every feature to unit variance, "whole" divides a
column by one factor; both should give similar results."""

import sys

import numpy as np
import torch
from common import WORK, read_json
from torch import nn
from torch.nn import functional as F

COLUMNS = sys.argv[2:] or ["image", "drawing", "text", "keywords", "speech"]
SCALING = sys.argv[1] if len(sys.argv) > 1 else "column"
EPOCHS, BATCH, DIM = 100, 128, 128


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    split = np.array(read_json("groups.json")["split"])
    train, test = (torch.from_numpy(np.flatnonzero(split == name)) for name in ("train", "test"))
    stored = np.load(WORK / "features.npz")
    features, present, heads = {}, {}, nn.ModuleDict()
    for name in COLUMNS:
        x = torch.from_numpy(stored[name].astype(np.float32))
        present[name] = torch.from_numpy(stored[f"present_{name}"])
        rows = x[train][present[name][train]]
        features[name] = (x - rows.mean(0)) / (rows.std(0) if SCALING == "column" else rows.std())
        heads[name] = nn.Sequential(nn.Linear(x.shape[1], 256), nn.GELU(), nn.Dropout(0.2), nn.Linear(256, DIM))
    optimizer = torch.optim.AdamW(heads.parameters(), lr=1e-3, weight_decay=0.05)
    for _ in range(EPOCHS):
        for batch in train[torch.randperm(len(train))].split(BATCH):
            z = {name: F.normalize(heads[name](features[name][batch]), dim=1) for name in COLUMNS}
            loss = torch.zeros(())
            for i, a in enumerate(COLUMNS):
                for b in COLUMNS[i + 1 :]:
                    both = present[a][batch] & present[b][batch]
                    logits = z[a][both] @ z[b][both].T / 0.07
                    target = torch.arange(len(logits))
                    loss = loss + F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    heads.eval()
    with torch.inference_mode():
        z = {name: F.normalize(heads[name](features[name][test]), dim=1) for name in COLUMNS}
    print(f"scaling {SCALING}, {len(test)} unseen, chance R@1 {100 / len(test):.1f} R@10 {1000 / len(test):.1f}")
    for a in COLUMNS:
        for b in COLUMNS:
            if a != b:
                both = present[a][test] & present[b][test]
                score = z[a][both] @ z[b][both].T
                rank = (score > score.diagonal()[:, None]).sum(1)
                print(
                    f"  {a:9}-> {b:9} R@1 {(rank < 1).float().mean() * 100:5.1f}  "
                    f"R@10 {(rank < 10).float().mean() * 100:5.1f}  of {int(both.sum())}"
                )


if __name__ == "__main__":
    main()
