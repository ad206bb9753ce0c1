"""Test golden values, degenerate tuples, and saved memory of Triangle and PMRL."""

import math

import pytest
import torch
from torch import Tensor

import reference
from benchmarks.saved_bytes import saved_tensors
from loss_cases import draw_batch, value_and_gradients
from score_tables import cross_areas
from unialign.batch import make_batch
from unialign.errors import ShapeError
from unialign.functional._singular_values import singular_parts
from unialign.losses import PMRL, Triangle


def test_golden_areas(golden: dict[str, Tensor]):
    area_BB = cross_areas(make_batch(golden), anchor=0, eps=0.0)
    row = torch.tensor([0.132702, 0.092295, 0.683414, 0.464168], dtype=torch.float64)
    torch.testing.assert_close(area_BB[0], row, rtol=0, atol=1e-6)
    assert area_BB.diagonal().mean().item() == pytest.approx(0.1298626663, abs=1e-9)
    table = reference.cross_areas(reference.unit_rows(golden), anchor="z0", items=range(4))
    torch.testing.assert_close(area_BB, torch.stack([torch.stack(row) for row in table]))


def test_golden_singular_values(golden: dict[str, Tensor]):
    expected = torch.tensor([1.613747, 0.572037, 0.261906], dtype=torch.float64)
    torch.testing.assert_close(singular_parts(make_batch(golden)).sigma_BK[0], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(reference.singular_values(reference.unit_rows(golden))[0], expected, rtol=0, atol=1e-6)


def test_golden_terms_of_pmrl(golden: dict[str, Tensor]):
    terms = PMRL(intra_temperature=0.1, inter_temperature=0.1)(golden).terms
    assert terms["rank_one"].item() == pytest.approx(3.8429041e-05, abs=1e-12)
    assert terms["direction_contrast"].item() == pytest.approx(4.0351924e-04, abs=1e-11)


def test_published_defaults():
    triangle, pmrl = Triangle("text").get_config(), PMRL().get_config()
    assert (triangle["form"], triangle["temperature"], triangle["label_smoothing"]) == ("area", 0.07, 0.1)
    assert pmrl == {"intra_temperature": 0.01, "inter_temperature": 0.1}


def test_area_equals_herons_formula():
    z_MBD = make_batch(draw_batch(0, 3, 5, 6)).z_MBD
    a, b, c = (torch.linalg.vector_norm(z_MBD[m] - z_MBD[n], dim=-1) for m, n in ((0, 1), (1, 2), (2, 0)))
    s = (a + b + c) / 2
    heron = torch.sqrt(s * (s - a) * (s - b) * (s - c))
    for anchor in range(3):
        area_BB = cross_areas(make_batch(draw_batch(0, 3, 5, 6)), anchor=anchor, eps=0.0)
        torch.testing.assert_close(area_BB.diagonal(), heron)


def test_squared_form_is_twice_the_squared_area():
    batch = make_batch(draw_batch(1, 3, 5, 6))
    squared = cross_areas(batch, anchor=0, form="squared", eps=0.0)
    torch.testing.assert_close(squared, 2 * cross_areas(batch, anchor=0, eps=0.0) ** 2)


@pytest.mark.parametrize("modalities", [2, 4])
def test_other_numbers_of_modalities_raise(modalities: int):
    with pytest.raises(ShapeError, match=f"exactly 3 modalities, one per corner, got {modalities}"):
        Triangle("m0")(draw_batch(2, modalities, 3, 4))


@pytest.mark.parametrize("form", ["area", "squared"])
@pytest.mark.parametrize("eps", [None, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_triangle_with_nearly_equal_modalities(form: str, eps: float | None, dtype: torch.dtype):
    """The published difference of squares is only rounding error, so its root has an unbounded gradient."""
    z = draw_batch(4, 1, 6, 8)["m0"]
    z = z / z.norm(dim=-1, keepdim=True)
    for distance in (0.0, 1e-8, 1e-6, 1e-4, 1e-2):
        noise = draw_batch(5, 3, 6, 8)
        embeddings = {m: (z + distance * noise[m]).to(dtype) for m in noise}
        objective = Triangle("m0", form=form, eps=eps, temperature=1.0, label_smoothing=0.0)
        value, gradients = value_and_gradients(objective, embeddings)
        assert torch.isfinite(value)
        assert max(gradient.norm(dim=-1).max() for gradient in gradients.values()) < (2 if form == "area" else 4)


def test_float32_areas_of_true_tuples_are_accurate():
    """Areas below 1e-4 would be lost by computing |u|^2 |w|^2 - <u, w>^2 in float32."""
    z, noise = draw_batch(6, 1, 6, 8)["m0"], draw_batch(7, 3, 6, 8)
    z = z / z.norm(dim=-1, keepdim=True)
    embeddings = {m: (z + 1e-4 * noise[m]).float() for m in noise}
    exact = cross_areas(make_batch({m: x.double() for m, x in embeddings.items()}), anchor=0, eps=0.0)
    area = cross_areas(make_batch(embeddings), anchor=0, eps=0.0)
    assert exact.diagonal().max() < 1e-6
    torch.testing.assert_close(area.diagonal().double(), exact.diagonal(), rtol=1e-2, atol=0)


def test_triangle_uses_complete_items_only():
    embeddings = draw_batch(8, 3, 5, 6)
    present = {"m2": torch.tensor([True, False, True, True, False])}
    kept = torch.tensor([0, 2, 3])
    part = Triangle("m0")({m: z[kept] for m, z in embeddings.items()}).total
    torch.testing.assert_close(Triangle("m0")(embeddings, present=present).total, part)


def test_triangle_saves_no_differences_of_all_pairs():
    """The published code builds three tensors of shape (B, B, D), 131 times the logits at B = 512 and D = 64."""
    items, dim = 32, 16
    leaves = {m: z.requires_grad_() for m, z in draw_batch(9, 3, items, dim, torch.float32).items()}
    kept = saved_tensors(lambda: Triangle("m0")(leaves).total)
    assert max(tensor.numel() for tensor in kept) <= max(items * items, 3 * items * dim)
    assert max(tensor.untyped_storage().nbytes() for tensor in kept) < items * items * dim


def test_pmrl_saves_no_square_factor():
    """The released code computes all left vectors, a tensor of shape (B, D, D): 576 MiB at B = 256 and D = 768."""
    items, dim = 8, 64
    leaves = {m: z.requires_grad_() for m, z in draw_batch(10, 4, items, dim, torch.float32).items()}
    kept = saved_tensors(lambda: PMRL()(leaves).total)
    assert max(tensor.numel() for tensor in kept) <= 4 * items * dim
    assert max(tensor.untyped_storage().nbytes() for tensor in kept) < items * dim * dim


@pytest.mark.parametrize(("modalities", "dim"), [(2, 6), (3, 6), (5, 6), (4, 2), (3, 1)])
def test_singular_values_and_their_gradients(modalities: int, dim: int):
    """Values and gradients equal those of torch.linalg.svdvals, even for D < M."""
    leaves = [z.requires_grad_() for z in draw_batch(11, modalities, 4, dim).values()]
    weight_K = torch.arange(1.0, min(modalities, dim) + 1, dtype=torch.float64)
    ours = singular_parts(make_batch({f"m{m}": z for m, z in enumerate(leaves)}))
    columns = torch.stack([z / z.norm(dim=-1, keepdim=True) for z in leaves], dim=-1)
    theirs = torch.linalg.svdvals(columns)
    assert ours.own_BK.all()
    torch.testing.assert_close(ours.sigma_BK, theirs)
    torch.testing.assert_close(
        torch.autograd.grad((ours.sigma_BK * weight_K).sum(), leaves),
        torch.autograd.grad((theirs * weight_K).sum(), leaves),
        rtol=1e-6,
        atol=1e-8,
    )


def test_directions_point_to_the_mean():
    """The sign of an eigenvector is arbitrary; in the released code, 115 of 256 point away from the mean."""
    embeddings = draw_batch(12, 4, 256, 24, torch.float32)
    z_MBD = make_batch(embeddings).z_MBD
    direction_BD = singular_parts(make_batch(embeddings)).direction_BD
    assert ((direction_BD * z_MBD.mean(0)).sum(-1) >= 0).all()
    torch.testing.assert_close(direction_BD.norm(dim=-1), torch.ones(256))
    left, _, _ = torch.linalg.svd(z_MBD.permute(1, 2, 0).double(), full_matrices=False)
    torch.testing.assert_close((left[..., 0] * direction_BD).sum(-1).abs(), torch.ones(256, dtype=torch.float64))


def test_direction_of_a_tuple_with_an_orthogonal_mean():
    """For two vectors with a negative cosine, the mean is orthogonal to u_1, so the first modality sets the sign."""
    x = draw_batch(13, 1, 5, 6)["m0"]
    batch = make_batch({"m0": x, "m1": -x + 0.3 * draw_batch(14, 1, 5, 6)["m0"]})
    direction_BD = singular_parts(batch).direction_BD
    assert ((direction_BD * batch.z_MBD.sum(0)).sum(-1).abs() < 1e-12).all()
    assert ((direction_BD * batch.z_MBD[0]).sum(-1) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_equal_singular_values_have_a_bounded_gradient(dtype: torch.dtype, modalities: int):
    """Orthogonal modalities have equal singular values, for which torch.linalg.svd has infinite gradients."""
    axes = torch.eye(8, dtype=dtype)
    embeddings = {f"m{m}": axes[[m, m + 2, m + 4]] for m in range(modalities)}
    value, gradients = value_and_gradients(PMRL(intra_temperature=1.0, inter_temperature=1.0), embeddings)
    assert torch.isfinite(value)
    for gradient in gradients.values():
        assert torch.isfinite(gradient).all()
        assert gradient.norm(dim=-1).max() < 2
    terms = PMRL(intra_temperature=1.0)(embeddings).terms
    assert terms["rank_one"].item() == pytest.approx(math.log(modalities), rel=1e-6)


def test_coinciding_modalities_have_rank_one_and_a_finite_gradient():
    z = draw_batch(15, 1, 4, 6)["m0"]
    value, gradients = value_and_gradients(PMRL(), {"m0": z, "m1": 2 * z, "m2": -z})
    assert torch.isfinite(value)
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    sigma_BK = singular_parts(make_batch({"m0": z, "m1": 2 * z, "m2": -z})).sigma_BK
    expected = torch.tensor([math.sqrt(3), 0, 0], dtype=torch.float64).expand(4, 3)
    torch.testing.assert_close(sigma_BK, expected, rtol=0, atol=1e-7)


def test_pmrl_uses_the_present_columns():
    embeddings = draw_batch(16, 4, 3, 6)
    present = {"m1": torch.tensor([True, False, True]), "m3": torch.tensor([True, False, False])}
    parts = singular_parts(make_batch(embeddings, present=present))
    expected = reference.singular_values(reference.unit_rows(embeddings, present))
    for i, values in enumerate(expected):
        assert int(parts.own_BK[i].sum()) == len(values)
        torch.testing.assert_close(parts.sigma_BK[i, : len(values)], values)
