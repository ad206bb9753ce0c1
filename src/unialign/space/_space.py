"""`Space`: per-modality heads from frozen features into one unit sphere.

Shapes: `B` rows, `W` width of a modality's features, `D` width of the space.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unialign._checks import check_integer, check_number, has_surrogate
from unialign.batch import as_dense, check_dense, row_mask
from unialign.config import Head, InputNorm, WhiteningMode
from unialign.errors import ConfigError, DataError, ShapeError
from unialign.space._heads import make_head
from unialign.space._normalizer import Standardize, column_statistics, make_inputs
from unialign.space._saving import load, save
from unialign.space._validation import refuse_non_finite, unit_rows
from unialign.space._whitening import Whitening, check_frozen

if TYPE_CHECKING:
    from unialign.data import EmbeddingStore

__all__ = ["Space"]

# Far above any encoder; a larger number is a mistake or a hostile file.
_MAX_WIDTH = 1 << 20


class Space(nn.Module):
    """One head per modality into the shared unit sphere.

    Example:
        >>> space = Space({"image": 512, "text": 384}, dim=64)
        >>> space.encode({"text": torch.randn(3, 384)})["text"].shape
        torch.Size([3, 64])

    Args:
        widths: modality -> width of its features.
        dim: width D of the space.
        head: `mlp` (dropout, linear, GELU, dropout, linear) or `linear` (dropout, linear without bias).
        hidden: width between the two layers of `mlp`.
        dropout: probability in [0, 1), before every linear layer, in training only.
        inputs: `standardize` (each column by the mean and deviation of the training rows, see `fit_normalizer`; before
            that, nothing), `unit` (rows of length one) or `none`.
        frozen: modality -> framing, for modalities that stay where their encoder puts them, such as the images of an
            unCLIP decoder: no head, nothing trained. `whiten` centres the features and evens out the variances of their
            `dim` leading principal axes, `center` keeps the variances; the statistics are those of the training rows,
            see `fit_normalizer`. `inverse_transform` is the way back.
        metadata: JSON object about how the space was made; saved with it.

    Raises:
        ConfigError: an option is unknown or out of range.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        *,
        dim: int = 128,
        head: Head = "mlp",
        hidden: int = 256,
        dropout: float = 0.0,
        input_norm: InputNorm = "standardize",
        frozen: Mapping[str, WhiteningMode] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(widths, Mapping) or not widths:
            raise ConfigError(f"a space needs at least one modality, widths={{'image': 512, ...}}; got {widths!r}")
        for name, width in widths.items():
            if not isinstance(name, str):
                raise ConfigError(f"modality names must be strings, got {name!r}")
            if has_surrogate(name):
                raise ConfigError(f"modality name {name!r} cannot be written as UTF-8; use another one")
            check_integer(f"width of {name!r}", width, low=1, high=_MAX_WIDTH)
        check_integer("dim", dim, low=1, high=_MAX_WIDTH)
        check_integer("hidden", hidden, low=1, high=_MAX_WIDTH)
        check_number("dropout", dropout, "in [0, 1)", lambda x: 0 <= x < 1)
        if metadata is not None and not isinstance(metadata, Mapping):
            raise ConfigError(f"metadata of a space must be a JSON object, got {metadata!r}")
        self.widths = dict(widths)
        self.dim, self.head, self.hidden = dim, head, hidden
        self.dropout, self.input_norm = float(dropout), input_norm
        self.frozen = check_frozen(frozen, widths, dim)
        self.metadata: dict[str, Any] = dict(metadata or {})
        # Lists, not nn.ModuleDict: names are data, and "type" or "rna.seq" would be refused as attributes.
        self.features = nn.ModuleList(
            Whitening(self.frozen[name], width, dim) if name in self.frozen else make_inputs(input_norm, width)
            for name, width in widths.items()
        )
        self.heads = nn.ModuleList(
            nn.Identity()
            if name in self.frozen
            else make_head(head, width, dim=dim, hidden=hidden, dropout=self.dropout)
            for name, width in widths.items()
        )

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names that `encode` knows."""
        return tuple(self.widths)

    def settings(self) -> dict[str, Any]:
        """JSON-able arguments, but for `metadata`, that rebuild an untrained space of this shape."""
        return {
            "widths": dict(self.widths),
            "dim": self.dim,
            "head": self.head,
            "hidden": self.hidden,
            "dropout": self.dropout,
            "input_norm": self.input_norm,
            **({"frozen": dict(self.frozen)} if self.frozen else {}),
        }

    # --- mapping ------------------------------------------------------------------------------------------------

    def encode(
        self,
        features: Mapping[str, Tensor | NDArray[Any]],
        *,
        present: Mapping[str, Tensor | NDArray[np.bool_]] | None = None,
        batch_size: int = 4096,
    ) -> dict[str, Tensor]:
        """Embed features: no gradient, no dropout, in pieces, so that memory maps need not fit into memory.

        Args:
            features: any of the space's modalities -> (B, W) array or tensor of real numbers. Each modality is
                embedded by itself, so B may differ between them.
            present: modality -> (B,) bool; a missing name means that all rows are present. Absent rows may hold
                anything.
            batch_size: rows at a time, at least 1.

        Returns:
            Modality -> (B, D) unit rows on the device and in the dtype of the space (float32 unless converted). Absent
            rows are 0.

        Raises:
            ConfigError: a modality that the space does not have.
            ShapeError: not (B, W) with the width of the modality, or not numbers.
            NonFiniteError: a present row holds NaN or infinity, or maps to 0 and so has no direction.
        """
        check_integer("batch_size", batch_size, low=1)
        masks = self._check_batch(features, present)
        with self._evaluating(), torch.no_grad():
            return {name: self._encode_one(name, x, masks.get(name), batch_size) for name, x in features.items()}

    def forward(
        self,
        features: Mapping[str, Tensor | NDArray[Any]],
        *,
        present: Mapping[str, Tensor | NDArray[np.bool_]] | None = None,
    ) -> dict[str, Tensor]:
        """Differentiable `encode` without the last step: rows of any length, as every objective takes them.

        Args:
            features: any of the space's modalities -> (B, W) tensor or array; moved to the space's device and dtype.
            present: modality -> (B,) bool. Absent rows are replaced before any arithmetic; their output is exactly 0
                and no gradient passes through them.

        Raises:
            ConfigError, ShapeError: as `encode`.
        """
        parameter = self._like()
        masks = {name: mask.to(parameter.device) for name, mask in self._check_batch(features, present).items()}
        prepared = {
            name: self.prepare(name, as_dense(x, repr(name), "(B, W)").to(parameter), present=masks.get(name))
            for name, x in features.items()
        }
        return self.project(prepared, present=masks)

    def prepare(self, name: str, x_BW: Tensor, *, present: Tensor | None = None) -> Tensor:
        """The input handling alone, which holds nothing trained: training does it once, not once a step."""
        if present is not None:
            # Replaced before any arithmetic: NaN * 0 is NaN, in the value and in the gradient.
            x_BW = torch.where(present[:, None], x_BW, 0.0)
        prepared_BW: Tensor = self.features[self.modalities.index(name)](x_BW)
        return prepared_BW

    def project(
        self, prepared: Mapping[str, Tensor], *, present: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The heads alone, on rows from `prepare`; trusts its input."""
        places = {name: place for place, name in enumerate(self.widths)}
        raw = {name: self.heads[places[name]](x_BW) for name, x_BW in prepared.items()}
        for name, mask_B in (present or {}).items():
            if name in raw:
                raw[name] = torch.where(mask_B[:, None], raw[name], 0.0)
        return raw

    @torch.no_grad()
    def fit_normalizer(self, store: "EmbeddingStore", rows: NDArray[np.int64]) -> "Space":
        """Take the statistics of `inputs="standardize"` and of frames from the present ones of these training rows.

        Raises:
            DataError: a modality has no present row among them, or varies in fewer directions than its frame has.
            ShapeError: a column of the store has another width than the modality.
        """
        for place, (name, width) in enumerate(self.widths.items()):
            module = self.features[place]
            if not isinstance(module, Standardize | Whitening):
                continue
            if store.width(name) != width:
                raise ShapeError(f"{name!r} is {store.width(name)} wide in the store, {width} in the space")
            present_rows = rows[store.present(name)[rows]]
            if len(present_rows) == 0:
                raise DataError(f"{name!r} is absent from all {len(rows)} training rows of {store.name!r}")
            if isinstance(module, Whitening):
                module.fit(store.array(name), present_rows, name=name)
                continue
            mean_W, std_W = column_statistics(store.array(name), present_rows)
            module.mean.copy_(mean_W)
            module.std.copy_(std_W)
        return self

    def inverse_transform(self, name: str, z: Tensor) -> Tensor:
        """The features of a frozen modality that would be embedded at `z`: what its encoder would have said.

        Args:
            name: a frozen modality.
            z: (B, D) rows of the space, from any modality or a mixture. Rows of unit length get features of the typical
                length of the training rows, shorter ones lie closer to their mean.

        Returns:
            (B, W) features. Of the D directions that the frame keeps: what it left out is at its mean.

        Raises:
            ConfigError: the modality is not frozen.
            ShapeError: not (B, D).
        """
        self._check_names([name], "name")
        module = self.features[self.modalities.index(name)]
        if not isinstance(module, Whitening):
            frozen = ", ".join(map(repr, self.frozen)) or "none"
            raise ConfigError(
                f"{name!r} has a trained head, from which there is no way back to features; frozen modalities of this "
                f"space: {frozen} (train one with frozen={{{name!r}: 'whiten'}})"
            )
        z = as_dense(z, "z", f"(B, {self.dim})")
        if z.ndim != 2 or z.shape[1] != self.dim:
            raise ShapeError(f"z has shape {tuple(z.shape)}; this space has rows of (B, {self.dim})")
        return module.inverse_transform(z.to(module.mean))

    # --- saving -------------------------------------------------------------------------------------------------

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write `config.json`, `model.safetensors` and, unless there is one, a model card `README.md` into a folder.

        A space saved there before is replaced in one step: a crash leaves the old or the new one. Other files stay.

        Raises:
            CheckpointError: the file system refuses; what was there before is intact.
        """
        save(self, directory)

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], *, revision: str | None = None) -> Self:
        """Load a space from a folder, or else from the Hugging Face Hub (`owner/name`; needs `unialign[hub]`).

        Only JSON and safetensors are read; nothing in the folder is executed. The space is on the CPU, in eval mode.

        Raises:
            CheckpointError: nothing there, another version, a pickle, or a file that is truncated or altered.
            MissingDependencyError: `source` is no folder and `huggingface_hub` is not installed.
        """
        return load(cls, source, revision=revision)

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in self.settings().items())

    # --- inside -------------------------------------------------------------------------------------------------

    def _encode_one(self, name: str, x: Tensor | NDArray[Any], mask: Tensor | None, batch_size: int) -> Tensor:
        parameter = self._like()
        x = x if isinstance(x, Tensor) else np.asarray(x)
        rows = x.shape[0]
        out_BD = parameter.new_zeros(rows, self.dim)
        for start in range(0, rows, batch_size):
            piece = slice(start, min(start + batch_size, rows))
            chunk = x[piece]
            if not isinstance(chunk, Tensor):
                chunk = as_dense(chunk, repr(name), "(B, W)")
            x_BW = chunk.to(parameter.device, parameter.dtype)
            mask_B = None if mask is None else mask[piece].to(parameter.device)
            refuse_non_finite(name, x_BW, mask_B, start)
            raw_BD = self.project({name: self.prepare(name, x_BW, present=mask_B)})[name]
            out_BD[piece] = unit_rows(name, raw_BD, mask_B, start)
        return out_BD

    def _like(self) -> Tensor:
        """Of the device and dtype of the space; a space that is frozen altogether has no parameters."""
        return next(chain(self.parameters(), self.buffers()))

    def _check_names(self, given: Iterable[str], what: str) -> None:
        for name in given:
            if name not in self.widths:
                raise ConfigError(
                    f"`{what}` names {name!r}, which this space does not have; it has "
                    f"{', '.join(map(repr, self.widths))}"
                )

    def _check_batch(self, features: Any, present: Any) -> dict[str, Tensor]:
        """The border of `encode` and `forward`; returns the masks of the features that have one."""
        if not isinstance(features, Mapping):
            raise ShapeError(f"features must map modality to (B, W) array, got {type(features).__name__}")
        if present is not None and not isinstance(present, Mapping):
            raise ShapeError(f"`present` must map modality to (B,) bool, got {type(present).__name__}")
        masks = present or {}
        self._check_names(features, "features")
        self._check_names(masks, "present")
        rows = {name: self._check_features(name, x) for name, x in features.items()}
        return {name: row_mask(masks[name], f"present[{name!r}]", rows[name]) for name in rows if name in masks}

    def _check_features(self, name: str, x: Any) -> int:
        """Refuse what is no (B, W) of numbers; returns B. Arrays are not copied: a memory map may exceed the memory."""
        if isinstance(x, Tensor):
            check_dense(x, repr(name), f"(B, {self.widths[name]})")
            numbers = not x.is_complex() and x.dtype != torch.bool
        else:
            try:
                x = np.asarray(x)
            except (TypeError, ValueError, RuntimeError) as error:  # ragged lists
                raise ShapeError(f"{name!r} cannot become an array ({error}); expected (B, W) real numbers") from None
            # At most 8 bytes: torch has no long doubles.
            numbers = x.dtype.kind in "fiu" and x.dtype.itemsize <= 8
        if not numbers:
            raise ShapeError(f"{name!r} has dtype {x.dtype}; expected real numbers of at most 64 bits")
        if x.ndim != 2 or x.shape[1] != self.widths[name]:
            raise ShapeError(f"{name!r} has shape {tuple(x.shape)}; this space expects (B, {self.widths[name]}) for it")
        return int(x.shape[0])

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        modes = [(module, module.training) for module in self.modules()]
        for module, _ in modes:
            module.training = False
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training
