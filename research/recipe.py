"""Compare training from kernel GCCA with the closed forms and with training from random weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from research._figures import metric_table, trials_table, verdict_table
from research._plan import Arm, Family, Options, Plan, Study
from research._read import Results, completed
from research.pages import Section
from unialign.config import CLOSED_FORMS, TrainConfig, closed_form_config

__all__ = ["STUDY"]

EPOCHS, RANDOM_EPOCHS = 10, 100
_TAU, _WEIGHT = "objective_options.temperature", "objective_options.alignment_weight"
_OBJECTIVES = {"infonce": "InfoNCE", "unialign": "UniAlign"}
_TRIALS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "infonce": tuple({_TAU: t} for t in (0.03, 0.05, 0.07, 0.1)),
    "unialign": tuple({_TAU: t, _WEIGHT: w} for t, w in ((0.07, 1.0), (0.07, 0.7), (0.05, 0.7), (0.1, 1.0))),
}
_UNTUNED: Mapping[str, Mapping[str, Any]] = {"infonce": {_TAU: 0.07}, "unialign": {_TAU: 0.07, _WEIGHT: 1.0}}
_NEW = {"head": "kernel", "init": "gcca", "dim": 256, "lr": 1e-3, "weight_decay": 0.0, "epochs": EPOCHS}
_LINEAR = {"head": "linear", "dim": 128, "lr": 4e-3, "weight_decay": 0.05, "dropout": 0.5}
_MLP = {"head": "mlp", "dim": 128, "lr": 1e-3, "weight_decay": 0.01}


@dataclass(frozen=True)
class _Data:
    """`gcca` and `kernel_gcca` are the regularization and spectrum power, chosen on the validation split."""

    title: str
    modalities: tuple[str, ...]
    gcca: tuple[float, float]
    kernel_gcca: tuple[float, float]
    random: Mapping[str, Any]
    random_epochs: int
    landmarks: int = 5000
    is_tuned: bool = True


DATA: Mapping[str, _Data] = {
    "emoji": _Data(
        "Emoji, 1,081 training rows",
        ("image", "drawing", "text", "keywords", "speech"),
        gcca=(1.0, 0.0),
        kernel_gcca=(0.001, 0.0),
        random=_LINEAR,
        random_epochs=RANDOM_EPOCHS,
    ),
    "digits": _Data(
        "Digits, 1,400 training rows",
        ("fou", "fac", "kar", "pix", "zer", "mor"),
        gcca=(0.01, 1.0),
        kernel_gcca=(0.0001, 1.0),
        random=_MLP,
        random_epochs=RANDOM_EPOCHS,
    ),
    "tuxpaint": _Data(
        "Tux Paint stamps, 510 training rows",
        ("image", "text", "speech", "sound"),
        gcca=(1.0, 1.0),
        kernel_gcca=(0.001, 1.0),
        random=_LINEAR,
        random_epochs=RANDOM_EPOCHS,
    ),
    "factors": _Data(
        "Synthetic factors, 21,000 training rows",
        ("image", "text", "audio", "sensor"),
        gcca=(1.0, 1.0),
        kernel_gcca=(0.001, 1.0),
        random=_MLP,
        random_epochs=30,
        landmarks=1000,
        is_tuned=False,
    ),
}


def plan(options: Options) -> Plan:
    names = [name for name in DATA if name in options.stores] or ["emoji", "digits"]
    arms, families = list[Arm](), list[Family]()
    for name in names:
        arms += [_closed_form(name, form) for form in ("gcca", "kernel_gcca")]
        arms += [
            _trained(name, objective, start, options.epochs)
            for start in ("gcca", "random")
            for objective in _OBJECTIVES
        ]
        closed = (f"{name}-gcca", f"{name}-kernel_gcca")
        for objective in _OBJECTIVES:
            others = (f"{name}-{objective}-random", f"{name}-infonce-gcca")
            baselines = (*closed, *(key for key in others if key != f"{name}-{objective}-gcca"))
            families.append(Family(f"{name}-{objective}", f"{name}-{objective}-gcca", baselines))
    return Plan(arms=tuple(arms), families=tuple(families))


def _closed_form(name: str, form: str) -> Arm:
    data = DATA[name]
    regularization, power = data.gcca if form == "gcca" else data.kernel_gcca
    settings = {"init_regularization": regularization, "init_spectrum_power": power, "landmarks": data.landmarks}
    return Arm(
        key=f"{name}-{form}",
        label=CLOSED_FORMS[form].label,
        data=name,
        train=closed_form_config(form, {"modalities": data.modalities, **settings}),
        factors={"data": name, "start": "closed form"},
    )


def _trained(name: str, objective: str, start: str, epochs: int | None) -> Arm:
    data = DATA[name]
    settings: dict[str, Any] = {**data.random, "epochs": data.random_epochs}
    if start == "gcca":
        regularization, power = data.kernel_gcca
        form = {"init_regularization": regularization, "init_spectrum_power": power, "landmarks": data.landmarks}
        settings = {**_NEW, **form}
    if epochs is not None:
        settings["epochs"] = epochs
    train = TrainConfig(
        objective=objective,
        objective_options={"anchor": "all"},
        modalities=data.modalities,
        batch_size=256,
        save_steps=None,
        **settings,
    )
    return Arm(
        key=f"{name}-{objective}-{start}",
        label=f"{_OBJECTIVES[objective]}, {'from kernel GCCA' if start == 'gcca' else 'from random weights'}",
        data=name,
        train=train if data.is_tuned else train.override(_UNTUNED[objective]),
        factors={"data": name, "start": start},
        trials=_TRIALS[objective] if data.is_tuned else (),
    )


def page(results: Results) -> list[Section]:
    factors = results["study"]["factors"]
    found = []
    for name in dict.fromkeys(entry["data"] for entry in factors.values()):
        arms = completed(results, (arm for arm in factors if factors[arm]["data"] == name))
        parts = [
            metric_table(results, arms, family=f"{name}-infonce"),
            *(verdict_table(results, f"{name}-{objective}") for objective in _OBJECTIVES),
        ]
        found.append(Section(name, DATA[name].title, parts))
    return [*found, Section("tuning", "Tuned settings", _tuned(results))]


def _tuned(results: Results) -> list[Any]:
    factors, tuning = results["study"]["factors"], results["study"]["tuning"]
    tuned = completed(results, (arm for arm in factors if "trials" in tuning.get(arm, {})))
    parts: list[Any] = []
    for name in dict.fromkeys(factors[arm]["data"] for arm in tuned):
        parts += [f"{DATA[name].title}:", trials_table(results, [arm for arm in tuned if factors[arm]["data"] == name])]
    return parts


STUDY = Study(
    name="recipe",
    title="Training from kernel GCCA, and the closed forms themselves",
    plan=plan,
    page=page,
    epochs=RANDOM_EPOCHS,
)
