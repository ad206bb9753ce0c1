"""Test additional negatives of InfoNCE (per item, shared, or from a queue), and rows of norm zero."""

import copy
import io
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import reference
import unialign as ua
from benchmarks.saved_bytes import saved_bytes
from loss_cases import OBJECTIVES, draw_batch, draw_present, fit_items, fit_modalities, make_objective
from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.ops import _directed_contrast, use_backend

IDS = torch.tensor([0, 1, 1, 2, 3, 3, 3])
OPTIONS: list[dict[str, Any]] = [
    {},
    {"direction": "forward"},
    {"direction": "backward", "same_ids": "positive", "label_smoothing": 0.2},
    {"hardness": 2.0},
    {"hardness": 2.0, "same_ids": "positive"},
    {"label_smoothing": 0.1, "pair_weights": {"m0-m1": 3.0}},
]


def unit(z: Tensor) -> Tensor:
    return z / z.norm(dim=-1, keepdim=True)


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def filled_queue(size: int = 5) -> ua.losses.MemoryQueue:
    queue = ua.losses.MemoryQueue(size)
    queue.push({"m1": draw(7, 5, seed=11), "m2": draw(7, 5, seed=12)}, ids=torch.tensor([9, 1, 3, 3, 0, 8, 2]))
    return queue


