"""Test that known bugs of other libraries do not occur here."""

import ast
import math
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import unialign as ua
from benchmarks.saved_bytes import saved_bytes
from unialign.batch import make_batch
from unialign.data import EmbeddingStore, random_split
from unialign.errors import CheckpointError, NonFiniteError
from unialign.functional._singular_values import singular_parts
from unialign.losses import GRAM, PMRL, InfoNCE, Sigmoid, UniAlign
from unialign.metrics import retrieval
from unialign.train import TrainConfig, fit

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "unialign"


def rows(seed: int, items: int, dim: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(items, dim, generator=generator, dtype=torch.float64).to(dtype)


def gradients(objective: ua.losses.Objective, embeddings: dict[str, Tensor]) -> dict[str, Tensor]:
    leaves = {m: z.clone().requires_grad_() for m, z in embeddings.items()}
    total = objective(leaves).total
    return dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))


def test_01_nan_embeddings_do_not_score_perfectly():
    """In open_clip, NaN rows had R@1 = 1 and mean rank 1, since comparisons with NaN are false."""
    broken = torch.full((50, 4), float("nan"))
    with pytest.raises(NonFiniteError, match="row 0"):
        retrieval(broken, broken)


def test_02_constant_embeddings_score_as_chance_in_any_order():
    """If sorting breaks ties by index, the score of a collapsed model depends on the order of rows."""
    constant = torch.ones(20, 4)
    ids = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    for result in (
        retrieval(constant, constant),
        retrieval(constant, constant, query_ids=ids, gallery_ids=ids.flip(0)),
    ):
        assert result.recall[1] == pytest.approx(1 / 20)
        assert result.recall[10] == pytest.approx(1 / 2)
        assert result.median_rank == pytest.approx(10.5)


def test_03_a_correct_hit_with_a_negative_cosine_counts():
    """torchmetrics drops scores below 0, so a positive ranked first with score -0.1 has recall 0."""
    query, right, wrong = ([1.0, 0.0], [-0.1, 0.995], [-0.9, 0.436])
    result = retrieval(torch.tensor([query, [0.0, -1.0]]), torch.tensor([right, wrong]), k=(1,))
    assert result.ranks[0] == 1


def test_04_accumulated_batches_weigh_as_their_rows():
    """Gradients of batches of unequal size must be weighted by their number of rows.

    A similar error is that the gradient of open_clip, without its flags, is wrong by a factor of the world size.
    """
    x, y = rows(0, 6, 4), rows(1, 6, 4)
    leaves = [x.clone().requires_grad_(), y.clone().requires_grad_()]
    objective = UniAlign("x", uniformity_weight=0.0)
    for part in (slice(0, 4), slice(4, 6)):
        share = len(x[part]) / len(x)
        (share * objective({"x": leaves[0][part], "y": leaves[1][part]}).total).backward()
    for leaf, whole in zip(leaves, gradients(objective, {"x": x, "y": y}).values(), strict=True):
        torch.testing.assert_close(leaf.grad, whole)


def test_05_perfect_alignment_has_a_finite_gradient():
    """GRAM's published volume differentiates sqrt(|det|) through a factorization, which gives NaN for equal rows."""
    z = rows(2, 5, 6)
    for gradient in gradients(GRAM("a"), {"a": z, "b": z, "c": z}).values():
        assert torch.isfinite(gradient).all()


def test_06_nearly_equal_vectors_have_their_true_volume():
    """The float32 determinant was -1e-14 instead of 1e-16, and the volume was 15 to 60 times too large."""
    z = rows(3, 8, 6)
    near = {m: (z + 1e-3 * rows(4 + m, 8, 6)).float() for m in range(3)}
    embeddings = {f"m{m}": x for m, x in near.items()}
    exact = ua.functional.gram_volume({m: x.double() for m, x in embeddings.items()})
    torch.testing.assert_close(ua.functional.gram_volume(embeddings).double(), exact, rtol=0.05, atol=0)


def test_07_the_sign_of_an_eigenvector_is_chosen():
    """PMRL's released code contrasts vectors of arbitrary sign, of which 115 of 256 point away from their tuple."""
    embeddings = {f"m{m}": rows(8 + m, 256, 12) for m in range(3)}
    direction_BD = singular_parts(make_batch(embeddings)).direction_BD
    assert ((direction_BD * make_batch(embeddings).z_MBD.mean(0)).sum(-1) > 0).all()
    # Exchanging columns may change the sign that LAPACK returns, but must not change the loss.
    swapped = {m: embeddings[m] for m in ("m2", "m0", "m1")}
    torch.testing.assert_close(PMRL()(embeddings).total, PMRL()(swapped).total)


def test_08_the_third_modality_has_its_own_positives():
    """mmlearn offsets rows of a modality only by the length of the previous modality, so pairs repeat or are lost."""
    embeddings = {m: rows(i, 5, 6) for i, m in enumerate(("a", "b", "c", "d"))}
    terms = InfoNCE("all")(embeddings).terms
    assert len(terms) == 6
    for name, term in terms.items():
        m, n = name.removeprefix("contrast/").split("-")
        torch.testing.assert_close(term, InfoNCE()({m: embeddings[m], n: embeddings[n]}).total)


