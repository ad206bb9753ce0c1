"""Test accepted input, rejected input, and the error messages of input validation."""

from typing import Any

import pytest
import torch
from torch import Tensor

from unialign._invalid_rows import usable_rows
from unialign.batch import make_batch
from unialign.errors import ConfigError, NonFiniteError, ShapeError, UniAlignError

NAN, INF = float("nan"), float("inf")


def pair(items: int = 3, dim: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(items, dim, generator=generator) for name in ("image", "text")}


def test_rows_become_unit_rows():
    embeddings = pair()
    batch = make_batch(embeddings)
    assert batch.names == ("image", "text")
    torch.testing.assert_close(batch.z_MBD.norm(dim=-1), torch.ones(2, 3))
    torch.testing.assert_close(batch.z_MBD[1], torch.nn.functional.normalize(embeddings["text"], dim=-1))
    assert batch.present_MB.all()
    assert batch.ids_B is None
    assert batch.index("text") == 1


def test_absent_rows_are_zero_for_any_content():
    embeddings = pair()
    embeddings["text"][1] = NAN
    embeddings["text"][2] = 0.0
    leaves = {name: z.requires_grad_() for name, z in embeddings.items()}
    batch = make_batch(leaves, present={"text": torch.tensor([True, False, False])}, ids=torch.tensor([4, 4, 9]))
    assert (batch.z_MBD[1, 1:] == 0).all()
    assert batch.present_MB.tolist() == [[True] * 3, [True, False, False]]
    assert batch.ids_B is not None
    assert batch.ids_B.dtype == torch.int64
    _, gradient = torch.autograd.grad((batch.z_MBD**3).sum(), list(leaves.values()))
    assert torch.isfinite(gradient).all()
    assert (gradient[1:] == 0).all()


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_precision(dtype: torch.dtype, expected: torch.dtype):
    embeddings = pair()
    embeddings["text"] = embeddings["text"].to(dtype)
    assert make_batch(embeddings).z_MBD.dtype == expected


@pytest.mark.parametrize(
    ("dtype", "sizes"),
    [
        (torch.float32, (1e-30, 1e-10, 1e30, 3e38)),
        (torch.float64, (1e-290, 1e-200, 1e300)),
        (torch.float16, (1e-3, 6e4)),
    ],
)
def test_any_length_that_has_a_direction(dtype: torch.dtype, sizes: tuple[float, ...]):
    for size in sizes:
        z = torch.tensor([[0.6, 0.8, 0.0], [1.0, 0.0, 0.0]], dtype=dtype) * size
        z.requires_grad_()
        batch = make_batch({"z": z}, minimum=1)
        torch.testing.assert_close(
            batch.z_MBD[0, 0], torch.tensor([0.6, 0.8, 0.0], dtype=batch.z_MBD.dtype), rtol=2e-3, atol=1e-6
        )
        (gradient,) = torch.autograd.grad((batch.z_MBD * torch.tensor([1.0, 2.0, 3.0])).sum(), z)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1e-35), (torch.float32, 1e-40), (torch.float64, 1e-310)])
def test_rows_too_short_raise(dtype: torch.dtype, size: float):
    """Tiny norms raise an error, since the gradient grows like 1 / norm and would overflow."""
    embeddings = {name: z.to(dtype) for name, z in pair().items()}
    embeddings["text"][2] = torch.tensor([0.0, 1.0, 1.0, 1.0], dtype=dtype) * size
    with pytest.raises(NonFiniteError, match="'text' row 2 is too short to have a direction: its largest entry is"):
        make_batch(embeddings)


def with_row(row: int, values: Any) -> dict[str, Tensor]:
    embeddings = pair()
    embeddings["text"][row] = torch.tensor(values)
    return embeddings


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ([0.0, NAN, 0.0, 0.0], "'text' row 1 holds nan at column 1"),
        ([0.0, 1.0, INF, 0.0], "'text' row 1 holds inf at column 2"),
        ([-INF, 1.0, 1.0, 0.0], "'text' row 1 holds -inf at column 0"),
        ([0.0, 0.0, 0.0, 0.0], "'text' row 1 has norm zero; mark items without 'text' as absent"),
    ],
)
def test_rows_without_a_direction(values: list[float], what: str):
    with pytest.raises(NonFiniteError, match=what):
        make_batch(with_row(1, values))


