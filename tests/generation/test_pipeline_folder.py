"""Test the errors that invalid pipeline folders raise."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("PIL.Image")

from tiny_pipelines import DIM, rewrite_index, save_stable_unclip  # noqa: E402

from unialign.errors import CheckpointError, ConfigError, MissingDependencyError  # noqa: E402
from unialign.generation import load_decoder  # noqa: E402
from unialign.generation._pipeline_folder import pipeline_class  # noqa: E402
from unialign.generation._stable_unclip import StableUnCLIP  # noqa: E402


def images(rows: int) -> Tensor:
    return torch.rand(rows, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_no_folder_and_no_pipeline(tmp_path: Path) -> None:
    assert pipeline_class(tmp_path) is None
    assert pipeline_class(tmp_path / "nowhere") is None
    with pytest.raises(CheckpointError, match="not a folder with a pipeline"):
        StableUnCLIP.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"has no model_index\.json"):
        StableUnCLIP.from_pretrained(tmp_path)
    (tmp_path / "model_index.json").write_text("[]")
    with pytest.raises(CheckpointError, match="expected a JSON object"):
        load_decoder(tmp_path)
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(CheckpointError, match="not readable JSON"):
        load_decoder(tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("UnCLIPPipeline", r"deprecated.*StableUnCLIPImg2ImgPipeline\) or Kandinsky 2\.2"),
        ("UnCLIPImageVariationPipeline", "deprecated"),
        ("StableDiffusionPipeline", "not conditioned on image embeddings.*StableUnCLIPImg2ImgPipeline.*KandinskyV22"),
        ("StableUnCLIPPipeline", "has no image encoder"),
        ("KandinskyV22PriorPipeline", "this folder as `prior`"),
    ],
)
def test_pipelines_that_are_no_decoders(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    for load in (load_decoder, StableUnCLIP.from_pretrained):
        with pytest.raises(ConfigError, match=words):
            load(tmp_path)


def test_another_decoders_folder(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "KandinskyV22Pipeline"}))
    with pytest.raises(ConfigError, match="load it with Kandinsky22"):
        StableUnCLIP.from_pretrained(tmp_path)


def test_code_in_a_folder_is_not_run(unclip_copy: Path) -> None:
    (unclip_copy / "unet" / "mine.py").write_text("raise SystemExit")
    rewrite_index(unclip_copy, unet=["mine", "UNet"])
    with pytest.raises(CheckpointError, match=r"unet from 'mine'.*not executed"):
        StableUnCLIP.from_pretrained(unclip_copy)
    rewrite_index(unclip_copy, unet=["diffusers", "DiffusionPipeline"])
    with pytest.raises(CheckpointError, match="'DiffusionPipeline' as unet, which a StableUnCLIPImg2ImgPipeline does"):
        StableUnCLIP.from_pretrained(unclip_copy)
    rewrite_index(unclip_copy, _class_name=["mine", "StableUnCLIPImg2ImgPipeline"])
    with pytest.raises(CheckpointError, match="not executed"):
        StableUnCLIP.from_pretrained(unclip_copy)


@pytest.mark.parametrize("part", ["image_encoder", "image_normalizer", "unet", "vae", "text_encoder"])
def test_missing_parts(unclip_copy: Path, part: str) -> None:
    weights = next((unclip_copy / part).glob("*.safetensors"))
    weights.rename(unclip_copy / "away")
    with pytest.raises(CheckpointError, match=f"{part} has no safetensors weights"):
        StableUnCLIP.from_pretrained(unclip_copy)
    torch.save({}, weights.with_suffix(".bin"))
    with pytest.raises(CheckpointError, match=rf"{part}/.*\.bin is a pickle"):
        StableUnCLIP.from_pretrained(unclip_copy)
    shutil.rmtree(unclip_copy / part)
    with pytest.raises(CheckpointError, match=f"lacks the component {part} of a StableUnCLIP.*no folder {part}"):
        StableUnCLIP.from_pretrained(unclip_copy)
    rewrite_index(unclip_copy, **{part: [None, None]})
    with pytest.raises(CheckpointError, match=f"lacks the component {part}"):
        StableUnCLIP.from_pretrained(unclip_copy)


@pytest.mark.parametrize("part", ["feature_extractor", "tokenizer", "scheduler", "image_noising_scheduler"])
def test_missing_parts_without_weights(unclip_copy: Path, part: str) -> None:
    for file in (unclip_copy / part).iterdir():
        file.unlink()
    with pytest.raises(CheckpointError, match=f"{part} has none of the files"):
        StableUnCLIP.from_pretrained(unclip_copy)
    (unclip_copy / part / "vocab.json").write_text("{")
    with pytest.raises(CheckpointError, match=f"{part} cannot be loaded as"):
        StableUnCLIP.from_pretrained(unclip_copy)
    shutil.rmtree(unclip_copy / part)
    with pytest.raises(CheckpointError, match=f"lacks the component {part}"):
        StableUnCLIP.from_pretrained(unclip_copy)


def test_a_pickle_under_another_name(unclip_copy: Path) -> None:
    torch.save({"x": torch.zeros(3)}, unclip_copy / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        StableUnCLIP.from_pretrained(unclip_copy)


@pytest.mark.parametrize("part", ["image_encoder", "image_normalizer", "unet"])
def test_a_missing_weight_is_not_drawn_at_random(unclip_copy: Path, part: str) -> None:
    file = next((unclip_copy / part).glob("*.safetensors"))
    weights = load_file(file)
    name = sorted(weights)[0]
    del weights[name]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"{part} lacks 1 of the weights.*{re.escape(name)}"):
        StableUnCLIP.from_pretrained(unclip_copy)


def test_weights_in_several_files(unclip_copy: Path, unclip: StableUnCLIP) -> None:
    part = unclip_copy / "image_encoder"
    unclip.pipeline.image_encoder.save_pretrained(part, max_shard_size="8KB")
    (part / "model.safetensors").unlink(missing_ok=True)
    shards = sorted(part.glob("model-*.safetensors"))
    assert len(shards) > 1
    split = StableUnCLIP.from_pretrained(unclip_copy)
    assert torch.equal(split.embed(images(1)), unclip.embed(images(1)))
    shards[1].unlink()
    with pytest.raises(CheckpointError, match=f"image_encoder has no {shards[1].name}"):
        StableUnCLIP.from_pretrained(unclip_copy)


def test_parts_of_different_widths(unclip_copy: Path, tmp_path: Path) -> None:
    other = save_stable_unclip(tmp_path / "other", dim=DIM + 8)
    for part, words in (("image_encoder", "unet"), ("image_normalizer", "image normalizer has statistics of dim 24")):
        broken = Path(shutil.copytree(unclip_copy, tmp_path / f"broken-{part}"))
        shutil.rmtree(broken / part)
        shutil.copytree(other / part, broken / part)
        with pytest.raises(CheckpointError, match=words):
            StableUnCLIP.from_pretrained(broken)


@pytest.mark.parametrize("module", ["diffusers", "transformers"])
def test_the_extra_is_named(unclip_folder: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"unialign\[generate\]"):
        StableUnCLIP.from_pretrained(unclip_folder)


def test_a_device_that_is_not_there(unclip_folder: Path) -> None:
    for device in ("nonsense", "cuda:63"):
        with pytest.raises(ConfigError, match="is not available"):
            StableUnCLIP.from_pretrained(unclip_folder, device=device)
    with pytest.raises(ConfigError, match="dtype"):
        StableUnCLIP.from_pretrained(unclip_folder, dtype=torch.int64)


def test_a_pipeline_from_the_hub(unclip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked: list[dict[str, Any]] = []

    def snapshot_download(name: str, **options: Any) -> str:
        asked.append({**options, "name": name})
        return str(unclip_folder)

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    assert pipeline_class("someone/unclip", revision="v1") == "StableUnCLIPImg2ImgPipeline"
    assert load_decoder("someone/unclip", revision="v1").input_spec.dim == DIM
    assert {(call["name"], call["revision"]) for call in asked} == {("someone/unclip", "v1")}
    assert asked[0]["allow_patterns"] == ["model_index.json"]
    assert "image_encoder/*" in asked[-1]["allow_patterns"]
    assert "*.bin" in asked[-1]["ignore_patterns"]


def test_errors_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(name: str, **options: Any) -> str:
        raise OSError("no such repository")

    stub = SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", stub)
    with pytest.raises(CheckpointError, match="no such repository"):
        load_decoder("someone/unclip")


def test_importing_the_adapters_imports_no_diffusers() -> None:
    code = (
        "import sys, unialign.generation._pipelines, unialign.generation._stable_unclip, "
        "unialign.generation._kandinsky; sys.exit('diffusers' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_the_hub_nothing_there_is_a_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert pipeline_class("someone/unclip") is None
