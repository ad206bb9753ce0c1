"""Totals of the golden batch, as worked out by hand in two independent programs before this package existed."""

from typing import Any

import pytest
import torch
from loss_cases import reference_total
from torch import Tensor

from unialign.embeddings import make_batch
from unialign.functional import reference
from unialign.losses import GRAM, PMRL, InfoNCE, Objective, Symile, Triangle, UniAlign, create

PAPER = {"anchor": "z0", "preset": "paper", "temperature": 0.5}
CORE = {"centroid_weight": 0.0, "volume_weight": 0.0}
CLIP = {"kernel": "clip", "alignment_scale": 1.0}
BALANCED = {"anchor": "z0", "preset": "balanced", "temperature": 0.5}
TRIANGLE = {"anchor": "z0", "temperature": 0.5, "label_smoothing": 0.0}

CASES: list[tuple[str, dict[str, Any], float]] = [
    ("infonce", {"anchor": "z0", "temperature": 0.5}, 0.4034555365),
    ("infonce", {"anchor": "z0", "temperature": 0.07}, 0.0072310576),
    ("infonce", {"anchor": "all", "temperature": 0.5}, 0.4490688102),
    ("infonce", {"pairs": "all", "temperature": 0.07}, 0.0872161468),
    ("gram", {"anchor": "z0", "temperature": 0.5, "label_smoothing": 0.0}, 1.1921336033),
    ("gram", {"anchor": "z0", "temperature": 0.07, "label_smoothing": 0.0}, 1.5126610799),
    ("gram", {"anchor": "z0", "temperature": 0.5}, 1.2174198476),
    ("gram", {"anchor": "z0", "temperature": 0.07}, 1.6932771104),
    ("triangle", TRIANGLE, 1.0362587548),
    ("triangle", TRIANGLE | {"form": "squared"}, 0.9621365203),
    ("symile", {"negatives": "all", "temperature": 0.5}, 2.5811158019),
    ("pmrl", {"intra_temperature": 0.1, "inter_temperature": 0.1}, 3.8429041e-05 + 4.0351924e-04),
    ("unialign", PAPER | CORE, -12.1663256044),
    ("unialign", PAPER, -16.2598234946),
    ("unialign", PAPER | CLIP | CORE, -6.3515003859),
    ("unialign", PAPER | CLIP, -8.3889267539),
    ("unialign", BALANCED | {"kernel": "gaussian"}, -3.4892972114),
    ("unialign", BALANCED, -1.8907089326),
]


@pytest.mark.parametrize(("name", "options", "expected"), CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_total(golden: dict[str, Tensor], name: str, options: dict[str, Any], expected: float, dtype: torch.dtype):
    out = create(name, **options).to(dtype)({m: z.to(dtype) for m, z in golden.items()})
    assert out.total.dtype == dtype
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5 * max(1, abs(expected))
    assert out.total.item() == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(
    ("temperature", "forward", "symmetric"),
    [(0.5, 0.3865609602, 0.3876986663), (0.07, 0.0005071457, 0.0005567833)],
)
def test_one_pair(golden: dict[str, Tensor], temperature: float, forward: float, symmetric: float):
    pair = {"z0": golden["z0"], "z1": golden["z1"]}
    total = InfoNCE("z0", temperature=temperature)(pair).total
    assert total.item() == pytest.approx(symmetric, abs=1e-9)

    z_MBD = make_batch(pair).z_MBD
    logits_BB = z_MBD[0] @ z_MBD[1].mT / temperature
    one_way = torch.nn.functional.cross_entropy(logits_BB, torch.arange(4))
    assert one_way.item() == pytest.approx(forward, abs=1e-9)


@pytest.mark.parametrize(("name", "options", "expected"), CASES)
def test_reference_agrees_with_the_golden_values(
    golden: dict[str, Tensor], name: str, options: dict[str, Any], expected: float
):
    value = reference_total(create(name, **options), reference.unit_rows(golden), None)
    assert value.item() == pytest.approx(expected, abs=1e-9)


def test_terms_are_unweighted_and_detached(golden: dict[str, Tensor]):
    out = UniAlign("z0", preset="paper", temperature=0.5, volume_weight=0.1)(golden)
    assert set(out.terms) == {"uniformity/z0", "uniformity/z1", "uniformity/z2", "alignment", "centroid", "volume"}
    assert out.terms["uniformity/z0"].item() == pytest.approx(-4.525373, abs=1e-6)
    assert out.terms["alignment"].item() == pytest.approx(0.3396867940, abs=1e-9)
    assert out.terms["centroid"].item() == pytest.approx(-4.331197, abs=1e-6)
    assert out.terms["volume"].item() == pytest.approx(0.2376994365, abs=1e-9)
    assert not any(term.requires_grad for term in out.terms.values())


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (InfoNCE("z0"), {"contrast/z0-z1", "contrast/z0-z2"}),
        (InfoNCE(), {"contrast/z0-z1", "contrast/z0-z2", "contrast/z1-z2"}),
        (GRAM("z0"), {"volume_contrast"}),
        (Triangle("z0"), {"area_contrast"}),
        (Symile(), {"multilinear_contrast/z0", "multilinear_contrast/z1", "multilinear_contrast/z2"}),
        (PMRL(), {"rank_one", "direction_contrast"}),
    ],
)
def test_term_names(golden: dict[str, Tensor], objective: Objective, expected: set[str]):
    assert set(objective(golden).terms) == expected
