"""Test the weights of negatives with similar features (`similarity_scale`) against slow loops in float64.

Shapes: `B` items, `W` features.
"""

from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import reference
from benchmarks.saved_bytes import saved_bytes
from loss_cases import draw_batch, draw_ids, draw_present
from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.losses import InfoNCE, Matryoshka, Objective, Sigmoid, UniAlign, create
from unialign.ops import use_backend
from unialign.train import grad_cache_backward

ITEMS = 9
PRESETS = ("joint_queries", "classes", "retrieval")


def draw_features(seed: int, modalities: int = 3, items: int = ITEMS) -> dict[str, Tensor]:
    """Features with some equal rows, opposite rows and a row of norm zero."""
    generator = torch.Generator().manual_seed(seed)
    features = {f"m{m}": torch.randn(items, 4 + m, generator=generator, dtype=torch.float64) for m in range(modalities)}
    features["m0"][1] = 3 * features["m0"][0]
    features["m1"][2] = -features["m1"][3]
    features["m2"][4] = 0.0
    return features


def slow_unialign(loss: UniAlign, z: dict[str, Tensor], features: dict[str, Tensor], **call: Any) -> Tensor:
    settings = {key: value for key, value in loss.get_config().items() if key != "preset"}
    rows = reference.unit_rows(z, call.get("present"))
    ids = None if call.get("ids") is None else call["ids"].tolist()
    return reference.unialign(rows, similarity=features, ids=ids, **settings)


def slow_infonce(loss: InfoNCE, z: dict[str, Tensor], features: dict[str, Tensor], **call: Any) -> Tensor:
    rows = reference.unit_rows(z, call.get("present"))
    ids = None if call.get("ids") is None else call["ids"].tolist()
    weights = reference.log_weights_of(features, loss.similarity_scale)
    tau, losses = loss.get_config()["temperature"], []
    for m, n in combinations(rows, 2):
        pair = {name: rows[name] for name in (m, n)}
        options = {"anchor": "all", "kernel": "clip", "tau": tau, "ids": ids}
        partition = reference.cross_partitions(pair, log_weights=weights, **options)
        squares = reference.alignment(pair, anchor="all")
        if partition is not None and squares is not None:
            losses.append(partition + squares / (2 * tau))
    return reference.mean(losses)


def slow_sigmoid(loss: Sigmoid, z: dict[str, Tensor], features: dict[str, Tensor], **call: Any) -> Tensor:
    rows = reference.unit_rows(z, call.get("present"))
    ids = None if call.get("ids") is None else call["ids"].tolist()
    weights = reference.log_weights_of(features, loss.similarity_scale)
    scale, bias = loss.scale_and_bias()
    losses = []
    for m, n in combinations(rows, 2):
        items = [i for i in range(ITEMS) if rows[m][i] is not None and rows[n][i] is not None]
        parts = []
        for i in items:
            for j in items:
                logit = scale * (rows[m][i] * rows[n][j]).sum() + bias
                if i == j:
                    parts.append(torch.nn.functional.softplus(-logit))
                elif ids is None or ids[i] != ids[j]:
                    weight = torch.exp((weights[m][i][j] + weights[n][i][j]) / 2)
                    parts.append(weight * torch.nn.functional.softplus(logit))
        if items:
            losses.append(sum(parts) / len(items))
    return reference.mean(losses)


