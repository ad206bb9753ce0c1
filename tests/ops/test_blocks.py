"""Compare block-wise losses with whole matrices and autograd, for any chunk size and extreme scales.

Shapes: `M` modalities, `B` items, `D` dim.
"""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from loss_cases import draw_batch, make_objective, value_and_gradients
from unialign.batch import Batch, make_batch
from unialign.functional import block_contrasts, block_sigmoids, block_uniformities, cosine_contrast
from unialign.losses import create
from unialign.ops import _blocks, select_items, use_backend

CASES = ["balanced", "wang_isola", "frozen_anchor", "infonce", "infonce-all", "infonce-learnable", "symile-sampled"]
CASES += ["sigmoid", "sigmoid-fixed", "sigmoid-pairs", "modgap-all", "align_uniform", "cua"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("chunk", [1, 2**18])
def test_blocks_equal_whole_matrices(monkeypatch: pytest.MonkeyPatch, case: str, chunk: int) -> None:
    """With a chunk size of 1, each pair of modalities is computed separately."""
    monkeypatch.setattr(_blocks, "_CHUNK", chunk)
    for modalities in (2, 4):
        batch, ids = draw_batch(3, modalities, 7, 5), torch.tensor([3, 1, 3, 0, 7, 1, 2])
        objective = make_objective(case).double()
        for given in (None, ids):
            value, gradients = value_and_gradients(objective, batch, ids=given)
            with use_backend("reference"):
                wanted, wanted_gradients = value_and_gradients(objective, batch, ids=given)
            torch.testing.assert_close(value, wanted, rtol=1e-11, atol=1e-12)
            torch.testing.assert_close(gradients, wanted_gradients, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", ["random", "trained", "opposite"])
def test_contrasts_are_precise_at_every_temperature(kind: str) -> None:
    """Values and gradients in float32 agree with float64, where exponentials do not overflow or underflow."""
    rows = draw_batch(7, 2, 40, 16)
    if kind != "random":
        rows["m1"] = rows["m0"] * (1 if kind == "trained" else -1) + 1e-2 * rows["m1"]
    for temperature in (1.0, 0.07, 0.017, 0.01, 0.004, 0.002):
        for smoothing in (0.0, 0.1):
            options = {"temperature": temperature, "label_smoothing": smoothing}
            objective = create("infonce", anchor="all", temperature_bounds=(1e-4, 1.0), **options)
            with use_backend("reference"):
                wanted, wanted_gradients = value_and_gradients(objective, rows)
            value, gradients = value_and_gradients(objective, rows)
            torch.testing.assert_close(value, wanted, rtol=1e-9, atol=1e-13)
            assert_near(gradients, wanted_gradients, 1e-8)
            value, gradients = value_and_gradients(objective, {name: z.float() for name, z in rows.items()})
            torch.testing.assert_close(value.double(), wanted, rtol=2e-5, atol=1e-11)
            assert_near(gradients, wanted_gradients, 1e-4)


def assert_near(gradients: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float) -> None:
    for name, gradient in gradients.items():
        error = float((gradient.double() - wanted[name]).norm())
        assert error <= tolerance * float(wanted[name].norm()) + 1e-9


def test_gradients_of_single_terms_are_not_mixed() -> None:
    """The gradient of each term is kept separately, since terms may have different weights in the total."""
    rows = {name: z.requires_grad_() for name, z in draw_batch(5, 3, 6, 4).items()}
    batch, pairs = make_batch(rows), [(1, 0), (1, 2)]
    found = block_contrasts(batch, pairs, temperature=0.2)
    everyone = select_items(batch, batch.present_MB[0])
    with use_backend("reference"):
        wanted = [cosine_contrast(batch.rows(m), batch.rows(n), everyone, temperature=0.2) for m, n in pairs]
    assert found is not None
    for weights in ((1.0, 0.0), (0.0, 1.0), (2.0, -3.0)):
        totals = (sum(w * v for w, v in zip(weights, values, strict=True)) for values in (found, wanted))
        gradients = [torch.autograd.grad(total, list(rows.values()), retain_graph=True) for total in totals]
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_a_call_with_fake_tensors_leaves_later_calls_unchanged() -> None:
    """A call with fake tensors, as in tracing, must not leave cached tensors for later calls of the same size."""
    pairs = [(0, 1), (0, 2), (2, 1)]

    def gradient() -> Tensor:
        z_MBD = torch.ones(3, 5, 2, requires_grad=True)
        batch = Batch(("a", "b", "c"), z_MBD, torch.ones(3, 5, dtype=torch.bool), None)
        batch.__dict__["complete"] = True  # cannot be computed from fake masks
        found = block_contrasts(batch, pairs, temperature=0.2)
        assert found is not None
        return torch.autograd.grad(torch.stack(found).sum(), z_MBD)[0]

    with FakeTensorMode():
        gradient()
    assert type(gradient()) is Tensor


def test_other_batches_and_options_are_left_to_the_general_functions() -> None:
    rows = draw_batch(1, 2, 6, 4)
    complete, masked = make_batch(rows), make_batch(rows, present={"m1": torch.arange(6) > 0})
    repeated = make_batch(rows, ids=torch.tensor([0, 0, 1, 2, 3, 4]))
    large = make_batch(draw_batch(1, 2, _blocks.LARGEST_BLOCK + 1, 2))
    kernel = {"kernel": "clip", "temperature": 0.07}
    assert block_contrasts(complete, [(0, 1)], temperature=0.07) is not None
    assert block_uniformities(complete, [0, 1], **kernel) is not None
    for batch in (masked, large):
        assert block_contrasts(batch, [(0, 1)], temperature=0.07) is None
        assert block_sigmoids(batch, [(0, 1)], scale=10.0, bias=-10.0) is None
        assert block_uniformities(batch, [0, 1], **kernel) is None
    assert block_contrasts(repeated, [(0, 1)], temperature=0.07, label_smoothing=0.1) is None
    assert block_uniformities(repeated, [0, 1], **kernel) is None
    assert block_contrasts(complete, [(0, 1)], temperature=0.001) is None
    assert block_sigmoids(complete, [(0, 1)], scale=0.0, bias=-1.0) is None
    assert block_uniformities(complete, [0, 1], kernel="geodesic", temperature=0.3) is None
    for backend in ("reference", "compiled"):
        with use_backend(backend):
            assert block_contrasts(complete, [(0, 1)], temperature=0.07) is None
