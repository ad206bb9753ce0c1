"""Test the public API of the objectives, such as options, errors for invalid options, settings and state."""

import inspect
import json
import math
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch

import unialign as ua
from loss_cases import OBJECTIVES, draw_batch, learns_temperature, make_objective, options_of, with_anchor
from unialign import registry
from unialign.batch import Batch
from unialign.errors import ConfigError, NonFiniteError, ShapeError, UniAlignError
from unialign.losses import LossTerm, Objective


def test_documented_calls():
    embeddings = {m: torch.randn(4, 6) for m in ("text", "image", "audio")}
    present = {"audio": torch.tensor([True, False, True, True])}
    ids = torch.tensor([0, 1, 2, 2])
    loss = ua.losses.UniAlign(anchor="text", preset="balanced")
    out = loss(embeddings, present=present, ids=ids)
    assert isinstance(loss, torch.nn.Module)
    assert out.total.shape == ()
    assert set(out.terms) == {"uniformity/text", "uniformity/image", "uniformity/audio", "alignment"}
    assert all(isinstance(term, torch.Tensor) and not term.requires_grad for term in out.terms.values())

    gram = ua.losses.create("gram", anchor="text", temperature=0.07)
    assert isinstance(gram, ua.losses.GRAM)
    assert ua.losses.names()[:3] == ("unialign", "infonce", "align_uniform")
    assert ua.losses.create("infonce", pairs="all")(embeddings).total.isfinite()


def test_names_and_create_agree():
    for name in ua.losses.names():
        objective = ua.losses.create(name, **with_anchor(name, "text"))
        assert objective.name == name
        assert isinstance(objective, ua.losses.Objective)
        assert name in ua.losses.names()


def test_options_equal_the_constructor_arguments():
    for name in ua.losses.names():
        objective = ua.losses.create(name, **with_anchor(name, "text"))
        assert set(ua.losses.parameter_names(name)) == set(objective.get_config())


def test_options_of_an_unknown_objective():
    with pytest.raises(ConfigError, match="unknown objective 'softmax'; expected one of 'unialign'"):
        ua.losses.parameter_names("softmax")


PRESET_TABLE: dict[str, dict[str, Any]] = {
    "paper": {
        "kernel": "gaussian",
        "alignment_scale": 1.0,
        "weighting": "sum",
        "centroid_weight": 1,
        "volume_weight": 1,
    },
    "balanced": {},
    "infonce_matched": {"weighting": "infonce_matched"},
    "frozen_anchor": {"weighting": "exclude_anchor", "stop_gradient": "anchor", "alignment_weight": 2},
    "symmetric": {"anchor": "all"},
    "geodesic": {"kernel": "geodesic", "temperature": 0.26, "distance": "geodesic"},
    "small_batch": {"anchor": "all", "partition_mix": 0, "partition_positive": "excluded"},
    "joint_queries": {
        "anchor": "all",
        "partition_mix": 0,
        "partition_positive": "excluded",
        "similarity_scale": 5,
        "alignment_weight": 0.7,
    },
    "classes": {
        "anchor": "all",
        "partition_mix": 0,
        "partition_positive": "excluded",
        "similarity_scale": 10,
        "alignment_weight": 0.9,
    },
    "retrieval": {
        "anchor": "leave_one_out",
        "partition_mix": 0.25,
        "partition_positive": "excluded",
        "similarity_scale": 5,
        "alignment_weight": 0.7,
    },
}
BALANCED = {
    "anchor": "text",
    "kernel": "clip",
    "temperature": 0.07,
    "alignment_scale": "matched",
    "weighting": "mean",
    "uniformity_weight": 1,
    "alignment_weight": 1,
    "distance": "euclidean",
    "stop_gradient": "none",
    "centroid_weight": 0,
    "volume_weight": 0,
    "reduction": None,
    "partition_mix": 1,
    "partition_positive": "included",
    "similarity_scale": 0,
}


