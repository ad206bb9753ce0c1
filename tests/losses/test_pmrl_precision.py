"""Test the signs of leading directions, ties, and the gradients of tight tuples of PMRL in float32.

Shapes: `M` modalities, `B` items, `D` dim.
"""

import pytest
import torch
from torch import Tensor

import reference
from loss_cases import draw_batch, reference_total, value_and_gradients
from unialign.batch import make_batch
from unialign.functional._singular_values import singular_parts
from unialign.losses import PMRL


def gradient_error(gradients: dict[str, Tensor], exact: dict[str, Tensor]) -> float:
    difference, scale = (
        torch.cat([x.double().flatten() for x in values]).norm()
        for values in ([gradients[m].double() - exact[m] for m in exact], list(exact.values()))
    )
    return float(difference / scale)


def test_the_sign_of_two_modalities_does_not_depend_on_rounding():
    """If rounded squared lengths were the diagonal of the Gram matrix, signs would be arbitrary for small |cos|."""
    for seed in [49, *range(15)]:
        x_BD, y_BD = torch.randn(2, 64, 16, generator=torch.Generator().manual_seed(seed))
        exact, exact_gradients = value_and_gradients(PMRL(), {"x": x_BD.double(), "y": y_BD.double()})
        for factor in (1.0, 3.0):
            value, gradients = value_and_gradients(PMRL(), {"x": factor * x_BD, "y": y_BD})
            assert value.item() == pytest.approx(exact.item(), rel=5e-6)
            gradients["x"] = factor * gradients["x"]
            assert gradient_error(gradients, exact_gradients) < 1e-5
    assert exact.item() == pytest.approx(
        reference_total(PMRL(), reference.unit_rows({"x": x_BD.double(), "y": y_BD.double()}), None).item(), rel=1e-9
    )


def symmetric_tuples(case: str, items: int, dim: int) -> dict[str, Tensor]:
    """Return tuples with a leading vector that is orthogonal to the mean or not unique, in a random basis per item."""
    basis_BDD = torch.linalg.qr(torch.randn(items, dim, dim, generator=torch.Generator().manual_seed(5)).double())[0]
    e = torch.eye(dim, dtype=torch.float64)[:, None].expand(-1, items, -1)
    c = torch.tensor([0.01, 0.1, 0.5, 0.9, 1e-9, 1e-12], dtype=torch.float64).repeat(items // 6)[:, None]
    apart = (1 - c * c).sqrt()
    thirds = torch.arange(3).double() * 2 * torch.pi / 3
    rows = {
        "one_orthogonal": [e[0], apart * e[1] - c * e[0], e[2]],
        "opposite": [e[0], -e[0], e[1]],
        "two_pairs": [e[0], apart * e[1] - c * e[0], e[2], apart * e[3] - c * e[2]],
        "star": [angle.cos() * e[0] + angle.sin() * e[1] for angle in thirds],
        "orthonormal": [e[0], e[1], e[2]],
    }[case]
    return {f"m{m}": (x_BD[:, None] @ basis_BDD)[:, 0] for m, x_BD in enumerate(rows)}


@pytest.mark.parametrize("case", ["one_orthogonal", "opposite", "two_pairs", "star", "orthonormal"])
def test_symmetric_tuples_have_one_direction(case: str):
    """Rounding to float32 or scaling a row must not change the direction, even if symmetry leaves it ambiguous."""
    embeddings = symmetric_tuples(case, 60, 8)
    exact = singular_parts(make_batch(embeddings)).direction_BD
    expected = PMRL()(embeddings).total.item()
    by_reference = reference_total(PMRL(), reference.unit_rows(embeddings), None).item()
    assert expected == pytest.approx(by_reference, rel=1e-6, abs=1e-9)
    for scale in (1.0, 3.0, 0.7):
        rounded = {m: z.float() for m, z in embeddings.items()}
        rounded["m0"] = scale * rounded["m0"]
        found = singular_parts(make_batch(rounded)).direction_BD.double()
        torch.testing.assert_close(found, exact, rtol=0, atol=3e-5)
        assert PMRL()(rounded).total.item() == pytest.approx(expected, rel=1e-4)


def test_cosines_below_the_resolution_of_float32():
    """Two vectors with |cos| < 5e-7 are treated as a tie, for which the direction is that of the mean."""
    x_BD, y_BD = draw_batch(3, 2, 32, 16).values()
    x_BD, y_BD = (torch.nn.functional.normalize(z) for z in (x_BD, y_BD))
    y_BD = torch.nn.functional.normalize(y_BD - x_BD * (x_BD * y_BD).sum(-1, keepdim=True))
    mean_BD = torch.nn.functional.normalize(x_BD + y_BD)
    for cosine in (0.0, 1e-12, -1e-12, 1e-8, -1e-8):
        turned_BD = y_BD + cosine * x_BD
        for dtype in (torch.float32, torch.float64):
            batch = make_batch({"x": (3 * x_BD).to(dtype), "y": turned_BD.to(dtype)})
            torch.testing.assert_close(singular_parts(batch).direction_BD.double(), mean_BD, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("modalities", "dim", "distance"), [(3, 16, 1e-2), (4, 64, 1e-1), (4, 64, 1e-2), (5, 512, 6e-2)]
)
def test_gradients_of_tight_tuples(modalities: int, dim: int, distance: float):
    """Gradients are accurate, although float32 products with factors 1 / sigma would have an error of 1e-4 at (5, 512).

    A plain float32 singular value decomposition has errors of 9e-6, 1.2e-6, 9e-6 and 2e-6 in these four cases.
    """
    center, noise = draw_batch(1, 1, 32, dim)["m0"], draw_batch(2, modalities, 32, dim)
    embeddings = {m: (center + distance * z).float() for m, z in noise.items()}
    exact, exact_gradients = value_and_gradients(PMRL(), {m: z.double() for m, z in embeddings.items()})
    value, gradients = value_and_gradients(PMRL(), embeddings)
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)
    assert gradient_error(gradients, exact_gradients) < 6e-8 / distance + 1e-6


def test_directions_have_exact_derivatives():
    """Values and directions pass gradcheck with an absent modality."""
    batch = draw_batch(7, 4, 3, 6)
    present = {"m2": torch.tensor([True, False, True])}

    def parts(*rows: Tensor) -> tuple[Tensor, Tensor]:
        found = singular_parts(make_batch(dict(zip(batch, rows, strict=True)), present=present))
        return found.sigma_BK, found.direction_BD

    assert torch.autograd.gradcheck(parts, [z.requires_grad_() for z in batch.values()], atol=1e-6)