def test_09_a_logit_scale_of_100_does_not_overflow():
    """Inf-CL sums exponentials without subtracting the maximum, and exp(100) overflows float32."""
    z = torch.ones(6, 4)
    assert InfoNCE(temperature=0.01)({"a": z, "b": z}).total.item() == pytest.approx(math.log(6), rel=1e-5)
    assert InfoNCE(temperature=0.01)({"a": z, "b": -z}).total.isfinite()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_10_half_precision_and_single_rows_work(dtype: torch.dtype):
    """The uniformity of lightly and ModGap uses torch.pdist, which lacks half precision and gives NaN for one row."""
    for items in (1, 5):
        z = rows(9, items, 6, dtype)
        assert ua.functional.uniformity(z).isfinite()
        assert UniAlign()({"a": z, "b": rows(10, items, 6, dtype)}).total.isfinite()


def test_11_zero_is_a_value():
    """torchmultimodal rejects a valid call because it treats log(1) == 0 as missing."""
    embeddings = {"a": rows(11, 4, 6), "b": rows(12, 4, 6)}
    assert GRAM("a", label_smoothing=0.0).get_config()["label_smoothing"] == 0.0
    assert "volume" not in UniAlign("a", preset="paper", volume_weight=0.0)(embeddings).terms
    assert InfoNCE("a", temperature=1.0, temperature_mode="learnable").temperature.value() == 1.0


def test_12_nothing_is_chosen_on_the_test_split():
    """Test rows must not affect a run, and splits must depend only on the seed.

    ModGap reports the best epoch on the test split, which is drawn without a seed.
    """
    rng = np.random.default_rng(0)
    columns = {m: rng.normal(size=(30, 5)) for m in ("a", "b")}
    split = ["train"] * 20 + ["val"] * 5 + ["test"] * 5
    poisoned = {m: np.concatenate([x[:25], 100 + rng.normal(size=(5, 5))]) for m, x in columns.items()}
    config = TrainConfig(objective="infonce", epochs=2, batch_size=8, dim=4, hidden=8)
    spaces = [
        fit(EmbeddingStore.from_arrays(values, split=split), config, device="cpu", progress="none").space.state_dict()
        for values in (columns, poisoned)
    ]
    assert all(torch.equal(weight, spaces[1][name]) for name, weight in spaces[0].items())
    assert np.array_equal(random_split(30, seed=1), random_split(30, seed=1))
    assert not np.array_equal(random_split(30, seed=1), random_split(30, seed=2))


def test_13_each_package_is_named_once():
    """ModGap's requirements pin two versions of torch, so they cannot be installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pinned = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    for requirements in (project["dependencies"], *project["optional-dependencies"].values(), pinned):
        lines = [line.split("#")[0].strip() for line in requirements]
        names = [re.split(r"[\s<>=!~;\[]", line)[0].lower().replace("_", "-") for line in lines if line]
        assert len(names) == len(set(names))


def test_14_no_item_is_dropped_silently():
    """The loader of GRAM silently drops unreadable items and evaluates on the remaining 884 of 1,000."""
    columns = {"a": rows(13, 5, 3).numpy(), "b": rows(14, 5, 3).numpy()}
    columns["b"][2] = np.nan
    with pytest.raises(NonFiniteError, match="row 2"):
        EmbeddingStore.from_arrays(columns)
    there = np.array([True, True, False, True, True])
    store = EmbeddingStore.from_arrays(columns, present={"b": there})
    assert store.items == 5
    assert store.present("b").tolist() == there.tolist()
    with pytest.raises(NonFiniteError, match="row 2"):
        UniAlign()({m: torch.from_numpy(x) for m, x in columns.items()})


def test_15_memory_kept_by_a_loss_is_measured():
    """open_clip's chunked sigmoid loss still stores the whole matrix of logits."""
    items, dim = 512, 8
    leaves = {m: rows(i, items, dim, torch.float32).requires_grad_() for i, m in enumerate(("a", "b"))}
    for objective in (Sigmoid(), InfoNCE()):
        assert saved_bytes(lambda objective=objective: objective(leaves).total) < items * items * 4 / 4


def test_16_the_self_pair_does_not_dominate_a_kernel_sum():
    """Subtracting the self pair from the sum causes a gradient error of 29 % at t = 10, and NaN at t = 20."""
    z = torch.eye(5) + 1e-3 * rows(15, 5, 5, torch.float32)
    for temperature in (0.05, 0.01, 0.002):
        value, exact = (ua.functional.uniformity(x, temperature=temperature).item() for x in (z, z.double()))
        assert value == pytest.approx(exact, rel=1e-5)
        assert value == pytest.approx(-1 / temperature, rel=0.02)


def test_17_no_pickle_is_ever_read(tmp_path: Path):
    """GRAM and LanguageBind call torch.load on downloaded files, which can execute code."""
    (tmp_path / "config.json").write_text("{}")
    torch.save({"weight": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError):
        ua.Space.from_pretrained(tmp_path)
    # A process that decodes media and its parent exchange messages through pipes.
    pipes = {SOURCE / "embedding" / name for name in ("_worker.py", "_worker_process.py")}
    for path in set(SOURCE.rglob("*.py")) - pipes:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = ast.unparse(node.func)
                # Weights of a package whose sha256 is known.
                safe = "weights_only=True" in ast.unparse(node)
                if not (called == "torch.load" and safe and path.name == "_efficientnet.py"):
                    assert called not in ("torch.load", "pickle.load", "pickle.loads", "np.load"), path
