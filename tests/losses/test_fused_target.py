"""Test the term that matches the mean of several modalities with a remaining modality.

Shapes: `M` modalities, `B` items, `D` dim.
"""

import json
from typing import Any

import pytest
import torch
from torch import Tensor

import reference
import unialign as ua
from benchmarks.saved_bytes import saved_bytes
from loss_cases import draw_batch, draw_ids, draw_present, reference_total, value_and_gradients
from unialign.errors import ConfigError
from unialign.losses import FusedTarget, InfoNCE, UniAlign

BASES: dict[str, tuple[str, dict[str, Any], float]] = {
    "infonce": ("infonce", {"temperature": 0.2}, 0.2),
    "unialign": ("unialign", {"temperature": 0.3}, 0.3),
    "gaussian": ("unialign", {"kernel": "gaussian", "temperature": 0.5}, 0.25),
    "wang_isola": ("unialign", {"kernel": "wang_isola"}, 0.25),
    "cua": ("cua", {"temperature": 0.1}, 0.1),
    "sigmoid": ("sigmoid", {}, 0.07),
    "pmrl": ("pmrl", {"intra_temperature": 0.05}, 0.07),
}


def reference_value(
    objective: FusedTarget, tau: float, embeddings: dict[str, Tensor], present: Any, ids: Tensor | None
) -> tuple[Tensor, dict[str, Tensor]]:
    leaves = {name: z.clone().requires_grad_() for name, z in embeddings.items()}
    rows, items = reference.unit_rows(leaves, present), None if ids is None else ids.tolist()
    term = reference.fused_term(rows, subsets=objective.subsets, form=objective.form, tau=tau, ids=items)
    total = reference_total(objective.objective, rows, items) + objective.weight * term
    total = total + sum(z.sum() for z in leaves.values()) * 0.0
    gradients = torch.autograd.grad(total, list(leaves.values()))
    return total.detach(), dict(zip(leaves, gradients, strict=True))


@pytest.mark.parametrize("form", ["contrast", "alignment"])
@pytest.mark.parametrize("subsets", ["leave_one_out", "all"])
@pytest.mark.parametrize("base", BASES)
def test_value_and_gradient_equal_the_reference(base: str, subsets: Any, form: Any):
    name, options, tau = BASES[base]
    objective = FusedTarget(name, 0.7, subsets=subsets, form=form, objective_options=options).double()
    for modalities, masked in ((3, True), (4, False)):
        embeddings = draw_batch(3, modalities, 6, 7)
        present = draw_present(modalities, modalities, 6) if masked else None
        ids = draw_ids(2, 6) if masked else None
        value, gradients = value_and_gradients(objective, embeddings, present=present, ids=ids)
        expected, expected_gradients = reference_value(objective, tau, embeddings, present, ids)
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(gradients, expected_gradients, rtol=1e-6, atol=1e-7)


def test_terms_have_the_names_of_subsets_and_targets():
    embeddings = draw_batch(4, 4, 5, 6)
    every = FusedTarget("infonce", subsets="all")(embeddings).terms
    fused = [name for name in every if name.startswith("fused/")]
    assert len(fused) == 4 * (2**3 - 4)
    assert {"fused/m0+m1-m2", "fused/m0+m1-m3", "fused/m1+m2+m3-m0"} < set(fused)
    left_out = FusedTarget("infonce")(embeddings).terms
    assert [name for name in left_out if name.startswith("fused/")] == [f"fused/others-m{m}" for m in range(4)]
    torch.testing.assert_close(left_out["fused/others-m0"], every["fused/m1+m2+m3-m0"])
    renamed = dict(zip(("a", "b+c", "a+b", "c"), embeddings.values(), strict=True))
    assert len(FusedTarget("infonce", subsets="all")(renamed).terms) == len(every)


def test_the_term_is_infonce_of_the_mean():
    embeddings = draw_batch(5, 3, 6, 5)
    unit = {name: z / z.norm(dim=-1, keepdim=True) for name, z in embeddings.items()}
    terms = FusedTarget("infonce")(embeddings).terms
    expected = InfoNCE()({"f": unit["m0"] + unit["m2"], "m1": unit["m1"]}).total
    torch.testing.assert_close(terms["fused/others-m1"], expected)


@pytest.mark.parametrize(("items", "subsets"), [(6, "leave_one_out"), (6, "all"), (1100, "leave_one_out")])
def test_the_order_of_modalities_does_not_matter(items: int, subsets: Any):
    embeddings = draw_batch(6, 4, items, 4)
    objective = FusedTarget("unialign", subsets=subsets)
    value, gradients = value_and_gradients(objective, embeddings)
    again, others = value_and_gradients(objective, {name: embeddings[name] for name in ("m2", "m0", "m3", "m1")})
    torch.testing.assert_close(again, value)
    torch.testing.assert_close({name: others[name] for name in gradients}, gradients, rtol=1e-6, atol=1e-9)