def test_presets():
    for preset in PRESET_TABLE:
        settings = ua.losses.UniAlign(anchor="text", preset=preset).get_config()
        expected = BALANCED | PRESET_TABLE[preset]
        assert {option: settings[option] for option in expected} == expected


def test_every_preset_is_listed():
    assert set(ua.losses.PRESETS) == set(PRESET_TABLE) | {"adaptive"}


def test_the_default_is_balanced_outside_of_narrow_cones():
    embeddings = draw_batch(1, 3, 4, 5)
    default = ua.losses.UniAlign("m0")(embeddings).total
    assert torch.equal(default, ua.losses.UniAlign("m0", preset="balanced")(embeddings).total)


def test_matched_alignment_scale():
    for kernel, scale in [
        ("clip", 1 / (2 * 0.5)),
        ("gaussian", 1 / (2 * 0.25)),
        ("geodesic", 1 / (2 * 0.25)),
        ("wang_isola", 2.0),
    ]:
        embeddings = draw_batch(2, 3, 4, 5)
        matched = ua.losses.UniAlign("m0", kernel=kernel, temperature=0.5)
        by_hand = ua.losses.UniAlign("m0", kernel=kernel, temperature=0.5, alignment_scale=scale)
        torch.testing.assert_close(matched(embeddings).total, by_hand(embeddings).total)


@pytest.mark.parametrize("case", OBJECTIVES)
def test_settings_rebuild_the_objective_through_json(case: str):
    objective = make_objective(case)
    settings = json.loads(json.dumps(objective.get_config()))
    rebuilt = ua.losses.create(objective.name, **settings)
    assert rebuilt.get_config() == objective.get_config()
    embeddings = draw_batch(3, 3, 4, 5)
    assert torch.equal(rebuilt(embeddings).total, objective(embeddings).total)
    assert set(settings) == set(inspect.signature(type(objective)).parameters)


def test_repr_shows_the_settings():
    for case in OBJECTIVES:
        objective = make_objective(case)
        assert all(f"{option}={value!r}" in repr(objective) for option, value in objective.get_config().items())


def test_shared_cases_cover_every_objective():
    assert {name for name, _ in OBJECTIVES.values()} == set(ua.losses.names())


@pytest.mark.parametrize("case", [case for case in OBJECTIVES if learns_temperature(case)])
def test_state_of_a_learned_temperature(case: str):
    objective, fresh = make_objective(case), make_objective(case)
    with torch.no_grad():
        objective.temperature.shift.fill_(0.3)
    fresh.load_state_dict(objective.state_dict())
    embeddings = draw_batch(4, 3, 4, 5)
    assert torch.equal(fresh(embeddings).total, objective(embeddings).total)
    assert fresh.temperature.value() == pytest.approx(fresh.temperature.initial * 2.718281828**0.3, rel=1e-5)


OWN_STATE = {"symile-sampled", "sigmoid", "sigmoid-pairs"}


def test_objectives_without_parameters_have_no_state():
    for case in [c for c in OBJECTIVES if not learns_temperature(c) and c not in OWN_STATE]:
        assert make_objective(case).state_dict() == {}


