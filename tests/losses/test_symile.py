"""Test the negatives, the random draws and the memory of Symile."""

import pytest
import torch
from torch import Tensor

import reference
from benchmarks.saved_bytes import saved_bytes
from loss_cases import draw_batch, draw_present, value_and_gradients
from unialign.batch import make_batch
from unialign.errors import ConfigError
from unialign.functional import symile_all, symile_sampled
from unialign.losses import InfoNCE, Symile, create
from unialign.losses.symile import _bytes_of_all, draw_permutations


def rolled(modalities: int, items: int) -> Tensor:
    rows_MMN = torch.arange(items).repeat(modalities, modalities, 1)
    for r in range(modalities):
        for k, m in enumerate(m for m in range(modalities) if m != r):
            rows_MMN[r, m] = rows_MMN[r, m].roll(-(k + 1))
    return rows_MMN


def test_golden_values_of_all_tuples(golden: dict[str, Tensor]):
    values = symile_all(make_batch(golden).z_MBD, temperature=0.5, ids_N=None)
    assert [v.item() for v in values] == pytest.approx([2.5809289273, 2.5814074073, 2.5810110710], abs=1e-9)
    assert Symile(negatives="all", temperature=0.5)(golden).total.item() == pytest.approx(2.5811158019, abs=1e-9)


def test_golden_values_of_drawn_tuples(golden: dict[str, Tensor]):
    rows_MMN = rolled(3, 4)
    values = symile_sampled(make_batch(golden).z_MBD, rows_MMN=rows_MMN, temperature=0.5, ids_N=None)
    assert [v.item() for v in values] == pytest.approx([1.2719472447, 1.2493613937, 1.2628761242], abs=1e-9)
    wanted = reference.symile_sampled(reference.unit_rows(golden), tau=0.5, permutations=rows_MMN.tolist())
    assert wanted.item() == pytest.approx(1.2613949209, abs=1e-9)


@pytest.mark.parametrize("ids", [None, torch.tensor([0, 1, 1, 2, 0])])
@pytest.mark.parametrize("seed", range(3))
def test_two_modalities_are_infonce(seed: int, ids: Tensor | None):
    embeddings, present = draw_batch(seed, 2, 5, 6), draw_present(seed, 2, 5)
    symile, infonce = Symile(temperature=0.1, seed=seed), InfoNCE(temperature=0.1)
    for there in (None, present):
        value, gradients = value_and_gradients(symile, embeddings, present=there, ids=ids)
        expected, expected_gradients = value_and_gradients(infonce, embeddings, present=there, ids=ids)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(gradients, expected_gradients)


def test_the_positive_is_never_a_negative():
    """A random draw may contain the positive, which must be masked.

    Here both permutations swap the two items, so the only negative equals the positive, and the loss is 0.
    """
    z_MND = make_batch(draw_batch(0, 3, 2, 6)).z_MBD
    rows_MMN = torch.tensor([1, 0]).repeat(3, 3, 1)
    values = symile_sampled(z_MND, rows_MMN=rows_MMN, temperature=0.1, ids_N=None)
    assert all(value == 0 for value in values)


def test_a_key_of_several_items_is_a_negative_even_if_one_shares_the_id():
    z_MND, rows_MMN = make_batch(draw_batch(1, 3, 2, 6)).z_MBD, torch.arange(2).repeat(3, 3, 1)
    rows_MMN[:, 2] = torch.tensor([1, 0])
    rows_MMN[2, 1] = torch.tensor([1, 0])
    different = symile_sampled(z_MND, rows_MMN=rows_MMN, temperature=0.1, ids_N=torch.tensor([0, 1]))
    equal = symile_sampled(z_MND, rows_MMN=rows_MMN, temperature=0.1, ids_N=torch.tensor([7, 7]))
    assert all(value > 0 for value in different)
    assert all(value == 0 for value in equal)


def test_negatives_are_a_function_of_seed_and_draw():
    rows_MMN = draw_permutations(4, 50, seed=3, draw=7)
    assert torch.equal(rows_MMN, draw_permutations(4, 50, seed=3, draw=7))
    assert not torch.equal(rows_MMN, draw_permutations(4, 50, seed=4, draw=7))
    assert not torch.equal(rows_MMN, draw_permutations(4, 50, seed=3, draw=8))
    drawn = [rows_MMN[r, m] for r in range(4) for m in range(4) if m != r]
    assert all(torch.equal(rows_N.sort().values, torch.arange(50)) for rows_N in drawn)
    assert len({tuple(rows_N.tolist()) for rows_N in drawn}) == len(drawn)


