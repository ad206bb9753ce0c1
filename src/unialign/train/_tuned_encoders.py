"""Encoders that are trained together with the heads.

Shapes: `n` present rows, `b` rows of a micro-batch, `W` dimension of the features.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from unialign.config import TrainConfig, TuneConfig
from unialign.encoders import (
    Encoder,
    load_tuned_tensors,
    set_training_mode,
    trained_encoder,
    tune_parameters,
    tuned_tensors,
)
from unialign.errors import CheckpointError, ConfigError, ShapeError
from unialign.train._batches import derived_seed
from unialign.train._media_stream import PreparedRows

_BUFFERS = "buffers/"


@dataclass(frozen=True)
class TunedEncoder:
    encoder: Encoder
    tuning: TuneConfig
    parameters: Mapping[str, nn.Parameter]

    @property
    def initial(self) -> Literal["pretrained", "random"]:
        """Built-in encoders have random weights, unless they were trained and saved before."""
        reference = self.encoder.reference
        inner = str(reference["name"]).partition(":")[2]
        is_random = reference["kind"] == "builtin" and (not inner or inner.startswith("builtin:"))
        return "random" if is_random and reference.get("stored") == "reference" else "pretrained"


class TunedEncoders:
    """The encoders of the trained modalities, by name of the modality."""

    def __init__(self, encoders: Mapping[str, Encoder], config: TrainConfig) -> None:
        self._encoders: dict[str, TunedEncoder] = {}
        for name, encoder in encoders.items():
            tuning = config.tuning(name)
            # The seed does not depend on the order of the modalities.
            seed = derived_seed("lora", config.seed, name)
            try:
                parameters = tune_parameters(encoder, tuning, seed=seed)
            except ConfigError as error:
                raise ConfigError(f"the encoder of {name!r} cannot be trained: {error}") from None
            self._encoders[name] = TunedEncoder(encoder, tuning, parameters)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._encoders)

    def __getitem__(self, name: str) -> Encoder:
        return self._encoders[name].encoder

    def parameters(self) -> dict[str, nn.Parameter]:
        return {
            f"encoder/{name}/{key}": parameter
            for name, own in self._encoders.items()
            for key, parameter in own.parameters.items()
        }

    def __iter__(self) -> Iterator[TunedEncoder]:
        return iter(self._encoders.values())

    def set_training_mode(self) -> None:
        for own in self._encoders.values():
            assert own.encoder.module is not None
            set_training_mode(own.encoder.module, own.tuning)

    def set_evaluation_mode(self) -> None:
        for own in self._encoders.values():
            assert own.encoder.module is not None
            own.encoder.module.eval()

    def encode(self, name: str, prepared: PreparedRows, device: torch.device) -> Tensor:
        """Return differentiable features (b, W); absent rows never reach the encoder, and are 0."""
        own = self._encoders[name]
        places = [place for place, row in enumerate(prepared.rows) if row is not None]
        if not places:
            return torch.zeros(len(prepared), own.encoder.dim, device=device)
        batch = own.encoder.collate([row for row in prepared.rows if row is not None])
        found_nW = own.encoder.encode(batch)
        if found_nW.shape != (len(places), own.encoder.dim):
            raise ShapeError(
                f"the encoder of {name!r} returned features of shape {tuple(found_nW.shape)} in training, expected "
                f"{(len(places), own.encoder.dim)}; its module must return a row for each item, also with gradient"
            )
        if len(places) == len(prepared):
            return found_nW
        features_bW = found_nW.new_zeros(len(prepared), own.encoder.dim)
        return features_bW.index_put((torch.tensor(places, device=found_nW.device),), found_nW)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that training changes, named `encoder/MODALITY/NAME`, with `buffers/` before a buffer."""
        return {
            f"encoder/{name}/{key}": tensor
            for name, own in self._encoders.items()
            for key, tensor in (tuned_tensors(own.encoder) | _buffers(own)).items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        taken = 0
        for name, own in self._encoders.items():
            prefix = f"encoder/{name}/"
            mine = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
            buffers = {key: mine.pop(key) for key in [*mine] if key.startswith(_BUFFERS)}
            load_tuned_tensors(own.encoder, mine)
            for key, tensor in _buffers(own).items():
                tensor.copy_(buffers[key])
            taken += len(mine) + len(buffers)
        if taken != len(tensors):
            raise CheckpointError(
                f"the checkpoint has {len(tensors)} tensors of trained encoders, but this run trains {taken}"
            )

    def trained(self) -> dict[str, Encoder]:
        """Return encoders with the fingerprints of the present weights."""
        return {name: trained_encoder(own.encoder) for name, own in self._encoders.items()}


def _buffers(own: TunedEncoder) -> dict[str, Tensor]:
    """Return the buffers of layers in training mode, which may change in each forward pass, as of `spectral_norm`."""
    assert own.encoder.module is not None
    if own.tuning.dropout == "off":
        return {}
    parameters = dict(own.encoder.module.named_parameters())
    state = own.encoder.module.state_dict()
    return {f"{_BUFFERS}{key}": x for key, x in state.items() if key not in parameters and isinstance(x, Tensor)}
