"""Project encoder outputs to the features of a built-in store column.

Shapes: `N` rows, `E` dimension of the encoder, `W` dimension of the column.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from unialign._datasets import datasets_folder
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError
from unialign.io import digest, read_json, read_tensors

# Columns that agree on these keys have the same encoder and reduction; only the weights may differ.
_IDENTIFYING = ("encoder", "pooling", "reduction")


@dataclass(frozen=True, eq=False)
class Projection:
    """Map encoder outputs (N, E) to column features (N, W); a stored text and its features check the libraries."""

    encoder: str
    module: str
    packages: tuple[str, ...]
    weights_file: str
    weights_sha256: str
    mean_E: Tensor
    axes_EW: Tensor
    sample_text: str
    sample_W: Tensor

    @property
    def dim(self) -> int:
        return self.axes_EW.shape[1]

    def __call__(self, raw_NE: Tensor) -> Tensor:
        """Compute in float64, as for the stored column."""
        return ((raw_NE.double() - self.mean_E.double()) @ self.axes_EW.double()).float()

    def check_weights(self, folder: Path) -> None:
        path = folder / self.weights_file
        try:
            found = digest(path.read_bytes())
        except OSError as error:
            raise DataError(
                f"the weights {path} cannot be read: {error.strerror or error}; reinstall {self.packages[0]}"
            ) from None
        if found != self.weights_sha256:
            raise DataError(
                f"the installed weights of {self.encoder} have sha256 {found}, but the column was built with sha256 "
                f"{self.weights_sha256}; install {self.packages[0]}"
            )


def find_projection(store: EmbeddingStore, column: str, fingerprint: str) -> Projection:
    made: Any = store.provenance.get("columns", {}).get(column)
    entry: Mapping[str, Any] = made if isinstance(made, Mapping) else {}
    known = []
    for path in sorted(datasets_folder("projections").glob("*.json")):
        facts = read_json(path)
        if facts["fingerprint"] == fingerprint:
            return _read(path, facts)
        if all(entry.get(key) == facts["made"][key] for key in _IDENTIFYING):
            ours, theirs = facts["made"]["weights"]["sha256"], _weights_of(entry)
            if theirs != ours:
                raise DataError(
                    f"the column {column!r} of {store.name!r} was built with {entry['encoder']!r} weights of sha256 "
                    f"{theirs}, but the available weights have sha256 {ours}, so the features are not comparable"
                )
        known.append(f"{facts['belongs_to']['column']!r} of {facts['belongs_to']['store']!r}")
    has = "no encoder"
    if entry.get("encoder") is not None:
        weights, reduction = _weights_of(entry), entry.get("reduction")
        has = f"encoder {entry['encoder']!r}, weights of sha256 {weights}, reduction {reduction!r}"
    raise ConfigError(
        f"no text encoder is available for the column {column!r} of {store.name!r}, since its provenance has "
        f"{has}; encoders are available for the columns {', '.join(known)}"
    )


def _read(path: Path, facts: Mapping[str, Any]) -> Projection:
    tensors = read_tensors(path.with_suffix(".safetensors"), sha256=facts["projection"])
    return Projection(
        encoder=facts["made"]["encoder"],
        module=facts["module"],
        packages=tuple(facts["packages"]),
        weights_file=facts["made"]["weights"]["file"],
        weights_sha256=facts["made"]["weights"]["sha256"],
        mean_E=tensors["mean"],
        axes_EW=tensors["axes"],
        sample_text=facts["witness"],
        sample_W=tensors["witness"],
    )


def _weights_of(entry: Mapping[str, Any]) -> object:
    weights = entry.get("weights")
    return weights.get("sha256") if isinstance(weights, Mapping) else weights
