"""Test training of encoders together with heads: the batches that reach them, gradients, groups and the result."""

import contextlib
import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import embed_prepare
from embed_cases import text_encoder
from media_train_cases import (
    BROKEN,
    ENCODERS,
    Net,
    encoded_by,
    media_config,
    media_items,
    train,
    trained_bits,
    wrapped,
    wrapped_text,
)
from unialign.config import EmbedConfig
from unialign.data import EmbeddingStore
from unialign.encoders import check_unchanged, create, wrap
from unialign.encoders._tuning import has_trained_weights
from unialign.errors import CheckpointError, ConfigError, DataError
from unialign.losses import create as create_objective
from unialign.space import Space
from unialign.train._fit_items import ItemOptions, opened_items
from unialign.train._media_stream import MediaStream, PreparedCache
from unialign.train._process_group import ProcessGroup
from unialign.train._space_task import SpaceTask

TUNED = {"image": "all", "text": "all"}
LORA_TUNE = {
    "image": {"mode": "lora", "targets": ["layers.3", "layers.6"]},
    "text": {"mode": "lora", "targets": ["first", "last"]},
}
PAIR: dict[str, Any] = {"modalities": ("image", "text"), "encoders": {}, "tune": TUNED}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def items(folder: Path) -> Any:
    return media_items(folder)


def made_task(items: Any, config: Any, encoders: Any, stack: Any) -> SpaceTask:
    source = stack.enter_context(
        opened_items(
            items,
            config,
            ItemOptions(encoders, EmbedConfig(workers=0, threads=1)),
            out=None,
            resume="never",
            device="cpu",
            progress="none",
            processes=ProcessGroup(),
        )
    )
    task = SpaceTask(source.store, config, device="cpu", init_from=None, media=source, processes=ProcessGroup())
    stack.callback(task.close)
    task.setup()
    return task


def gradients(task: SpaceTask, step: int) -> tuple[float, dict[str, torch.Tensor]]:
    task.optimizer.zero_grad(set_to_none=True)
    batches = task.batches.rows(step)
    loss, _ = task._backward(step, batches, batches, None)
    return float(loss), {name: p.grad.clone() for name, p in task.parameters.items() if p.grad is not None}


def test_gradients_are_those_of_a_plain_loop_in_float64(items: Any) -> None:
    """Every fourth text is absent, and one image is broken."""
    encoders = {"image": wrapped(), "text": wrapped_text()}
    with contextlib.ExitStack() as stack:
        task = made_task(items, media_config(**PAIR), encoders, stack)
        rows = task.rows[task.batches.rows(0)[0].numpy()]
        found_loss, found = gradients(task, 0)

    modules = {name: copy.deepcopy(encoder.module).double() for name, encoder in encoders.items()}  # type: ignore[union-attr]
    space = copy.deepcopy(task.space).double()
    raw, present = {}, {}
    for name, prepare in (("image", _pixels), ("text", embed_prepare.letters)):
        present[name] = torch.from_numpy(task.store.present(name)[rows])
        raw[name] = torch.zeros(len(rows), 8, dtype=torch.float64)
        for place, row in enumerate(rows):
            if present[name][place]:
                cell = items.cell(int(row), name)
                value = items.roots[0] / cell.path if name == "image" else cell.value
                x = torch.from_numpy(prepare(value)["x"])[None]
                z = space.project({name: space.prepare(name, modules[name](x))})[name]
                raw[name] = raw[name].index_put((torch.tensor([place]),), z)
    loss = create_objective("infonce").double()(raw, present=present).total
    loss.backward()
    assert found_loss == pytest.approx(float(loss), rel=1e-5)
    for name, module in modules.items():
        for key, parameter in module.named_parameters():
            torch.testing.assert_close(
                found[f"encoder/{name}/{key}"].double(), parameter.grad, rtol=1e-4, atol=1e-6, msg=f"{name} {key}"
            )
    for key, parameter in space.named_parameters():
        torch.testing.assert_close(found[f"space.{key}"].double(), parameter.grad, rtol=1e-4, atol=1e-6)


