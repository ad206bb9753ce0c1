"""Write the results folder of `unialign generate`."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from unialign._plain_text import repeat_command
from unialign.config import GenerateConfig
from unialign.data import EmbeddingStore
from unialign.errors import DataError
from unialign.experiments import copy_thumbnails, open_run_dir, write_json
from unialign.generation import Decoder, GenerationResult, grid, write_png
from unialign.io import commit_files, describe_environment, lock_folder, write_yaml
from unialign.report import write_generation_report
from unialign.space import Space

_STAGING = ".new-"
# Minimum side length of an image file, in pixels.
_MIN_SIDE = 128
_PROTOCOL = ("mix", "weights", "combine", "interpolate", "samples", "seed", "steps", "guidance")


@contextmanager
def results_dir(out: Path, config: GenerateConfig) -> Iterator[None]:
    """Prepare the results folder; earlier images are kept until the new images are complete."""
    found = open_run_dir(out, "generation")
    with lock_folder(out, doing="writing images"):
        for staging in out.glob(f"{_STAGING}*"):  # an earlier call that was killed may have left this folder
            shutil.rmtree(staging, ignore_errors=True)
        if found is None:
            # Record the kind of the folder in case this call is killed.
            write_yaml(out / "config.yaml", {"generation": config.to_dict()})
        yield


def write_results(
    out: Path, config: GenerateConfig, store: EmbeddingStore, result: GenerationResult, contents: Mapping[str, Any]
) -> None:
    """Write into a staging folder first, so that a failure leaves the earlier files unchanged."""
    try:
        with tempfile.TemporaryDirectory(dir=out, prefix=_STAGING) as name:
            staging = Path(name)
            (staging / "images").mkdir()
            for entry, images in zip(contents["images"], result.images, strict=True):
                for file, image in zip(entry["files"], images, strict=True):
                    write_enlarged(staging / file, image)
            sheet = grid([list(images) for images in result.images], scale=_enlargement(result.images))
            write_png(staging / "sheet.png", sheet)
            write_yaml(staging / "config.yaml", {"generation": config.to_dict()})
            write_json(staging / "results.json", contents)
            copy_thumbnails(store, staging, {row: row for row in compared_rows(result)}, modality=result.anchor)
            write_generation_report(staging)
            _publish(staging, out)
    except OSError as error:
        raise DataError(f"cannot write to {out}: {error.strerror or error}; choose another --out") from error


def make_results(
    config: GenerateConfig,
    space: Space,
    decoder: Decoder,
    store: EmbeddingStore,
    result: GenerationResult,
    seconds: float,
    out: Path,
) -> dict[str, Any]:
    training = space.metadata.get("training")
    objective = training.get("objective") if isinstance(training, Mapping) else None
    cosines = [cosine for cosine in result.true_cosines if cosine is not None]
    metrics = {"true_pair_cosine": sum(cosines) / len(cosines)} if cosines else {}
    return {
        "schema": 1,
        "environment": describe_environment(),
        "data": {
            "name": store.name,
            "fingerprint": store.fingerprint,
            "items": store.items,
            "modalities": list(space.modalities),
        },
        "protocol": {
            "name": "images decoded from rows of the space instead of image embeddings, without a prior",
            "anchor": result.anchor,
            "decoder": config.decoder,
            "image encoder": decoder.input_spec.encoder,
            "size": decoder.size,
            **{key: value for key, value in config.to_dict().items() if key in _PROTOCOL},
            "seconds": round(seconds, 2),
            **({"not compared with training images": result.no_copies_reason} if result.copies is None else {}),
        },
        "runs": [{"objective": objective, "seed": config.seed, "metrics": metrics, "directions": {}}],
        "summary": {},
        "images": [
            {
                "name": condition.name,
                "parts": list(condition.parts),
                "row": condition.row,
                "rows": list(condition.rows),
                "names": [store.item_names[row] for row in condition.rows],
                "split": condition.split,
                "true_cosine": result.true_cosines[i],
                "nearest": result.nearest[i],
                "copies": [] if result.copies is None else result.copies[i],
                "files": _file_names(i, condition.name, config.samples),
            }
            for i, condition in enumerate(result.conditions)
        ],
        "reproduce": repeat_command("generate", out),
    }


def _file_names(i: int, name: str, samples: int) -> list[str]:
    slug = re.sub(r"[\W_]+", "-", name.casefold()).strip("-")[:40] or "image"
    return [f"images/{i:02d}-{slug}-{k}.png" for k in range(samples)]


def _publish(staging: Path, out: Path) -> None:
    """Remove outdated images only after the new files are in place."""
    images = out / "images"
    if images.is_symlink() or (images.exists() and not images.is_dir()):
        raise DataError(f"{images} must be a folder, but is a link or a file; remove it or choose another --out")
    old = _earlier_images(out / "results.json")
    new = {path.name for path in (staging / "images").iterdir()}
    has_thumbnails = (staging / "thumbnails.zip").exists()
    commit_files(staging, out, last=("results.json", "report.html"))
    if not has_thumbnails:
        (out / "thumbnails.zip").unlink(missing_ok=True)
    for name in old - new:
        (images / name).unlink(missing_ok=True)


def _earlier_images(results: Path) -> set[str]:
    try:
        entries = json.loads(results.read_text("utf-8"))["images"]
        return {Path(name).name for entry in entries for name in entry["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _enlargement(images: Tensor) -> int:
    return max(1, -(-_MIN_SIDE // images.shape[-1]))


def write_enlarged(path: Path, image: Tensor) -> None:
    write_png(path, grid([[image]], gap=0, scale=_enlargement(image)))


def compared_rows(result: GenerationResult) -> set[int]:
    entries = [entry for group in (*result.nearest, *(result.copies or [])) for entry in group]
    return {entry["row"] for entry in entries} | {row for condition in result.conditions for row in condition.rows}
