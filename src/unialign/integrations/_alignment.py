"""`AlignmentModel` combines one encoder per modality with an objective."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from unialign._plain_text import join_words
from unialign.errors import ConfigError, ShapeError
from unialign.losses import LossOutput, Objective, create

PRESENT, IDS = "present.", "ids"


class AlignmentModel(nn.Module):
    """One encoder per modality, trained by an objective.

    Args:
        encoders: modality -> module that maps the entry of a batch to an embedding (B, D). An entry that is a mapping,
            such as the output of a tokenizer, is passed as keyword arguments.
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
        if not isinstance(encoders, Mapping) or len(encoders) < 2:
            raise ConfigError(
                "encoders must map at least two modalities to modules, such as {'image': ..., 'text': ...}"
            )
        for name, encoder in encoders.items():
            if not isinstance(encoder, nn.Module) or not name or name == IDS or "." in name:
                raise ConfigError(
                    f"the encoder {name!r} must be a torch.nn.Module, and its name must not be empty or {IDS!r} or "
                    "contain a dot"
                )
        self.encoders = nn.ModuleDict(encoders)
        self.objective = create(objective, **(options or {}))

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the embeddings (B, D) of the modalities in a batch.

        Raises:
            ShapeError: the batch has fewer than two modalities, or an encoder does not return a matrix.
        """
        z = {}
        for name, encoder in self.encoders.items():
            if name in batch:
                entry = batch[name]
                z[name] = encoder(**entry) if isinstance(entry, Mapping) else encoder(entry)
                if not isinstance(z[name], Tensor) or z[name].ndim != 2:
                    got = f"shape {tuple(z[name].shape)}" if isinstance(z[name], Tensor) else type(z[name]).__name__
                    raise ShapeError(
                        f"the encoder of {name!r} must return a (B, D) tensor, got {got}; wrap it in a module that "
                        "returns the pooled embedding"
                    )
        if len(z) < 2:
            raise ShapeError(
                f"the batch has {join_words(map(str, batch)) or 'nothing'}, but at least two of the modalities "
                f"{join_words(self.encoders)} are needed; name the entries of the batch by modality"
            )
        return z

    def compute_loss(self, batch: Mapping[str, Any]) -> tuple[LossOutput, dict[str, Tensor]]:
        """Return the loss of a batch and its embeddings (B, D) by modality.

        Args:
            batch: modality -> input of its encoder. `present.NAME` (B,) bool marks the items that have the modality;
                the other rows are placeholders of any value. `ids` (B,) marks items that are positives of each other.
                Other entries are ignored.
        """
        z = self.embed(batch)
        present = {name: batch[PRESENT + name] for name in z if PRESENT + name in batch}
        found: LossOutput = self.objective(z, present=present or None, ids=batch.get(IDS))
        return found, z
