"""Train three encoders with the Trainer of transformers. Some items have no text; the loss leaves them out.

Replace `Triples` and the encoders by your own. Run with `python examples/transformers_training.py`.
"""

import tempfile

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from unialign.integrations.transformers import TrainerModel


class Triples(Dataset):
    """Images, captions of 8 tokens and sensor readings; `present.text` is False for items without a caption."""

    def __init__(self, items: int = 96) -> None:
        self.images = torch.rand(items, 3, 16, 16)
        self.tokens = torch.randint(1, 50, (items, 8))
        self.sensors = torch.randn(items, 20)
        self.has_text = torch.arange(items) % 5 != 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        return {
            "image": self.images[item],
            "text": self.tokens[item],
            "sensor": self.sensors[item],
            "present.text": self.has_text[item],
        }


def main() -> None:
    """Train for two epochs, and print the mean loss."""
    encoders = {
        "image": nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.GELU(), nn.Flatten(), nn.Linear(8 * 49, 16)),
        "text": nn.Sequential(nn.EmbeddingBag(50, 32), nn.Linear(32, 16)),
        "sensor": nn.Linear(20, 16),
    }
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=32,
            num_train_epochs=2,
            remove_unused_columns=False,  # the Trainer would remove `present.text`
            save_strategy="no",
            report_to=[],
        )
        trainer = Trainer(TrainerModel(encoders, "unialign"), arguments, train_dataset=Triples())
        print(round(trainer.train().training_loss, 3))


if __name__ == "__main__":
    main()
