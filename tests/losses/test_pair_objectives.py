"""Test properties of Sigmoid, CS-Aligner, ModGap, CUA and Align+Uniform."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import reference
from loss_cases import draw_batch, draw_present, value_and_gradients
from unialign.batch import make_batch
from unialign.errors import ConfigError
from unialign.functional._alignment import _power as distance_power
from unialign.functional._density import median_bandwidth_of
from unialign.losses import CUA, AlignUniform, CSAligner, InfoNCE, ModGap, Sigmoid, UniAlign
from unialign.losses._bounded_parameter import BoundedParameter


def unit(embeddings: dict[str, Tensor]) -> list[Tensor]:
    return [z / z.norm(dim=-1, keepdim=True) for z in embeddings.values()]


def log_potential(z_BD: Tensor, t: float) -> Tensor:
    return torch.pdist(z_BD).pow(2).mul(-t).exp().mean().log()


# --- Sigmoid ----------------------------------------------------------------------------------------------------------


def test_sigmoid_equals_its_definition():
    embeddings = draw_batch(1, 2, 5, 6)
    x_BD, y_BD = unit(embeddings)
    logits_BB = 7 * x_BD @ y_BD.mT - 3
    signs_BB = 2 * torch.eye(5, dtype=torch.float64) - 1
    expected = -torch.log(torch.sigmoid(signs_BB * logits_BB)).sum() / 5
    torch.testing.assert_close(Sigmoid(scale=7.0, bias=-3.0).double()(embeddings).total, expected)


def test_sigmoid_of_large_logits_is_finite_and_has_a_gradient():
    """A naive float32 log(sigmoid(x)) underflows to -inf for large negative x, with a NaN gradient."""
    z = torch.eye(4, 6)
    objective = Sigmoid(scale=200.0, bias=-1.0, mode="fixed")
    value, gradients = value_and_gradients(objective, {"a": z, "b": -z + 0.1 * z.roll(1, 0)})
    assert 150 < value < 250
    assert all(gradient.norm() > 1 for gradient in gradients.values())


def test_sigmoid_excludes_same_id_items():
    embeddings = draw_batch(2, 2, 3, 4)
    x_BD, y_BD = unit(embeddings)
    logits_BB = 10 * x_BD @ y_BD.mT - 10
    own = torch.nn.functional.softplus(-logits_BB.diagonal()).sum()
    other = torch.nn.functional.softplus(logits_BB)
    expected = (own + other[0, 2] + other[1, 2] + other[2, 0] + other[2, 1]) / 3
    total = Sigmoid().double()(embeddings, ids=torch.tensor([5, 5, 6])).total
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize(("name", "start", "low", "high"), [("scale", 10.0, 1.0, 200.0), ("bias", -10.0, -50.0, 50.0)])
def test_scale_and_bias_are_clamped_and_recover(name: str, start: float, low: float, high: float):
    objective = Sigmoid("m0")
    embeddings = draw_batch(3, 2, 5, 6, torch.float32)
    (held,) = [m for m in objective.modules() if isinstance(m, BoundedParameter) and m.option == name]
    assert held.value() == start
    assert held.at_bound() is None
    for push, side, bound in ((-1e4, "low", low), (1e4, "high", high)):
        with torch.no_grad():
            held.shift.fill_(push)
        total = objective(embeddings).total
        total.backward()
        assert total.isfinite()
        assert held.value() == pytest.approx(bound, rel=1e-5)
        assert held.at_bound() == side
        assert held.shift.grad is not None
        with torch.no_grad():
            held.shift.add_(-math.copysign(0.5, push))
        assert held.at_bound() is None


def test_gradients_of_scale_and_bias():
    objective = Sigmoid("all", sharing="per_pair", modalities=["m0", "m1", "m2"], scale=3.0, bias=-1.0).double()
    embeddings = draw_batch(4, 3, 5, 6)
    names = [name for name, _ in objective.named_parameters()]
    assert len(names) == 6

    def total(*values: Tensor) -> Tensor:
        class Total(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.objective = objective

            def forward(self) -> Tensor:
                return self.objective(embeddings).total

        given = {f"objective.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(Total(), given, ())

    start = [torch.full((), 0.1 * k, dtype=torch.float64, requires_grad=True) for k in range(6)]
    assert torch.autograd.gradcheck(total, start)


def test_each_pair_has_its_own_scale_and_bias():
    objective = Sigmoid("text", sharing="per_pair", modalities=("image", "text", "audio"))
    embeddings = dict(zip(("image", "text", "audio"), draw_batch(5, 3, 6, 8, torch.float32).values(), strict=True))
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.3)
    absent = {"audio": torch.zeros(6, dtype=torch.bool)}
    objective(embeddings, present=absent).total.backward()
    optimizer.step()
    assert objective.scale_and_bias("audio", "text") == (10, -10)
    assert objective.scale_and_bias("text", "image") == objective.scale_and_bias("image", "text") != (10, -10)
    # The order of the modalities in the batch does not matter.
    turned = {m: embeddings[m] for m in ("audio", "image", "text")}
    torch.testing.assert_close(objective(turned).total, objective(embeddings).total)
    fresh = Sigmoid(**objective.get_config())
    fresh.load_state_dict(objective.state_dict())
    assert torch.equal(fresh(embeddings).total, objective(embeddings).total)


def test_unknown_pairs_raise():
    objective = Sigmoid("m0", sharing="per_pair", modalities=["m0", "m1"])
    with pytest.raises(ConfigError, match=r"no scale and bias for the pair 'm0', 'm2'; .*modalities=\['m0', 'm1'\]"):
        objective(draw_batch(6, 3, 4, 5))


# --- CS-Aligner -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("divergence", ["cauchy_schwarz", "mmd", "holder"])
def test_divergence_of_modalities_without_common_items(divergence: Any):
    """The divergence compares two distributions even if InfoNCE has no pair."""
    embeddings = draw_batch(7, 2, 8, 5)
    first = torch.arange(8) < 4
    objective = CSAligner("m0", divergence=divergence, bandwidth=0.8)
    present = {"m0": first, "m1": ~first}
    out = objective(embeddings, present=present)
    assert set(out.terms) == ({"divergence"} if divergence == "holder" else {"divergence/m0-m1"})
    assert out.total > 0
    _, gradients = value_and_gradients(objective, embeddings, present=present)
    assert (gradients["m0"][first].norm(dim=-1) > 0).all()
    assert (gradients["m1"][~first].norm(dim=-1) > 0).all()
    expected = reference.cs_aligner(
        reference.unit_rows(embeddings, present),
        anchor="m0",
        tau=0.07,
        contrast_weight=1.0,
        divergence_weight=1.0,
        divergence=divergence,
        bandwidth=0.8,
    )
    torch.testing.assert_close(out.total, expected)


def test_unpaired_rows_enter_the_divergence_but_not_the_contrast():
    embeddings = draw_batch(8, 2, 6, 5)
    present = {"m1": torch.arange(6) < 4}
    both = {m: z[:4] for m, z in embeddings.items()}
    out, paired = (CSAligner("m0", bandwidth=0.8)(z, present=p) for z, p in ((embeddings, present), (both, None)))
    torch.testing.assert_close(out.terms["contrast/m0-m1"], paired.terms["contrast/m0-m1"])
    assert out.terms["divergence/m0-m1"] != pytest.approx(paired.terms["divergence/m0-m1"].item(), abs=1e-6)


def test_median_bandwidth_covers_all_modalities_and_has_no_gradient():
    embeddings, present = draw_batch(9, 3, 7, 5), draw_present(9, 3, 7)
    batch = make_batch(embeddings, present=present)
    bandwidth = median_bandwidth_of([batch.z_MBD[m, batch.present_MB[m]] for m in range(3)])
    for divergence in ("cauchy_schwarz", "mmd", "holder"):
        by_median = CSAligner("m0", divergence=divergence)  # type: ignore[arg-type]
        by_number = CSAligner("m0", divergence=divergence, bandwidth=bandwidth)  # type: ignore[arg-type]
        value, gradients = value_and_gradients(by_median, embeddings, present=present)
        expected, expected_gradients = value_and_gradients(by_number, embeddings, present=present)
        assert torch.equal(value, expected)
        assert all(torch.equal(gradients[m], expected_gradients[m]) for m in embeddings)


def test_cs_aligner_contains_infonce():
    embeddings = draw_batch(10, 3, 6, 5)
    alone = CSAligner("m0", divergence_weight=0.0, temperature=0.2)(embeddings).total
    assert torch.equal(alone, InfoNCE("m0", temperature=0.2)(embeddings).total)
    assert CSAligner("m0", divergence_weight=0.0, contrast_weight=0.0)(embeddings).terms == {}


@pytest.mark.parametrize("divergence", ["cauchy_schwarz", "mmd", "holder"])
def test_minimizing_a_divergence_moves_distributions_together(divergence: Any):
    """Minimizing the divergence of two distant clouds without common items brings them together."""
    z = draw_batch(11, 2, 16, 4)
    z["m0"], z["m1"] = z["m0"] * 0.3 + 1, (z["m1"] * 0.3 - 1).requires_grad_()
    present = {"m0": torch.arange(16) < 8, "m1": torch.arange(16) >= 8}
    objective = CSAligner("m0", divergence=divergence, bandwidth=1.0, contrast_weight=0.0)
    optimizer = torch.optim.Adam([z["m1"]], lr=0.1)
    start = objective(z, present=present).total.item()
    for _ in range(60):
        optimizer.zero_grad()
        objective(z, present=present).total.backward()
        optimizer.step()
    assert objective(z, present=present).total.item() < 0.1 * start


# --- CUA, ModGap, Align+Uniform ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("anchor", ["m0", "all"])
def test_cua_equals_its_definition(anchor: str):
    embeddings = draw_batch(12, 2, 5, 6)
    x_BD, y_BD = unit(embeddings)
    spread = (log_potential(x_BD, 2) + log_potential(y_BD, 2)) / 2
    pull = ((x_BD - y_BD) ** 2).sum(-1).mean()
    apart_BB = ~torch.eye(5, dtype=torch.bool)
    cross = ((torch.cdist(x_BD, y_BD) ** 2).mul(-2).exp()[apart_BB]).mean().log()
    contrast = InfoNCE(anchor, temperature=0.01)(embeddings).total
    torch.testing.assert_close(CUA(anchor)(embeddings).total, contrast + spread + pull)
    torch.testing.assert_close(CUA(anchor, cross_term="xu")(embeddings).total, contrast + spread + pull + cross)


def test_cua_weights_modalities_by_their_pairs():
    """The mean of (U_0 + U_1) / 2 and (U_0 + U_2) / 2 gives the anchor twice the weight of the other modalities."""
    embeddings = draw_batch(13, 3, 5, 6)
    terms = CUA("m0", contrast_weight=0.0).compute(embeddings)[1]
    assert {name: term.weight for name, term in terms.items() if name.startswith("uniformity")} == {
        "uniformity/m0": 1 / 2,
        "uniformity/m1": 1 / 4,
        "uniformity/m2": 1 / 4,
    }
    terms = CUA("all", contrast_weight=0.0).compute(embeddings)[1]
    assert [terms[f"uniformity/m{m}"].weight for m in range(3)] == pytest.approx([1 / 3] * 3)
    # A modality with one row has no uniformity, so its pair is excluded from the mean.
    one = {"m2": torch.arange(5) == 0}
    terms = CUA("m0", contrast_weight=0.0).compute(embeddings, present=one)[1]
    assert set(terms) == {"uniformity/m0", "uniformity/m1", "alignment"}
    assert terms["uniformity/m0"].weight == terms["uniformity/m1"].weight == 1 / 2


def test_modgap_is_alignment_uniform_centroids_and_infonce():
    embeddings = draw_batch(14, 3, 5, 6)
    out = ModGap("m0")(embeddings)
    unialign = UniAlign("m0", kernel="wang_isola", centroid_weight=1.0)(embeddings)
    assert torch.equal(out.terms["alignment"], unialign.terms["alignment"])
    torch.testing.assert_close(out.terms["centroid"], unialign.terms["centroid"])
    middle_BD = torch.stack(unit(embeddings)).mean(0)
    torch.testing.assert_close(
        out.terms["centroid"], log_potential(middle_BD / middle_BD.norm(dim=-1, keepdim=True), 2)
    )
    contrast = InfoNCE("m0", temperature=0.1)(embeddings).total
    torch.testing.assert_close(out.total, out.terms["alignment"] + out.terms["centroid"] + contrast)


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("t", [0.5, 2.0])
def test_align_uniform_equals_its_definition(alpha: float, t: float):
    embeddings = draw_batch(15, 2, 5, 6)
    x_BD, y_BD = unit(embeddings)
    pull = (x_BD - y_BD).norm(dim=-1).pow(alpha).mean()
    expected = pull + 0.7 * (log_potential(x_BD, t) + log_potential(y_BD, t)) / 2
    total = AlignUniform(alpha=alpha, t=t, uniformity_weight=0.7)(embeddings).total
    torch.testing.assert_close(total, expected)


def test_largest_alpha_is_finite():
    """The alignment of opposite rows is 2^alpha, which must not overflow float32."""
    value, gradients = value_and_gradients(AlignUniform(alpha=64.0), {"a": torch.eye(3, 4), "b": -torch.eye(3, 4)})
    assert math.isfinite(value)
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    with pytest.raises(ConfigError, match="alpha must be from 1 to 64"):
        AlignUniform(alpha=65.0)


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, 3.0])
def test_distance_of_equal_rows_has_a_finite_gradient(alpha: float):
    """A naive implementation has a NaN gradient at distance 0."""
    square = torch.tensor([0.0, 4.0], dtype=torch.float64, requires_grad=True)
    power = distance_power(square, alpha)
    power.sum().backward()
    assert power.tolist() == pytest.approx([0, 2**alpha])
    assert square.grad is not None
    assert square.grad.tolist() == pytest.approx([1.0 if alpha == 2 else 0.0, alpha / 2 * 4 ** (alpha / 2 - 1)])


def test_single_rows_and_copies_are_finite():
    """Implementations with torch.pdist give NaN for one row and do not support half precision."""
    one = draw_batch(16, 3, 1, 5, torch.bfloat16)
    for objective in (CUA("m0", cross_term="xu"), ModGap("m0"), AlignUniform("m0"), CSAligner("m0"), Sigmoid("m0")):
        for ids in (None, torch.tensor([3])):
            value, gradients = value_and_gradients(objective, one, ids=ids)
            assert torch.isfinite(value)
            assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    copies = {m: z.repeat(4, 1) for m, z in one.items()}
    out = CUA("m0", cross_term="xu")(copies, ids=torch.zeros(4, dtype=torch.long))
    assert set(out.terms) == {"alignment", "contrast/m0-m1", "contrast/m0-m2"}
