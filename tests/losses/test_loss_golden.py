"""Compare totals on a fixed batch with the values of two independent implementations."""

from typing import Any

import pytest
import torch
from torch import Tensor

import reference
from loss_cases import reference_total
from unialign.batch import make_batch
from unialign.losses import (
    CUA,
    GRAM,
    PMRL,
    AlignUniform,
    CSAligner,
    InfoNCE,
    ModGap,
    Objective,
    Sigmoid,
    Symile,
    Triangle,
    UniAlign,
    create,
)

PAPER = {"anchor": "z0", "preset": "paper", "temperature": 0.5}
CORE = {"centroid_weight": 0.0, "volume_weight": 0.0}
CLIP = {"kernel": "clip", "alignment_scale": 1.0}
BALANCED = {"anchor": "z0", "preset": "balanced", "temperature": 0.5}
TRIANGLE = {"anchor": "z0", "temperature": 0.5, "label_smoothing": 0.0}
DIVERGENCE = {"anchor": "z0", "contrast_weight": 0.0}
HOLDER = DIVERGENCE | {"divergence": "holder"}
MMD = DIVERGENCE | {"divergence": "mmd"}

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
    ("modgap", {"anchor": "z0", "contrast_weight": 0.0}, -3.7870474164),
    ("cs_aligner", HOLDER | {"bandwidth": 0.5}, 0.4354055315),
    ("cs_aligner", HOLDER | {"bandwidth": 1.0}, 0.0153507424),
    ("unialign", PAPER | CORE, -12.1663256044),
    ("unialign", PAPER, -16.2598234946),
    ("unialign", PAPER | CLIP | CORE, -6.3515003859),
    ("unialign", PAPER | CLIP, -8.3889267539),
    ("unialign", BALANCED | {"kernel": "gaussian"}, -3.4892972114),
    ("unialign", BALANCED, -1.8907089326),
    ("unialign", {"preset": "small_batch"}, -8.7816409016),
    ("unialign", {"preset": "retrieval", "similarity_scale": 0.0}, -10.4226517070),
]
# With the flipped rows as features.
WEIGHTED: list[tuple[str, dict[str, Any], float]] = [
    ("unialign", {"preset": "joint_queries"}, -10.1746090647),
    ("unialign", {"preset": "classes"}, -10.1769512660),
    ("unialign", {"preset": "retrieval"}, -11.0890803921),
    ("infonce", {"similarity_scale": 5.0, "temperature": 0.5}, 0.3117715793),
    ("infonce", {"similarity_scale": 5.0, "temperature": 0.07}, 0.0351652474),
]


@pytest.mark.parametrize(("name", "options", "expected"), CASES)
def test_total(golden: dict[str, Tensor], name: str, options: dict[str, Any], expected: float):
    for dtype in [torch.float64, torch.float32]:
        out = create(name, **options).to(dtype)({m: z.to(dtype) for m, z in golden.items()})
        assert out.total.dtype == dtype
        tolerance = 1e-9 if dtype == torch.float64 else 1e-5 * max(1, abs(expected))
        assert out.total.item() == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(("name", "options", "expected"), WEIGHTED)
def test_weighted_total(golden: dict[str, Tensor], name: str, options: dict[str, Any], expected: float):
    features = {m: z.flip(1) for m, z in golden.items()}
    assert create(name, **options)(golden, similarity=features).total.item() == pytest.approx(expected, abs=1e-9)


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


ONE_PAIR: list[tuple[str, dict[str, Any], float]] = [
    ("sigmoid", {"anchor": "z0"}, 1.5442079016),
    ("cua", {"contrast_weight": 0.0}, -3.7592935025),
    ("cua", {"contrast_weight": 0.0, "cross_term": "xu"}, -3.7592935025 - 3.7498449662),
    ("align_uniform", {}, -3.7592935025),
    ("cs_aligner", DIVERGENCE | {"bandwidth": 0.5}, 0.9180673074),
    ("cs_aligner", DIVERGENCE | {"bandwidth": 1.0}, 0.0982193941),
    ("cs_aligner", MMD | {"bandwidth": 0.5}, 0.1943869911),
    ("cs_aligner", MMD | {"bandwidth": 1.0}, 0.0474559487),
]


@pytest.mark.parametrize(("name", "options", "expected"), ONE_PAIR)
def test_objectives_of_one_pair(golden: dict[str, Tensor], name: str, options: dict[str, Any], expected: float):
    pair = {"z0": golden["z0"], "z1": golden["z1"]}
    assert create(name, **options).double()(pair).total.item() == pytest.approx(expected, abs=1e-9)
    expected_total = reference_total(create(name, **options), reference.unit_rows(pair), None)
    assert expected_total.item() == pytest.approx(expected, abs=1e-9)
    single = create(name, **options)({m: z.float() for m, z in pair.items()}).total
    assert single.item() == pytest.approx(expected, abs=1e-5)


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
        (Sigmoid("z0"), {"sigmoid/z0-z1", "sigmoid/z0-z2"}),
        (CSAligner("z1"), {"contrast/z1-z0", "contrast/z1-z2", "divergence/z1-z0", "divergence/z1-z2"}),
        (CSAligner(divergence="holder", contrast_weight=0.0), {"divergence"}),
        (CSAligner("z0", divergence_weight=0.0), {"contrast/z0-z1", "contrast/z0-z2"}),
        (ModGap("z0"), {"alignment", "centroid", "contrast/z0-z1", "contrast/z0-z2"}),
        (ModGap("z0", contrast_weight=0.0), {"alignment", "centroid"}),
        (CUA("z0", contrast_weight=0.0), {"uniformity/z0", "uniformity/z1", "uniformity/z2", "alignment"}),
        (AlignUniform(uniformity_weight=0.0), {"alignment"}),
        (UniAlign("z0", partition_mix=0.0), {"partition/z0-z1", "partition/z0-z2", "alignment"}),
        (Triangle("z0"), {"area_contrast"}),
        (Symile(), {"multilinear_contrast/z0", "multilinear_contrast/z1", "multilinear_contrast/z2"}),
        (PMRL(), {"rank_one", "direction_contrast"}),
    ],
)
def test_term_names(golden: dict[str, Tensor], objective: Objective, expected: set[str]):
    assert set(objective(golden).terms) == expected