def test_half_precision_rows_are_checked_in_the_dtype_of_the_batch():
    for dtype, value in ((torch.float16, 1e-7), (torch.bfloat16, 1e-30)):
        usable = usable_rows(torch.tensor([[value, 0.0], [0.0, 0.0], [INF, 1.0]], dtype=dtype))
        assert usable.tolist() == [True, False, False]


def test_one_message_counts_the_other_bad_rows():
    embeddings = pair(items=5)
    embeddings["image"][2:] = NAN
    with pytest.raises(NonFiniteError, match=r"'image' row 2 holds nan at column 0 \(2 more such rows\)"):
        make_batch(embeddings)


WRONG: list[tuple[Any, str]] = [
    ([torch.ones(2, 2)], "must be a mapping of modality names to .* got list"),
    ({}, "at least 2 modalities, got 0"),
    ({"text": torch.ones(3, 4)}, r"at least 2 modalities, got 1: \['text'\]"),
    ({"text": torch.ones(3, 4), 7: torch.ones(3, 4)}, "modality names must be strings, got 7"),
    ({"text": torch.ones(3, 4), "image": [[1.0]]}, "'image' must be a torch tensor .* got list; convert arrays"),
    ({"text": torch.ones(3, 4), "image": torch.ones(3, 2, 4)}, r"'image' has shape \(3, 2, 4\); expected \(B, D\)"),
    ({"text": torch.ones(3, 4), "image": torch.ones(3)}, r"'image' has shape \(3,\); expected \(B, D\)"),
    (
        {"text": torch.ones(3, 4), "image": torch.ones(3, 4).long()},
        "'image' has dtype torch.int64; expected a floating",
    ),
    ({"text": torch.ones(3, 0), "image": torch.ones(3, 0)}, "'text' has dim 0"),
    ({"text": torch.ones(32, 4), "audio": torch.ones(31, 4)}, "'audio' has 31 rows, 'text' has 32; .*use `present=`"),
    ({"text": torch.ones(3, 4), "image": torch.ones(3, 5)}, "'image' has dim 5, 'text' has dim 4; .*`unialign.Space`"),
]


def test_wrong_embeddings():
    for embeddings, message in WRONG:
        with pytest.raises(ShapeError, match=message):
            make_batch(embeddings)


def test_wrong_presence():
    for present, error, message in [
        ({"audio": torch.ones(3, dtype=torch.bool)}, ConfigError, "`present` has 'audio', .*'image', 'text'"),
        ({"text": torch.ones(3)}, ShapeError, r"present\['text'\] is torch.float32 of shape \(3,\)"),
        ({"text": torch.ones(2, dtype=torch.bool)}, ShapeError, r"expected torch.bool of shape \(3,\)"),
        ({"text": torch.ones(3, 1, dtype=torch.bool)}, ShapeError, r"of shape \(3, 1\)"),
        # A tensor must not raise PyTorch's "Boolean value of Tensor ... is ambiguous".
        (torch.ones(3, dtype=torch.bool), ShapeError, "`present` must be a mapping .* got Tensor"),
    ]:
        with pytest.raises(error, match=message):
            make_batch(pair(), present=present)


def test_wrong_ids():
    for ids in [
        torch.ones(3),
        torch.ones(2).long(),
        torch.ones(3, 1).long(),
        torch.ones(3, dtype=torch.bool),
        torch.ones(3).cfloat(),
    ]:
        with pytest.raises(ShapeError, match=r"expected integers of shape \(3,\)"):
            make_batch(pair(), ids=ids)


def test_unknown_modality_lists_the_known_ones():
    with pytest.raises(
        ConfigError, match="anchor 'audio' is not a modality of this batch; expected one of 'image', 'text'"
    ):
        make_batch(pair()).index("audio")


def test_every_error_is_a_unialign_error():
    for error in (ShapeError, NonFiniteError, ConfigError):
        assert issubclass(error, UniAlignError)
        assert issubclass(error, ValueError)


def test_the_input_is_not_changed():
    embeddings = pair()
    before = {name: z.clone() for name, z in embeddings.items()}
    make_batch(embeddings, present={"text": torch.tensor([True, False, True])})
    assert all(torch.equal(before[name], z) for name, z in embeddings.items())