BAD_OPTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("softmax", {}, "unknown objective 'softmax'; expected one of 'unialign', 'infonce', 'align_uniform'"),
    ("unialign", {"anchro": "text"}, "no option 'anchro'"),
    ("InfoNCE", {}, r"did you mean 'infonce'\?$"),
    ("cs-aligner", {}, r"did you mean 'cs_aligner'\?$"),
    ("Align+Uniform", {}, r"did you mean 'align_uniform'\?$"),
    ("clip", {}, r"'triangle'; to use a plug-in, install the package that adds it"),
    ("gram", {}, "gram needs anchor="),
    ("unialign", {"preset": "best"}, "unknown preset 'best'; expected one of 'balanced', 'adaptive', 'paper'"),
    ("unialign", {"kernel": "rbf"}, "unknown kernel 'rbf'; expected one of 'gaussian', 'clip'"),
    ("unialign", {"reduction": "log"}, "unknown reduction 'log'"),
    ("unialign", {"weighting": "max"}, "unknown weighting 'max'"),
    ("unialign", {"distance": "cosine"}, "unknown distance 'cosine'"),
    ("unialign", {"stop_gradient": "target"}, "unknown stop_gradient 'target'"),
    ("unialign", {"temperature": 0.0}, "temperature must be a positive finite number of at least 1e-6, got 0.0"),
    ("unialign", {"temperature": 1e-200}, "temperature must be a positive finite number of at least 1e-6, got 1e-200"),
    (
        "unialign",
        {"temperature": float("nan")},
        "temperature must be a positive finite number of at least 1e-6, got nan",
    ),
    ("unialign", {"temperature": "0.07"}, "temperature must be a positive finite number of at least 1e-6, got '0.07'"),
    ("unialign", {"centroid_temperature": -1.0}, "centroid_temperature must be a positive"),
    ("unialign", {"uniformity_weight": -1.0}, "uniformity_weight must be a finite number of at least 0"),
    ("unialign", {"alignment_weight": float("inf")}, "alignment_weight must be a finite number of at least 0"),
    ("unialign", {"centroid_weight": float("nan")}, "centroid_weight must be a finite number of at least 0"),
    # PyYAML parses 1e-3 as a string.
    ("unialign", {"volume_weight": "1e-3"}, "volume_weight must be a finite number of at least 0, got '1e-3'"),
    # With a negative eps, the volume term would be 0 and have no gradient.
    ("unialign", {"volume_eps": -1.0}, "volume_eps must be a finite number of at least 0"),
    ("unialign", {"alignment_scale": 0.0}, "alignment_scale must be 'matched' or a positive number"),
    ("unialign", {"alignment_scale": "auto"}, "alignment_scale must be 'matched' or a positive number"),
    ("unialign", {"anchor": "all", "stop_gradient": "anchor"}, "needs an anchor modality"),
    ("unialign", {"preset": "frozen_anchor"}, "needs an anchor modality"),
    ("unialign", {"preset": "infonce_matched"}, "needs an anchor modality, got"),
    ("unialign", {"anchor": "centroid", "preset": "frozen_anchor"}, "needs an anchor modality, got"),
    ("infonce", {"anchor": "centroid"}, "not 'centroid'"),
    ("infonce", {"pairs": "anchor"}, "pairs='anchor' needs anchor="),
    ("infonce", {"pairs": "some"}, "unknown pairs 'some'"),
    ("infonce", {"temperature_mode": "free"}, "unknown temperature_mode 'free'"),
    ("infonce", {"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
    ("infonce", {"label_smoothing": "0.1"}, r"label_smoothing must be in \[0, 1\), got '0.1'"),
    ("sigmoid", {"anchor": "centroid"}, "sigmoid works on pairs of modalities; anchor must be a modality or 'all'"),
    ("sigmoid", {"mode": "free"}, "unknown mode 'free'; expected one of 'fixed', 'learnable'"),
    ("sigmoid", {"scale": 0.0}, "scale must be a positive finite number"),
    ("sigmoid", {"scale": 300.0}, r"scale 300.0 is outside its bounds \(1.0, 200.0\)"),
    ("sigmoid", {"bias": -60.0}, r"bias -60.0 is outside its bounds \(-50.0, 50.0\)"),
    ("sigmoid", {"scale_bounds": [1.0]}, "scale_bounds must be two numbers, lowest and highest"),
    ("sigmoid", {"scale_bounds": [-1.0, 20.0]}, r"scale_bounds\[0\] must be a positive finite number"),
    ("sigmoid", {"bias_bounds": [-20.0, math.inf]}, r"bias_bounds\[1\] must be a finite number"),
    ("sigmoid", {"sharing": "some"}, "unknown sharing 'some'"),
    ("sigmoid", {"sharing": "per_pair"}, r"per_pair' needs modalities=\[names of all modalities\], got None"),
    ("sigmoid", {"sharing": "per_pair", "modalities": "ab"}, "needs modalities="),
    ("sigmoid", {"sharing": "per_pair", "modalities": ["a"]}, "at least 2 different names"),
    ("sigmoid", {"sharing": "per_pair", "modalities": ["a", "a"]}, "at least 2 different names"),
    (
        "sigmoid",
        {"sharing": "per_pair", "modalities": ["a", "b"], "anchor": "c"},
        "anchor 'c' is not one of modalities",
    ),
    ("sigmoid", {"modalities": ["a", "b"]}, "modalities is only for sharing='per_pair'"),
    ("cs_aligner", {"anchor": "centroid"}, "cs_aligner works on pairs of modalities"),
    ("cs_aligner", {"bandwidth": "mean"}, "unknown bandwidth 'mean'; expected one of 'median'"),
    ("cs_aligner", {"bandwidth": 0.0}, "bandwidth must be a positive finite number"),
    ("cs_aligner", {"bandwidth": [0.5, 1.0]}, "bandwidth must be a positive finite number"),
    ("cs_aligner", {"divergence": "kl"}, "unknown divergence 'kl'; expected one of 'cauchy_schwarz', 'mmd', 'holder'"),
    ("cs_aligner", {"divergence_weight": -1.0}, "divergence_weight must be a finite number of at least 0"),
    ("cs_aligner", {"contrast_weight": math.nan}, "contrast_weight must be a finite number of at least 0"),
    ("modgap", {}, "modgap needs anchor="),
    ("modgap", {"anchor": "centroid"}, "modgap works on pairs of modalities"),
    ("modgap", {"anchor": "a", "contrast_weight": -0.5}, "contrast_weight must be a finite number of at least 0"),
    ("modgap", {"anchor": "a", "t": 0.0}, "t must be a positive number of at most 1e5, got 0.0"),
    ("cua", {"anchor": "centroid"}, "cua works on pairs of modalities"),
    ("cua", {"cross_term": "yes"}, "unknown cross_term 'yes'; expected one of 'none', 'xu'"),
    ("cua", {"t": math.inf}, "t must be a positive number of at most 1e5, got inf"),
    ("cua", {"contrast_weight": "1"}, "contrast_weight must be a finite number of at least 0"),
    ("align_uniform", {"anchor": "centroid"}, "align_uniform works on pairs of modalities"),
    ("align_uniform", {"alpha": 0.5}, "alpha must be from 1 to 64, got 0.5"),
    ("align_uniform", {"t": -2.0}, "t must be a positive number of at most 1e5"),
    ("align_uniform", {"uniformity_weight": -1.0}, "uniformity_weight must be a finite number of at least 0"),
    ("gram", {"anchor": "all"}, "is not a modality"),
    ("gram", {"anchor": "text", "temperature": 2.0}, "temperature 2.0 is outside its bounds"),
    ("gram", {"anchor": "text", "temperature_bounds": [0.1]}, "temperature_bounds must be two numbers"),
    ("gram", {"anchor": "text", "temperature_bounds": [0.0, 1.0]}, "must be a positive finite number"),
    ("gram", {"anchor": "text", "eps": -1e-8}, "eps must be a finite number of at least 0"),
    ("gram", {"anchor": "text", "eps": float("nan")}, "eps must be a finite number of at least 0"),
    ("triangle", {}, "triangle needs anchor="),
    ("triangle", {"anchor": "centroid"}, "is not a modality"),
    ("triangle", {"anchor": "text", "form": "heron"}, "unknown form 'heron'; expected one of 'area', 'squared'"),
    ("symile", {"anchor": "text"}, "symile has no option 'anchor'"),
    ("symile", {"negatives": "some"}, "unknown negatives 'some'; expected one of 'sampled', 'all'"),
    ("symile", {"seed": -1}, "seed must be an integer from 0"),
    ("symile", {"max_bytes": 0}, "max_bytes must be an integer from 1 to"),
    ("pmrl", {"inter_temperature": 0.0}, "inter_temperature must be a positive finite number"),
]


def test_invalid_options():
    for name, options, message in BAD_OPTIONS:
        with pytest.raises(ConfigError, match=message):
            ua.losses.create(name, **options)


def test_needs_anchor_agrees_with_the_constructor():
    """The commands use `needs_anchor` to decide whether to add a default anchor."""
    for name in ua.losses.names():

        def makes(name: str, **options: Any) -> bool:
            try:
                return bool(ua.losses.create(name, **options))
            except ConfigError:
                return False

        needed = "no" if makes(name) else "any" if makes(name, anchor="all") else "modality"
        assert ua.losses.needs_anchor(name) == needed
        assert makes(name, anchor="text") == ("anchor" in options_of(name))


def test_unknown_anchor_names_the_modalities():
    for name in [name for name in ua.losses.names() if "anchor" in options_of(name)]:
        with pytest.raises(
            ConfigError, match="anchor 'audio' is not a modality of this batch; expected one of 'm0', 'm1', 'm2'"
        ):
            ua.losses.create(name, anchor="audio")(draw_batch(5, 3, 3, 4))


def test_inputs_other_than_a_mapping_raise():
    for case in OBJECTIVES:
        for wrong in [[torch.ones(2, 2), torch.ones(2, 2)], torch.ones(2, 2), None]:
            with pytest.raises(ShapeError, match="must be a mapping of modality name"):
                make_objective(case)(wrong)


@pytest.mark.parametrize("case", OBJECTIVES)
def test_every_objective_rejects_bad_rows(case: str):
    embeddings = draw_batch(6, 3, 4, 5)
    embeddings["m1"][2, 3] = float("nan")
    with pytest.raises(NonFiniteError, match="'m1' row 2 holds nan at column 3"):
        make_objective(case)(embeddings)
    with pytest.raises(UniAlignError, match="at least 2 modalities"):
        make_objective(case)({"m0": torch.ones(3, 4)})


def test_terms_is_abstract():
    class Half(Objective):
        name = "half"

    with pytest.raises(TypeError, match="terms"):
        Half()  # type: ignore[abstract]


class Scaled(ua.losses.InfoNCE):
    name = "scaled"

    def __init__(self, anchor: str | None = None, *, factor: float = 2.0) -> None:
        super().__init__(anchor)
        self.factor = factor

    def terms(self, batch: Batch) -> dict[str, LossTerm]:
        return {name: term._replace(weight=self.factor * term.weight) for name, term in super().terms(batch).items()}


def test_create_accepts_an_instance():
    objective = Scaled("m0")
    assert objective.get_config() == {"anchor": "m0", "factor": 2.0}
    assert ua.losses.create(objective) is objective
    with pytest.raises(ConfigError, match="options factor need an objective given by name"):
        ua.losses.create(objective, factor=3.0)
    with pytest.raises(ConfigError, match="objective must be a name or a unialign"):
        ua.losses.create(Scaled)


def test_objectives_of_another_package(monkeypatch: pytest.MonkeyPatch):
    """Objectives can be added through an entry point of an installed package or through `registry.register`."""
    point = EntryPoint("scaled", f"{__name__}:Scaled", "unialign.objectives")
    monkeypatch.setattr(registry, "_entry_points", lambda group: {"scaled": [point]} if group == "objectives" else {})
    assert ua.losses.names()[-1] == "scaled"
    objective = ua.losses.create("scaled", anchor="m0", factor=3.0)
    embeddings = draw_batch(7, 2, 4, 5)
    torch.testing.assert_close(objective(embeddings).total, 3 * ua.losses.InfoNCE("m0")(embeddings).total)
    assert ua.losses.parameter_names("scaled") == ("anchor", "factor")
    assert (ua.losses.display_name("scaled"), ua.losses.needs_anchor("scaled")) == ("scaled", "no")
    assert objective.temperature_kind == "cosines"

    monkeypatch.setitem(registry._registered, ("objectives", "wrong"), dict)
    with pytest.raises(ConfigError, match="objective 'wrong' must be a subclass of"):
        ua.losses.create("wrong")
    assert ua.losses.display_name("gone") == "gone"
