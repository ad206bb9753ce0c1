"""Compare the public formulas with hand-computed values for the golden batch."""

import pytest
import torch
from torch import Tensor

import reference
from score_tables import cross_volumes
from unialign.batch import make_batch
from unialign.functional import alignment, centroids, gram_volume, uniformity

UNIFORMITY = [
    ("gaussian", 0.5, (-4.525373, -3.948675, -4.031965)),
    ("gaussian", 0.07, (-197.211372, -164.817363, -158.485018)),
    ("clip", 0.5, (-2.363175, -2.093684, -2.234328)),
    ("clip", 0.07, (-14.766372, -12.528226, -12.112507)),
    ("geodesic", 0.5, (-5.655973, -4.701781, -4.633224)),
    ("geodesic", 0.07, (-245.313056, -195.526485, -184.308284)),
    ("wang_isola", 0.07, (-4.293926, -3.744060, -4.027937)),
]
CENTROID = [
    ("gaussian", 0.5, -4.331197),
    ("gaussian", 0.07, -187.037675),
    ("clip", 0.5, -2.275126),
    ("clip", 0.07, -14.038825),
    ("wang_isola", 0.07, -4.126734),
]


def near(expected: float, dtype: torch.dtype) -> object:
    return pytest.approx(expected, abs=1e-6 if dtype == torch.float64 else 1e-5 * max(1, abs(expected)))


def test_rows_of_the_golden_batch(golden: dict[str, Tensor]):
    z_MBD = make_batch(golden).z_MBD
    first = torch.tensor([0.254834, 0.552414, 0.267423, -0.368284, -0.650192], dtype=torch.float64)
    last = torch.tensor([-0.305731, 0.668001, -0.575865, 0.134635, 0.3325], dtype=torch.float64)
    torch.testing.assert_close(z_MBD[0, 0], first, rtol=0, atol=1e-6)
    torch.testing.assert_close(z_MBD[2, 3], last, rtol=0, atol=1e-6)
    for (m, n), cosine in {(0, 1): 0.870150, (0, 2): 0.790163, (1, 2): 0.774256}.items():
        assert (z_MBD[m] * z_MBD[n]).sum(-1).mean().item() == pytest.approx(cosine, abs=1e-6)


@pytest.mark.parametrize(("kernel", "temperature", "expected"), UNIFORMITY)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_uniformity(golden: dict[str, Tensor], kernel: str, temperature: float, expected: tuple, dtype: torch.dtype):
    for z, value in zip(golden.values(), expected, strict=True):
        result = uniformity(z.to(dtype), kernel=kernel, temperature=temperature)
        assert result.dtype == dtype
        assert result.item() == near(value, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_outer_log(golden: dict[str, Tensor], dtype: torch.dtype):
    for z, value in zip(golden.values(), (-4.168579, -3.621939, -4.023951), strict=True):
        result = uniformity(z.to(dtype), kernel="gaussian", temperature=0.5, reduction="outer_log", order=2)
        assert result.item() == near(value, dtype)


@pytest.mark.parametrize(("kernel", "temperature", "expected"), CENTROID)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_uniformity_of_centroids(
    golden: dict[str, Tensor], kernel: str, temperature: float, expected: float, dtype: torch.dtype
):
    middle_BD = centroids({m: z.to(dtype) for m, z in golden.items()})
    assert uniformity(middle_BD, kernel=kernel, temperature=temperature).item() == near(expected, dtype)


def test_centroid_norms(golden: dict[str, Tensor]):
    mean_BD = make_batch(golden).z_MBD.mean(0)
    along_B = (centroids(golden) * mean_BD).sum(-1)
    expected = torch.tensor([0.931119, 0.967195, 0.901730, 0.939058], dtype=torch.float64)
    torch.testing.assert_close(along_B, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(along_B, mean_BD.norm(dim=-1))


@pytest.mark.parametrize(
    ("anchor", "distance", "expected"),
    [("z0", "euclidean", 0.3396867940), ("all", "euclidean", 0.3769541408), ("z0", "geodesic", 0.3513890900)],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_alignment(golden: dict[str, Tensor], anchor: str, distance: str, expected: float, dtype: torch.dtype):
    result = alignment({m: z.to(dtype) for m, z in golden.items()}, anchor=anchor, distance=distance)
    assert result.item() == pytest.approx(expected, abs=1e-9 if dtype == torch.float64 else 1e-5)
    doubled = alignment(golden, anchor=anchor, distance=distance, scale=2.0)
    assert doubled.item() == pytest.approx(2 * expected, abs=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_volumes(golden: dict[str, Tensor], dtype: torch.dtype):
    embeddings = {m: z.to(dtype) for m, z in golden.items()}
    row = torch.tensor([0.241771, 0.119948, 0.692377, 0.582333], dtype=dtype)
    table_BB = cross_volumes(make_batch(embeddings), anchor=0, eps=0.0)
    torch.testing.assert_close(table_BB[0], row, rtol=0, atol=1e-6 if dtype == torch.float64 else 1e-5)
    torch.testing.assert_close(table_BB.diagonal(), gram_volume(embeddings))
    assert gram_volume(embeddings).mean().item() == pytest.approx(
        0.2376994365, abs=1e-9 if dtype.itemsize == 8 else 1e-5
    )


def test_reference_volumes(golden: dict[str, Tensor]):
    table = reference.cross_volumes(reference.unit_rows(golden), anchor="z0", items=range(4))
    assert [volume.item() for volume in table[0]] == pytest.approx([0.241771, 0.119948, 0.692377, 0.582333], abs=1e-6)
