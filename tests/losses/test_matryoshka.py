"""Test the sum of an objective over prefixes of the embeddings.

Shapes: `M` modalities, `B` items, `D` dim.
"""

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import reference
import unialign as ua
from benchmarks.saved_bytes import saved_bytes
from loss_cases import (
    OBJECTIVES,
    draw_batch,
    draw_ids,
    draw_present,
    fit_items,
    fit_modalities,
    make_objective,
    reference_total,
    value_and_gradients,
)
from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.losses import FusedTarget, InfoNCE, Matryoshka, MemoryQueue, Objective

DIMS, WEIGHTS = (6, 8), (0.5, 2.0)


def first(embeddings: dict[str, Tensor], dim: int) -> dict[str, Tensor]:
    return {name: z[..., :dim] for name, z in embeddings.items()}


def reference_sum(
    objective: Matryoshka, embeddings: dict[str, Tensor], present: Any, ids: Tensor | None
) -> tuple[Tensor, dict[str, Tensor]]:
    leaves = {name: z.clone().requires_grad_() for name, z in embeddings.items()}
    rows, items = reference.unit_rows(leaves, present), None if ids is None else ids.tolist()
    total = sum(z.sum() for z in leaves.values()) * 0.0
    for dim, weight in zip(objective.dims, objective.weights, strict=True):
        total = total + weight * reference_total(objective.objective, reference.prefixes(rows, dim), items)
    gradients = torch.autograd.grad(total, list(leaves.values()))
    return total.detach(), dict(zip(leaves, gradients, strict=True))


@pytest.mark.parametrize("masked", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("case", OBJECTIVES)
def test_every_objective_equals_the_reference(case: str, masked: bool):
    objective = Matryoshka(make_objective(case), DIMS, WEIGHTS).double().eval()
    modalities = fit_modalities(case, 3)
    items = fit_items(case, modalities, 5)
    embeddings = draw_batch(3, modalities, items, 10)
    present = draw_present(5, modalities, items) if masked else None
    ids = draw_ids(2, items) if masked else None
    value, gradients = value_and_gradients(objective, embeddings, present=present, ids=ids)
    expected, expected_gradients = reference_sum(objective, embeddings, present, ids)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-6, atol=1e-7)