CASES: dict[str, tuple[Objective, Any]] = {
    **{preset: (UniAlign(preset=preset), slow_unialign) for preset in PRESETS},
    "anchor": (UniAlign("m1", partition_mix=0.5, similarity_scale=4.0), slow_unialign),
    "within": (UniAlign("m1", partition_mix=1.0, similarity_scale=4.0, temperature=0.01), slow_unialign),
    "geodesic": (UniAlign(preset="geodesic", similarity_scale=3.0, partition_mix=0.3), slow_unialign),
    "centroid": (UniAlign("centroid", similarity_scale=3.0, centroid_weight=0.5), slow_unialign),
    "infonce": (InfoNCE(similarity_scale=5.0, temperature=0.2), slow_infonce),
    "infonce-cold": (InfoNCE(similarity_scale=5.0, temperature=0.015), slow_infonce),
    "sigmoid": (Sigmoid(similarity_scale=5.0), slow_sigmoid),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rows", ["all", "some"])
def test_value_and_gradient(case: str, rows: str) -> None:
    objective, slow = CASES[case]
    z, features = draw_batch(1, 3, ITEMS, 6), draw_features(2)
    call: dict[str, Any] = {}
    if rows == "some":
        call = {"present": draw_present(3, 3, ITEMS), "ids": draw_ids(4, ITEMS)}
        for name, mask in call["present"].items():
            features[name][~mask] = torch.nan  # unused
    leaves = {name: x.requires_grad_() for name, x in z.items()}
    found = objective.double()(leaves, similarity=features, **call).total
    expected = slow(objective, leaves, {name: x.nan_to_num() for name, x in features.items()}, **call)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    slopes = [torch.autograd.grad(total, list(leaves.values())) for total in (found, expected)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_float32_and_the_dense_reference(case: str) -> None:
    objective, _ = CASES[case]
    z, features, present = draw_batch(5, 3, 40, 6), draw_features(6, items=40), draw_present(7, 3, 40)
    results = []
    for backend, dtype in (("tiled", torch.float64), ("reference", torch.float64), ("tiled", torch.float32)):
        leaves = {name: x.to(dtype).requires_grad_() for name, x in z.items()}
        with use_backend(backend):
            total = objective.to(dtype)(leaves, similarity=features, present=present).total
        assert total.dtype == dtype
        slopes = torch.autograd.grad(total, list(leaves.values()))
        results.append([total.double(), *(slope.double() for slope in slopes)])
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(results[2], results[0], rtol=2e-4, atol=2e-5)


def test_equal_weights_are_the_plain_objectives() -> None:
    """Features with nonpositive cosines have weights of 1."""
    z = draw_batch(8, 3, 6, 5)
    apart = {name: torch.eye(6, dtype=torch.float64) for name in z}
    for weighted, plain in (
        (UniAlign("m0", partition_mix=0.4, similarity_scale=7.0), UniAlign("m0", partition_mix=0.4)),
        (InfoNCE(similarity_scale=7.0), InfoNCE()),
        (Sigmoid(similarity_scale=7.0), Sigmoid()),
    ):
        torch.testing.assert_close(
            weighted.double()(z, similarity=apart).total, plain.double()(z).total, rtol=1e-12, atol=1e-12
        )


def test_large_scales_are_ids() -> None:
    """Negatives of equal features and a large s have no weight, as with equal ids."""
    z, ids = draw_batch(9, 3, 6, 5), torch.tensor([0, 1, 0, 2, 3, 1])
    features = {name: torch.nn.functional.one_hot(ids).double() for name in z}
    for options in ({"partition_mix": 0.5}, {"partition_mix": 0.5, "partition_positive": "excluded"}):
        soft = UniAlign(similarity_scale=1000.0, **options)(z, similarity=features)  # type: ignore[arg-type]
        hard = UniAlign(**options)(z, ids=ids)  # type: ignore[arg-type]
        for name in hard.terms:
            shift = 0.0
            if name.startswith("uniformity"):  # means over 5 other items instead of those with other ids
                counts = (ids[:, None] != ids).sum(1).double()
                shift = float(torch.log(counts / 5).mean())
            torch.testing.assert_close(soft.terms[name], hard.terms[name] + shift, rtol=1e-12, atol=1e-12)


@given(seed=st.integers(0, 2**31 - 1), case=st.sampled_from(sorted(CASES)))
def test_order_of_items_and_modalities(seed: int, case: str) -> None:
    objective, _ = CASES[case]
    z, features, present = draw_batch(seed, 3, ITEMS, 6), draw_features(seed + 1), draw_present(seed + 2, 3, ITEMS)
    order = torch.randperm(ITEMS, generator=torch.Generator().manual_seed(seed))
    names = ["m2", "m0", "m1"]
    total = objective.double()(z, similarity=features, present=present).total
    moved = objective.double()(
        {name: z[name][order] for name in names},
        similarity={name: features[name][order] for name in names},
        present={name: present[name][order] for name in names},
    ).total
    torch.testing.assert_close(moved, total, rtol=1e-11, atol=1e-11)


def test_scale_of_features_and_their_gradient() -> None:
    z, features = draw_batch(10, 3, ITEMS, 6), draw_features(11)
    loss = UniAlign(preset="retrieval")
    scaled = {name: (3.7 * x).requires_grad_() for name, x in features.items()}
    leaves = {name: x.requires_grad_() for name, x in z.items()}
    total = loss(leaves, similarity=scaled).total
    torch.testing.assert_close(total, loss(z, similarity=features).total, rtol=1e-12, atol=1e-12)
    total.backward()
    assert all(x.grad is None for x in scaled.values())


@pytest.mark.parametrize("factor", [1e-290, 1e-30, 1e30, 1e300])
def test_features_beyond_float32(factor: float) -> None:
    z = {name: x.float() for name, x in draw_batch(23, 3, ITEMS, 6).items()}
    features, loss = draw_features(24), UniAlign(preset="retrieval")
    expected = loss(z, similarity=features).total
    scaled = {name: factor * x for name, x in features.items()}
    torch.testing.assert_close(loss(z, similarity=scaled).total, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_under_autocast(dtype: torch.dtype) -> None:
    """The loss of half-precision rows is that of the same rows in float32."""
    z = {name: x.to(dtype) for name, x in draw_batch(25, 3, ITEMS, 6).items()}
    features = {name: x.to(dtype) for name, x in draw_features(26).items()}
    whole = [{name: x.float() for name, x in rows.items()} for rows in (z, features)]
    for loss in (UniAlign(preset="retrieval"), InfoNCE(similarity_scale=5.0), Sigmoid(similarity_scale=5.0)):
        expected = loss(whole[0], similarity=whole[1]).total
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(loss(z, similarity=features).total, expected)


@pytest.mark.parametrize("case", ["retrieval", "infonce", "sigmoid"])
def test_inside_checkpointing_and_a_compiled_graph(case: str) -> None:
    torch.compiler.reset()  # All cases share the limit on compilations.
    z, features, objective = draw_batch(27, 3, ITEMS, 6), draw_features(28), CASES[case][0].double()
    leaves = [x.requires_grad_() for x in z.values()]

    def total(*rows: Tensor) -> Tensor:
        return objective(dict(zip(z, rows, strict=True)), similarity=features).total

    value = total(*leaves)
    slopes = torch.autograd.grad(value, leaves, retain_graph=True)
    assert all(map(torch.equal, torch.autograd.grad(value, leaves), slopes))
    # Checkpointing allows only one read of each saved tensor.
    checkpointed = checkpoint(total, *leaves, use_reentrant=False)
    assert all(map(torch.equal, torch.autograd.grad(checkpointed, leaves), slopes))
    compiled = torch.compile(total, backend="eager", fullgraph=True)(*leaves)
    torch.testing.assert_close(compiled, value)
    torch.testing.assert_close(torch.autograd.grad(compiled, leaves, create_graph=True), slopes)
    (g,) = torch.autograd.grad(total(*leaves), leaves[0], create_graph=True)
    with pytest.raises(ConfigError, match="second derivative"):
        g.sum().backward()


def test_scales_of_modalities() -> None:
    z, features = draw_batch(12, 3, ITEMS, 6), draw_features(13)
    loss = UniAlign(partition_mix=0.5, similarity_scale={"m0": 5.0, "m2": 2.0})
    with_zero = {"m0": features["m0"], "m2": features["m2"] * 1.0, "m1": torch.zeros_like(features["m1"])}
    found = loss(z, similarity=features)
    torch.testing.assert_close(found.total, loss(z, similarity=with_zero).total, rtol=1e-12, atol=1e-12)
    del with_zero["m1"]  # m1 has no scale
    torch.testing.assert_close(found.total, loss(z, similarity=with_zero).total, rtol=1e-12, atol=1e-12)
    single = UniAlign(partition_mix=0.5, similarity_scale=5.0)(z, similarity=features)
    torch.testing.assert_close(found.terms["uniformity/m0"], single.terms["uniformity/m0"])
    assert found.terms["uniformity/m2"] > single.terms["uniformity/m2"]
    assert create("unialign", **loss.get_config()).similarity_scale == {"m0": 5.0, "m2": 2.0}


@pytest.mark.parametrize(
    "objective",
    [
        UniAlign(preset="retrieval"),
        UniAlign(preset="joint_queries", kernel="gaussian"),
        UniAlign("m0", partition_mix=0.3, partition_positive="excluded"),
        InfoNCE(similarity_scale=5.0),
        Sigmoid(similarity_scale=5.0, mode="fixed"),
    ],
    ids=["retrieval", "gaussian", "decoupled", "infonce", "sigmoid"],
)
def test_gradient_of_a_temperature(objective: Objective) -> None:
    z, features = draw_batch(14, 3, ITEMS, 6), draw_features(15)
    present = draw_present(16, 3, ITEMS)

    def total(tau: Tensor) -> Tensor:
        return objective.double()(z, similarity=features, present=present, temperature=tau).total

    tau = torch.tensor(0.21, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(total(tau), tau)
    step = 1e-6
    expected = (total(tau.detach() + step) - total(tau.detach() - step)) / (2 * step)
    torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-6)


def test_learnable_temperature() -> None:
    z, features = draw_batch(17, 3, ITEMS, 6), draw_features(18)
    loss = InfoNCE(similarity_scale=5.0, temperature_mode="learnable").double()
    loss(z, similarity=features).total.backward()
    found = next(loss.parameters()).grad
    assert found is not None
    assert found.abs() > 1e-4


@pytest.mark.parametrize("case", CASES)
def test_saved_bytes(case: str) -> None:
    """O(B (D + W)), without any B x B matrix."""
    objective, _ = CASES[case]
    kept = []
    for items in (256, 512, 1024):
        leaves = {name: x.float().requires_grad_() for name, x in draw_batch(1, 3, items, 8).items()}
        features = {name: x.float() for name, x in draw_features(2, items=items).items()}
        kept.append(saved_bytes(lambda z=leaves, x=features: objective.float()(z, similarity=x).total))
    assert kept[1] <= 2.1 * kept[0]
    assert kept[2] <= 2.1 * kept[1]
    assert kept[2] < 1024 * 1024 * 4


def test_wrapped_and_cached() -> None:
    z, features = draw_batch(19, 3, 8, 6), draw_features(20, items=8)
    inner = UniAlign(preset="retrieval")
    wrapped = Matryoshka(inner, (3, 6))
    assert wrapped.needs_similarity()
    prefix = {name: x[:, :3] for name, x in z.items()}
    expected = inner(z, similarity=features).total + inner(prefix, similarity=features).total
    torch.testing.assert_close(wrapped(z, similarity=features).total, expected, rtol=1e-12, atol=1e-12)
    whole, cached = ({name: x.clone().requires_grad_() for name, x in z.items()} for _ in range(2))
    inner(whole, similarity=features).total.backward()
    parts = list(zip(*(x.split(3) for x in cached.values()), strict=True))
    grad_cache_backward(inner, lambda part: dict(zip(cached, part, strict=True)), parts, similarity=features)
    for name in z:
        torch.testing.assert_close(cached[name].grad, whole[name].grad, rtol=1e-10, atol=1e-12)


def test_few_items() -> None:
    features = {"a": torch.ones(1, 3), "b": torch.ones(1, 2)}
    z = {name: torch.ones(1, 4, requires_grad=True) for name in features}
    for objective in (UniAlign(preset="retrieval"), InfoNCE(similarity_scale=1.0), Sigmoid(similarity_scale=1.0)):
        assert objective(z, similarity=features).total.isfinite()
    out = UniAlign(preset="joint_queries")(z, similarity=features)
    assert set(out.terms) == {"alignment"}
    nobody = {name: torch.zeros(1, dtype=torch.bool) for name in z}
    total = UniAlign(preset="retrieval")(z, similarity=features, present=nobody).total
    total.backward()
    assert total == 0


def test_errors() -> None:
    z, features = draw_batch(21, 3, ITEMS, 6), draw_features(22)
    loss = UniAlign(preset="retrieval")
    with pytest.raises(ConfigError, match=r"similarity_scale=5 needs similarity= of 'm0', given not in this call"):
        loss(z)
    with pytest.raises(ConfigError, match=r"needs similarity= of 'm2', given only for 'm0', 'm1'"):
        loss(z, similarity={name: features[name] for name in ("m0", "m1")})
    with pytest.raises(ConfigError, match=r"`similarity` has 'm3', which is not a modality"):
        loss(z, similarity=features | {"m3": features["m0"]})
    with pytest.raises(ShapeError, match=r"similarity\['m0'\] has shape \(8, 4\).*the batch has 9 items"):
        loss(z, similarity=features | {"m0": features["m0"][:8]})
    with pytest.raises(ShapeError, match=r"similarity must be a mapping"):
        loss(z, similarity=features["m0"])  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"similarity\['m1'\] must be a torch tensor"):
        loss(z, similarity=features | {"m1": features["m1"].numpy()})
    broken = features["m1"].clone()
    broken[5, 2] = torch.nan
    with pytest.raises(NonFiniteError, match=r"similarity\['m1'\] row 5"):
        loss(z, similarity=features | {"m1": broken})
    with pytest.raises(ConfigError, match=r"gram does not support similarity= in a call"):
        create("gram", anchor="m0")(z, similarity=features)
    with pytest.raises(ConfigError, match=r"similarity_scale has 'm9', which is not a modality; expected some of 'm0'"):
        InfoNCE(similarity_scale={"m0": 5.0, "m9": 5.0})(z, similarity=features)
    with pytest.raises(ConfigError, match=r"partition_mix below 1 does not support weighting='sum'"):
        UniAlign(preset="joint_queries", weighting="sum")
    for scale in (-1.0, float("nan"), 1e4):
        with pytest.raises(ConfigError, match=r"similarity_scale must be a number from 0 to 1e3"):
            UniAlign(similarity_scale=scale)
    with pytest.raises(ConfigError, match=r"similarity_scale\['m0'\] must be a number"):
        InfoNCE(similarity_scale={"m0": -1.0})
    with pytest.raises(ConfigError, match=r"similarity_scale needs reduction='mean_log'"):
        UniAlign("m0", similarity_scale=1.0, reduction="outer_log")
    with pytest.raises(ConfigError, match=r"similarity_scale supports neither label_smoothing"):
        InfoNCE(similarity_scale=1.0, label_smoothing=0.1)
    with pytest.raises(ConfigError, match=r"does not support negatives= and queue="):
        InfoNCE(similarity_scale=1.0)(z, similarity=features, negatives={"m0": torch.randn(3, 6)})
    assert InfoNCE()(z, similarity=features).total == InfoNCE()(z).total