def test_the_global_generator_is_not_used():
    """Unlike the published code, sampling does not change the global random state."""
    before = torch.random.get_rng_state()
    Symile()(draw_batch(2, 3, 6, 5))
    assert torch.equal(before, torch.random.get_rng_state())


def test_only_training_steps_draw_new_negatives():
    embeddings = {m: z.requires_grad_() for m, z in draw_batch(3, 3, 8, 5).items()}
    objective = Symile(temperature=0.05)
    first, second = objective(embeddings).total, objective(embeddings).total
    assert first != second
    assert int(objective.draw) == 2
    with torch.no_grad():
        third = objective(embeddings).total
        assert torch.equal(third, objective(embeddings).total)
    assert int(objective.draw) == 2
    objective.eval()
    assert torch.equal(objective(embeddings).total, first)
    assert int(objective.draw) == 2
    assert torch.equal(objective.train()(embeddings).total, third)


def test_the_draw_is_part_of_the_state():
    embeddings = {m: z.requires_grad_() for m, z in draw_batch(4, 3, 8, 5).items()}
    objective, fresh = Symile(seed=5), Symile(seed=5)
    for _ in range(3):
        objective(embeddings)
    fresh.load_state_dict(objective.state_dict())
    assert torch.equal(fresh(embeddings).total, objective(embeddings).total)
    assert objective.double().draw.dtype == torch.int64


def test_invalid_calls_do_not_draw():
    objective = Symile()
    embeddings = draw_batch(5, 3, 4, 5)
    embeddings["m1"][0, 0] = float("nan")
    with pytest.raises(ValueError, match="m1"):
        objective(embeddings)
    assert int(objective.draw) == 0


def test_a_rotation_changes_products_of_three():
    """Symile is not invariant to rotations, since the product of three vectors depends on the basis."""
    embeddings = draw_batch(6, 3, 6, 5)
    rotation, _ = torch.linalg.qr(draw_batch(7, 1, 5, 5)["m0"])
    objective = Symile(negatives="all", temperature=0.1)
    turned = objective({m: z @ rotation for m, z in embeddings.items()}).total
    assert abs(turned - objective(embeddings).total) > 1e-3


def test_all_tuples_of_a_large_batch_raise_before_allocation():
    # 4,096^3 products of 4 bytes each would take 256 GiB.
    objective = Symile(negatives="all")
    with pytest.raises(ConfigError, match=r"4096\^3 tuples .* GiB, more than max_bytes=1073741824; use neg"):
        objective(draw_batch(8, 3, 4096, 2, torch.float32))


def test_the_budget_is_a_limit():
    embeddings = draw_batch(9, 3, 6, 5)
    needed = _bytes_of_all(3, 6, 5, 8)
    assert Symile(negatives="all", max_bytes=needed)(embeddings).total.isfinite()
    with pytest.raises(ConfigError, match="max_bytes"):
        Symile(negatives="all", max_bytes=needed - 1)(embeddings)
    # Incomplete items do not count towards the limit.
    present = {"m0": torch.tensor([True, True, False, True, True, True])}
    assert Symile(negatives="all", max_bytes=needed - 1)(embeddings, present=present).total.isfinite()


@pytest.mark.parametrize(("modalities", "items", "dim"), [(2, 40, 8), (3, 12, 40), (4, 6, 8)])
def test_the_budget_covers_saved_tensors(modalities: int, items: int, dim: int):
    leaves = {m: z.requires_grad_() for m, z in draw_batch(10, modalities, items, dim).items()}
    objective, ids = Symile(negatives="all"), torch.arange(items) // 2
    kept = saved_bytes(lambda: objective(leaves, ids=ids).total)
    assert kept <= _bytes_of_all(modalities, items, dim, 8) + 6 * modalities * items * dim * 8


def test_sampled_negatives_save_square_tables_only():
    items, dim, modalities = 24, 8, 4
    leaves = {m: z.requires_grad_() for m, z in draw_batch(11, modalities, items, dim).items()}
    square = items * items * 8
    assert saved_bytes(lambda: Symile()(leaves).total) < modalities * 4 * square + 40 * items * dim * 8


def test_temperature_is_the_inverse_of_the_logit_scale():
    """The default is below 0.07, since products of three unit vectors are tiny and logits would be nearly equal."""
    assert create("symile").get_config()["temperature"] == 0.01
    assert create("symile").get_config()["temperature_bounds"] == [1e-4, 1.0]
    wide = Symile(negatives="all", temperature_mode="fixed")(draw_batch(12, 3, 8, 512)).total
    assert wide.item() == pytest.approx(2 * torch.tensor(8.0).log().item(), abs=0.2)
