"""Train encoders with an objective in the Trainer of transformers."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from unialign.integrations._alignment import AlignmentModel
from unialign.losses import Objective


class TrainerModel(nn.Module):
    """A model for the `Trainer` of transformers, with one encoder per modality and an objective.

    The columns of a batch are the modalities. If items lack a modality, the batch needs `present.NAME` (B,) bool; if
    items repeat, it needs `ids` (B,). Set `remove_unused_columns=False` in `TrainingArguments`. With several processes,
    the objective covers the rows of all processes. `gradient_accumulation_steps` averages the gradients of separate
    batches.

    Examples:
        >>> from unialign.integrations.transformers import TrainerModel
        >>> model = TrainerModel({"image": vit, "text": bert}, "infonce")  # doctest: +SKIP

    Args:
        encoders: modality -> module that returns embeddings (B, D).
        objective: name of an objective (see `unialign.losses.names()`), or an instance.
        options: options of a named objective, such as `{"anchor": "text"}`.

    Raises:
        ConfigError: fewer than two encoders, or an unknown objective or option.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        objective: str | Objective = "unialign",
        *,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = AlignmentModel(encoders, objective, options=options)

    def forward(self, **batch: Any) -> dict[str, Tensor]:
        """Return `loss`, the total of the objective, and in evaluation mode also the embeddings by modality."""
        found, z = self.model.compute_loss(batch)
        return {"loss": found.total} if self.training else {"loss": found.total, **z}
