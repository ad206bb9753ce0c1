"""The work of `unialign generate`."""

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unialign.cli._console import echo, shown
from unialign.cli._image_files import compared_rows, enlargement, write_enlarged, write_thumbnails
from unialign.config import GenerateConfig
from unialign.data import EmbeddingStore, load_dataset
from unialign.errors import ConfigError, DataError
from unialign.experiments import open_run_dir, write_json
from unialign.generation import (
    Condition,
    GenerationResult,
    build_conditions,
    check_shipped,
    generate_images,
    grid,
    load_decoder,
    load_space,
    resolve_anchor,
    write_png,
)
from unialign.io import describe_environment, lock_folder, write_yaml
from unialign.report import write_generation_report
from unialign.space import Space
from unialign.train import chosen_device

__all__ = ["generate"]

_TEXT = "text"
# Folders in which a call makes what it then puts into its place.
_NEW = ".new-"
# Settings that the protocol of the results repeats.
_PROTOCOL = ("mix", "weights", "combine", "interpolate", "samples", "seed", "steps", "guidance")


def generate(config: GenerateConfig, out: Path, device: str) -> int:
    """Generate images and write the results folder."""
    started = time.perf_counter()
    store = load_dataset(config.data)
    if config.fingerprint is not None:
        store.check_fingerprint(config.fingerprint)
    for what in ("space", "decoder"):
        if getattr(config, what) is None:
            check_shipped(config.data, what)
            config = config.override({what: config.data})
    config = config.replace(fingerprint=store.fingerprint)
    space = load_space(str(config.space))
    decoder = load_decoder(str(config.decoder), prior=config.prior, device=chosen_device(device))
    _check_data(space, store)
    # What can be refused is refused before anything is written, what takes long is made after the folder is ours.
    conditions = _conditions(config, space, store)
    resolve_anchor(space, decoder, config.anchor)
    open_run_dir(out, "generation")  # before the work; earlier images are replaced: they are made again in seconds
    with lock_folder(out, doing="writing images"):
        for left in out.glob(f"{_NEW}*"):  # of a call that was killed
            shutil.rmtree(left, ignore_errors=True)
        if not (out / "config.yaml").exists():
            # A folder that a kill leaves half written must be known as one of images.
            write_yaml(out / "config.yaml", {"generation": config.to_dict()})
        made = generate_images(
            space,
            decoder,
            store,
            conditions,
            samples=config.samples,
            anchor=config.anchor,
            seed=config.seed,
            steps=config.steps,
            guidance=config.guidance,
        )
        try:
            with tempfile.TemporaryDirectory(dir=out, prefix=_NEW) as place:
                new = Path(place)
                files = _write_images(new, made)
                seconds = time.perf_counter() - started
                write_yaml(new / "config.yaml", {"generation": config.to_dict()})
                write_json(new / "results.json", _results(config, space, decoder, store, made, files, seconds))
                write_thumbnails(new, store, made.anchor, compared_rows(made))
                write_generation_report(new)
                _publish(new, out)
        except OSError as error:
            raise DataError(f"cannot write to {out}: {error.strerror or error}; choose another --out") from error
    _tell(made, files, out)
    echo(f"{seconds:.1f} s. Report: {shown(out / 'report.html')}")
    return 0


def _conditions(config: GenerateConfig, space: Space, store: EmbeddingStore) -> list[Condition]:
    return build_conditions(
        space,
        store,
        items=config.items,
        texts=config.texts,
        modalities=config.source or _modalities(space, store),
        mix=config.mix,
        weights=config.weights,
        combine="path" if config.interpolate is not None else "mixture" if config.combine else "each",
        steps=config.interpolate or 7,
        encode_texts=_text_encoder(space, store) if config.texts else None,
        text_modality=_TEXT,
    )


def _modalities(space: Space, store: EmbeddingStore) -> list[str]:
    """What items are shown through when nobody says: all but the anchor, which would give the answer away."""
    found = [name for name in space.modalities if name not in space.frozen and name in store.columns]
    return found or list(space.modalities)


def _text_encoder(space: Space, store: EmbeddingStore) -> Any:
    if _TEXT not in space.widths:
        raise ConfigError(
            f"--text needs a space with the modality {_TEXT!r}; this one has {', '.join(space.modalities)}"
        )
    from unialign.encoders import text_encoder

    return text_encoder(store, _TEXT)