def test_gradcheck():
    leaves = [z.requires_grad_() for z in draw_batch(2, 3, 4, 5).values()]
    present = {"m0": torch.tensor([True, False, True, True])}
    objective = Matryoshka("unialign", (2, 5))

    def total(*z: Tensor) -> Tensor:
        return objective({f"m{m}": x for m, x in enumerate(z)}, present=present).total

    assert torch.autograd.gradcheck(total, leaves, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("items", [7, 1100])
def test_terms_equal_those_of_truncated_embeddings(items: int):
    embeddings = draw_batch(4, 3, items, 6, torch.float32)
    objective = Matryoshka("infonce", (2, 6), (3.0, 0.5))
    out = objective(embeddings)
    total = torch.zeros(())
    for dim, weight in ((2, 3.0), (6, 0.5)):
        inner = InfoNCE()(first(embeddings, dim))
        total = total + weight * inner.total
        for name, value in inner.terms.items():
            torch.testing.assert_close(out.terms[f"d{dim}/{name}"], value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(out.total, total, rtol=1e-5, atol=1e-5)
    assert len(out.terms) == 6


@pytest.mark.parametrize("case", OBJECTIVES)
def test_the_full_dimension_is_the_objective_itself(case: str):
    embeddings = draw_batch(5, 3, 5, 6, torch.float32)
    expected, expected_gradients = value_and_gradients(make_objective(case), embeddings)
    value, gradients = value_and_gradients(Matryoshka(make_objective(case), (6,)).eval(), embeddings)
    assert torch.equal(value, expected)
    assert all(torch.equal(gradients[name], g_BD) for name, g_BD in expected_gradients.items())


def test_a_prefix_of_weight_zero_is_skipped():
    embeddings = draw_batch(6, 2, 4, 6)
    out = Matryoshka("infonce", (3, 6), (0.0, 1.0))(embeddings)
    assert list(out.terms) == ["d6/contrast/m0-m1"]
    assert torch.equal(out.total, InfoNCE()(embeddings).total)


def test_call_arguments_reach_every_prefix():
    embeddings, tau = draw_batch(7, 3, 6, 5), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    for name in ("infonce", "unialign", "gram"):
        options = {"anchor": "m0"}
        objective = Matryoshka(name, (3, 5), objective_options=options)
        total = objective(embeddings, temperature=tau).total
        parts = [objective.objective(first(embeddings, dim), temperature=tau).total for dim in (3, 5)]
        torch.testing.assert_close(total, sum(parts))
        torch.testing.assert_close(torch.autograd.grad(total, tau), torch.autograd.grad(sum(parts), tau))
    with pytest.raises(ConfigError, match="matryoshka does not support temperature= in a call"):
        Matryoshka("pmrl", (3,))(embeddings, temperature=0.1)


def test_negatives_and_queued_rows_are_shortened():
    embeddings = draw_batch(8, 2, 4, 5)
    own, shared, queued = draw_batch(9, 1, 12, 5)["m0"].reshape(4, 3, 5), draw_batch(10, 1, 3, 5)["m0"], MemoryQueue(8)
    queued.push(draw_batch(11, 2, 6, 5), ids=torch.arange(6))
    ids = torch.arange(4) + 2
    leaf = own.clone().requires_grad_()
    total = Matryoshka("infonce", (2, 5))(embeddings, ids=ids, negatives={"m0": leaf, "m1": shared}, queue=queued).total
    (gradient,) = torch.autograd.grad(total, leaf)
    expected, leaf = torch.zeros((), dtype=torch.float64), own.clone().requires_grad_()
    for dim in (2, 5):
        queue = MemoryQueue(8)
        queue.push(first(draw_batch(11, 2, 6, 5), dim), ids=torch.arange(6))
        negatives = {"m0": leaf[..., :dim], "m1": shared[:, :dim]}
        expected = expected + InfoNCE()(first(embeddings, dim), ids=ids, negatives=negatives, queue=queue).total
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, leaf)[0])
    own[1, 2, :2] = 0.0
    rest = Matryoshka("infonce", (2,))(embeddings, negatives={"m0": own}).total
    kept = InfoNCE()(first(embeddings, 2), negatives={"m0": own[..., :2]}, zero_rows="ignore").total
    torch.testing.assert_close(rest, kept)


def test_a_prefix_of_norm_zero():
    embeddings = draw_batch(12, 2, 5, 6)
    embeddings["m1"][3, :2] = 0.0
    objective = Matryoshka("infonce", (2, 6))
    with pytest.raises(NonFiniteError, match="'m1' row 3 is 0 in its first 2 dimensions, so this prefix has no dir"):
        objective(embeddings)
    value, gradients = value_and_gradients(Ignoring(objective), embeddings)
    present = {"m1": torch.tensor([True, True, True, False, True])}
    expected = InfoNCE()(first(embeddings, 2), present=present).total + InfoNCE()(embeddings).total
    torch.testing.assert_close(value, expected)
    assert all(torch.isfinite(g_BD).all() for g_BD in gradients.values())
    # A row that is absent raises no error.
    assert objective(embeddings, present=present).total.isfinite()
    embeddings["m1"][3, :2] = 1e-30
    assert torch.isfinite(value_and_gradients(objective, embeddings)[0])


class Ignoring(torch.nn.Module):
    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, embeddings: dict[str, Tensor], **options: Any) -> ua.losses.LossOutput:
        return self.objective(embeddings, zero_rows="ignore", **options)


def test_empty_batches_and_single_rows():
    for items in (0, 1):
        value, gradients = value_and_gradients(Matryoshka("unialign", (2, 3)), draw_batch(13, 2, items, 5))
        assert math.isfinite(value)
        assert all((g_BD == 0).all() or items for g_BD in gradients.values())
    with pytest.raises(ShapeError, match="the embeddings have 5 dimensions, but dims contains 64"):
        Matryoshka("unialign")(draw_batch(13, 2, 4, 5))


