"""Define fixtures of tiny models, which are trained or saved once per session and which tests must not change."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from decoder_cases import tiny_decoder_config, tiny_image_store, tiny_images, tiny_space

from unialign.generation import FlowDecoder, StableUnCLIP, train_decoder
from unialign.space import Space


@pytest.fixture(scope="session")
def space() -> Space:
    return tiny_space()


@pytest.fixture(scope="session")
def tiny_decoders() -> list[FlowDecoder]:
    settings = {"steps": 400, "batch_size": 32, "condition_noise": 0.3, "lr": 3e-3, "sampler_steps": 6}
    configs = [tiny_decoder_config(whitening="whiten", seed=seed, **settings) for seed in (0, 1)]
    return [train_decoder(tiny_image_store(), c, images=tiny_images(), progress="none").decoder for c in configs]


@pytest.fixture(scope="session")
def unclip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny_pipelines: Any = pytest.importorskip("tiny_pipelines")
    return Path(tiny_pipelines.save_stable_unclip(tmp_path_factory.mktemp("unclip") / "pipeline"))


@pytest.fixture(scope="session")
def kandinsky_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    tiny_pipelines: Any = pytest.importorskip("tiny_pipelines")
    root = tmp_path_factory.mktemp("kandinsky")
    return tiny_pipelines.save_kandinsky(root / "decoder"), tiny_pipelines.save_kandinsky_prior(root / "prior")


@pytest.fixture(scope="session")
def unclip(unclip_folder: Path) -> StableUnCLIP:
    return StableUnCLIP.from_pretrained(unclip_folder)


@pytest.fixture
def unclip_copy(unclip_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(unclip_folder, tmp_path / "copy"))
