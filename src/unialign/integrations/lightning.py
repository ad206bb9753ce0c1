"""Train encoders with an objective in Lightning."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unialign.errors import MissingDependencyError
from unialign.integrations._alignment import AlignmentModel
from unialign.losses import Objective

if TYPE_CHECKING:
    from lightning import LightningModule
else:
    try:
        LightningModule = import_module("lightning").LightningModule
    except ImportError:
        raise MissingDependencyError(
            "unialign.integrations.lightning needs: pip install 'unialign[lightning]'"
        ) from None


class AlignmentModule(LightningModule):
    """A `LightningModule` with one encoder per modality and an objective.

    A batch maps each modality to the input of its encoder. If items lack a modality, the batch needs `present.NAME`
    (B,) bool; if items repeat, it needs `ids` (B,). The module logs `train/loss`, `train/TERM` and `val/loss`. With
    several processes, the objective covers the rows of all processes, so do not use `all_gather`.

    Examples:
        >>> from unialign.integrations.lightning import AlignmentModule
        >>> module = AlignmentModule({"image": vit, "text": bert}, "infonce", lr=1e-4)  # doctest: +SKIP

    Args:
        encoders: modality -> module that returns embeddings (B, D).
        objective: name of an objective (see `unialign.losses.names()`), or an instance.
        options: options of a named objective, such as `{"anchor": "text"}`.
        lr: learning rate of AdamW, above 0.
        weight_decay: weight decay of AdamW, on weight matrices only.

    Raises:
        ConfigError: fewer than two encoders, or an unknown objective or option.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        objective: str | Objective = "unialign",
        *,
        options: Mapping[str, Any] | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__()
        self.model = AlignmentModel(encoders, objective, options=options)
        self.lr, self.weight_decay = lr, weight_decay

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the embeddings of a batch by modality."""
        return self.model.embed(batch)

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Return the loss of a batch, and log it with its terms."""
        found, z = self.model.compute_loss(batch)
        values = {"train/loss": found.total.detach()}
        terms = {f"train/{name}": value for name, value in found.terms.items()}
        self.log_dict(values | terms, batch_size=len(next(iter(z.values()))))
        return found.total

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Log the loss of a batch of validation data."""
        found, z = self.model.compute_loss(batch)
        self.log("val/loss", found.total, batch_size=len(next(iter(z.values()))))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW without weight decay on vectors, such as biases, norm weights and temperatures."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.lr)
