"""Test degenerate batches, half precision, and inputs on which other implementations fail."""

import math

import pytest
import torch
from torch import Tensor

from loss_cases import (
    OBJECTIVES,
    draw_batch,
    fit_modalities,
    make_objective,
    value_and_gradients,
    with_temperature,
)
from unialign.losses import GRAM, InfoNCE, UniAlign

DTYPES = [torch.float32, torch.float64]


def assert_finite(value: Tensor, gradients: dict[str, Tensor]) -> None:
    assert torch.isfinite(value)
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())


@pytest.mark.parametrize("case", OBJECTIVES)
def test_tiny_batches(case: str):
    """Implementations with torch.pdist return NaN for a single row."""
    for dtype in DTYPES:
        for items in [0, 1, 2, 3]:
            for dim in [1, 2, 7]:
                assert_finite(*value_and_gradients(make_objective(case), draw_batch(1, 3, items, dim, dtype)))


@pytest.mark.parametrize("case", OBJECTIVES)
def test_everything_collapsed_to_one_point(case: str):
    for dtype in DTYPES:
        row = draw_batch(2, 1, 1, 6, dtype)["m0"]
        embeddings = {f"m{m}": row.repeat(5, 1) for m in range(3)}
        value, gradients = value_and_gradients(make_objective(case), embeddings)
        assert_finite(value, gradients)
        terms = make_objective(case)(embeddings).terms
        for name, term in terms.items():
            if name.startswith(("uniformity", "centroid")) or name == "alignment":
                assert term.item() == pytest.approx(0, abs=1e-4 if dtype == torch.float32 else 1e-12)
            if name.startswith("contrast"):
                assert term.item() == pytest.approx(math.log(5), abs=1e-5)


@pytest.mark.parametrize("case", OBJECTIVES)
def test_equal_modalities(case: str):
    """Training approaches equal modalities, for which the published GRAM volume has a NaN gradient."""
    for dtype in DTYPES:
        z = draw_batch(3, 1, 5, 6, dtype)["m0"]
        equal = {f"m{m}": z for m in range(fit_modalities(case, 4))}
        assert_finite(*value_and_gradients(make_objective(case), equal))


def test_gram_with_nearly_equal_modalities():
    """The float32 determinant of nearly equal vectors is only rounding error, and its root has unbounded gradients."""
    for eps in [None, 0.0]:
        for dtype in DTYPES:
            for modalities in [2, 3, 4]:
                z = draw_batch(4, 1, 6, 8)["m0"]
                z = z / z.norm(dim=-1, keepdim=True)
                for distance in (0.0, 1e-8, 1e-6, 1e-4, 1e-2):
                    noise = draw_batch(5, modalities, 6, 8)
                    embeddings = {m: (z + distance * noise[m]).to(dtype) for m in noise}
                    objective = GRAM("m0", eps=eps, temperature=1.0, label_smoothing=0.0)
                    value, gradients = value_and_gradients(objective, embeddings)
                    assert_finite(value, gradients)
                    # The gradient of a volume for each vector has norm at most 1, and each row occurs in 2 B volumes
                    # with weight 1 / B.
                    assert max(gradient.norm(dim=-1).max() for gradient in gradients.values()) < 2


@pytest.mark.parametrize("case", OBJECTIVES)
def test_opposite_and_coplanar_tuples(case: str):
    z = draw_batch(6, 2, 4, 5)
    rows = [z["m0"], -z["m0"], z["m1"], z["m0"] + z["m1"]]
    embeddings = {f"m{m}": rows[m] for m in range(fit_modalities(case, 4))}
    assert_finite(*value_and_gradients(make_objective(case), embeddings))


@pytest.mark.parametrize("case", OBJECTIVES)
def test_tuples_that_cancel_have_no_centroid(case: str):
    z = draw_batch(7, 1, 4, 5)["m0"]
    embeddings = {f"m{m}": (-1) ** m * z for m in range(fit_modalities(case, 2))}
    assert_finite(*value_and_gradients(make_objective(case), embeddings))


@pytest.mark.parametrize("case", OBJECTIVES)
def test_equal_ids_leave_no_negatives(case: str):
    embeddings = draw_batch(8, 3, 5, 6)
    objective = make_objective(case)
    ids = torch.full((5,), 7)
    assert_finite(*value_and_gradients(objective, embeddings, ids=ids))
    out = objective(embeddings, ids=ids)
    assert not any(name.startswith("uniformity") for name in out.terms)
    for name, term in out.terms.items():
        if "contrast" in name and case != "infonce-hard":
            assert 0 <= term < 1e-14


@pytest.mark.parametrize("case", OBJECTIVES)
def test_same_id_items_do_not_repel(case: str):
    """Several captions of one image share an id and must not be negatives of each other."""
    embeddings = draw_batch(9, fit_modalities(case, 2), 3, 6)
    embeddings = {m: z[[0, 0, 1, 2]] for m, z in embeddings.items()}
    objective = make_objective(case)
    ids = torch.tensor([4, 4, 5, 6])
    _, gradients = value_and_gradients(objective, embeddings, ids=ids)
    for gradient in gradients.values():
        torch.testing.assert_close(gradient[0], gradient[1])


