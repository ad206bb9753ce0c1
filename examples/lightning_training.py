"""Train two encoders with Lightning. Some items have no text; the loss leaves them out.

Replace `Pairs` and the encoders by your own. Run with `python examples/lightning_training.py`.
"""

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from unialign.integrations.lightning import AlignmentModule


class Pairs(Dataset):
    """Images and captions of 8 tokens; `present.text` is False for items without a caption."""

    def __init__(self, items: int = 96) -> None:
        self.images = torch.rand(items, 3, 16, 16)
        self.tokens = torch.randint(1, 50, (items, 8))
        self.has_text = torch.arange(items) % 5 != 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        return {"image": self.images[item], "text": self.tokens[item], "present.text": self.has_text[item]}


def main() -> None:
    """Train for two epochs, and print the last losses."""
    encoders = {
        "image": nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.GELU(), nn.Flatten(), nn.Linear(8 * 49, 16)),
        "text": nn.Sequential(nn.EmbeddingBag(50, 32), nn.Linear(32, 16)),
    }
    module = AlignmentModule(encoders, "infonce", options={"temperature_mode": "learnable"}, lr=1e-3)
    trainer = lightning.Trainer(max_epochs=2, accelerator="auto", logger=False, enable_checkpointing=False)
    loader = DataLoader(Pairs(), batch_size=32)
    trainer.fit(module, loader, loader)
    print({name: round(float(value), 3) for name, value in trainer.callback_metrics.items()})


if __name__ == "__main__":
    main()
