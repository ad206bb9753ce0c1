"""Test health warnings, and errors for non-finite values, which name the modality, the store row and the step."""

import math
import pickle
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from train_cases import DIMS, run, tiny_config, tiny_store
from unialign import registry
from unialign.batch import Batch, make_batch
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, NonFiniteError
from unialign.losses import LossTerm, Objective, create
from unialign.space import Space
from unialign.train import HealthWarning
from unialign.train._monitor import check_health, gradient_ratio


def batch_of(rows: int = 32, dim: int = 16, **changes: Tensor) -> Batch:
    generator = torch.Generator().manual_seed(0)
    z = {name: torch.randn(rows, dim, generator=generator).requires_grad_() for name in ("image", "text")}
    return make_batch(z | changes)


def check(batch: Batch, objective: Objective) -> dict[str, str]:
    _, found = check_health(objective, batch, objective.terms(batch), step=5)
    assert all(warning.step == 5 and warning.message.startswith("step 5: ") for warning in found)
    return {warning.code: str(warning) for warning in found}


def test_a_healthy_space_has_no_warnings() -> None:
    for name in ("infonce", "unialign"):
        assert check(batch_of(), create(name)) == {}
    # A space with two dimensions is not reported as collapsed.
    assert check(batch_of(dim=2), create("infonce")) == {}


def test_collapse_to_a_point() -> None:
    found = check(batch_of(text=torch.ones(32, 16) + 0.01 * torch.randn(32, 16)), create("infonce"))
    assert set(found) == {"collapse/text"}
    assert re.search(r"'text' is collapsing.*mean cosine of (0\.99|1\.0)", found["collapse/text"])


def test_collapse_to_a_line() -> None:
    line = torch.randn(32, 1) * torch.ones(1, 16) + 1e-4 * torch.randn(32, 16)
    found = check(batch_of(text=line), create("infonce"))
    assert set(found) == {"rank/text"}
    assert "'text' uses 1.0 of 16 directions" in found["rank/text"]


@pytest.mark.parametrize(("bound", "word"), [(0.01, "low"), (0.3, "high")])
def test_temperature_at_its_bounds(bound: float, word: str) -> None:
    objective = create("gram", anchor="text", temperature=0.1, temperature_bounds=(0.01, 0.3))
    assert check(batch_of(), objective) == {}
    with torch.no_grad():
        objective.temperature.shift.fill_(math.log(bound / 0.1))  # type: ignore[union-attr, operator]
    found = check(batch_of(), objective)
    assert set(found) == {f"temperature/{word}"}
    assert f"is at its {word}er bound of {bound}" in found[f"temperature/{word}"]


@pytest.mark.parametrize(("weight", "word"), [(1e-3, "raise alignment_weight"), (1e3, "lower alignment_weight")])
def test_gradient_ratio(weight: float, word: str) -> None:
    found = check(batch_of(), create("unialign", alignment_weight=weight))
    assert set(found) == {"gradient_ratio"}
    assert word in found["gradient_ratio"]


def test_gradient_ratio_is_that_of_the_tangent_gradients() -> None:
    batch = batch_of()
    objective = create("unialign", uniformity_weight=2.0)
    terms = objective.terms(batch)
    raw = batch.z_MBD.detach().requires_grad_()
    norms = []
    for group in ("uniformity", "alignment"):
        unit = torch.nn.functional.normalize(raw, dim=-1)
        again = objective.terms(Batch(batch.names, unit, batch.present_MB, None))
        total = sum(term.weight * term.value for name, term in again.items() if name.startswith(group))
        norms.append(float(torch.autograd.grad(total, raw)[0].norm()))
    assert gradient_ratio(batch, terms) == pytest.approx(norms[0] / norms[1], rel=1e-4)


def test_no_ratio_without_both_kinds_of_term() -> None:
    assert gradient_ratio(batch_of(), create("infonce").terms(batch_of())) is None
    batch = batch_of()
    assert gradient_ratio(batch, create("unialign", uniformity_weight=0.0).terms(batch)) is None
    same = batch_of()
    together = Batch(same.names, same.z_MBD[:1].expand(2, -1, -1), same.present_MB, None)
    # At perfect alignment the gradient is 0, so there is no ratio.
    assert gradient_ratio(together, create("unialign").terms(together)) is None


