"""Test that files of earlier versions can be read: a store, a saved space, and an interrupted run."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from train_cases import run, tiny_store
from unialign.config import read_yaml
from unialign.data import EmbeddingStore
from unialign.errors import CheckpointError
from unialign.io import read_json, write_json
from unialign.space import Space
from unialign.train import TrainConfig

KEPT = sorted(path for path in (Path(__file__).parent / "kept").iterdir() if path.is_dir() and path.name[0].isdigit())


def forget_setting(checkpoint: Path, name: str) -> None:
    """Remove a setting from a checkpoint, as if a version without that setting had written it."""
    state, manifest = checkpoint / "state.json", checkpoint / "manifest.json"
    body, files = read_json(state), read_json(manifest)
    del body["training"][name]
    state.unlink()
    manifest.unlink()
    files["files"]["state.json"] = write_json(state, body)
    write_json(manifest, files)


@pytest.fixture(params=KEPT, ids=lambda path: path.name)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(request.param, tmp_path / "kept"))


def test_at_least_one_version_is_kept() -> None:
    assert "0.1.0" in [path.name for path in KEPT]


def test_the_kept_store_opens(kept: Path) -> None:
    store = EmbeddingStore.open(kept / "store")
    store.verify()
    metadata = json.loads((kept / "space" / "config.json").read_text())["metadata"]
    assert store.fingerprint == metadata["data"]["fingerprint"]
    assert store.fingerprint == tiny_store().fingerprint


def test_the_kept_space_encodes(kept: Path) -> None:
    store, space = EmbeddingStore.open(kept / "store"), Space.from_pretrained(kept / "space")
    present = {name: store.present(name) for name in space.modalities}
    for name, z_BD in space.encode({name: store.array(name) for name in space.modalities}, present=present).items():
        lengths = z_BD.norm(dim=1)[torch.from_numpy(present[name].copy())]
        torch.testing.assert_close(lengths, torch.ones_like(lengths))


# `fit` warns if the version of torch or of this package has changed.
@pytest.mark.filterwarnings("ignore:the environment has changed")
def test_the_kept_run_continues_to_the_same_weights(kept: Path) -> None:
    """The weights agree only up to rounding, since another version of torch may change the order of summation."""
    config = TrainConfig.from_dict(read_yaml(kept / "run" / "config.yaml")["train"])
    result = run(EmbeddingStore.open(kept / "store"), config, out=kept / "run", resume="required")
    assert [record["step"] for record in result.history] == list(range(1, 21))
    expected = Space.from_pretrained(kept / "space").state_dict()
    for name, tensor in result.space.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:the environment has changed")
def test_a_setting_added_later_has_its_default(kept: Path) -> None:
    """Regression test: checkpoints without a newly added setting could not be resumed."""
    forget_setting(kept / "run" / "checkpoints" / "step-00000010", "min_lr")
    config = TrainConfig.from_dict(read_yaml(kept / "run" / "config.yaml")["train"])
    store = EmbeddingStore.open(kept / "store")
    with pytest.raises(CheckpointError, match=r"made with min_lr=0\.0; this run has min_lr=0\.001"):
        run(store, TrainConfig.from_dict(config.to_dict() | {"min_lr": 1e-3}), out=kept / "run", resume="required")
    result = run(store, config, out=kept / "run", resume="required")
    assert len(result.history) == 20
