"""Test training of some modalities of a space: the others stay bitwise equal."""

import json
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from processes import context
from train_cases import bits, checkpoint_bits, digest_of, run, stop_at, tiny_config, without_time
from unialign.closed_form import fit_ridge_head
from unialign.data import EmbeddingStore
from unialign.errors import CheckpointError, ConfigError, DataError
from unialign.space import Space, fit_stages, with_new_modalities
from unialign.train import FitResult, HealthWarning, TrainConfig

DIMS = {"image": 6, "text": 5, "audio": 4, "depth": 7}
ITEMS = 60


def store_of(*names: str, seed: int = 0, dims: dict[str, int] | None = None, val: bool = True) -> EmbeddingStore:
    """Return a store of the given modalities with a common latent; some rows of text and depth are absent and NaN."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(ITEMS, 4))
    columns, present = {}, {}
    for number, (name, dim) in enumerate((DIMS | (dims or {})).items()):
        noise = np.random.default_rng([seed, number])
        columns[name] = latent @ noise.normal(size=(4, dim)) + 0.1 * noise.normal(size=(ITEMS, dim)) + 3
    for name, keep in (("text", np.arange(ITEMS) % 7 != 2), ("depth", np.arange(ITEMS) % 5 != 0)):
        columns[name][~keep] = np.nan
        present[name] = keep
    split = ["test"] * 10 + (["val"] * 14 if val else []) + ["train"] * (ITEMS - 10 - 14 * val)
    return EmbeddingStore.from_arrays(
        {name: columns[name] for name in names},
        present={name: mask for name, mask in present.items() if name in names},
        split=split,
        name="added",
    )


HEADS: dict[str, dict[str, Any]] = {
    "mlp": {},
    "linear": {"head": "linear", "dropout": 0.0},
    "kernel": {"head": "kernel", "dropout": 0.0, "init": "gcca", "init_regularization": 0.1, "init_spectrum_power": 0},
}


def config_of(**changes: Any) -> TrainConfig:
    return tiny_config(**{"epochs": 4, "batch_size": 12, "modalities": None} | changes)


def base_space(head: str = "mlp", **changes: Any) -> Space:
    """Return a space of image, text and audio, which is in eval mode."""
    return quiet(store_of("image", "text", "audio"), config_of(**HEADS[head] | changes)).space


def quiet(store: EmbeddingStore, config: TrainConfig, **options: Any) -> FitResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HealthWarning)
        return run(store, config, **options)


def added(base: Space, *, names: tuple[str, ...] = ("text", "depth"), **changes: Any) -> FitResult:
    options = {name: changes.pop(name) for name in ("out", "resume", "on_step", "train") if name in changes}
    settings = {key: value for key, value in HEADS[base.head].items() if not key.startswith("init")}
    return quiet(store_of(*names), config_of(**settings | changes), init_from=base, **{"train": ["depth"]} | options)


def embeddings(space: Space, *names: str) -> dict[str, torch.Tensor]:
    store = store_of("image", "text", "audio", "depth", seed=5)
    return space.encode(
        {name: store.array(name) for name in names}, present={name: store.present(name) for name in names}
    )


OLD = ("image", "text", "audio")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("micro_batch_size", [None, 5])
def test_old_modalities_stay_bitwise_equal(head: str, micro_batch_size: int | None, tmp_path: Path) -> None:
    """Image and audio are not in the data; the base space and its metadata are not changed."""
    base = base_space(head)
    before, state, metadata = embeddings(base, *OLD), bits(base.state_dict()), json.dumps(base.metadata)
    result = added(base, out=tmp_path / "run", micro_batch_size=micro_batch_size)
    space = result.space
    assert list(space.dims.items()) == list(DIMS.items())
    assert {**bits(space.state_dict()), **state} == bits(space.state_dict())
    assert bits(base.state_dict()) == state
    assert json.dumps(base.metadata) == metadata
    assert space.metadata["earlier"] == base.metadata
    assert space.metadata["init_from"]["train"] == ["depth"]
    assert not space.training
    assert all(parameter.requires_grad for parameter in space.parameters())
    loaded = Space.from_pretrained(tmp_path / "run" / "space")
    for one in (space, loaded):
        after = embeddings(one, *OLD)
        assert all(torch.equal(after[name], before[name]) for name in OLD)
    assert torch.equal(embeddings(space, "depth")["depth"], embeddings(loaded, "depth")["depth"])
    card = (tmp_path / "run" / "space" / "README.md").read_text("utf-8")
    assert "depth" in card


@pytest.mark.parametrize("head", HEADS)
def test_the_new_modality_finds_the_items_of_the_others(head: str) -> None:
    """Audio is not in the data of the new modality, which is aligned to it through text."""
    space = added(base_space(head, epochs=60), epochs=60).space
    store = store_of("audio", "text", "depth")
    rows = store.rows("test")
    has_depth = store.present("depth")[rows] & store.present("text")[rows]
    rows = rows[has_depth]
    z = space.encode({name: store.array(name)[rows] for name in ("audio", "text", "depth")})
    for name in ("audio", "text"):
        ranks = (z["depth"] @ z[name].T).argsort(1, descending=True)
        found = (ranks[:, :2] == torch.arange(len(rows))[:, None]).any(1).float().mean()
        assert found >= 0.7, name


def test_only_the_new_head_has_gradients_and_dropout() -> None:
    modes: list[dict[str, bool]] = []
    base = base_space()
    task: list[Any] = []

    def look(info: Any) -> None:
        space = task[0].space
        modes.append({name: head.training for name, head in zip(space.modalities, space.heads, strict=True)})

    from unialign.train import _fit

    class Task(_fit.SpaceTask):
        def setup(self) -> None:
            super().setup()
            task.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_fit, "SpaceTask", Task)
        added(base, on_step=look, early_stopping_patience=3)
    assert modes
    assert all(found == {"image": False, "text": False, "audio": False, "depth": True} for found in modes)
    assert {name.split(".")[2] for name in task[0].parameters} == {"3"}


@pytest.mark.parametrize("head", HEADS)
def test_an_interrupted_run_ends_with_the_same_bits(head: str, tmp_path: Path) -> None:
    base = base_space(head)
    options = {"objective_options": {"anchor": "text", "temperature_mode": "learnable"}}
    whole = added(base, out=tmp_path / "whole", **options)
    for stop in (1, 4):
        out = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            added(base, out=out, on_step=stop_at(stop), **options)
        torch.manual_seed(stop)
        resumed = added(base, out=out, resume="required", **options)
        assert digest_of(resumed) == digest_of(whole)
        assert checkpoint_bits(out) == checkpoint_bits(tmp_path / "whole")
        assert without_time(resumed.history) == without_time(whole.history)
        assert bits(Space.from_pretrained(out / "space").state_dict()) == bits(whole.space.state_dict())
    again = added(base, out=tmp_path / "whole", resume="auto", **options)
    assert bits(again.space.state_dict()) == bits(whole.space.state_dict())


def _kill(info: Any) -> None:
    if info["step"] == 5:
        os.kill(os.getpid(), signal.SIGKILL)


def _add_in_process(base: Path, out: Path, is_killed: bool) -> None:
    torch.set_num_threads(1)
    options: dict[str, Any] = {"on_step": _kill} if is_killed else {}
    added(Space.from_pretrained(base), out=out, resume="auto", save_steps=2, **options)


def test_a_killed_process_resumes_to_the_same_bits(tmp_path: Path) -> None:
    """The process is killed after its fifth step, and continues in a new process from the saved base space."""
    base = base_space()
    base.save_pretrained(tmp_path / "base")
    whole = added(base, out=tmp_path / "whole", save_steps=2)
    codes = []
    for is_killed in (True, False):
        process = context().Process(target=_add_in_process, args=(tmp_path / "base", tmp_path / "run", is_killed))
        process.start()
        process.join(200)
        codes.append(process.exitcode)
    assert codes == [-signal.SIGKILL, 0]
    assert bits(Space.from_pretrained(tmp_path / "run" / "space").state_dict()) == bits(whole.space.state_dict())


def test_a_run_resumes_only_with_the_same_modalities_and_space(tmp_path: Path) -> None:
    base, names = base_space(), ("text", "audio", "depth")
    with pytest.raises(KeyboardInterrupt):
        added(base, names=names, out=tmp_path / "run", on_step=stop_at(2))
    with pytest.raises(
        CheckpointError, match=r"trains depth only, but this run begins .* and trains depth, audio only"
    ):
        added(base, names=names, out=tmp_path / "run", resume="auto", train=["depth", "audio"])


def test_one_modality_continues_from_its_head(tmp_path: Path) -> None:
    """With a tiny learning rate, the trained head hardly differs from that of the given space."""
    base = base_space()
    before = embeddings(base, *OLD)
    space = added(base, names=OLD, train=["audio"], lr=1e-6, dropout=0.0).space
    after = embeddings(space, *OLD)
    assert space.modalities == OLD
    assert all(torch.equal(after[name], before[name]) for name in ("image", "text"))
    assert not torch.equal(after["audio"], before["audio"])
    torch.testing.assert_close(after["audio"], before["audio"], atol=1e-3, rtol=0)
    statistics = [one.features[OLD.index("audio")].mean for one in (base, space)]
    assert torch.equal(*statistics)


def test_features_of_another_dim_start_anew() -> None:
    base = base_space()
    before = embeddings(base, "image", "text")
    store = store_of("image", "text", "audio", dims={"audio": 9})
    space = quiet(store, config_of(), init_from=base, train=["audio"]).space
    assert space.dims == {"image": 6, "text": 5, "audio": 9}
    after = embeddings(space, "image", "text")
    assert all(torch.equal(after[name], before[name]) for name in ("image", "text"))


def test_an_output_affine_map_of_an_old_modality_is_kept() -> None:
    base = base_space().with_output_affine({"text": (2 * torch.eye(8), torch.ones(8))})
    before = embeddings(base, *OLD)
    space = added(base).space
    after = embeddings(space, *OLD)
    assert space.output_affine == ("text",)
    assert all(torch.equal(after[name], before[name]) for name in OLD)
    with pytest.raises(ConfigError, match="'text' has an output affine map"):
        added(base, train=["text", "depth"], names=(*OLD, "depth"))


@pytest.mark.parametrize("head", HEADS)
def test_ridge_sets_a_linear_head_without_training(head: str, tmp_path: Path) -> None:
    base = base_space(head)
    options: dict[str, Any] = {"head": "linear", "init": "ridge", "init_regularization": 0.1, "epochs": 0}
    result = added(base, names=("image", "text", "depth"), out=tmp_path / "run", **options)
    space, store = result.space, store_of("image", "text", "depth")
    assert space.linear == (() if head == "linear" else ("depth",))
    after, before = embeddings(space, *OLD), embeddings(base, *OLD)
    assert all(torch.equal(after[name], before[name]) for name in OLD)
    expected = reference_ridge(base, store, ("image", "text"), regularization=0.1)
    found = space.heads[3][1].weight.detach().double()
    scale = (found * expected).sum() / expected.square().sum()
    torch.testing.assert_close(found, scale * expected, atol=1e-5, rtol=1e-4)
    assert space.metadata["closed_form"]["heads"]["depth"]["targets"] == ["image", "text"]
    loaded = Space.from_pretrained(tmp_path / "run" / "space")
    assert bits(loaded.state_dict()) == bits(space.state_dict())
    assert torch.equal(embeddings(loaded, "depth")["depth"], embeddings(space, "depth")["depth"])
    again = added(base, names=("image", "text", "depth"), out=tmp_path / "run", resume="auto", **options)
    assert bits(again.space.state_dict()) == bits(space.state_dict())


def reference_ridge(base: Space, store: EmbeddingStore, targets: tuple[str, ...], *, regularization: float) -> Any:
    """Solve the normal equations in float64, item by item."""
    train = store.rows("train")
    depth_rows = [row for row in train if store.present("depth")[row]]
    x = torch.as_tensor(store.array("depth")[depth_rows]).float().double()
    mean, std = x.mean(0), x.std(0, correction=0)
    features, directions = [], []
    for row, x_W in zip(depth_rows, x, strict=True):
        z = [
            base.encode({name: store.array(name)[[row]]})[name][0].double()
            for name in targets
            if store.present(name)[row]
        ]
        if z:
            features.append((x_W - mean.float().double()) / std.float().double())
            directions.append(sum(z) / torch.linalg.vector_norm(sum(z)))
    x_nW, y_nD = torch.stack(features), torch.stack(directions)
    y_nD = y_nD - y_nD.mean(0)
    ridge_WW = x_nW.T @ x_nW + regularization * len(x_nW) * torch.eye(x_nW.shape[1], dtype=torch.float64)
    return torch.linalg.solve(ridge_WW, x_nW.T @ y_nD).T


@pytest.mark.parametrize("val", [True, False])
def test_ridge_chooses_the_regularization_on_held_out_items(val: bool) -> None:
    base, store = base_space("linear", epochs=60), store_of("image", "depth", val=val)
    space = with_new_modalities(base, {"depth": 7}, linear=["depth"])
    fit_stages(space, store, store.rows("train"), ("depth",))
    found = fit_ridge_head(space, store, "depth", ["image"])
    assert found["selection"]["source"].startswith("validation" if val else "random")
    assert found["selection"]["metrics"]["recall@1"] > 0.5
    assert found["regularization"] in (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)


def test_ridge_replaces_a_head() -> None:
    """Features of an unknown encoder with the same dim get a new head, and statistics of their own."""
    base = base_space()
    store = store_of("image", "text", "audio", seed=1)
    space = quiet(store, config_of(head="linear", init="ridge", epochs=0), init_from=base, train=["audio"]).space
    assert space.linear == ("audio",)
    rows = [row for row in store.rows("train") if store.present("audio")[row]]
    mean = torch.as_tensor(store.array("audio")[rows]).mean(0).float()
    torch.testing.assert_close(space.features[2].mean, mean)


def test_all_modalities_of_an_extended_space_are_trained_further(tmp_path: Path) -> None:
    """A linear head beside heads of another kind is kept."""
    space = added(base_space(), head="linear", init="ridge", epochs=0).space
    store = store_of(*DIMS)
    options: dict[str, Any] = {"out": tmp_path / "run", "init_from": space}
    with pytest.raises(KeyboardInterrupt):
        quiet(store, config_of(), on_step=stop_at(2), **options)
    resumed = quiet(store, config_of(), resume="required", **options).space
    assert resumed.linear == ("depth",)
    whole = quiet(store, config_of(), init_from=space).space
    assert bits(resumed.state_dict()) == bits(whole.state_dict())
    assert not torch.equal(whole.heads[3][1].weight, space.heads[3][1].weight)


def test_a_start_by_ridge_is_trained_further() -> None:
    options: dict[str, Any] = {"head": "linear", "init": "ridge", "init_regularization": 0.1, "dropout": 0.0}
    start = added(base_space(), epochs=0, **options).space
    trained = added(base_space(), epochs=2, lr=1e-5, **options).space
    first, second = (space.heads[3][1].weight.detach() for space in (start, trained))
    assert not torch.equal(first, second)
    torch.testing.assert_close(first, second, atol=1e-3, rtol=0)


def test_invalid_arguments() -> None:
    base = base_space()
    kernel = {"head": "kernel"}
    cases: list[tuple[str, dict[str, Any]]] = [
        ("train must be a list", {"train": "depth"}),
        ("one or more distinct modalities", {"train": []}),
        ("one or more distinct modalities", {"train": ["depth", "depth"]}),
        ("train names 'dept', but the data have text, depth", {"train": ["dept"]}),
        ("train names all modalities", {"train": ["text", "depth"]}),
        ("'depth' is in the data, but not in init_from", {"train": ["text"]}),
        ("init_from has dim=8, but this run has dim=4", {"dim": 4}),
        ("made with hidden=16, but this run has hidden=5", {"hidden": 5}),
        ("made with head='mlp', but this run has head='kernel'", {**kernel, "dropout": 0.0}),
        ("made with input_norm='standardize'", {"input_norm": "unit"}),
        ("init='gcca' sets the heads of all modalities", {"head": "linear", "init": "gcca"}),
    ]
    for message, options in cases:
        with pytest.raises(ConfigError, match=message):
            added(base, **options)
    with pytest.raises(ConfigError, match=r"frozen is .*, but init_from has \{\}"):
        added(base_space(dim=4), dim=4, frozen={"text": "whiten"})
    with pytest.raises(ConfigError, match="needs init_from="):
        quiet(store_of("text", "depth"), config_of(), train=["depth"])
    store = store_of("text", "depth", dims={"text": 9})
    with pytest.raises(ConfigError, match="init_from expects 'text' to have dim 5, but it has dim 9"):
        quiet(store, config_of(), init_from=base, train=["depth"])


def test_a_modality_without_common_items_is_rejected() -> None:
    rng = np.random.default_rng(0)
    present = {"text": np.arange(40) < 20, "depth": np.arange(40) >= 20}
    columns = {"text": rng.normal(size=(40, 5)), "depth": rng.normal(size=(40, 7))}
    store = EmbeddingStore.from_arrays(columns, present=present, split=["train"] * 40, name="apart")
    with pytest.raises(DataError, match="'depth' shares no training row with text"):
        quiet(store, config_of(), init_from=base_space(), train=["depth"])


def test_a_frozen_modality_is_kept() -> None:
    """The embeddings of a frozen modality are whitened features, in the space before and after."""
    settings = {"frozen": {"image": "whiten"}, "dim": 4}
    base = quiet(store_of("image", "text"), config_of(**settings)).space
    before = embeddings(base, "image", "text")
    for names, frozen in ((("image", "depth"), {"image": "whiten"}), (("text", "depth"), {})):
        space = added(base, names=names, dim=4, frozen=frozen).space
        after = embeddings(space, "image", "text")
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert space.frozen == {"image": "whiten"}
        assert space.metadata["data"]["columns"] == base.metadata["data"]["columns"]
    with pytest.raises(ConfigError, match="'image' is frozen in init_from"):
        added(base, names=("image", "text"), train=["image"], dim=4)


def test_a_modality_is_added_to_an_extended_space(tmp_path: Path) -> None:
    """Metadata of all runs are kept, and a saved file differs in the new tensors only."""
    first = quiet(store_of("image", "text"), config_of(), out=tmp_path / "first").space
    second = added(first, names=("text", "audio"), train=["audio"], out=tmp_path / "second").space
    third = added(second, names=("audio", "depth"), out=tmp_path / "third").space
    assert third.metadata["earlier"]["earlier"] == first.metadata
    old, new = (load_file(tmp_path / name / "space" / "model.safetensors") for name in ("first", "third"))
    assert all(np.array_equal(new[key], old[key]) for key in old)
    assert len(new) > len(old)
    card = (tmp_path / "third" / "space" / "README.md").read_text("utf-8")
    assert "Only depth of this space was trained as described above" in card
    assert "- audio only with `infonce` on `added` (fingerprint `" in card
    assert "- image, text with `infonce` on `added` (fingerprint `" in card
    assert card.index("- audio only") < card.index("- image, text")
