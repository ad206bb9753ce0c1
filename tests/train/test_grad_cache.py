"""Test that the gradient cache gives the value and gradient of the whole batch from micro-batches."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from train_cases import DIMS, bits, digest_of, finished, run, stop_at, tiny_config, tiny_store, without_time
from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.losses import create
from unialign.space import Space
from unialign.train import grad_cache_backward

ROWS = 13


def heads(dropout: float = 0.0, hidden: int = 7) -> Space:
    torch.manual_seed(0)
    return Space(DIMS, dim=5, hidden=hidden, dropout=dropout, input_norm="none").double()


def batch(rows: int = ROWS) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = {name: torch.randn(rows, dim, generator=generator, dtype=torch.float64) for name, dim in DIMS.items()}
    ids = torch.arange(rows)
    ids[4] = 3
    return x, {"text": torch.arange(rows) % 5 != 2}, ids


def cut(x: dict[str, Tensor], size: int) -> list[dict[str, Tensor]]:
    rows = len(next(iter(x.values())))
    return [{name: column[at : at + size] for name, column in x.items()} for at in range(0, rows, size)]


def gradients(*modules: nn.Module) -> list[Tensor]:
    found = [parameter.grad for module in modules for parameter in module.parameters()]
    assert all(gradient is not None for gradient in found)
    return [gradient for gradient in found if gradient is not None]


@pytest.mark.parametrize("size", [1, 2, 5, 13, 40])
@pytest.mark.parametrize(
    ("name", "options"),
    [("infonce", {"temperature_mode": "learnable"}), ("unialign", {"anchor": "image"}), ("gram", {"anchor": "text"})],
)
def test_micro_batches_give_value_and_gradient_of_the_batch(name: str, options: dict[str, Any], size: int) -> None:
    x, present, ids = batch()
    whole, objective = heads(), create(name, **options).double()
    expected = objective(whole(x), present=present, ids=ids)
    expected.total.backward()
    parts, other = heads(), create(name, **options).double()
    found = grad_cache_backward(other, parts, cut(x, size), present=present, ids=ids)
    torch.testing.assert_close(found.total, expected.total.detach(), rtol=1e-12, atol=1e-12)
    assert not found.total.requires_grad
    assert found.terms.keys() == expected.terms.keys()
    for g, h in zip(gradients(parts, other), gradients(whole, objective), strict=True):
        torch.testing.assert_close(g, h, rtol=1e-10, atol=1e-12)


def test_micro_batches_of_zero_rows_change_nothing() -> None:
    x, present, ids = batch()
    with_nothing, without = heads(), heads()
    nothing = {name: column[:0] for name, column in x.items()}
    parts = [nothing, *cut(x, 5), nothing]
    found = grad_cache_backward(create("infonce"), with_nothing, parts, present=present, ids=ids)
    expected = grad_cache_backward(create("infonce"), without, cut(x, 5), present=present, ids=ids)
    assert torch.equal(found.total, expected.total)
    for g, h in zip(gradients(with_nothing), gradients(without), strict=True):
        torch.testing.assert_close(g, h, rtol=1e-12, atol=1e-14)


def test_weight_scales_the_gradient_and_gradients_add_up() -> None:
    x, _, _ = batch()
    once, thrice = heads(), heads()
    grad_cache_backward(create("infonce"), once, cut(x, 4))
    grad_cache_backward(create("infonce"), thrice, cut(x, 4), weight=0.5)
    grad_cache_backward(create("infonce"), thrice, cut(x, 4), weight=2.5)
    for g, h in zip(gradients(thrice), gradients(once), strict=True):
        torch.testing.assert_close(g, 3 * h, rtol=1e-10, atol=1e-12)


def test_dropout_repeats_exactly_in_the_second_pass() -> None:
    """The second pass must use the dropout masks of the first pass, or the gradient would be wrong."""
    x, present, ids = batch()
    space = heads(dropout=0.5)
    seen: list[Tensor] = []
    for head in space.heads:
        head.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach().clone()))
    torch.manual_seed(3)
    grad_cache_backward(create("infonce"), space, cut(x, 4), present=present, ids=ids)
    after = torch.get_rng_state()
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert len(first) == 4 * len(DIMS)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[len(DIMS)])
    torch.manual_seed(3)
    for part in cut(x, 4):
        space(part)
    assert torch.equal(after, torch.get_rng_state())


def kept_in_heads(batch_size: int, micro: int | None) -> int:
    x, _, _ = batch(batch_size)
    space, most = heads(hidden=64), 0

    def encode(part: dict[str, Tensor]) -> dict[str, Tensor]:
        nonlocal most
        kept = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel() * tensor.element_size() if not isinstance(tensor, nn.Parameter) else 0
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            raw = space(part)
        most = max(most, kept)
        return raw

    grad_cache_backward(create("infonce"), encode, cut(x, micro or batch_size))
    return most


def test_saved_activations_grow_with_the_micro_batch_and_not_the_batch() -> None:
    assert kept_in_heads(32, 8) == kept_in_heads(128, 8) == kept_in_heads(8, None)
    assert kept_in_heads(128, None) > 10 * kept_in_heads(128, 8)


class Averaging(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.averaging, self.averaged = module, True, 0

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        self.averaging = False
        yield
        self.averaging = True

    def forward(self, x: dict[str, Tensor]) -> Any:
        self.averaged += self.averaging and torch.is_grad_enabled()
        return self.module(x)


def test_wrapped_modules_average_once() -> None:
    x, _, _ = batch()
    model = Averaging(heads())
    grad_cache_backward(create("infonce"), model, cut(x, 3), modules=[model])
    assert model.averaged == 1


def test_autocast_around_the_call_does_not_lose_the_gradient() -> None:
    """Autocast caches casts of weights, and a cast made in the pass without gradients must not be reused."""
    x, _, _ = batch()
    space = heads().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        grad_cache_backward(create("infonce"), space, cut({name: v.float() for name, v in x.items()}, 4))
    assert all(bool(gradient.any()) for gradient in gradients(space))


def test_arguments_that_cannot_work_raise() -> None:
    x, _, _ = batch()
    space, objective = heads(), create("infonce")
    with pytest.raises(ConfigError, match="at least one micro-batch"):
        grad_cache_backward(objective, space, [])
    with pytest.raises(ConfigError, match="without gradient"):
        grad_cache_backward(objective, space.encode, cut({name: v.double() for name, v in x.items()}, 4))
    with pytest.raises(ConfigError, match="or modules sharded by `fully_shard`, got Space"):
        grad_cache_backward(objective, space, cut(x, 4), modules=[space])
    other = cut(x, 4)
    del other[2]["text"]
    with pytest.raises(ShapeError, match="micro-batch 2 has the modalities"):
        grad_cache_backward(objective, space, other)
    for returned in (3, [torch.ones(2, 2)], None, {"a": 1.0}):
        with pytest.raises(ConfigError, match="encode must return a mapping"):
            grad_cache_backward(objective, lambda part, returned=returned: returned, [0, 1])
    with torch.no_grad(), pytest.raises(ConfigError, match="outside `no_grad`"):
        grad_cache_backward(objective, lambda part: {}, [0, 1])
    with pytest.raises(ConfigError, match="put it into a list"):
        grad_cache_backward(objective, lambda part: {}, [0], modules=torch.nn.Linear(1, 1))  # type: ignore[arg-type]


@pytest.mark.parametrize("objective", ["infonce", "unialign"])
def test_training_is_the_same_in_micro_batches(objective: str) -> None:
    options = {"anchor": "image"}
    recipe: dict[str, Any] = {"objective": objective, "objective_options": options, "dropout": 0.0, "epochs": 4}
    whole = finished(**recipe)
    for size in (1, 3, 8):
        for a, b in zip(whole.history, finished(**recipe, micro_batch_size=size).history, strict=True):
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-4, abs=1e-5)
    one_part = finished(**recipe, micro_batch_size=100).result
    assert bits(whole.result.space.state_dict()) == bits(one_part.space.state_dict())


def test_a_run_in_micro_batches_with_dropout_resumes_bit_by_bit(tmp_path: Any) -> None:
    config, whole = tiny_config(micro_batch_size=3, epochs=4), finished(micro_batch_size=3, epochs=4)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_store(), config, out=tmp_path / "run", on_step=stop_at(5))
    resumed = run(tiny_store(), config, out=tmp_path / "run", resume="required")
    assert digest_of(resumed) == whole.digest
    assert without_time(resumed.history)[-1] == whole.history[-1]


def test_health_checks_change_nothing_in_micro_batches() -> None:
    often, never = (finished(micro_batch_size=3, monitor_steps=steps) for steps in (1, 1000))
    assert often.digest == never.digest


def test_a_non_finite_number_is_traced_to_its_row() -> None:
    with pytest.raises(NonFiniteError, match=r"training stopped at step \d+, .*row \d+ of the store"):
        run(tiny_store(), tiny_config(micro_batch_size=3, lr=1e30, max_grad_norm=None, warmup_ratio=0.0, dropout=0.3))