def test_scale_of_the_sigmoid_at_its_bound() -> None:
    objective = create("sigmoid")
    assert check(batch_of(), objective) == {}
    with torch.no_grad():
        objective.get_parameter("logits.0.scale.shift").fill_(1e3)
    found = check(batch_of(), objective)
    assert set(found) == {"scale/high"}
    assert re.search(r"scale is at its higher bound of 200; .*widen scale_bounds", found["scale/high"])


def test_partitions_between_modalities_repel_too() -> None:
    """With `partition_mix` 0, only the partitions across modalities repel, so the gradient ratio must include them."""
    for mix in (0.0, 0.5):
        found = check(batch_of(), create("unialign", partition_mix=mix, alignment_weight=1e-3))
        assert set(found) == {"gradient_ratio"}
        assert "raise alignment_weight" in found["gradient_ratio"]
    batch = batch_of()
    terms = create("unialign", partition_mix=0.0).terms(batch)
    assert gradient_ratio(batch, terms) is not None


@pytest.mark.parametrize("name", ["cua", "modgap", "align_uniform"])
def test_no_advice_about_a_weight_that_an_objective_lacks(name: str) -> None:
    options = {"anchor": "text"} if name == "modgap" else {}
    nearly = batch_of()
    batch = Batch(nearly.names, nearly.z_MBD + 1e-4 * nearly.z_MBD.flip(0), nearly.present_MB, None)
    objective = create(name, **options)
    numbers, found = check_health(objective, batch, objective.terms(batch), step=1)
    assert "gradient_ratio" not in numbers
    assert found == []


def test_absent_rows_do_not_count() -> None:
    present = {"text": torch.arange(32) < 1}
    batch = make_batch({name: torch.randn(32, 16) for name in ("image", "text")}, present=present)
    numbers, _ = check_health(create("infonce"), batch, {}, step=1)
    assert set(numbers) == {"cosine/image", "rank/image"}


def test_warnings_reach_the_caller_the_log_and_the_result(tmp_path: Any) -> None:
    config = tiny_config(objective="unialign", objective_options={"alignment_weight": 1e-4})
    with pytest.warns(HealthWarning, match="gradient of the repelling terms") as emitted:
        result = run(tiny_store(), config, out=tmp_path / "run")
    # Each code is reported only once, although later checks detect it again.
    assert len(emitted) == 1
    assert [(warning.code, warning.step) for warning in result.warnings] == [("gradient_ratio", 4)]
    assert '"kind": "warning", "step": 4, "code": "gradient_ratio"' in (tmp_path / "run" / "log.jsonl").read_text()
    assert result.history[3]["health"]["gradient_ratio"] > 10


def test_warnings_can_be_pickled() -> None:
    warning = pickle.loads(pickle.dumps(HealthWarning("low", code="rank/text", step=3)))
    assert (str(warning), warning.code, warning.step) == ("low", "rank/text", 3)


# --- non-finite numbers ---------------------------------------------------------------------------------------------


@pytest.fixture
def explosive(monkeypatch: pytest.MonkeyPatch) -> type[Objective]:
    """Return InfoNCE plus a term that is NaN, or has a NaN or huge gradient for one row, from step 3 on."""

    class Explosive(Objective):
        name: ClassVar[str] = "infonce"
        calls: ClassVar[int] = 0

        def __init__(self, kind: str = "gradient", anchor: str | None = None) -> None:
            super().__init__()
            self.kind = kind

        def terms(self, batch: Batch) -> dict[str, LossTerm]:
            type(self).calls += 1
            terms = dict(create("infonce").terms(batch))
            if type(self).calls > 4:
                z_BD = batch.z_MBD[batch.index("audio")]
                row = int(batch.present_MB[batch.index("audio")].nonzero()[-1])
                zero = (z_BD[row] - z_BD[row].detach()).square().sum()
                kinds = {"gradient": zero.sqrt, "value": lambda: zero + torch.nan, "huge": lambda: z_BD[row, 0] * 1e37}
                terms["odd"] = LossTerm(kinds[self.kind](), 1.0)
            return terms

        def get_config(self) -> Mapping[str, Any]:  # type: ignore[override]
            return {"kind": self.kind}

    monkeypatch.setitem(registry._registered, ("objectives", "explosive"), Explosive)
    return Explosive