def expected_total(
    loss: ua.losses.Objective, z: Mapping[str, Tensor], negatives: Mapping[str, Tensor], queue: Any, **call: Any
) -> Tensor:
    own = {name: [list(rows) for rows in unit(x)] for name, x in negatives.items() if x.ndim == 3}
    shared: dict[str, list[tuple[Tensor, int | None]]] = {
        name: [(row, None) for row in unit(x)] for name, x in negatives.items() if x.ndim == 2
    }
    for name in () if queue is None else queue.modalities:
        rows, ids = queue.stored(name)
        shared.setdefault(name, []).extend(zip(rows, ids.tolist(), strict=True))
    config = loss.get_config()
    options = {key: config[key] for key in ("direction", "same_ids", "pair_weights", "hardness", "label_smoothing")}
    return reference.infonce_of_queries(
        reference.unit_rows(z, call.get("present")),
        anchor=config["anchor"],
        tau=config["temperature"],
        ids=IDS.tolist(),
        own=own,
        shared=shared,
        **options,
    )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_value_and_gradients_equal_the_reference(options: dict[str, Any]):
    """Test per-item negatives of m1, shared negatives of m2 and m0, and a queue, with absent rows and repeated ids."""
    loss, queue = ua.losses.InfoNCE("m0", temperature=0.3, **options), filled_queue()
    z = {name: x.requires_grad_() for name, x in draw_batch(4, 3, 7, 5).items()}
    negatives = {"m1": draw(7, 2, 5, seed=1), "m2": draw(3, 5, seed=2), "m0": draw(4, 5, seed=3)}
    negatives = {name: x.requires_grad_() for name, x in negatives.items()}
    present = draw_present(21, 3, 7)
    leaves = [*z.values(), *negatives.values()]
    for given, stored in (({}, None), (negatives, None), ({}, queue), (negatives, queue)):
        expected = expected_total(loss, z, given, stored, present=present)
        wanted = torch.autograd.grad(expected, leaves, allow_unused=True, materialize_grads=True)
        for backend in ("auto", "reference"):
            with use_backend(backend):
                total = loss(z, present=present, ids=IDS, negatives=given or None, queue=stored).total
                got = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
            torch.testing.assert_close(total, expected, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("options", OPTIONS[1:5], ids=str)
def test_tiles_of_any_size_are_equal(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    """Compare a single tile of all queries with tiles of three queries and tiles of one query."""
    loss, queue = ua.losses.InfoNCE("m0", **options), filled_queue()
    z = {name: x.requires_grad_() for name, x in draw_batch(4, 3, 7, 5).items()}
    negatives = {"m1": draw(7, 2, 5, seed=1).requires_grad_(), "m0": draw(3, 5, seed=2).requires_grad_()}
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    found = []
    for entries in (1000, 45, 1):
        monkeypatch.setattr(_directed_contrast, "_ENTRIES", entries)
        total = loss(z, ids=IDS, negatives=negatives, queue=queue, logit_scale=scale).total
        found.append((total, *torch.autograd.grad(total, [*z.values(), scale, *negatives.values()], allow_unused=True)))
    for other in found[1:]:
        for got, expected in zip(other, found[0], strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-13)


def test_negatives_reach_the_queries_of_other_modalities_only():
    """Negatives of m1 are keys only in the direction m0 -> m1, so they do not change the `backward` loss."""
    z, negatives = draw_batch(4, 2, 7, 5), {"m1": draw(7, 2, 5)}
    backward, both = (ua.losses.InfoNCE("m0", direction=way) for way in ("backward", "both"))
    assert torch.equal(backward(z, negatives=negatives).total, backward(z).total)
    assert both(z, negatives=negatives).total > both(z).total
    # Empty tensors of negatives do not change the loss.
    torch.testing.assert_close(both(z, negatives={"m1": draw(0, 5)}).total, both(z).total)
    torch.testing.assert_close(both(z, negatives={"m1": draw(7, 0, 5)}).total, both(z).total)


def test_directions_average_to_both():
    z = draw_batch(4, 3, 7, 5)
    totals = [ua.losses.InfoNCE("m1", direction=way)(z, ids=IDS).total for way in ("forward", "backward", "both")]
    torch.testing.assert_close((totals[0] + totals[1]) / 2, totals[2])
    with pytest.raises(ConfigError, match="direction='forward' needs anchor="):
        ua.losses.InfoNCE(direction="forward")


def test_same_ids_as_positives():
    """The loss is at least log |P| for |P| positives, and equals InfoNCE without ids if all ids differ."""
    row = {"m0": torch.eye(4)[[0, 0, 1, 2]], "m1": torch.eye(4)[[0, 0, 1, 2]]}
    ids = torch.tensor([5, 5, 6, 7])
    loss = ua.losses.InfoNCE(same_ids="positive", temperature=0.01)
    assert loss(row, ids=ids).total.item() == pytest.approx(torch.tensor(2.0).log().item() / 2)
    for given in (None, torch.arange(4)):
        assert torch.equal(loss(row, ids=given).total, ua.losses.InfoNCE(temperature=0.01)(row, ids=given).total)


def test_hardness_raises_the_weight_of_near_negatives():
    z = draw_batch(4, 2, 9, 5)
    totals = [ua.losses.InfoNCE(hardness=beta)(z).total.item() for beta in (0.0, 1.0, 10.0, 1000.0)]
    assert totals == sorted(totals)
    assert totals[0] == ua.losses.InfoNCE()(z).total.item()
    x, y = (unit(z[name]) for name in ("m0", "m1"))
    cosine = x @ y.T
    nearest = [cosine.masked_fill(torch.eye(9).bool(), -2).amax(dim) for dim in (1, 0)]
    excess = [torch.log1p(8 * torch.exp((best - cosine.diagonal()) / 0.07)).mean() for best in nearest]
    assert totals[3] == pytest.approx(float(sum(excess)) / 2, rel=1e-6)


def test_pair_weights():
    z = draw_batch(4, 3, 7, 5)
    terms = ua.losses.InfoNCE()(z).terms
    out = ua.losses.InfoNCE(pair_weights={"m0-m1": 3.0, "m2-m1": 0.0})(z)
    assert out.terms.keys() == {"contrast/m0-m1", "contrast/m0-m2"}
    torch.testing.assert_close(out.total, (3 * terms["contrast/m0-m1"] + terms["contrast/m0-m2"]) / 4)
    present = {"m2": torch.zeros(7, dtype=torch.bool)}
    only = ua.losses.InfoNCE(pair_weights={"m0-m1": 3.0})(z, present=present)
    torch.testing.assert_close(only.total, terms["contrast/m0-m1"])
    with pytest.raises(ConfigError, match="weight 0 to every pair of this loss: 'm0-m1', 'm0-m2', 'm1-m2'"):
        ua.losses.InfoNCE(pair_weights={"m0-m1": 0, "m0-m2": 0, "m1-m2": 0})(z)
    sigmoid = ua.losses.Sigmoid()(z).terms
    weighted = ua.losses.Sigmoid(pair_weights={"m0-m1": 3.0, "m1-m2": 0.0})(z).total
    torch.testing.assert_close(weighted, (3 * sigmoid["sigmoid/m0-m1"] + sigmoid["sigmoid/m0-m2"]) / 4)
    quoted = ua.losses.InfoNCE(pair_weights={"'a-b'-c": 2.0})({"a-b": z["m0"], "c": z["m1"]})
    torch.testing.assert_close(quoted.total, terms["contrast/m0-m1"])


def test_one_item_and_no_item():
    for options in ({"direction": "forward"}, {"hardness": 2.0}, {"same_ids": "positive"}):
        loss = ua.losses.InfoNCE("m0", **options)
        for items in (0, 1):
            z = {name: x.requires_grad_() for name, x in draw_batch(4, 2, items, 5).items()}
            total = loss(z, ids=torch.zeros(items, dtype=torch.int64)).total
            gradients = torch.autograd.grad(total, list(z.values()))
            assert total == 0
            assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients)
    assert loss(draw_batch(4, 2, 1, 5), negatives={"m1": draw(3, 5)}).total > 0


@pytest.mark.parametrize("options", OPTIONS[1:5], ids=str)
def test_extreme_temperatures_and_hardness_are_finite(options: dict[str, Any]):
    """The cases include exponentials that under- or overflow in float32, and queries without negatives."""
    z = {name: x.float().requires_grad_() for name, x in draw_batch(4, 2, 7, 5).items()}
    harder = options | ({"hardness": 1e5} if "hardness" in options else {})
    for tau in (1e-6, 1e-3, 1e4):
        for loss in (ua.losses.InfoNCE("m0", **options), ua.losses.InfoNCE("m0", **harder)):
            for ids in (None, IDS, torch.zeros(7, dtype=torch.int64)):
                total = loss(z, ids=ids, temperature=torch.tensor(tau, requires_grad=True)).total
                gradients = torch.autograd.grad(total, list(z.values()))
                assert total.isfinite()
                assert total >= 0
                assert all(g.isfinite().all() for g in gradients)


def test_float32_is_precise_near_zero():
    """The positives are computed in float64, so even small losses have a small relative error."""
    x = draw_batch(4, 1, 64, 32)["m0"]
    z = {"m0": x, "m1": x + 0.01 * draw(64, 32)}
    loss = ua.losses.InfoNCE("m0", direction="forward", temperature=0.03)
    exact = loss(z).total
    assert exact < 1e-4
    torch.testing.assert_close(loss({n: v.float() for n, v in z.items()}).total.double(), exact, rtol=1e-4, atol=0)


def test_saved_bytes_grow_linearly():
    loss, kept = ua.losses.InfoNCE("m0", same_ids="positive", hardness=2.0), []
    for items in (512, 1024, 2048):
        z = {name: x.float().requires_grad_() for name, x in draw_batch(1, 2, items, 8).items()}
        ids, shared = torch.arange(items) // 2, {"m1": draw(512, 8).float().requires_grad_()}
        kept.append(saved_bytes(lambda z=z, ids=ids, shared=shared: loss(z, ids=ids, negatives=shared).total))
    assert kept[2] <= 2.1 * kept[1] <= 4.5 * kept[0]
    assert kept[2] < 2048 * 2048


def test_queue_is_first_in_first_out():
    queue, rows = ua.losses.MemoryQueue(5), draw(9, 4)
    assert len(queue) == 0
    queue.push({"a": rows[:3], "b": rows[:3]}, present={"b": torch.tensor([True, False, True])})
    assert len(queue) == 3
    torch.testing.assert_close(queue.stored("b")[0], unit(rows[[0, 2]]))
    queue.push({"a": rows[3:6].requires_grad_()})
    stored = queue.stored("a")[0]
    assert not stored.requires_grad
    torch.testing.assert_close(stored, unit(rows[[5, 1, 2, 3, 4]].detach()))
    queue.push({"a": rows[:9].detach()})
    torch.testing.assert_close(set_of(queue.stored("a")[0]), set_of(unit(rows[4:].detach())))


def test_queue_filled_in_inference_mode():
    """Rows of a momentum encoder in inference mode can be used in training."""
    z, queue = draw_batch(4, 2, 6, 5), ua.losses.MemoryQueue(8)
    with torch.inference_mode():
        queue.push({name: x * 2 for name, x in z.items()})
    queue.push(z)
    leaves = {name: x.requires_grad_() for name, x in z.items()}
    ua.losses.InfoNCE()(leaves, queue=queue).total.backward()
    assert leaves["m0"].grad.isfinite().all()


def set_of(rows: Tensor) -> Tensor:
    return rows[rows[:, 0].argsort()]


def test_queue_in_state_dict():
    """A queue that loads a state dict, and a deep copy, continue like the original queue."""
    queue = filled_queue()
    queue.push({"rna.seq": draw(2, 5), "text": draw(2, 5)}, ids=torch.tensor([1, 2]))
    file = io.BytesIO()
    torch.save(queue.state_dict(), file)
    file.seek(0)
    loaded = ua.losses.MemoryQueue(5)
    loaded.load_state_dict(torch.load(file))
    assert loaded.modalities == ("m1", "m2", "rna.seq", "text")
    copied = copy.deepcopy(queue)
    for same in (queue, loaded, copied):
        same.push({"m1": draw(3, 5, seed=5), "rna.seq": draw(3, 5, seed=6)}, ids=torch.tensor([7, 8, 9]))
    for other in (loaded, copied):
        for name in queue.modalities:
            for mine, theirs in zip(queue.stored(name), other.stored(name), strict=True):
                assert torch.equal(mine, theirs)
    with pytest.raises(ConfigError, match="the stored queue has size 5, but this queue has size 6"):
        ua.losses.MemoryQueue(6).load_state_dict(queue.state_dict())


def test_queue_leaves_out_the_item_itself():
    """With ids, a row of an item that is still in the queue is not a negative of that item."""
    z, ids = draw_batch(4, 2, 6, 5), torch.arange(6)
    loss, queue, blind = ua.losses.InfoNCE(), ua.losses.MemoryQueue(6), ua.losses.MemoryQueue(6)
    queue.push(z, ids=ids)
    blind.push(z)
    once = loss(z, negatives={name: torch.stack([x[torch.arange(6) != i] for i in range(6)]) for name, x in z.items()})
    torch.testing.assert_close(loss(z, ids=ids, queue=queue).total, once.total)
    assert loss(z, queue=blind).total > once.total
    assert torch.equal(loss(z, queue=ua.losses.MemoryQueue(3)).total, loss(z).total)


def test_queue_errors():
    z, queue = draw_batch(4, 3, 7, 5), filled_queue()
    loss = ua.losses.InfoNCE()
    for call, kind, message in (
        (lambda: loss(z, queue=queue), ConfigError, "the queue was filled with ids, but this call is without ids="),
        (lambda: loss(z, queue={"m1": z["m1"]}), ConfigError, "queue must be a unialign.losses.MemoryQueue, got dict"),
        (lambda: loss(draw_batch(4, 3, 7, 6), ids=IDS, queue=queue), ShapeError, "rows of dim 5 for 'm1'"),
        (lambda: queue.push(z), ConfigError, "give ids at every push, or never"),
        (lambda: queue.push({"m1": z["m1"][:, :2]}, ids=IDS), ShapeError, "rows of dim 5 for 'm1', got dim 2"),
        (lambda: queue.push({"m1": z["m1"] * torch.nan}, ids=IDS), NonFiniteError, "'m1' row 0 holds nan"),
        (lambda: ua.losses.MemoryQueue(0), ConfigError, "size must be an integer of at least 1"),
    ):
        with pytest.raises(kind, match=message):
            call()


# The following tests check errors for negatives and for rows of norm zero.


def test_invalid_negatives():
    z, loss = draw_batch(4, 3, 7, 5), ua.losses.InfoNCE("m0")
    nan = draw(7, 2, 5)
    nan[3, 1, 2] = torch.nan
    for negatives, kind, message in (
        ({"m4": draw(3, 5)}, ConfigError, "`negatives` has 'm4', which is not a modality; expected some of 'm0'"),
        ({"m1": draw(3, 4)}, ShapeError, r"negatives\['m1'\] has shape \(3, 4\), but the batch has 7 items of dim 5"),
        ({"m1": draw(6, 2, 5)}, ShapeError, "the batch has 7 items of dim 5; expected"),
        ({"m1": draw(5)}, ShapeError, r"shape \(5,\)"),
        ({"m1": [1.0]}, ShapeError, "must be a torch tensor"),
        ({"m1": torch.ones(3, 5, dtype=torch.int64)}, ShapeError, "torch.int64; expected a floating-point tensor"),
        (draw(3, 5), ShapeError, "negatives must be a mapping of modality name to tensor, got Tensor"),
        ({"m1": nan}, NonFiniteError, r"negatives\['m1'\] row 1 of item 3 holds nan at column 2"),
        ({"m1": torch.zeros(2, 5)}, NonFiniteError, r"row 0 has norm zero \(1 more such rows\).*zero_rows='ignore'"),
    ):
        with pytest.raises(kind, match=message):
            loss(z, negatives=negatives)
    with pytest.raises(NonFiniteError, match="row 1 of item 3 holds nan"):
        loss(z, negatives={"m1": nan}, zero_rows="ignore")


@pytest.mark.parametrize("zero_rows", ["error", "ignore"])
def test_negatives_of_absent_items_may_hold_anything(zero_rows: ua.batch.ZeroRows):
    z, loss = draw_batch(4, 3, 7, 5), ua.losses.InfoNCE("m0")
    present = {"m1": torch.arange(7) != 3}
    own = draw(7, 2, 5)
    wanted = loss(z, present=present, negatives={"m1": own}).total
    own[3] = torch.tensor([[torch.nan], [0.0]])
    own.requires_grad_()
    found = loss(z, present=present, negatives={"m1": own}, zero_rows=zero_rows).total
    torch.testing.assert_close(found, wanted)
    found.backward()
    assert own.grad is not None
    assert own.grad.isfinite().all()
    assert not own.grad[3].any()
    with pytest.raises(NonFiniteError, match="row 0 of item 3 holds nan"):
        loss(z, present={"m2": present["m1"]}, negatives={"m1": own}, zero_rows=zero_rows)


def test_negatives_of_norm_zero_can_pad():
    """With `zero_rows="ignore"`, zero rows can pad different numbers of negatives per item."""
    z, loss = draw_batch(4, 2, 7, 5), ua.losses.InfoNCE("m0", direction="forward")
    own, shared = draw(7, 2, 5), draw(4, 5)
    own[3, 1], own[5] = 0.0, 0.0
    padded = torch.cat([own, torch.zeros(7, 2, 5)], 1).requires_grad_()
    total = loss(z, negatives={"m1": padded}, zero_rows="ignore").total
    lists = [[row for row in rows if row.any()] for rows in own]
    expected = reference.infonce_of_queries(
        reference.unit_rows(z),
        anchor="m0",
        tau=0.07,
        direction="forward",
        own={"m1": [[unit(row) for row in rows] for rows in lists]},
    )
    torch.testing.assert_close(total, expected)
    total.backward()
    assert not padded.grad[own.new_zeros(7, 4).bool()].any()
    assert not padded.grad[:, 2:].any()
    shared[2] = 0.0
    with_zero = loss(z, negatives={"m1": shared}, zero_rows="ignore").total
    torch.testing.assert_close(with_zero, loss(z, negatives={"m1": shared[[0, 1, 3]]}).total)


@pytest.mark.parametrize("case", ["balanced", "infonce", "gram", "sigmoid", "symile-sampled", "cs_aligner", "pmrl"])
def test_zero_rows_are_absent(case: str):
    """Rows of norm zero, for example from dead ReLUs, raise an error by default or are treated as absent."""
    modalities = fit_modalities(case, 3)
    z = draw_batch(8, modalities, fit_items(case, modalities, 8), 6)
    z["m1"][2], z["m2"][5] = 0.0, 1e-320
    present = {name: torch.ones(len(x), dtype=torch.bool) for name, x in z.items()}
    present["m1"][2] = present["m2"][5] = False
    objective = make_objective(case).double()
    with pytest.raises(NonFiniteError, match=r"'m1' row 2 has norm zero \(1 more such rows\).*zero_rows='ignore'"):
        objective(z)
    leaves = [{name: x.clone().requires_grad_() for name, x in z.items()} for _ in range(2)]
    out = objective(leaves[0], zero_rows="ignore")
    marked = objective(leaves[1], present=present)
    assert torch.equal(out.total, marked.total)
    out.total.backward()
    marked.total.backward()
    for name in z:
        assert torch.equal(leaves[0][name].grad, leaves[1][name].grad)
    assert not leaves[0]["m1"].grad[2].any()


def test_zero_rows_still_reject_nan_and_other_values():
    z = draw_batch(8, 2, 4, 6)
    z["m0"][1] = torch.nan
    with pytest.raises(NonFiniteError, match="'m0' row 1 holds nan"):
        make_objective("infonce")(z, zero_rows="ignore")
    with pytest.raises(ConfigError, match="unknown zero_rows 'drop'; expected one of 'error', 'ignore'"):
        make_objective("infonce")(draw_batch(8, 2, 4, 6), zero_rows="drop")


def test_invalid_options():
    for options, message in (
        ({"direction": "reverse"}, "unknown direction 'reverse'"),
        ({"same_ids": "keep"}, "unknown same_ids 'keep'"),
        ({"hardness": -1.0}, "hardness must be a number from 0 to 1e5, got -1.0"),
        ({"hardness": 1e30}, "hardness must be"),
        ({"hardness": torch.nan}, "hardness must be"),
        ({"hardness": 1.0, "label_smoothing": 0.1}, "both change the negatives"),
        ({"pair_weights": [1.0]}, "pair_weights must be a mapping"),
        ({"pair_weights": {"m0-m1": -1}}, r"pair_weights\['m0-m1'\] must be"),
    ):
        with pytest.raises(ConfigError, match=message):
            ua.losses.InfoNCE("m0", **options)
    z = draw_batch(8, 3, 4, 6)
    with pytest.raises(ConfigError, match=r"not a pair of this loss; its pairs are 'm0-m1', 'm0-m2'"):
        ua.losses.InfoNCE("m0", pair_weights={"m1-m2": 1.0})(z)
    with pytest.raises(ConfigError, match="two weights of one pair"):
        ua.losses.InfoNCE("m0", pair_weights={"m0-m1": 1.0, "m1-m0": 2.0})(z)
    assert OBJECTIVES