def test_sampled_negatives_are_equal_for_all_prefixes_and_advance_once():
    embeddings = {name: z.requires_grad_() for name, z in draw_batch(14, 3, 6, 4).items()}
    objective = Matryoshka("symile", (2, 4), objective_options={"temperature": 0.05})
    for _ in range(2):
        objective(embeddings)
    assert int(objective.objective.draw) == 2
    single = ua.losses.Symile(temperature=0.05)
    single.draw += 2
    expected = [single.eval()]
    total = objective.eval()(embeddings).total
    torch.testing.assert_close(total, sum(expected[0](first(embeddings, dim)).total for dim in (2, 4)))


def test_settings_rebuild_the_objective_through_json():
    embeddings = draw_batch(15, 3, 5, 8)
    nested = Matryoshka(FusedTarget("gram", objective_options={"anchor": "m0"}), (4, 8), (1.0, 0.5))
    settings = json.loads(json.dumps(nested.get_config()))
    rebuilt = ua.losses.create("matryoshka", **settings)
    assert rebuilt.get_config() == nested.get_config()
    assert torch.equal(rebuilt(embeddings).total, nested(embeddings).total)
    assert {name.split("/")[0] for name in nested(embeddings).terms} == {"d4", "d8"}
    assert nested.smallest_dim == 8
    with torch.no_grad():
        nested.objective.objective.temperature.shift.fill_(0.2)
    rebuilt.load_state_dict(nested.state_dict())
    assert torch.equal(rebuilt(embeddings).total, nested(embeddings).total)
    config = ua.TrainConfig(objective=Matryoshka("infonce", (4, 8)))
    assert config.objective == "matryoshka"
    assert config.objective_options["dims"] == [4, 8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "gram"}, "gram needs anchor="),
        ({"objective": InfoNCE(), "objective_options": {"temperature": 0.1}}, "need an objective given by name"),
        ({"objective_options": 3}, "objective_options must be a mapping"),
        ({"dims": 64}, "dims must be a sequence of prefix lengths"),
        ({"dims": ()}, "dims must be one or more distinct prefix lengths"),
        ({"dims": (4, 4)}, r"distinct prefix lengths, got \[4, 4\]"),
        ({"dims": (0, 4)}, "an entry of dims must be an integer of at least 1, got 0"),
        ({"dims": (4,), "weights": (1.0, 2.0)}, "weights must have one number for each of the 1 dims"),
        ({"dims": (4,), "weights": (-1.0,)}, r"weights\[0\] must be a finite number of at least 0"),
        ({"dims": (4,), "weights": (0.0,)}, "weights are all 0"),
    ],
)
def test_invalid_options(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        Matryoshka(**options)


@pytest.mark.parametrize(
    "name", ["symile", *(pytest.param(name, marks=pytest.mark.slow) for name in ("infonce", "unialign"))]
)
def test_a_graph_has_the_values_and_gradients_of_eager_mode(name: str):
    torch.compiler.reset()
    rows = {key: z.requires_grad_() for key, z in draw_batch(16, 3, 6, 12, torch.float32).items()}
    objective = Matryoshka(name, (4, 12)).eval()
    expected = objective(rows).total
    total = torch.compile(lambda rows: objective(rows).total, backend="eager", fullgraph=True)(rows)
    assert torch.equal(total, expected)
    wanted = torch.autograd.grad(expected, list(rows.values()))
    assert all(map(torch.equal, torch.autograd.grad(total, list(rows.values())), wanted))


@pytest.mark.parametrize("name", ["unialign", "infonce", "sigmoid"])
def test_saved_bytes_are_linear_in_the_batch_and_at_most_those_of_the_parts(name: str):
    dims, kept = (8, 16, 32), []
    for items in (256, 512, 1024):
        leaves = {m: z.requires_grad_() for m, z in draw_batch(17, 3, items, 32, torch.float32).items()}
        parts = [
            saved_bytes(lambda dim=dim, leaves=leaves: ua.losses.create(name)(first(leaves, dim)).total) for dim in dims
        ]
        kept.append(saved_bytes(lambda leaves=leaves: Matryoshka(name, dims)(leaves).total))
        assert kept[-1] <= sum(parts)
    assert kept[2] <= 2.1 * kept[1] <= 4.41 * kept[0]
