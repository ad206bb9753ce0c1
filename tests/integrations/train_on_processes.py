"""Train two steps with the Trainer of sentence-transformers, on one process or with torchrun on several."""

import os
import sys

import torch
from datasets import Dataset
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments

import tiny_towers
from unialign.integrations.sentence_transformers import Loss


def load(folder: str) -> SentenceTransformer:
    """Load a model without dropout, whose random numbers differ between processes, and freeze unused weights."""
    model = SentenceTransformer(folder, device="cpu")
    for module in model.modules():
        for name in ("p", "dropout_prob", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("pooler" not in name and ".audio." not in name)
    return model


def main(folder: str, out: str) -> None:
    torch.set_num_threads(1)
    model = load(folder)
    texts = ["a", "bb", "ccc", "dddd"]
    data = Dataset.from_dict({"text": texts, "image": tiny_towers.images(4)})
    arguments = SentenceTransformerTrainingArguments(
        f"{out}.run", max_steps=2, per_device_train_batch_size=4 // int(os.environ.get("WORLD_SIZE", "1")),
        learning_rate=1e-3, optim="sgd", lr_scheduler_type="constant",
        router_mapping={"text": "text", "image": "image"}, ddp_find_unused_parameters=False,
        report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True, seed=0,
    )  # fmt: skip
    loss = Loss(model, "infonce", columns=["text", "image"], anchor="all")
    SentenceTransformerTrainer(model, arguments, train_dataset=data, loss=loss).train()
    if os.environ.get("RANK", "0") == "0":
        save_file({name: value.detach().clone() for name, value in model.named_parameters()}, out)
    if torch.distributed.is_initialized():
        # A process that exits with open connections may abort in a thread of gloo.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
