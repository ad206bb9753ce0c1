"""A fitted repair.

Shapes: `B` rows, `D` dimension, `R` reference rows, `Q` queries, `G` gallery rows.
"""

import io
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign._checks import suggestion
from unialign.batch import as_tensors, make_batch
from unialign.correction._apply_store import apply_store
from unialign.correction._candidates import csls_score
from unialign.correction._csls import local_similarity
from unialign.correction._modules import Layer, RepairLayers
from unialign.correction._rows import as_floats, check_rows
from unialign.correction._text import text
from unialign.errors import CheckpointError, ConfigError, NonFiniteError, ShapeError
from unialign.io import checked_path, load_folder, replace_file, save_folder
from unialign.space import Space

if TYPE_CHECKING:
    from unialign.data import EmbeddingStore, Overwrite


class IndexLayer(NamedTuple):
    """The correction of a modality in an index, in float64.

    Attributes:
        weight: (D, D), or None for the identity matrix.
        bias: (D,). Corrected rows are `z @ weight + bias`, normalized to unit length.
        reference: (R, D) centered unit rows, for CSLS scores.
    """

    weight: Tensor | None
    bias: Tensor
    reference: Tensor


class Repair:
    """An affine map of the embeddings of each modality that removes their gap, created by `ua.repair`.

    Repaired rows are `z @ weight + bias`, normalized to unit length, where z is a unit row of the modality.

    Attributes:
        modalities: names of the modalities.
        dim: dimension D of the embeddings.
        choice: method of the affine map: `none`, `center` or `coral`.
        index_choice: method of `scores`: `none`, `center`, `coral` or `center_csls`.
        metadata: JSON object with the measurements and the data of the repair.
    """

    def __init__(self, layers: RepairLayers, metadata: Mapping[str, Any]) -> None:
        self._layers = layers
        self.modalities = tuple(layers.references)
        self.dim, self.choice, self.index_choice = layers.dim, layers.choice, layers.index_choice
        self.metadata: dict[str, Any] = dict(metadata)

    @property
    def table(self) -> list[dict[str, Any]]:
        """Measurements on held-out items before and after the repair: one row for each pair and one for all modalities.

        Each row has the keys `pair` (`all` for all modalities), `before` and `after`, with mixed-pool retrieval:
        `balanced`, `own`, `cross`, `share` and `label_precision` (see `ua.metrics.mixed_pool`), each a dict of mean and
        95 % interval, or None if not defined; rows of pairs also have the debiased modality `gap`.
        """
        return list(self.metadata.get("table", []))

    @property
    def candidates(self) -> dict[str, Any]:
        """Measurements of each method on all modalities, with the `reason` for its rejection ("" if it was chosen)."""
        return dict(self.metadata.get("candidates", {}))

    @torch.no_grad()
    def apply(
        self, embeddings: Mapping[str, Any], *, present: Mapping[str, Any] | None = None, for_index: bool = False
    ) -> dict[str, Tensor]:
        """Repair embeddings.

        Args:
            embeddings: modality -> (B, D) floating-point array or tensor; rows are L2-normalized here. Modalities may
                be omitted, and B may differ between modalities.
            present: modality -> (B,) bool; all rows of other modalities are present. Absent rows may have any values.
            for_index: whether to apply the affine map of `index_choice`, for rows that `scores` compares.

        Returns:
            Modality -> (B, D) unit rows, float64 if the input is, else float32; absent rows are 0.

        Raises:
            ConfigError: unknown modality.
            ShapeError: rows do not have the dimension D.
            NonFiniteError: a present row is not finite, has no direction, or equals the mean of its modality.
        """
        tensors = as_tensors(embeddings)
        if not isinstance(tensors, Mapping):
            raise ShapeError(f"embeddings must map modalities to (B, {self.dim}) rows, got {type(tensors).__name__}")
        for name in (*tensors, *(present or {})):
            self._check_name(name)
        masks = present or {}
        return {
            name: self._apply_one(name, z_BD, {name: masks[name]} if name in masks else None, for_index=for_index)
            for name, z_BD in tensors.items()
        }

    @torch.no_grad()
    def _apply_part(self, name: str, rows_bD: NDArray[Any], present_b: NDArray[np.bool_], start: int) -> Tensor:
        z_bD = as_floats(rows_bD)
        check_rows(name, z_bD, start + np.arange(len(z_bD)), present_b)
        mask = {name: torch.from_numpy(present_b)}
        return self._apply_one(name, z_bD, mask, for_index=False, first_row=start)

    def _apply_one(
        self, name: str, z_BD: Tensor, mask: Mapping[str, Any] | None, *, for_index: bool, first_row: int = 0
    ) -> Tensor:
        if z_BD.ndim == 2 and z_BD.shape[1] != self.dim:
            raise ShapeError(f"{name!r} has shape {tuple(z_BD.shape)}; the repair expects rows of dim {self.dim}")
        layer = self._layer(name)
        batch = make_batch({name: z_BD.to(layer.weight.device)}, present=mask, minimum=1)
        unit_BD, present_B = batch.z_MBD[0], batch.present_MB[0]
        if for_index and self.index_choice != self.choice:
            out_BD = unit_BD.double() - (layer.mean if self.index_choice != "none" else 0.0)
        elif self.choice == "none":
            return unit_BD.clone()
        else:
            out_BD = unit_BD.double() @ layer.weight + layer.bias
        norm_B1 = torch.linalg.vector_norm(out_BD, dim=1, keepdim=True)
        bad_B = present_B & (norm_B1[:, 0] < 1e-9)
        if bool(bad_B.any()):
            row = first_row + int(bad_B.to(torch.uint8).argmax())
            raise NonFiniteError(
                f"{name!r} row {row} equals the mean of its modality, so it has no direction after the repair; mark it "
                "as absent with `present=`"
            )
        out_BD = torch.where(present_B[:, None], out_BD / norm_B1.clamp(min=1e-300), 0.0)
        return out_BD.to(unit_BD.dtype)

    @torch.no_grad()
    def scores(self, queries: Any, gallery: Any, *, query_modality: str, gallery_modality: str) -> Tensor:
        """Score gallery rows for queries with the method `index_choice`; scores of different modalities are comparable.

        For `center_csls`, the score is 2 s - r_m(q) - r_a(g), where s is the cosine of the centered rows. The term
        r_m(q) is the mean cosine of the query with its nearest reference rows of the gallery modality m, and r_a(g) is
        the mean cosine of the gallery row with its nearest reference rows of the query modality a.

        Args:
            queries: (Q, D) embeddings before the repair.
            gallery: (G, D) embeddings before the repair.
            query_modality, gallery_modality: modalities of the queries and of the gallery.

        Returns:
            (Q, G) float64 scores; higher is better.

        Raises:
            ConfigError, ShapeError, NonFiniteError: as in `apply`.
        """
        queries_QD = self.apply({query_modality: queries}, for_index=True)[query_modality].double()
        rows_GD = self.apply({gallery_modality: gallery}, for_index=True)[gallery_modality].double()
        if self.index_choice != "center_csls":
            return queries_QD @ rows_GD.mT
        reference = {name: self._layer(name).reference.double() for name in (query_modality, gallery_modality)}
        return csls_score(reference)(query_modality, queries_QD, gallery_modality, rows_GD)

    @torch.no_grad()
    def local_similarity(self, embeddings: Any, *, modality: str, reference: str) -> Tensor:
        """Return the term r of `scores`, which an index may store for each row and query modality, (B,) float64.

        Args:
            embeddings: (B, D) embeddings before the repair.
            modality: modality of the embeddings.
            reference: modality of the reference rows.
        """
        self._check_name(reference)
        z_BD = self.apply({modality: embeddings}, for_index=True)[modality].double()
        rows_RD = self._layer(reference).reference.double()
        return local_similarity(z_BD, rows_RD, same_modality=modality == reference)

    def index_layer(self, modality: str) -> "IndexLayer":
        """Return the affine map of `index_choice` for a modality, and the reference rows of its CSLS scores.

        Raises:
            ConfigError: unknown modality.
        """
        layer = self._layer(modality)
        reference_RD = layer.reference.double()
        if self.index_choice == "none":
            return IndexLayer(None, torch.zeros_like(layer.bias), reference_RD)
        if self.index_choice == self.choice and self.index_choice == "coral":
            return IndexLayer(layer.weight, layer.bias, reference_RD)
        return IndexLayer(None, -layer.mean, reference_RD)

    def apply_store(
        self,
        store: "EmbeddingStore",
        path: str | os.PathLike[str],
        *,
        overwrite: "Overwrite" = "never",
        batch_size: int = 4096,
    ) -> "EmbeddingStore":
        """Repair the embeddings of a store of any size in batches, and write them to a new store.

        Args:
            store: store of embeddings; its default modalities are written if the repair has them.
            path: folder of the new store.
            overwrite: as in `EmbeddingStore.write`.
            batch_size: number of rows to process at a time, at least 1.

        Raises:
            ConfigError: the store has no modality of the repair, or an option is invalid.
            ShapeError, NonFiniteError: as in `apply`; row numbers refer to the store.
            DataError: as in `EmbeddingStore.write`.
        """
        return apply_store(self, store, path, overwrite=overwrite, batch_size=batch_size)

    def fold_into(self, space: Space) -> Space:
        """Return a copy of a space whose embeddings are repaired; it is saved and loaded like any other space.

        The affine map follows the normalization of the head's output, and its result is normalized again.

        Args:
            space: the space whose embeddings were repaired, with the dimension and modalities of the repair.

        Raises:
            ConfigError: dimensions or modalities differ, or the space already has a repair.
        """
        if space.dim != self.dim:
            raise ConfigError(f"the space has dim {space.dim}, but the repair was fitted to rows of dim {self.dim}")
        for name in self.modalities:
            if name not in space.modalities:
                raise ConfigError(
                    f"the repair has the modality {name!r}, but the space has {', '.join(space.modalities)}"
                )
        layers = {} if self.choice == "none" else {name: self._layer(name) for name in self.modalities}
        folded = space.with_output_affine({name: (layer.weight, layer.bias) for name, layer in layers.items()})
        folded.metadata["repair"] = {"method": self.choice, "modalities": list(layers)}
        return folded

    def export_npz(self, path: str | os.PathLike[str]) -> None:
        """Write the affine map to an `.npz` file with the float64 arrays `weight.NAME` (D, D) and `bias.NAME` (D,).

        Other programs compute `z @ weight + bias` for unit rows z, and normalize the result.

        Raises:
            CheckpointError: the file cannot be written; an existing file is kept.
        """
        target = checked_path(path, "the file to write", error=CheckpointError)
        arrays = {
            f"{part}.{name}": getattr(self._layer(name), part).cpu().numpy()
            for name in self.modalities
            for part in ("weight", "bias")
        }
        content = io.BytesIO()
        np.savez(content, **arrays)
        replace_file(target, content.getvalue(), error=CheckpointError)

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write `config.json`, `model.safetensors` and, unless it exists, `README.md` to a folder, atomically.

        Raises:
            CheckpointError: a file cannot be written, or the folder holds a model of another kind; existing files are
                kept.
        """
        save_folder(
            "repair",
            directory,
            settings=self._layers.get_config(),
            metadata=self.metadata,
            tensors=self._layers.state_dict(),
            card=_CARD,
        )

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Self:
        """Load a repair written by `save`; only JSON and safetensors files are read.

        Raises:
            CheckpointError: the folder has no repair, or a file is a pickle, damaged, or has an unknown schema.
        """
        folder = checked_path(directory, "the folder of the repair", error=CheckpointError)
        metadata: dict[str, Any] = {}

        def build(settings: dict[str, Any], data: dict[str, Any]) -> RepairLayers:
            metadata.update(data)
            return RepairLayers(**settings)

        layers = load_folder("repair", folder, build)
        if not all(bool(torch.isfinite(tensor).all()) for tensor in layers.state_dict().values()):
            raise CheckpointError(f"the repair in {folder} contains NaN or infinity; fit it again")
        return cls(layers.double(), metadata)

    def text(self) -> str:
        """Return the choice in a sentence, the measurements before and after the repair, and a legend, as plain text.

        Raises:
            ConfigError: the repair has no measurements.
        """
        if not self.table:
            raise ConfigError("this repair has no measurements, since it was not created by `ua.repair`")
        return text(self)

    def __repr__(self) -> str:
        return f"Repair(modalities={self.modalities}, dim={self.dim}, choice={self.choice!r})"

    def _layer(self, name: str) -> Layer:
        self._check_name(name)
        return self._layers[name]

    def _check_name(self, name: object) -> None:
        if name not in self.modalities:
            raise ConfigError(
                f"unknown modality {name!r}; the repair has {', '.join(map(repr, self.modalities))}"
                f"{suggestion(name, self.modalities)}"
            )


_CARD = """---
library_name: unialign
tags: [multimodal, embeddings]
---

# A repair of embeddings

This folder contains an affine map for each modality, which removes the modality gap of existing embeddings.

```python
import unialign as ua

repair = ua.correction.Repair.load("path of this folder")
repaired = repair.apply(embeddings)  # modality -> (rows, dim)
```
"""
