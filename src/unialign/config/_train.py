"""Settings of a training run."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from unialign import registry
from unialign._checks import check_choice, check_integer, check_nonnegative, check_number, check_text
from unialign.config._base import Config, setting
from unialign.config._choices import FusedSubsets, Head, Init, InputNorm, WhiteningMode
from unialign.config._closed_form_names import CLOSED_FORMS
from unialign.config._instances import ConfigurableModule, name_and_options
from unialign.config._ranges import fraction, integer, positive
from unialign.config._tune import TuneConfig
from unialign.errors import ConfigError

if TYPE_CHECKING:

    class _ObjectiveName:
        """Descriptor that accepts a name or an instance, and returns the name."""

        def __get__(self, config: object, owner: object) -> str: ...
        def __set__(self, config: object, value: str | ConfigurableModule) -> None: ...
else:
    _ObjectiveName = str


def _objective(name: str, value: str) -> None:
    try:
        registry.check("objectives", value)
    except ConfigError:
        form = CLOSED_FORMS.get(value) if isinstance(value, str) else None
        if form is None:
            raise
        raise ConfigError(
            f"{value!r} is a closed form, not an objective; set head={form.head!r}, init={form.init!r} and epochs=0 "
            f"(`--head {form.head} --init {form.init} --epochs 0`), or call unialign.closed_form.{form.init}"
        ) from None


def _modalities(name: str, value: tuple[object, ...]) -> None:
    if not all(isinstance(one, str) for one in value) or len(set(value)) < max(2, len(value)):
        raise ConfigError(f"{name} must be at least two distinct names, got {list(value)}")


def _prefixes(name: str, value: tuple[object, ...]) -> None:
    for length in value:
        check_integer(f"an entry of {name}", length, low=1)
    if not value or len(set(value)) < len(value):
        raise ConfigError(f"{name} must be one or more distinct prefix lengths, got {list(value)}")


def _frozen(name: str, value: Mapping[str, object]) -> None:
    for modality, mode in value.items():
        check_choice("transform", mode, get_args(WhiteningMode), owner=f"the frozen modality {modality!r}")


def _infonce_warmup(name: str, value: object) -> None:
    check_number(name, value, "a number in [0, 1], a fraction of the steps", lambda x: 0 <= x <= 1)


def _logs(name: str, value: tuple[object, ...]) -> None:
    for log in value:
        check_choice(name, log, ("jsonl", "tensorboard", "wandb", "trackio", "mlflow"))


def _encoders(name: str, value: Mapping[str, object]) -> None:
    for modality, encoder in value.items():
        if isinstance(encoder, Mapping) and not {"kind", "name", "media", "dim", "fingerprint"} <= encoder.keys():
            raise ConfigError(f"{name}.{modality} must be the reference of an encoder, got {encoder!s:.80}")
        if not isinstance(encoder, Mapping):
            check_text(f"{name}.{modality}", encoder)


def _as_json(encoders: Any) -> Any:
    """Replace instances of encoders by their references."""
    if not isinstance(encoders, Mapping):
        return encoders
    return {name: _reference(name, given) if hasattr(given, "reference") else given for name, given in encoders.items()}


def _reference(name: object, encoder: Any) -> dict[str, Any]:
    reference = dict(encoder.reference)
    if reference.get("kind") == "module" or reference.get("stored", "reference") != "reference":
        raise ConfigError(
            f"the encoder of {name!r} has weights that its reference cannot rebuild, so it cannot be a setting; pass "
            f"it as fit(..., encoders={{{name!r}: encoder}})"
        )
    # Leave out the witness, which differs slightly between versions of packages.
    return {key: entry for key, entry in reference.items() if key not in ("witness", "packages")}


def _tuning(tune: Any) -> Any:
    """Replace each entry by a mapping of all settings, including defaults."""
    if not isinstance(tune, Mapping):
        return tune
    found = {}
    for name, given in tune.items():
        try:
            config = given if isinstance(given, TuneConfig) else TuneConfig.from_dict(given)
        except ConfigError as error:
            raise ConfigError(f"tune.{name}: {error}") from None
        found[name] = config.to_dict()
    return found


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """Settings of `fit`, checked on construction."""

    kind: ClassVar[str] = "training"
    nested: ClassVar[Mapping[str, type[Config]]] = {"tune": TuneConfig}

    objective: _ObjectiveName = setting(
        "unialign",
        "name of an objective (see `unialign.losses.names()`), or an instance, which is stored as its name and options",
        _objective,
    )
    objective_options: Mapping[str, Any] = setting(
        {}, "options of the objective; if `anchor` is optional, the default is to use all pairs of modalities"
    )
    matryoshka_dims: tuple[int, ...] | None = setting(
        None,
        "prefix lengths: the objective is also computed on this number of leading dimensions, so that embeddings "
        "can be truncated to it; the full dimension is always added (default: only the full dimension)",
        _prefixes,
    )
    fused_weight: float = setting(
        0.0,
        "weight of a term that contrasts each modality with the mean of the others, for queries with several "
        "modalities; needs at least three modalities",
        check_nonnegative,
    )
    fused_subsets: FusedSubsets = setting(
        "leave_one_out",
        "means in the term of `fused_weight`: of all other modalities of an item (`leave_one_out`), or of every "
        "subset (`all`)",
    )
    modalities: tuple[str, ...] | None = setting(
        None, "modalities to train on, at least two (default: the data set's default modalities)", _modalities
    )
    encoders: Mapping[str, Any] = setting(
        {},
        "for items: encoders by modality or pattern such as `speech_*`, as names or references (default: the best "
        "installed encoder of each kind of media)",
        _encoders,
    )
    tune: Mapping[str, Any] = setting(
        {},
        "for items: encoders that are trained, by modality or pattern: a mode (`last`, `lora`, `all`) or settings of "
        "TuneConfig, such as `tune.image.lr`; the others are frozen",
    )
    augment: Literal["none", "basic"] = setting(
        "none",
        "random changes of the media of trained encoders: `basic` crops and flips images, shifts audio and changes "
        "its gain, and samples random frames of videos",
    )
    dim: int = setting(128, "dimension of the shared space", integer(1))
    head: Head = setting(
        "mlp",
        "head of each modality: `linear`, `mlp` with one hidden layer, or `kernel`, a linear head on features of a "
        "Gaussian kernel",
    )
    hidden: int = setting(256, "hidden units of an `mlp` head", integer(1))
    dropout: float = setting(0.0, "dropout probability in the heads, in [0, 1)", fraction)
    input_norm: InputNorm = setting(
        "standardize", "normalization of features: `standardize` columns, `unit` rows, or `none`"
    )
    frozen: Mapping[str, WhiteningMode] = setting(
        {}, "modalities without a head, mapped to `whiten` or `center`, the transform of their features", _frozen
    )
    init: Init = setting(
        "random",
        "initial weights of the heads: `random`, `gcca` (for `linear` and `kernel` heads) or `ridge` (for `linear` "
        "heads)",
    )
    init_regularization: float | Literal["auto"] = setting(
        "auto",
        "ridge of the closed form and of kernel features, as a fraction of the number of training rows; `auto` is "
        "chosen on the validation split",
        positive,
    )
    init_spectrum_power: float | Literal["auto"] = setting(
        "auto",
        "power of the eigenvalues by which GCCA weights its directions, at least 0; `auto` is chosen on the validation "
        "split",
        check_nonnegative,
    )
    landmarks: int | Literal["auto"] = setting(
        "auto",
        "maximum number of landmarks per modality, the training rows with which the kernel is evaluated; `auto` is "
        "all rows up to 5,000, "
        "else 2,000 random rows",
        integer(2),
    )
    epochs: int = setting(
        100,
        "number of passes over the training rows, at most 1,000,000,000; 0 keeps the closed form of `init` unchanged",
        integer(0, 10**9),
    )
    batch_size: int = setting(
        256, "number of items per objective call, at least 2; a last batch of a single item is dropped", integer(2)
    )
    micro_batch_size: int | None = setting(
        None,
        "number of items per forward pass of the heads; values below the batch size save memory but run the heads "
        "twice, and the objective still uses the whole batch (default: the batch size)",
        integer(1),
    )
    gradient_accumulation_steps: int = setting(
        1,
        "number of batches per optimizer step, weighted by their numbers of items; negatives come from the same batch "
        "only",
        integer(1),
    )
    lr: float = setting(1e-3, "peak learning rate", positive)
    weight_decay: float = setting(0.01, "weight decay of AdamW, on weight matrices only", check_nonnegative)
    warmup_ratio: float = setting(0.05, "fraction of the steps with linear learning-rate warmup, in [0, 1)", fraction)
    min_lr: float = setting(0.0, "learning rate at the end of the cosine schedule, in [0, lr]")
    max_grad_norm: float | None = setting(1.0, "maximum gradient norm; `none` disables clipping", positive)
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto",
        "autocast of the heads: `auto` (bf16 on CUDA, fp32 elsewhere), `fp32` or `bf16`; objectives compute in fp32",
    )
    zero_rows: Literal["error", "ignore"] = setting(
        "error",
        "handling of head outputs that are exactly zero: `error` raises NonFiniteError, `ignore` treats them as absent",
    )
    infonce_warmup_ratio: float = setting(
        0.0,
        "fraction of the steps, in [0, 1], that train InfoNCE before the objective; InfoNCE uses the anchor of the "
        "objective, and its temperature if the objective divides cosines by a temperature",
        _infonce_warmup,
    )
    early_stopping_patience: int | None = setting(
        None,
        "number of evaluations on the validation split without improvement after which training stops; the best "
        "weights are kept (default: no evaluation; the last weights are kept)",
        integer(1),
    )
    early_stopping_metric: str = setting(
        "recall@1",
        "evaluation metric of early stopping, such as `joint_recall@1` or `label_map`, or `auto`, the mean "
        "logarithm of R@1, joint R@1 and label mAP",
    )
    eval_epochs: int = setting(1, "number of epochs between the evaluations of early stopping", integer(1))
    save_steps: int | None = setting(
        500, "steps between checkpoints; `none` saves only on interruption and at the end", integer(1), bookkeeping=True
    )
    save_total_limit: int = setting(2, "number of latest checkpoints to keep", integer(1), bookkeeping=True)
    logging_steps: int = setting(10, "steps between log records", integer(1), bookkeeping=True)
    monitor_steps: int = setting(50, "steps between health checks of the space", integer(1), bookkeeping=True)
    log_to: tuple[str, ...] = setting(
        ("jsonl",),
        "loggers: `jsonl` (always written to the run folder), `tensorboard`, `wandb`, `trackio`, `mlflow`",
        _logs,
        bookkeeping=True,
    )
    seed: int = setting(0, "seed of initial weights, item order and dropout", integer(0))

    def __post_init__(self) -> None:
        if isinstance(self.objective, ConfigurableModule) and not isinstance(self.objective, type):
            if self.objective_options:
                raise ConfigError(
                    "objective_options must be empty if objective is an instance, because the instance has its options"
                )
            name, options = name_and_options(self.objective)
            object.__setattr__(self, "objective", name)
            object.__setattr__(self, "objective_options", options)
        object.__setattr__(self, "encoders", _as_json(self.encoders))
        object.__setattr__(self, "tune", _tuning(self.tune))
        super().__post_init__()

    def tuning(self, modality: str) -> TuneConfig:
        """Return how the encoder of a modality is trained; names are preferred to patterns."""
        keys = [modality] if modality in self.tune else [key for key in self.tune if fnmatchcase(modality, key)]
        if len(keys) > 1:
            raise ConfigError(f"the modality {modality!r} matches both {keys[0]!r} and {keys[1]!r} in tune")
        return TuneConfig.from_dict(self.tune[keys[0]] if keys else "frozen")

    def validate(self) -> None:
        if self.matryoshka_dims is not None and max(self.matryoshka_dims) > self.dim:
            raise ConfigError(
                f"matryoshka_dims must be at most dim = {self.dim}, got {list(self.matryoshka_dims)}; raise dim"
            )
        if self.init == "random" and self.epochs == 0:
            raise ConfigError("epochs must be at least 1 for random initial weights; 0 needs init='gcca' or 'ridge'")
        supported = {"gcca": ("linear", "kernel"), "ridge": ("linear",)}.get(self.init)
        if supported is not None and self.head not in supported:
            raise ConfigError(
                f"init={self.init!r} needs head={' or '.join(map(repr, supported))}, since no closed form has a head "
                f"{self.head!r}"
            )
        if self.init != "random" and self.head == "linear" and self.input_norm != "standardize":
            raise ConfigError(
                f"init={self.init!r} with a linear head needs input_norm='standardize', got {self.input_norm!r}"
            )
        if self.init != "random" and self.frozen:
            raise ConfigError(f"init={self.init!r} cannot be combined with frozen modalities; use init='random'")
        check_number("min_lr", self.min_lr, f"a number in [0, lr = {self.lr}]", lambda x: 0 <= x <= self.lr)
