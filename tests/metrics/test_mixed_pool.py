"""Test mixed-pool retrieval against a slow reference that ranks every query in a Python loop."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

import unialign as ua
from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.metrics import PoolScores, mixed_pool
from unialign.metrics._pool_rows import draw_modalities, noisy_copies


def space(items: int = 40, dim: int = 6, seed: int = 0, names: Sequence[str] = ("a", "b", "c")) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(items, dim, generator=generator, dtype=torch.float64)
    return {
        name: torch.nn.functional.normalize(
            shared + 0.6 * torch.randn(items, dim, generator=generator, dtype=torch.float64), dim=1
        )
        for name in names
    }


def masks(z: Mapping[str, Tensor], seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(len(x), generator=generator) > 0.3 for name, x in z.items()}


def places(scores: Sequence[float], candidates: Sequence[int]) -> list[tuple[int, float, float]]:
    order = sorted(candidates, key=lambda j: -scores[j])
    found, start = [], 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and scores[order[stop - 1]] - scores[order[stop]] <= 1e-12:
            stop += 1
        gain = sum(1 / math.log2(place + 2) for place in range(start, stop) if place < 10) / (stop - start)
        inside = sum(place < 10 for place in range(start, stop)) / (stop - start)
        found += [(order[j], gain, inside) for j in range(start, stop)]
        start = stop
    return found


def reference(
    z: Mapping[str, Tensor],
    *,
    present: Mapping[str, Tensor],
    ids: Sequence[int],
    labels: Sequence[int],
    group: Sequence[str],
    seed: int,
) -> dict[str, float]:
    names = list(z)
    z_MND = torch.stack(list(z.values()))
    present_MN = torch.stack([present[name] for name in names])
    copies_MND = noisy_copies(z_MND, present_MN, 0.7, seed)
    inside_gN = torch.stack([present[name] for name in group])
    rows = [i for i in range(len(ids)) if int(inside_gN[:, i].sum()) >= 2]
    drawn = [group[j] for j in draw_modalities(inside_gN[:, rows].numpy(), seed)]
    values: dict[str, list[float]] = {"own": [], "cross": [], "share": [], "label_precision": []}
    for name in group:
        for i, modality in zip(rows, drawn, strict=True):
            if not present[name][i]:
                continue
            own = modality == name
            query = (copies_MND if own else z_MND)[names.index(name), i]
            scores = [float(query @ z[m][j]) for j, m in zip(rows, drawn, strict=True)]
            same = [ids[j] == ids[i] for j in rows]
            relevant = [s and (m == name) == own for s, m in zip(same, drawn, strict=True)]
            candidates = [g for g in range(len(rows)) if relevant[g] or not same[g]]
            ranked = places(scores, candidates)
            ideal = sum(1 / math.log2(place + 2) for place in range(min(10, sum(relevant))))
            values["own" if own else "cross"].append(sum(gain for g, gain, _ in ranked if relevant[g]) / ideal)
            top = sum(share for g, _, share in ranked if drawn[g] == name) / min(10, len(candidates))
            fair = sum(drawn[g] == name for g in candidates) / len(candidates)
            if fair:
                values["share"].append(top / fair)
            others = [g for g in range(len(rows)) if not same[g]]
            if labels[i] >= 0 and others:
                hits = sum(share for g, _, share in places(scores, others) if labels[rows[g]] == labels[i])
                values["label_precision"].append(hits / min(10, len(others)))
    means = {key: sum(found) / len(found) for key, found in values.items()}
    return means | {"balanced": (means["own"] + means["cross"]) / 2}


def check(scores: PoolScores, expected: Mapping[str, float]) -> None:
    for key, value in expected.items():
        assert getattr(scores, key) == pytest.approx(value, abs=1e-12), key


@pytest.mark.parametrize("ties", [False, True])
def test_pool_matches_the_reference(ties: bool) -> None:
    z = space()
    if ties:
        z["a"][5:9] = z["a"][4]
        z["b"][20:25] = z["a"][4]
        z["c"][::3] = z["c"][0]
    present, ids = masks(z), [i // 2 if i < 20 else i for i in range(40)]
    labels = [-1 if i % 7 == 0 else i % 3 for i in range(40)]
    found = mixed_pool(z, present=present, ids=torch.tensor(ids), labels=labels, seeds=(3,), batch_size=7)
    options = {"present": present, "ids": ids, "labels": labels, "seed": 3}
    check(found.overall, reference(z, group=["a", "b", "c"], **options))
    assert list(found.pairs) == ["a-b", "a-c", "b-c"]
    for pair, scores in found.pairs.items():
        check(scores, reference(z, group=pair.split("-"), **options))


def test_small_gallery_and_two_items() -> None:
    z = {name: x[:2] for name, x in space(names=("a", "b")).items()}
    found = mixed_pool(z, labels=[0, 0])
    everything = {name: torch.ones(2, dtype=torch.bool) for name in z}
    check(found.overall, reference(z, present=everything, ids=[0, 1], labels=[0, 0], group=["a", "b"], seed=0))
    assert found.overall.label_precision == 1.0
    assert found.pairs["a-b"].balanced == found.overall.balanced


def test_noisy_copies_have_the_centered_cosine() -> None:
    z = torch.stack(list(space(items=200, dim=20).values()))
    z[0] = torch.nn.functional.normalize(z[0] + torch.eye(20, dtype=z.dtype)[0], dim=1)
    present = torch.ones(3, 200, dtype=torch.bool)
    present[1, :50] = False
    copies = noisy_copies(z, present, 0.7, 0)
    assert torch.allclose(torch.linalg.vector_norm(copies, dim=2), torch.ones(3, 200, dtype=z.dtype))
    torch.testing.assert_close(copies[1, :50], z[1, :50])
    for m in range(3):
        mean = z[m, present[m]].mean(0)
        # The copies are normalized, so undo the scaling: the copy is mean + |x - mean| d with a unit vector d.
        x, y = z[m, present[m]] - mean, copies[m, present[m]]
        length = torch.linalg.vector_norm(x, dim=1)
        along, size = y @ mean, float(mean @ mean)
        scale = along + (along**2 - size + length**2).clamp(min=0).sqrt()
        other = along - (along**2 - size + length**2).clamp(min=0).sqrt()
        cosines = [((t[:, None] * y - mean) * x).sum(1) / length**2 for t in (scale, other)]
        nearest = torch.minimum(*((c - 0.7).abs() for c in cosines))
        assert float(nearest.max()) < 1e-9


def test_bias_shows_in_the_share_and_in_the_cross_half() -> None:
    z = space(items=300, dim=16, names=("a", "b"))
    shifted = z | {"a": torch.nn.functional.normalize(z["a"] + 2 * torch.eye(16, dtype=torch.float64)[0], dim=1)}
    before, after = mixed_pool(z, seeds=(0, 1)).overall, mixed_pool(shifted, seeds=(0, 1)).overall
    assert abs(before.share - 1) < 0.15
    assert after.share > 1.6
    assert after.cross < before.cross - 0.3
    assert len(before.items) == 2 * 600


def test_scores_may_be_replaced_and_copies_given() -> None:
    z = space(names=("a", "b"))
    same = mixed_pool(z, copies=z, score=lambda _, queries, __, rows: queries @ rows.mT)
    assert same.overall.own == 1.0
    hidden = mixed_pool(z, score=lambda q, queries, g, rows: queries @ rows.mT - 4.0 * (q == g))
    assert hidden.overall.cross > mixed_pool(z).overall.cross
    assert hidden.overall.balanced < mixed_pool(z).overall.balanced


def test_resampled_means_weight_items() -> None:
    scores = mixed_pool(space(names=("a", "b")), labels=np.arange(40) % 2).overall
    values = scores.resample(torch.ones(3, 40))
    for name in ("own", "cross", "balanced", "share", "label_precision"):
        assert values[name].shape == (3,)
        assert float(values[name][2]) == pytest.approx(getattr(scores, name), abs=1e-12)
    only = torch.zeros(1, 40)
    only[0, 7] = 2
    of_item = scores.ndcg[(scores.items == 7) & scores.is_own].mean()
    assert float(scores.resample(only)["own"]) == pytest.approx(float(of_item), abs=1e-12)


def test_equal_calls_give_equal_results_and_blocks_do_not_matter() -> None:
    z = space()
    one, two = mixed_pool(z, batch_size=3), ua.metrics.mixed_pool(z, batch_size=1000)
    assert torch.allclose(one.overall.ndcg, two.overall.ndcg, atol=1e-14)
    assert torch.equal(one.overall.items.sort().values, two.overall.items.sort().values)
    assert not torch.equal(one.overall.ndcg, mixed_pool(z, seeds=(1,), batch_size=3).overall.ndcg)


def test_missing_pairs_are_left_out() -> None:
    z, present = space(), {name: torch.zeros(40, dtype=torch.bool) for name in "abc"}
    present["a"][:], present["b"][:20], present["c"][20:] = True, True, True
    found = mixed_pool(z, present=present)
    assert list(found.pairs) == ["a-b", "a-c"]
    nothing = mixed_pool(z, present={"c": torch.zeros(40, dtype=torch.bool)})
    assert list(nothing.pairs) == ["a-b"]


def test_constant_modality_and_no_labels() -> None:
    z = space(names=("a", "b"))
    z["b"] = torch.ones(40, 6)
    found = mixed_pool(z)
    assert 0 <= found.overall.balanced <= 1
    assert math.isnan(found.overall.label_precision)


def test_invalid_input_is_rejected() -> None:
    z = space(names=("a", "b"))
    with pytest.raises(NonFiniteError, match="'a'"):
        mixed_pool(z | {"a": torch.full((40, 6), torch.nan)})
    with pytest.raises(ShapeError, match="at least 2 modalities"):
        mixed_pool({"a": z["a"]})
    with pytest.raises(ShapeError, match="at least two items"):
        mixed_pool({name: x[:1] for name, x in z.items()})
    with pytest.raises(ConfigError, match="seeds"):
        mixed_pool(z, seeds=())
    with pytest.raises(ConfigError, match="similarity"):
        mixed_pool(z, similarity=1.5)
    with pytest.raises(ConfigError, match="copies"):
        mixed_pool(z, copies={"a": z["a"]})
    with pytest.raises(NonFiniteError, match="score"):
        mixed_pool(z, score=lambda q, queries, g, rows: torch.full((len(queries), len(rows)), torch.nan))