def test_self_pair_is_excluded_before_the_kernel_sum():
    """Subtracting the self pair from the sum would cause a gradient error of 29 % at t = 10, and NaN at t = 20."""
    z = torch.eye(4)  # exp(-1 / tau), the kernel at cosine 0, is below the float32 epsilon of the self pair, 1
    for temperature in (0.05, 0.01, 0.002):
        value, gradients = value_and_gradients(UniAlign(temperature=temperature), {"a": z, "b": z})
        assert value.item() == pytest.approx(-1 / temperature, rel=1e-5)
        assert_finite(value, gradients)


@pytest.mark.parametrize("case", OBJECTIVES)
def test_extreme_temperatures(case: str):
    for temperature in [0.01, 0.1, 1.0, 100.0]:
        objective = make_objective(case, **with_temperature(case, temperature))
        for dtype in DTYPES:
            assert_finite(*value_and_gradients(objective, draw_batch(10, 3, 5, 6, dtype)))


def test_extreme_dims():
    for dim in [1, 4096]:
        for case in OBJECTIVES:
            assert_finite(*value_and_gradients(make_objective(case), draw_batch(11, 3, 4, dim, torch.float32)))


@pytest.mark.parametrize("case", OBJECTIVES)
def test_half_precision_inputs_are_computed_in_float32(case: str):
    for dtype in [torch.bfloat16, torch.float16]:
        embeddings = draw_batch(12, 3, 5, 6, dtype)
        value, gradients = value_and_gradients(make_objective(case), embeddings)
        assert value.dtype == torch.float32
        assert all(gradient.dtype == dtype for gradient in gradients.values())
        assert_finite(value, gradients)
        expected, _ = value_and_gradients(make_objective(case), {m: z.float() for m, z in embeddings.items()})
        assert torch.equal(value, expected)


@pytest.mark.parametrize("case", OBJECTIVES)
def test_autocast_does_not_change_the_loss(case: str):
    embeddings = draw_batch(13, 3, 5, 6, torch.float32)
    expected, expected_gradients = value_and_gradients(make_objective(case), embeddings)
    leaves = {m: z.requires_grad_() for m, z in embeddings.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = make_objective(case)(leaves).total
    assert total.dtype == torch.float32
    assert torch.equal(total, expected)
    gradients = torch.autograd.grad(total, list(leaves.values()))  # backward outside autocast, as PyTorch recommends
    assert all(map(torch.equal, gradients, expected_gradients.values()))


def test_autocast_of_a_whole_step():
    head = torch.nn.Linear(6, 4)
    features = draw_batch(14, 2, 5, 6, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoded = {m: head(x) for m, x in features.items()}
        total = UniAlign("m0")(encoded).total
    assert encoded["m0"].dtype == torch.bfloat16
    assert total.dtype == torch.float32
    total.backward()
    assert torch.isfinite(head.weight.grad).all()


def test_one_float64_modality_gives_a_float64_loss():
    embeddings = draw_batch(15, 2, 4, 5)
    embeddings["m1"] = embeddings["m1"].float()
    assert UniAlign("m0")(embeddings).total.dtype == torch.float64


def test_options_of_zero_are_kept():
    """An option of 0.0 must not be replaced by the default, which `option or default` would return."""
    embeddings = draw_batch(16, 3, 5, 6)
    paper = UniAlign("m0", preset="paper")
    assert paper.centroid_weight == 1
    assert paper.volume_weight == 1
    bare = UniAlign("m0", preset="paper", centroid_weight=0.0, volume_weight=0.0)
    assert "centroid" not in bare(embeddings).terms
    assert "volume" not in bare(embeddings).terms
    assert GRAM("m0").label_smoothing == 0.1
    assert GRAM("m0", label_smoothing=0.0).label_smoothing == 0
    hard, soft = GRAM("m0", label_smoothing=0.0), GRAM("m0")
    assert hard(embeddings).total != soft(embeddings).total
    assert "alignment" not in UniAlign("m0", alignment_weight=0.0)(embeddings).terms
    assert set(UniAlign("m0", uniformity_weight=0.0)(embeddings).terms) == {"alignment"}
    assert GRAM("m0", eps=0.0).get_config()["eps"] == 0.0
    equal = dict.fromkeys(embeddings, embeddings["m0"])
    assert UniAlign("m0", preset="paper", volume_eps=0.0)(equal).terms["volume"] < 1e-7
    assert UniAlign("m0", preset="paper", volume_eps=0.01)(equal).terms["volume"] == pytest.approx(0.1)
    assert InfoNCE("m0", temperature=1.0, temperature_mode="learnable").temperature.value() == 1.0