def _check_data(space: Space, store: EmbeddingStore) -> None:
    """The statistics and the training rows are of the data that the space was trained on."""
    data: Any = space.metadata.get("data")
    trained = data.get("fingerprint") if isinstance(data, Mapping) else None
    if trained is not None and trained != store.fingerprint:
        raise DataError(
            f"the space was trained on {data.get('name')!r} with fingerprint {trained}, the data {store.name!r} has "
            f"{store.fingerprint}; use the data that it was trained on. In Python, `embed_items` and `decode` take new "
            f"items of the same encoders"
        )


def _write_images(out: Path, made: GenerationResult) -> list[list[str]]:
    (out / "images").mkdir()
    files = []
    for i, (condition, samples) in enumerate(zip(made.conditions, made.images, strict=True)):
        names = [f"images/{i:02d}-{_slug(condition.name)}-{k}.png" for k in range(len(samples))]
        for name, image in zip(names, samples, strict=True):
            write_enlarged(out / name, image)
        files.append(names)
    write_png(out / "sheet.png", grid([list(samples) for samples in made.images], scale=enlargement(made.images)))
    return files


def _publish(new: Path, out: Path) -> None:
    """Put everything into its place once it is whole; then remove the images of the call before, and nothing else."""
    place = out / "images"
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise DataError(f"{place} is a link or a file, which is not replaced; remove it or choose another --out")
    place.mkdir(exist_ok=True)
    before = _images_of(out / "results.json")
    now = {file.name for file in (new / "images").iterdir()}
    for name in sorted(now):
        os.replace(new / "images" / name, place / name)
    files = [file for file in new.iterdir() if file.is_file()]
    for file in files:
        os.replace(file, out / file.name)
    if "thumbnails.zip" not in {file.name for file in files}:
        (out / "thumbnails.zip").unlink(missing_ok=True)
    for name in before - now:
        (place / name).unlink(missing_ok=True)


def _images_of(results: Path) -> set[str]:
    """Names of the images that a call has left, by its results; none if these cannot be read."""
    try:
        entries = json.loads(results.read_text("utf-8"))["images"]
        return {Path(name).name for entry in entries for name in entry["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _results(
    config: GenerateConfig,
    space: Space,
    decoder: Any,
    store: EmbeddingStore,
    made: GenerationResult,
    files: list[list[str]],
    seconds: float,
) -> dict[str, Any]:
    training = space.metadata.get("training")
    objective = training.get("objective") if isinstance(training, Mapping) else None
    known = [cosine for cosine in made.true_cosines if cosine is not None]
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
            "name": "images from rows of the space in the place of the image embedding, without a prior",
            "anchor": made.anchor,
            "decoder": decoder.input_spec.encoder,
            "size": decoder.size,
            **{key: value for key, value in config.to_dict().items() if key in _PROTOCOL},
            "seconds": round(seconds, 2),
            **({"not compared with training images": made.no_copies_reason} if made.copies is None else {}),
        },
        "runs": [
            {
                "objective": objective,
                "seed": config.seed,
                "metrics": {"true_pair_cosine": sum(known) / len(known)} if known else {},
                "directions": {},
            }
        ],
        "summary": {},
        "images": [
            {
                "name": condition.name,
                "parts": list(condition.parts),
                "row": condition.row,
                "rows": list(condition.rows),
                "names": [store.item_names[row] for row in condition.rows],
                "split": condition.split,
                "true_cosine": truth,
                "nearest": nearest,
                "copies": copies,
                "files": names,
            }
            for condition, truth, nearest, copies, names in zip(
                made.conditions, made.true_cosines, made.nearest, made.copies or [[]] * len(files), files, strict=True
            )
        ],
        "reproduce": "unialign generate --config config.yaml --out again",
    }


def _tell(made: GenerationResult, files: list[list[str]], out: Path) -> None:
    if made.copies is None:
        echo(f"not compared with the training images, which these may be copies of: {made.no_copies_reason}")
    for i, (condition, shots) in enumerate(zip(made.conditions, files, strict=True)):
        seen = " (a training item: the decoder has seen its image)" if condition.split == "train" else ""
        near = made.nearest[i][0]
        said = f"nearest training item by the condition: {near['name']}, cosine {near['cosine']:.2f}"
        if made.copies is not None:
            copy = made.copies[i][0]
            said += f"; by the image: {copy['name']}, {100 * copy['distance']:.0f} % off"
        echo(f"{condition.name}{seen}: {shown(out / shots[0])}; {said}")


def _slug(name: str) -> str:
    return re.sub(r"[\W_]+", "-", name.casefold()).strip("-")[:40] or "image"
