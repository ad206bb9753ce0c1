"""Write the results folder of `unialign generate`: images, `results.json`, `config.yaml`, thumbnails and the report."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unialign.cli._image_files import compared_rows, enlargement, write_enlarged, write_thumbnails
from unialign.config import GenerateConfig
from unialign.data import EmbeddingStore
from unialign.errors import DataError
from unialign.experiments import open_run_dir, write_json
from unialign.generation import Decoder, GenerationResult, grid, write_png
from unialign.io import commit_files, describe_environment, lock_folder, write_yaml
from unialign.report import write_generation_report
from unialign.space import Space

_STAGING = ".new-"
_PROTOCOL = ("mix", "weights", "combine", "interpolate", "samples", "seed", "steps", "guidance")


@contextmanager
def results_dir(out: Path, config: GenerateConfig) -> Iterator[None]:
    """Open and lock a results folder; earlier images are kept until the new ones are complete."""
    open_run_dir(out, "generation")
    with lock_folder(out, doing="writing images"):
        for staging in out.glob(f"{_STAGING}*"):  # left by a call that was killed
            shutil.rmtree(staging, ignore_errors=True)
        if not (out / "config.yaml").exists():
            # Records the folder kind in case this call is killed.
            write_yaml(out / "config.yaml", {"generation": config.to_dict()})
        yield


def write_results(
    out: Path,
    config: GenerateConfig,
    space: Space,
    decoder: Decoder,
    store: EmbeddingStore,
    result: GenerationResult,
    seconds: float,
) -> list[list[str]]:
    """Write all files into a staging folder, then replace those of an earlier call; return the image names.

    Raises:
        DataError: a file cannot be written; the earlier call's files are intact.
    """
    try:
        with tempfile.TemporaryDirectory(dir=out, prefix=_STAGING) as name:
            staging = Path(name)
            files = _write_images(staging, result)
            write_yaml(staging / "config.yaml", {"generation": config.to_dict()})
            write_json(staging / "results.json", _results(config, space, decoder, store, result, files, seconds))
            write_thumbnails(staging, store, result.anchor, compared_rows(result))
            write_generation_report(staging)
            _publish(staging, out)
    except OSError as error:
        raise DataError(f"cannot write to {out}: {error.strerror or error}; choose another --out") from error
    return files


def _write_images(folder: Path, result: GenerationResult) -> list[list[str]]:
    (folder / "images").mkdir()
    files = []
    for i, (condition, samples) in enumerate(zip(result.conditions, result.images, strict=True)):
        slug = re.sub(r"[\W_]+", "-", condition.name.casefold()).strip("-")[:40] or "image"
        names = [f"images/{i:02d}-{slug}-{k}.png" for k in range(len(samples))]
        for name, image in zip(names, samples, strict=True):
            write_enlarged(folder / name, image)
        files.append(names)
    scale = enlargement(result.images)
    write_png(folder / "sheet.png", grid([list(samples) for samples in result.images], scale=scale))
    return files


def _publish(staging: Path, out: Path) -> None:
    """Move the files into place, then remove the earlier call's images and nothing else."""
    images = out / "images"
    if images.is_symlink() or (images.exists() and not images.is_dir()):
        raise DataError(f"{images} is a link or a file, which is not replaced; remove it or choose another --out")
    old = _image_names(out / "results.json")
    new = {path.name for path in (staging / "images").iterdir()}
    has_thumbnails = (staging / "thumbnails.zip").exists()
    commit_files(staging, out, last=("results.json", "report.html"))
    if not has_thumbnails:
        (out / "thumbnails.zip").unlink(missing_ok=True)
    for name in old - new:
        (images / name).unlink(missing_ok=True)


def _image_names(results: Path) -> set[str]:
    """Return the image names in `results.json`; empty if it cannot be read."""
    try:
        entries = json.loads(results.read_text("utf-8"))["images"]
        return {Path(name).name for entry in entries for name in entry["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _results(
    config: GenerateConfig,
    space: Space,
    decoder: Decoder,
    store: EmbeddingStore,
    result: GenerationResult,
    files: list[list[str]],
    seconds: float,
) -> dict[str, Any]:
    """Return the content of `results.json`."""
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
            "name": "images decoded from rows of the space in place of image embeddings, without a prior",
            "anchor": result.anchor,
            "decoder": decoder.input_spec.encoder,
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
                "files": files[i],
            }
            for i, condition in enumerate(result.conditions)
        ],
        "reproduce": "unialign generate --config config.yaml --out again",
    }
