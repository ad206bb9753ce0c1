"""Train encoders in a process that a test kills: `python end_to_end_kill_driver.py MEDIA OUT WORKERS`."""

import sys
from pathlib import Path

import torch

from media_train_cases import media_config, train
from unialign.items import Items

TUNE = {"image": {"mode": "lora", "targets": ["layers.3", "layers.6"], "lora_dropout": 0.2}, "text": "all"}
SETTINGS = {"epochs": 12, "save_steps": 1, "early_stopping_patience": 30, "augment": "basic", "micro_batch_size": 5}


def run(items: Items, out: Path, workers: int) -> None:
    torch.set_num_threads(1)
    train(items, media_config(**SETTINGS, tune=TUNE), out=out, workers=workers, resume="auto")


if __name__ == "__main__":
    media, out, workers = sys.argv[1:]
    run(Items.load(Path(media) / "table"), Path(out), int(workers))
