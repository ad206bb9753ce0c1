"""Train with an objective in the Trainer of sentence-transformers."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from unialign.errors import ConfigError, ShapeError
from unialign.losses import Objective, create


class Loss(nn.Module):
    """An objective as a loss of `SentenceTransformerTrainer`.

    The columns of the data set are the modalities, so a third column is a third modality and not a hard negative. A
    data set with missing cells cannot be used, since the Trainer encodes all cells of a column.

    With several processes, the objective covers the rows of all processes. DDP does not support unused weights if a
    step has several forward passes, so freeze the weights that no column uses, such as poolers, and set
    `ddp_find_unused_parameters=False` in the arguments.

    Examples:
        >>> from unialign.integrations.sentence_transformers import Loss
        >>> loss = Loss(model, "infonce", columns=["text", "image", "audio"])  # doctest: +SKIP

    Args:
        model: the `SentenceTransformer` to train.
        objective: name of an objective (see `unialign.losses.names()`), or an instance.
        columns: the modalities, one for each column of the data set except the label column, in the order of the
            columns.
        options: options of the objective, such as `anchor="all"`.

    Raises:
        ConfigError: the objective or an option is unknown, or `columns` is not a sequence of at least two different
            names.
    """

    def __init__(
        self, model: nn.Module, objective: str | Objective = "unialign", *, columns: Sequence[str], **options: Any
    ) -> None:
        super().__init__()
        if isinstance(columns, str) or len(columns) < 2 or len(set(columns)) < len(columns):
            raise ConfigError(
                f"columns must be at least two different names, one per column of the data set; got {columns!r}"
            )
        self.model = model
        self.objective = create(objective, **options)
        self.columns = tuple(columns)

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Return the total of the objective for a batch.

        Args:
            sentence_features: inputs of the model, one mapping per column.
            labels: not used.

        Raises:
            ShapeError: the batch and `columns` have different numbers of columns.
        """
        features = list(sentence_features)
        if len(features) != len(self.columns):
            raise ShapeError(
                f"the batch has {len(features)} columns, but columns names {len(self.columns)}: "
                f"{', '.join(self.columns)}; name each column of the data set in its order"
            )
        embeddings = [self.model(inputs)["sentence_embedding"] for inputs in features]
        total: Tensor = self.objective(dict(zip(self.columns, embeddings, strict=True))).total
        return total

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings, which the Trainer writes to the model card."""
        return {"objective": self.objective.name, "columns": list(self.columns), **self.objective.get_config()}