def expected_row(step: int, micro: int) -> int:
    from unialign.train._batches import Batches

    store = tiny_store()
    rows = store.rows("train")[Batches(23, 8, 2, 10, 0).rows(step)[micro].numpy()]
    return int(rows[store.present("audio")[rows]][-1])


@pytest.mark.usefixtures("explosive")
@pytest.mark.parametrize("kind", ["gradient", "value", "huge"])
def test_a_bad_term_is_traced_to_a_row_of_the_store(kind: str) -> None:
    config = tiny_config(objective="explosive", objective_options={"kind": kind})
    with pytest.raises(NonFiniteError) as caught:
        run(tiny_store(), config)
    message = str(caught.value)
    assert "training stopped at step 3, before its update" in message
    if kind != "value":
        row = expected_row(2, 0)
        assert f"'audio', row {row} of the store ('item {row}')" in message
        assert "gradient" in message
    else:
        assert "'odd'" in message


def test_diverged_weights_are_named() -> None:
    config = tiny_config(lr=1e38, warmup_ratio=0.0, max_grad_norm=None)
    with pytest.raises(NonFiniteError) as caught:
        run(tiny_store(), config)
    message = str(caught.value)
    assert "training stopped at step 2" in message
    assert "'image', row" in message
    assert "more rows of this batch" in message
    assert "Lower lr (now 1e+38)" in message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3e38, "training stopped at step 1, .*'text', row 15 of the store"),
        (1e39, "^'text', row 15 .* holds 1e\\+39 at"),
    ],
)
def test_one_row_that_overflows_is_named(value: float, message: str) -> None:
    store = tiny_store(missing="none")
    columns = {name: np.array(store.array(name)) for name in DIMS}
    columns["text"][15] = value
    store = EmbeddingStore.from_arrays(columns, split=store.split)
    config = tiny_config(input_norm="none", hidden=64, dropout=0.0, modalities=("image", "text"), batch_size=23)
    with pytest.raises(NonFiniteError, match=message):
        run(store, config)


@pytest.mark.parametrize("scale", [1e-33, 1e-39])
def test_a_too_short_embedding_is_named_by_its_row_of_the_store(scale: float) -> None:
    store = tiny_store(missing="none")
    columns = {name: np.array(store.array(name)) for name in DIMS}
    columns["text"][15] = scale
    store = EmbeddingStore.from_arrays(columns, split=store.split)
    config = tiny_config(input_norm="none", head="linear", dropout=0.0, modalities=("image", "text"), batch_size=23)
    message = "training stopped at step 1, .*'text', row 15 of the store .*, has an embedding that is too short"
    with pytest.raises(NonFiniteError, match=message):
        run(store, config)


def test_earlier_checkpoints_survive_a_stop(tmp_path: Any, explosive: type[Objective]) -> None:
    config = tiny_config(objective="explosive", save_steps=1)
    with pytest.raises(NonFiniteError):
        run(tiny_store(), config, out=tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == ["step-00000001", "step-00000002"]
    assert not (tmp_path / "run" / "space").exists()


def test_a_space_in_one_dimension_still_trains() -> None:
    with pytest.warns(HealthWarning, match="collapsing"):
        space = run(tiny_store(missing="none"), tiny_config(dim=1, epochs=1)).space
    assert isinstance(space, Space)


def test_zero_outputs_of_heads_raise_or_are_absent() -> None:
    """Dropout removes every feature of some rows, which a head without bias then maps to zero."""
    config = tiny_config(head="linear", dropout=0.7, epochs=2, batch_size=16)
    with pytest.raises(NonFiniteError, match="norm zero"):
        run(tiny_store(), config)
    result = run(tiny_store(), config.replace(zero_rows="ignore"))
    assert all(math.isfinite(record["loss"]) for record in result.history)
    with pytest.raises(ConfigError, match="zero_rows"):
        config.replace(zero_rows="drop")