def _pixels(path: Path) -> Any:
    from PIL import Image

    return embed_prepare.pixels(np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize(
    "tune",
    [{name: {"mode": "all", "dropout": dropout} for name in ("image", "text", "sound")} for dropout in ("off", "model")]
    + [{name: {"mode": "last", "blocks": 1} for name in ("image", "sound")}, LORA_TUNE],
    ids=["all", "dropout", "last", "lora"],
)
def test_micro_batches_give_the_gradients_of_the_whole_batch(items: Any, tune: dict[str, Any]) -> None:
    """The text adapter has rows that are absent. Matrices B are nonzero, since they would hide the gradient of A."""
    encoders = None
    if tune is LORA_TUNE:
        pytest.importorskip("peft")
    found = []
    for size in (None, 3):
        config = media_config(tune=tune, micro_batch_size=size)
        if tune is LORA_TUNE:
            encoders = {"text": wrapped_text()}
        with contextlib.ExitStack() as stack:
            task = made_task(items, config, encoders, stack)
            drawn = torch.Generator().manual_seed(4)
            with torch.no_grad():
                for name, parameter in task.parameters.items():
                    if name.endswith("lora_B"):
                        parameter.copy_(0.3 * torch.randn(parameter.shape, generator=drawn))
            found.append(gradients(task, 1))
    (loss, whole), (other_loss, parts) = found
    assert loss == pytest.approx(other_loss, rel=1e-6)
    assert whole.keys() == parts.keys()
    assert {name.split("/")[1] for name in whole if "/" in name} == set(tune)
    if tune is LORA_TUNE:
        assert {name[-6:] for name in whole if "/" in name} == {"lora_A", "lora_B"}
    largest = max(float(gradient.abs().max()) for gradient in whole.values())
    for name, gradient in whole.items():
        assert float(gradient.abs().max()) > 1e-4 * largest, name
        # Convolutions in float32 round the sums over rows differently.
        assert float((parts[name] - gradient).abs().max()) <= 2e-6 * largest, name


def test_absent_and_broken_rows_never_reach_an_encoder(items: Any) -> None:
    encoders = {"image": wrapped(), "text": wrapped_text()}
    image, text = (encoder.module for encoder in encoders.values())
    assert isinstance(image, Net)
    assert isinstance(text, Net)
    train_rows = items.split == 0
    assert train_rows[BROKEN]
    with contextlib.ExitStack() as stack:
        task = made_task(items, media_config(**PAIR | {"epochs": 1, "batch_size": 32}), encoders, stack)
        before = {name: tensor.clone() for name, tensor in image.state_dict().items()}
        image.rows = text.rows = 0
        assert task.steps == 1
        task.step(0)
    assert [image.rows, text.rows] == [train_rows.sum() - 1, (train_rows & items.present("text")).sum()]
    after = image.state_dict()
    assert not torch.equal(before["first.weight"], after["first.weight"])
    for name in ("norm.running_mean", "norm.running_var", "norm.num_batches_tracked"):
        assert torch.equal(before[name], after[name])


def test_the_result_does_not_depend_on_workers(items: Any, folder: Path, tmp_path: Path) -> None:
    found = []
    for workers in (0, 1, 3):
        result = train(items, media_config(), workers=workers, out=tmp_path / str(workers))
        found.append((trained_bits(result), [record["loss"] for record in result.history]))
    assert found[0] == found[1] == found[2]
    assert found[0][1][-1] < found[0][1][0]
    loaded = Space.from_pretrained(tmp_path / "3/space")
    z, other = (
        encoded_by(result, items, folder),
        loaded.encode({"image": [folder / "0.png", folder / "1.png"], "text": ["red number 0", None]}),
    )
    for name, rows in z.items():
        torch.testing.assert_close(rows, other[name])
        assert rows[0].norm() == pytest.approx(1)
    assert not z["text"][1].any()
    initial = EmbeddingStore.open(tmp_path / "3/store")
    assert not initial.present("image")[BROKEN]
    for name in ("image", "text"):
        assert loaded.encoders[name]["fingerprint"] != initial.provenance["columns"][name]["fingerprint"]
    assert loaded.encoders["sound"]["fingerprint"] == create(ENCODERS["sound"]).fingerprint


def test_augmentation_depends_on_seed_step_and_row_only(items: Any) -> None:
    plain = trained_bits(train(items, media_config()))
    augmented = [trained_bits(train(items, media_config(augment="basic"), workers=workers)) for workers in (0, 2)]
    assert augmented[0] == augmented[1]
    assert augmented[0] != plain
    assert trained_bits(train(items, media_config(augment="basic", seed=1))) != augmented[0]


def test_a_frozen_run_on_items_is_a_run_on_their_store(items: Any, tmp_path: Path) -> None:
    config = media_config(tune={})
    result = train(items, config, out=tmp_path / "run")
    store = EmbeddingStore.open(tmp_path / "run/store")
    from unialign.train import fit

    again = fit(store, config.replace(encoders={}), device="cpu", progress="none")
    for name, tensor in again.space.state_dict().items():
        assert torch.equal(tensor, result.space.state_dict()[name])


def test_groups_scale_with_the_schedule(items: Any) -> None:
    tune = {"image": {"mode": "all", "lr": 0.002, "weight_decay": 0.3}, "text": "all"}
    with contextlib.ExitStack() as stack:
        task = made_task(items, media_config(tune=tune, lr=0.01, min_lr=0.001, weight_decay=0.1), None, stack)
        names = {id(parameter): name for name, parameter in task.parameters.items()}
        for step in range(task.steps):
            task.step(step)
            groups = task.optimizer.param_groups
            base = groups[0]["lr"]
            for group in groups:
                owners = {names[id(parameter)].rpartition("/")[0] or "own" for parameter in group["params"]}
                assert len(owners) == 1
                scale = {"own": 1, "encoder/image": 0.2, "encoder/text": 1}[owners.pop()]
                assert group["lr"] == pytest.approx(base * scale)
                decays = {names[id(parameter)]: parameter.ndim > 1 for parameter in group["params"]}
                if group["weight_decay"] == 0:
                    assert not any(decays[name] for name in decays if not name.startswith("objective"))
                else:
                    assert all(decays.values())
                    assert group["weight_decay"] == (0.3 if scale == 0.2 else 0.1)
        assert sum(len(group["params"]) for group in task.optimizer.param_groups) == len(task.parameters)


def test_statistics_of_tuned_modalities_are_not_tiny(items: Any) -> None:
    """One of the columns varies 100,000 times less than the others."""
    encoder = wrapped()
    assert isinstance(encoder.module, Net)
    with torch.no_grad():
        encoder.module.last.weight[2] *= 1e-5
    found = {}
    for mode in ("frozen", "all"):
        given = {"image": wrap(encoder.module, media="image", dim=6, prepare=embed_prepare.pixels, name="net")}
        config = media_config(**PAIR | {"tune": {"image": mode, "text": "all"}})
        with contextlib.ExitStack() as stack:
            task = made_task(items, config, given | {"text": wrapped_text()}, stack)
            found[mode] = task.space.features[task.space.modalities.index("image")].std.clone()  # type: ignore[union-attr,operator]
    largest = float(found["frozen"].max())
    assert float(found["frozen"][2]) < 1e-4 * largest
    assert float(found["all"][2]) == pytest.approx(1e-2 * largest)
    torch.testing.assert_close(found["all"], found["frozen"].clamp(min=1e-2 * largest))


def test_early_stopping_evaluates_the_present_encoders(items: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from unialign.train import _early_stopping

    seen = []
    score = _early_stopping.selection_score

    def spy(store: Any, space: Any, metric: str) -> float:
        seen.append({name: np.array(store.array(name)) for name in ("image", "sound")})
        assert store.items == int((items.split == 1).sum())
        value: float = score(store, space, metric)
        return value

    monkeypatch.setattr(_early_stopping, "selection_score", spy)
    config = media_config(tune={"image": "all"}, early_stopping_patience=50, early_stopping_metric="mrr")
    result = train(items, config, workers=2)
    assert len(seen) == config.epochs + 1
    for before, after in pairwise(seen):
        assert (before["image"] != after["image"]).any()
        np.testing.assert_array_equal(before["sound"], after["sound"])
    assert result.best_step is not None
    values = [record["validation"]["mrr"] for record in result.history if "validation" in record]
    assert len(values) == config.epochs
    # The result has the encoders of the best step.
    rows = np.flatnonzero(items.split == 1)
    encoder = result.space._loaded_encoders.given(result.space.encoders["image"])
    from unialign.encoders import encode_media
    from unialign.media import load_cell

    media = [load_cell(items.cell(int(row), "image"), "image", roots=items.roots) for row in rows]
    best = seen[result.best_step * config.epochs // result.history[-1]["step"]]
    assert encoder is not None
    np.testing.assert_allclose(encode_media(encoder, media).numpy(), best["image"], rtol=1e-4, atol=1e-5)


def test_kept_arrays_have_a_limit_and_missing_files_raise(items: Any, folder: Path) -> None:
    with contextlib.ExitStack() as stack:
        task = made_task(items, media_config(), None, stack)
        assert task.media is not None
        columns = task.media.columns
    rows = np.flatnonzero(task.store.present("image"))[:6]
    for limit in (0, 2000, 1 << 20):
        cache = PreparedCache(limit)
        stream = MediaStream(columns, rows_of=lambda step: rows, steps=4, seed_of=None, workers=0, cache=cache)
        for step in range(4):
            found = stream.prepared(step, "image", rows)
            assert [row["pixels"].shape for row in found.rows if row is not None] == [(3, 16, 16)] * 6
            assert len(found[2:4]) == 2
        stream.close()
        assert len(cache._found) == {0: 0, 2000: 2}.get(limit, len(cache._found))
    assert len([key for key in cache._found if key[0] == "image"]) == 6
    moved = folder / "1.png"
    moved.rename(folder / "moved.png")
    try:
        stream = MediaStream(
            columns, rows_of=lambda step: rows, steps=4, seed_of=None, workers=0, cache=PreparedCache(0)
        )
        with pytest.raises(DataError, match=r"'image', 1.png, cannot be decoded in training"):
            stream.prepared(0, "image", rows)
    finally:
        (folder / "moved.png").rename(moved)


def test_errors(items: Any, tmp_path: Path) -> None:
    store = EmbeddingStore.from_arrays({"image": np.ones((4, 3)), "text": np.ones((4, 2))})
    shared = wrapped()
    cases: list[tuple[Any, Any, dict[str, Any], str]] = [
        (store, media_config(), {}, "needs an item table"),
        (store, media_config(encoders={}, tune={}, augment="basic"), {}, "augment needs an item table"),
        (items, media_config(tune={"pictures": "all"}), {}, "tune has the modality 'pictures'"),
        (items, media_config(encoders={"picture": "builtin:conv"}), {}, "encoders has the modality 'picture'"),
        (items, media_config(tune={}, augment="basic"), {}, "all are frozen"),
        (items, media_config(frozen={"image": "whiten"}), {}, "frozen has 'image'"),
        (items, media_config(head="kernel"), {}, "head='kernel'"),
        (items, media_config(modalities=("image", "moon")), {}, "moon"),
        (items, media_config(encoders={"image": "builtin:color"}), {}, "'image' cannot be trained"),
        (items, media_config(), {"out": tmp_path / "x", "resume": "required"}, "no complete checkpoint"),
    ]
    for data, config, options, message in cases:
        with pytest.raises((ConfigError, DataError, CheckpointError), match=message):
            train(data, config, **options)
    assert not (tmp_path / "x").exists()
    with pytest.raises(ConfigError, match="unknown name"):
        train(items, media_config(encoders={"image": "builtin:convv"}), out=tmp_path / "y")
    assert not (tmp_path / "y").exists()
    twice = items.select(["image", "text"])
    two = {"image": shared, "text": _as_text(shared)}
    config = media_config(encoders={}, tune={"image": "all"})
    with pytest.raises(ConfigError, match="the same module"):
        train(twice, config, encoders=two)


def _as_text(encoder: Any) -> Any:
    from unialign.encoders import wrap

    return wrap(encoder.module, media="text", dim=6, prepare=_letters192, name="net")


def _letters192(text: str) -> dict[str, Any]:
    return {"x": np.resize(np.frombuffer(text.encode(), np.uint8), (8, 8, 3)).copy()}


def test_instances(items: Any, tmp_path: Path) -> None:
    """A wrapped module is trained itself; another encoder is copied."""
    conv, net = create(ENCODERS["image"]), text_encoder()
    assert conv.module is not None
    assert net.module is not None
    before = [copy.deepcopy(encoder.module.state_dict()) for encoder in (conv, net)]  # type: ignore[union-attr]
    config = media_config(**PAIR)
    result = train(items, config, encoders={"image": conv, "text": net}, out=tmp_path / "run")
    assert all(torch.equal(before[0][name], tensor) for name, tensor in conv.module.state_dict().items())
    assert not torch.equal(before[1]["weight"], net.module.state_dict()["weight"])
    named = train(items, config.replace(encoders={"image": ENCODERS["image"]}), encoders={"text": text_encoder()})
    for name, tensor in named.space.state_dict().items():
        assert torch.equal(tensor, result.space.state_dict()[name])
    with pytest.raises(DataError, match="changed since its fingerprint"):
        train(items, config, encoders={"image": conv, "text": net})


LORA = {"mode": "lora", "targets": ["first"]}


@pytest.mark.parametrize("failure", ["settings", "step"])
@pytest.mark.parametrize("mode", ["lora", "all"])
def test_an_error_restores_the_settings_of_a_given_module(items: Any, mode: str, failure: str) -> None:
    if mode == "lora":
        pytest.importorskip("peft")
    encoder = wrapped()
    assert encoder.module is not None
    encoder.module.train()
    encoder.module.last.requires_grad_(False)  # type: ignore[union-attr]
    flags = {name: parameter.requires_grad for name, parameter in encoder.module.named_parameters()}
    state = copy.deepcopy(encoder.module.state_dict())
    tune = {"image": LORA if mode == "lora" else "all"}
    if failure == "settings":
        tune["text"] = {"mode": "lora", "targets": ["nothing"]}
    config = media_config(**PAIR | {"tune": tune})

    def stop(_: Any) -> None:
        raise RuntimeError("enough")

    with pytest.raises((ConfigError, RuntimeError), match=r"nothing|enough"):
        train(items, config, encoders={"image": encoder, "text": wrapped_text()}, on_step=stop)
    assert {name: parameter.requires_grad for name, parameter in encoder.module.named_parameters()} == flags
    assert all(inner.training for inner in encoder.module.modules())
    assert encoder.module.state_dict().keys() == state.keys()
    if mode == "lora" or failure == "settings":
        assert all(torch.equal(tensor, state[name]) for name, tensor in encoder.module.state_dict().items())
        check_unchanged(encoder)
        assert not has_trained_weights(encoder.module)
    else:
        assert has_trained_weights(encoder.module)


def test_a_finished_run_restores_requires_grad(items: Any) -> None:
    pytest.importorskip("peft")
    encoders = {"image": wrapped(), "text": wrapped_text()}
    train(items, media_config(**PAIR | {"tune": {"image": LORA}}), encoders=encoders)
    assert encoders["image"].module is not None
    named = dict(encoders["image"].module.named_parameters())
    assert any("lora_A" in name for name in named)
    assert all(parameter.requires_grad for parameter in named.values())


def test_a_space_raises_after_its_module_was_trained_again(items: Any, folder: Path, tmp_path: Path) -> None:
    """Regression test: the old heads were applied to the features of the new weights, and saved with them."""
    encoders = {"image": wrapped(), "text": wrapped_text()}
    config = media_config(**PAIR)
    first = train(items, config, encoders=encoders)
    first.space.save_pretrained(tmp_path / "first")
    encoded_by(first, items, folder)
    second = train(items, config, init_from=first.space)
    for use in (lambda: encoded_by(first, items, folder), lambda: first.space.save_pretrained(tmp_path / "again")):
        with pytest.raises(DataError, match=r"'image'.*changed since its fingerprint"):
            use()
    expected = encoded_by(second, items, folder)
    given = {"image": wrapped(), "text": wrapped_text()}
    loaded = Space.from_pretrained(tmp_path / "first", encoders=given)
    raw = {"image": [folder / "0.png", folder / "1.png"], "text": ["red number 0", None]}
    loaded.encode(raw)
    second.space.save_pretrained(tmp_path / "second")
    torch.testing.assert_close(Space.from_pretrained(tmp_path / "second", encoders=given).encode(raw), expected)
    with pytest.raises(DataError, match=r"changed since its fingerprint"):
        loaded.encode(raw)