def test_items_without_enough_modalities_are_excluded():
    embeddings = draw_batch(7, 3, 4, 5)
    present = {"m0": torch.tensor([True, True, False, True]), "m1": torch.tensor([True, False, True, True])}
    for subsets in ("leave_one_out", "all"):
        masked = FusedTarget("infonce", subsets=subsets)(embeddings, present=present).terms
        whole = FusedTarget("infonce", subsets=subsets)({name: z[[0, 3]] for name, z in embeddings.items()}).terms
        for name in whole:
            if name.startswith("fused/"):
                torch.testing.assert_close(masked[name], whole[name])
    none = FusedTarget("unialign")(embeddings, present={"m1": torch.zeros(4, dtype=torch.bool)})
    assert not any(name.startswith("fused/") for name in none.terms)
    torch.testing.assert_close(none.total, UniAlign()({"m0": embeddings["m0"], "m2": embeddings["m2"]}).total)
    for count in (0, 1):
        value, gradients = value_and_gradients(FusedTarget("infonce"), draw_batch(8, 3, count, 5))
        assert torch.isfinite(value)
        assert all(torch.isfinite(g_BD).all() for g_BD in gradients.values())


def test_modalities_that_cancel_have_no_mean():
    z_BD = draw_batch(9, 2, 4, 5)
    embeddings = {"a": z_BD["m0"], "b": -z_BD["m0"], "c": z_BD["m1"]}
    value, gradients = value_and_gradients(FusedTarget("infonce"), embeddings)
    assert torch.isfinite(value)
    assert all(torch.isfinite(g_BD).all() for g_BD in gradients.values())
    assert "fused/others-c" not in FusedTarget("infonce")(embeddings).terms


def test_a_weight_of_zero_leaves_the_objective():
    embeddings = draw_batch(10, 3, 5, 6)
    assert torch.equal(FusedTarget("infonce", 0.0)(embeddings).total, InfoNCE()(embeddings).total)
    assert FusedTarget("infonce", 0.0)(draw_batch(10, 2, 5, 6)).total.isfinite()


@pytest.mark.parametrize("form", ["contrast", "alignment"])
@pytest.mark.parametrize("base", ["infonce", "unialign"])
def test_gradient_of_a_temperature_in_the_call(base: str, form: Any):
    embeddings = draw_batch(11, 3, 6, 5)
    objective, shift = FusedTarget(base, form=form), torch.tensor(-1.2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: objective(embeddings, temperature=s.exp()).total, [shift])
    at_option = FusedTarget(base, form=form, objective_options={"temperature": 0.3})(embeddings).total
    torch.testing.assert_close(objective(embeddings, temperature=0.3).total, at_option)
    own = FusedTarget(base, form=form, temperature=0.5)
    fused, call = own(embeddings), own(embeddings, temperature=0.3)
    assert fused.terms["fused/others-m0"] == call.terms["fused/others-m0"]
    assert fused.total != call.total


def test_a_learned_temperature_gets_the_gradient_of_both_terms():
    embeddings = draw_batch(12, 3, 6, 5)
    options = {"temperature_mode": "learnable"}
    objective = FusedTarget("infonce", objective_options=options).double()
    (gradient,) = torch.autograd.grad(objective(embeddings).total, list(objective.parameters()))
    (alone,) = torch.autograd.grad(objective.objective(embeddings).total, list(objective.parameters()))
    assert not torch.isclose(gradient, alone)
    assert objective.temperature is objective.objective.temperature


def test_settings_rebuild_the_objective_through_json():
    embeddings = draw_batch(13, 3, 5, 6)
    options = {"anchor": "m0", "temperature": 0.2}
    objective = FusedTarget("infonce", 0.3, subsets="all", form="alignment", objective_options=options)
    settings = json.loads(json.dumps(objective.get_config()))
    assert torch.equal(ua.losses.create("fused_target", **settings)(embeddings).total, objective(embeddings).total)
    assert ua.TrainConfig(objective=objective).objective_options == settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, "weight must be a finite number of at least 0"),
        ({"subsets": "some"}, "unknown subsets 'some'; expected one of 'leave_one_out', 'all'"),
        ({"form": "sum"}, "unknown form 'sum'; expected one of 'contrast', 'alignment'"),
        ({"temperature": 0.0}, "temperature must be a positive finite number"),
        ({"objective": "softmax"}, "unknown objective 'softmax'"),
    ],
)
def test_invalid_options(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        FusedTarget(**options)


def test_two_modalities_raise():
    with pytest.raises(ConfigError, match="fused_target needs at least three modalities, got 'm0', 'm1'"):
        FusedTarget("infonce")(draw_batch(14, 2, 4, 5))


def test_a_graph_has_the_values_and_gradients_of_eager_mode():
    torch.compiler.reset()
    rows = {key: z.requires_grad_() for key, z in draw_batch(15, 3, 6, 12, torch.float32).items()}
    objective = FusedTarget("unialign")
    expected = objective(rows).total
    total = torch.compile(lambda rows: objective(rows).total, backend="eager", fullgraph=True)(rows)
    assert torch.equal(total, expected)
    wanted = torch.autograd.grad(expected, list(rows.values()))
    assert all(map(torch.equal, torch.autograd.grad(total, list(rows.values())), wanted))


@pytest.mark.parametrize("subsets", ["leave_one_out", "all"])
def test_saved_bytes_grow_linearly(subsets: Any):
    kept = []
    for items in (256, 512, 1024):
        leaves = {m: z.requires_grad_() for m, z in draw_batch(16, 4, items, 8, torch.float32).items()}
        kept.append(saved_bytes(lambda leaves=leaves: FusedTarget("unialign", subsets=subsets)(leaves).total))
    assert kept[2] <= 2.1 * kept[1] <= 4.41 * kept[0]
    assert kept[2] < 1024 * 1024 * 4
