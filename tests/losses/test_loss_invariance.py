"""Test the invariance of losses to order, rotations and row lengths, and identities between losses."""

import math

import pytest
import torch
from hypothesis import given, strategies as st

from loss_cases import DRAWN, OBJECTIVES, draw_batch, draw_present, fit_modalities, make_objective, value_and_gradients
from unialign.batch import make_batch
from unialign.losses import InfoNCE, UniAlign


@pytest.mark.parametrize("case", [case for case in OBJECTIVES if case not in DRAWN])
def test_order_of_items(case: str):
    embeddings, present = draw_batch(1, 3, 6, 5), draw_present(1, 3, 6)
    ids, order = torch.tensor([0, 1, 1, 2, 3, 0]), torch.tensor([3, 5, 0, 2, 4, 1])
    objective = make_objective(case)
    value, gradients = value_and_gradients(objective, embeddings, present=present, ids=ids)
    moved, moved_gradients = value_and_gradients(
        objective,
        {m: z[order] for m, z in embeddings.items()},
        present={m: there[order] for m, there in present.items()},
        ids=ids[order],
    )
    torch.testing.assert_close(moved, value)
    torch.testing.assert_close(moved_gradients, {m: g[order] for m, g in gradients.items()}, rtol=1e-6, atol=1e-8)


# Symile is excluded, since products of three or more vectors depend on the basis.
@pytest.mark.parametrize("case", [case for case in OBJECTIVES if OBJECTIVES[case][0] != "symile"])
def test_common_rotation(case: str):
    embeddings = draw_batch(2, 3, 6, 5)
    rotation, _ = torch.linalg.qr(draw_batch(3, 1, 5, 5)["m0"])
    objective = make_objective(case)
    expected = objective(embeddings).total
    torch.testing.assert_close(objective({m: z @ rotation for m, z in embeddings.items()}).total, expected)


@pytest.mark.parametrize("case", [case for case in OBJECTIVES if case not in DRAWN])
def test_order_of_modalities(case: str):
    embeddings = draw_batch(4, fit_modalities(case, 4), 5, 6)
    value, gradients = value_and_gradients(make_objective(case), embeddings)
    for order in (("m0", "m3", "m1", "m2"), ("m2", "m0", "m3", "m1")):
        again, again_gradients = value_and_gradients(
            make_objective(case), {m: embeddings[m] for m in order if m in embeddings}
        )
        torch.testing.assert_close(again, value)
        torch.testing.assert_close({m: again_gradients[m] for m in embeddings}, gradients, rtol=1e-6, atol=1e-8)


# sigmoid-pairs is excluded, since its options contain names of modalities.
@pytest.mark.parametrize("case", [case for case in OBJECTIVES if case != "sigmoid-pairs"])
def test_names_of_modalities(case: str):
    """The pairs (m0, b-c) and (m0-b, c) must get different term names."""
    embeddings = draw_batch(12, fit_modalities(case, 4), 5, 6)
    value, gradients = value_and_gradients(make_objective(case), embeddings)
    other = dict(zip(embeddings, ("m0", "b-c", "m0-b", "c"), strict=False))
    renamed, renamed_gradients = value_and_gradients(make_objective(case), {other[m]: z for m, z in embeddings.items()})
    torch.testing.assert_close(renamed, value)
    torch.testing.assert_close(renamed_gradients, {other[m]: gradient for m, gradient in gradients.items()})


@pytest.mark.parametrize("case", OBJECTIVES)
def test_lengths_of_rows(case: str):
    for dtype, sizes in [(torch.float32, (1e-30, 1e30)), (torch.float64, (1e-280, 1e280))]:
        # In float32 the square of 1e30 overflows, and the square of 1e-30 underflows to 0.
        embeddings = draw_batch(5, 3, 4, 6, dtype)
        objective = make_objective(case)
        expected = objective(embeddings).total
        tiny, huge = sizes
        scaled = {"m0": embeddings["m0"] * tiny, "m1": embeddings["m1"] * huge, "m2": embeddings["m2"] * 3}
        value, gradients = value_and_gradients(objective, scaled)
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)
        assert all(torch.isfinite(gradient).all() for gradient in gradients.values())


@pytest.mark.parametrize("case", [case for case in OBJECTIVES if "gram" not in case and case != "paper"])
def test_gradients_are_tangential(case: str):
    # Scaling a row does not change the loss, so the gradient is orthogonal to the row.
    embeddings = draw_batch(6, 3, 4, 6)
    _, gradients = value_and_gradients(make_objective(case), embeddings)
    for m, gradient in gradients.items():
        assert (gradient * embeddings[m]).sum(-1).abs().max() < 1e-10


@given(
    seed=st.integers(0, 2**31 - 1), items=st.integers(2, 9), dim=st.integers(1, 16), tau=st.sampled_from([0.07, 0.5])
)
def test_balanced_is_infonce_with_partitions_within_modalities(seed: int, items: int, dim: int, tau: float):
    """InfoNCE is |x - y|^2 / (2 tau) plus log-partitions across modalities; `balanced` has those within modalities."""
    embeddings = draw_batch(seed, 2, items, dim)
    x_BD, y_BD = make_batch(embeddings).z_MBD
    pull = ((x_BD - y_BD) ** 2).sum(-1).mean() / (2 * tau)

    cross_BB = -(torch.cdist(x_BD, y_BD, compute_mode="donot_use_mm_for_euclid_dist") ** 2) / (2 * tau)
    cross = (torch.logsumexp(cross_BB, 1).mean() + torch.logsumexp(cross_BB, 0).mean()) / 2
    torch.testing.assert_close(InfoNCE("m0", temperature=tau)(embeddings).total, pull + cross)

    inside = []
    for z_BD in (x_BD, y_BD):
        inside_BB = -(torch.cdist(z_BD, z_BD, compute_mode="donot_use_mm_for_euclid_dist") ** 2) / (2 * tau)
        inside_BB = inside_BB.masked_fill(torch.eye(items, dtype=torch.bool), -torch.inf)
        inside.append(torch.logsumexp(inside_BB, 1).mean() - math.log(items - 1))
    total = UniAlign("m0", preset="balanced", temperature=tau)(embeddings).total
    torch.testing.assert_close(total, pull + sum(inside) / 2)


def test_alignment_term_is_two_minus_twice_the_mean_cosine():
    embeddings = draw_batch(7, 2, 5, 6)
    cosine = torch.nn.functional.cosine_similarity(embeddings["m0"], embeddings["m1"]).mean()
    torch.testing.assert_close(UniAlign("m0")(embeddings).terms["alignment"], 2 - 2 * cosine)


def test_all_pairs_infonce_is_the_mean_over_pairs():
    embeddings = draw_batch(8, 3, 5, 6)
    pairs = [("m0", "m1"), ("m0", "m2"), ("m1", "m2")]
    one_by_one = [InfoNCE("all")({m: embeddings[m], n: embeddings[n]}).total for m, n in pairs]
    torch.testing.assert_close(InfoNCE("all")(embeddings).total, sum(one_by_one) / 3)
