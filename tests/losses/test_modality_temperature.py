"""Test temperatures of modalities; the temperature of a pair is the geometric mean of the two temperatures."""

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import reference
import unialign as ua
from loss_cases import draw_batch, draw_ids, draw_present, value_and_gradients
from unialign.errors import ConfigError
from unialign.losses import FusedTarget, InfoNCE, Matryoshka, ModalityTemperature, Objective, UniAlign

TAUS = {"m0": 0.1, "m1": 0.2, "m2": 0.4}
PAIRS = [("m0", "m1"), ("m0", "m2"), ("m1", "m2")]


def tau_of(m: str, n: str, taus: dict[str, Any] = TAUS) -> Any:
    return (taus[m] * taus[n]) ** 0.5


def drawn(masked: bool) -> tuple[dict[str, Tensor], dict[str, Tensor] | None, Tensor | None]:
    return draw_batch(3, 3, 6, 7), draw_present(2, 3, 6) if masked else None, draw_ids(2, 6) if masked else None


def assert_equal(objective: Objective, expected: Any, masked: bool) -> None:
    embeddings, present, ids = drawn(masked)
    value, gradients = value_and_gradients(objective.double(), embeddings, present=present, ids=ids)
    leaves = {name: z.clone().requires_grad_() for name, z in embeddings.items()}
    total = expected(reference.unit_rows(leaves, present), None if ids is None else ids.tolist())
    wanted = torch.autograd.grad(total, list(leaves.values()))
    torch.testing.assert_close(value, total.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(list(gradients.values()), list(wanted), rtol=1e-6, atol=1e-8)


def reference_infonce(rows: reference.Rows, ids: Any, pairs: Any = PAIRS, **options: Any) -> Tensor:
    parts = [
        reference.infonce_of_queries(
            {m: rows[m], n: rows[n]},
            anchor=m,
            tau=tau_of(m, n),
            ids=ids,
            **({"direction": "both", "same_ids": "exclude", "pair_weights": None, "hardness": 0.0} | options),
        )
        for m, n in pairs
    ]
    return reference.mean(parts)


@pytest.mark.parametrize("masked", [False, True])
def test_infonce_equals_the_reference(masked: bool):
    assert_equal(InfoNCE(temperature=TAUS), reference_infonce, masked)
    assert_equal(
        InfoNCE("m0", temperature=TAUS, direction="forward", hardness=2.0),
        lambda rows, ids: reference_infonce(rows, ids, PAIRS[:2], direction="forward", hardness=2.0),
        masked,
    )


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kernel", ["clip", "gaussian"])
@pytest.mark.parametrize("anchor", ["all", "m1", "centroid"])
def test_unialign_equals_the_reference(anchor: str, kernel: Any, masked: bool):
    power = 1 if kernel == "clip" else 2
    everything = math.prod(TAUS.values()) ** (1 / 3)

    def expected(rows: reference.Rows, ids: Any) -> Tensor:
        spreads = [reference.uniformity(rows[m], kernel=kernel, tau=TAUS[m], ids=ids) for m in rows]
        middles, attraction = reference.centroids(rows), []
        for i in range(6):
            pairs = [(m, n) for m, n in PAIRS if anchor in ("all", m, n)]
            vectors = [(rows[m][i], rows[n][i], tau_of(m, n)) for m, n in pairs]
            if anchor == "centroid":
                whole = len(reference.tuple_of(rows, i)) >= 2
                vectors = [(rows[m][i], middles[i] if whole else None, (TAUS[m] * everything) ** 0.5) for m in rows]
            for x, y, tau in vectors:
                if x is not None and y is not None:
                    attraction.append(((x - y) ** 2).sum() / (2 * tau**power))
        center = reference.uniformity(
            [c if len(reference.tuple_of(rows, i)) >= 2 else None for i, c in enumerate(middles)],
            kernel=kernel,
            tau=everything,
            ids=ids,
        )
        return reference.mean(spreads) + 0.7 * reference.mean(attraction) + 0.3 * center

    objective = UniAlign(anchor, kernel=kernel, temperature=TAUS, alignment_weight=0.7, centroid_weight=0.3)
    assert_equal(objective, expected, masked)


def test_without_partitions_within_modalities_unialign_is_infonce():
    embeddings = drawn(masked=False)[0]
    mixed = UniAlign(partition_mix=0.0, temperature=TAUS)(embeddings).total
    torch.testing.assert_close(mixed, InfoNCE(temperature=TAUS)(embeddings).total)


@pytest.mark.parametrize("name", ["infonce", "unialign", "cua", "cs_aligner", "modgap"])
def test_equal_temperatures_are_one_temperature(name: str):
    options = {"anchor": "all"} if name == "modgap" else {}
    embeddings, present, ids = drawn(masked=True)
    call = {"present": present, "ids": ids}
    one, many = (ua.losses.create(name, temperature=tau, **options) for tau in (0.2, dict.fromkeys(TAUS, 0.2)))
    torch.testing.assert_close(many(embeddings, **call).total, one(embeddings, **call).total, rtol=1e-12, atol=0)
    assert many.get_config()["temperature"] == dict.fromkeys(TAUS, 0.2)
    other = ua.losses.create(name, temperature=TAUS, **options)(embeddings, **call).total
    assert not torch.isclose(other, one(embeddings, **call).total)
    called = ua.losses.create(name, temperature=TAUS, **options)(embeddings, temperature=0.2, **call).total
    torch.testing.assert_close(called, one(embeddings, **call).total, rtol=1e-12, atol=0)


@pytest.mark.parametrize("base", ["infonce", "unialign"])
@pytest.mark.parametrize("form", ["contrast", "alignment"])
def test_a_fused_pair_has_the_mean_of_its_two_sides(base: str, form: Any):
    embeddings = drawn(masked=False)[0]
    objective = FusedTarget(base, form=form, objective_options={"temperature": TAUS})
    wanted = objective.objective(embeddings).total
    for m in TAUS:
        others = [n for n in TAUS if n != m]
        tau = (TAUS[m] * tau_of(*others)) ** 0.5
        term = FusedTarget(base, form=form, temperature=tau)(embeddings).terms[f"fused/others-{m}"]
        wanted = wanted + term / 3 / (2 * tau if form == "alignment" else 1)
    torch.testing.assert_close(objective(embeddings).total, wanted)


def test_gradients_of_learned_temperatures():
    embeddings, present, _ = drawn(masked=True)
    objective = InfoNCE(temperature=TAUS, temperature_mode="learnable").double()
    value = objective(embeddings, present=present).total
    gradients = torch.autograd.grad(value, list(objective.parameters()))
    logs = torch.tensor([math.log(tau) for tau in TAUS.values()], dtype=torch.float64, requires_grad=True)
    taus = dict(zip(TAUS, logs.exp(), strict=True))
    rows = reference.unit_rows(embeddings, present)
    parts = [reference.infonce({m: rows[m], n: rows[n]}, anchor="all", tau=tau_of(m, n, taus)) for m, n in PAIRS]
    expected = reference.mean(parts)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.stack(gradients), torch.autograd.grad(expected, logs)[0])


def test_bounds_and_state_of_learned_temperatures():
    objective, fresh = (InfoNCE(temperature=TAUS, temperature_mode="learnable") for _ in range(2))
    assert isinstance(objective.temperature, ModalityTemperature)
    assert objective.temperature.values() == TAUS
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.fill_(-9.0)
    objective(draw_batch(4, 3, 5, 6))
    assert objective.temperature.values() == pytest.approx(dict.fromkeys(TAUS, 0.01))
    assert objective.temperature.value() == pytest.approx(0.01)
    fresh.load_state_dict(objective.state_dict())
    assert fresh.temperature.values() == objective.temperature.values()
    with pytest.raises(ConfigError, match=r"temperature 2.0 is outside its bounds \(0.01, 1.0\)"):
        InfoNCE(temperature={"a": 2.0}, temperature_mode="learnable")


def test_settings_rebuild_the_objective_through_json():
    embeddings = drawn(masked=False)[0]
    for objective in (
        InfoNCE(temperature=TAUS, temperature_mode="learnable"),
        UniAlign(temperature=TAUS),
        Matryoshka("infonce", (4, 7), objective_options={"temperature": TAUS}),
    ):
        settings = json.loads(json.dumps(objective.get_config()))
        rebuilt = ua.losses.create(objective.name, **settings)
        assert rebuilt.get_config() == objective.get_config()
        assert torch.equal(rebuilt(embeddings).total, objective(embeddings).total)
        assert ua.TrainConfig(objective=objective).objective_options == settings


def test_a_graph_has_the_values_and_gradients_of_eager_mode():
    torch.compiler.reset()
    rows = {key: z.float().requires_grad_() for key, z in drawn(masked=False)[0].items()}
    objective = InfoNCE(temperature=TAUS, temperature_mode="learnable")
    inputs = [*rows.values(), *objective.parameters()]
    expected = objective(rows).total
    total = torch.compile(lambda rows: objective(rows).total, backend="eager", fullgraph=True)(rows)
    assert torch.equal(total, expected)
    assert all(map(torch.equal, torch.autograd.grad(total, inputs), torch.autograd.grad(expected, inputs)))


@pytest.mark.parametrize(
    ("name", "temperature", "message"),
    [
        ("infonce", {}, "temperature must be a number, or a mapping such as"),
        ("unialign", {3: 0.1}, "temperature must be a number, or a mapping such as"),
        ("unialign", {"a": 0.0}, r"temperature\['a'\] must be a positive finite number"),
        ("infonce", {"a": "0.1"}, r"temperature\['a'\] must be a positive finite number"),
        ("symile", {"a": 0.1}, "temperature must be a positive finite number"),
        ("gram", {"a": 0.1}, "temperature must be a positive finite number"),
    ],
)
def test_invalid_options(name: str, temperature: Any, message: str):
    anchor = {"anchor": "a"} if name == "gram" else {}
    with pytest.raises(ConfigError, match=message):
        ua.losses.create(name, temperature=temperature, **anchor)


@pytest.mark.parametrize("name", ["infonce", "unialign"])
def test_every_modality_needs_a_temperature(name: str):
    objective = ua.losses.create(name, temperature={"m0": 0.1, "m1x": 0.2})
    with pytest.raises(ConfigError, match=r"temperature has no value for 'm1', only for 'm0', 'm1x'; did you mean"):
        objective(draw_batch(5, 2, 4, 5))
