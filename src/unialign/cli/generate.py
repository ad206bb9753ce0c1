"""`unialign generate`: images from any modality of a space, or a mixture, through a decoder of image embeddings."""

import json
import os
import re
import shutil
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unialign._checks import check_choice, check_integer, check_nonnegative
from unialign.cli._console import echo, shown
from unialign.cli._image_files import compared_rows, enlargement, write_enlarged, write_thumbnails
from unialign.data import EmbeddingStore, list_datasets, load_dataset
from unialign.errors import ConfigError, DataError
from unialign.experiments import describe_environment, open_run_dir, read_yaml, write_json
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
    shipped_decoders,
    write_png,
)
from unialign.io import lock_folder, write_yaml
from unialign.report import write_generation_report
from unialign.space import Space
from unialign.train import chosen_device

__all__ = ["run"]

_DEFAULTS: dict[str, Any] = {
    "data": "emoji",
    "space": None,
    "decoder": None,
    "prior": None,
    "items": [],
    "texts": [],
    "from": None,
    "mix": "mean",
    "weights": None,
    "combine": "each",
    "strip": None,
    "samples": 4,
    "seed": 0,
    "steps": None,
    "guidance": None,
    "anchor": None,
    "fingerprint": None,
}
_TEXT = "text"
# Folders in which a call makes what it then puts into its place.
_NEW = ".new-"
_MOST = 1000


def run(options: Namespace) -> int:
    started = time.perf_counter()
    settings = _settings(options)
    store = load_dataset(settings["data"])
    if settings["fingerprint"] is not None:
        store.check_fingerprint(settings["fingerprint"])
    settings["fingerprint"] = store.fingerprint
    for what in ("space", "decoder"):
        if settings[what] is None:
            check_shipped(str(settings["data"]), what)
            settings[what] = settings["data"]
    space = load_space(settings["space"])
    decoder = load_decoder(settings["decoder"], prior=settings["prior"], device=chosen_device(options.device))
    _check_data(space, store)
    # What can be refused is refused before anything is written, what takes long is made after the folder is ours.
    conditions = _conditions(settings, space, store)
    resolve_anchor(space, decoder, settings["anchor"])
    out: Path = options.out
    open_run_dir(out, "generation")  # before the work; earlier images are replaced: they are made again in seconds
    with lock_folder(out, doing="writing images"):
        for left in out.glob(f"{_NEW}*"):  # of a call that was killed
            shutil.rmtree(left, ignore_errors=True)
        if not (out / "config.yaml").exists():
            # A folder that a kill leaves half written must be known as one of images.
            write_yaml(out / "config.yaml", {"generation": settings})
        made = generate_images(
            space,
            decoder,
            store,
            conditions,
            **{key: settings[key] for key in ("samples", "anchor", "seed", "steps", "guidance")},
        )
        try:
            with tempfile.TemporaryDirectory(dir=out, prefix=_NEW) as place:
                new = Path(place)
                files = _write_images(new, made)
                seconds = time.perf_counter() - started
                write_yaml(new / "config.yaml", {"generation": settings})
                write_json(new / "results.json", _results(settings, space, decoder, store, made, files, seconds))
                write_thumbnails(new, store, made.anchor, compared_rows(made))
                write_generation_report(new)
                _publish(new, out)
        except OSError as error:
            raise DataError(f"cannot write to {out}: {error.strerror or error}; choose another --out") from error
    _tell(made, files, out)
    echo(f"{seconds:.1f} s. Report: {shown(out / 'report.html')}")
    return 0


def _conditions(settings: Mapping[str, Any], space: Space, store: EmbeddingStore) -> list[Condition]:
    strip = settings["strip"]
    return build_conditions(
        space,
        store,
        items=settings["items"],
        texts=settings["texts"],
        modalities=settings["from"] or _modalities(space, store),
        mix=settings["mix"],
        weights=settings["weights"],
        combine="strip" if strip is not None else settings["combine"],
        steps=strip or 7,
        encode_texts=_text_encoder(space, store) if settings["texts"] else None,
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
    settings: Mapping[str, Any],
    space: Space,
    decoder: Any,
    store: EmbeddingStore,
    made: GenerationResult,
    files: list[list[str]],
    seconds: float,
) -> dict[str, Any]:
    training = space.metadata.get("training")
    objective = training.get("objective") if isinstance(training, Mapping) else None
    known = [cosine for cosine in made.truth if cosine is not None]
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
            **{
                key: settings[key]
                for key in ("mix", "weights", "combine", "strip", "samples", "seed", "steps", "guidance")
            },
            "seconds": round(seconds, 2),
            **({"not compared with training images": made.not_compared} if made.copies is None else {}),
        },
        "runs": [
            {
                "objective": objective,
                "seed": settings["seed"],
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
                made.conditions, made.truth, made.nearest, made.copies or [[]] * len(files), files, strict=True
            )
        ],
        "reproduce": "unialign generate --config config.yaml --out again",
    }


def _tell(made: GenerationResult, files: list[list[str]], out: Path) -> None:
    if made.copies is None:
        echo(f"not compared with the training images, which these may be copies of: {made.not_compared}")
    for i, (condition, shots) in enumerate(zip(made.conditions, files, strict=True)):
        seen = " (a training item: the decoder has seen its image)" if condition.split == "train" else ""
        near = made.nearest[i][0]
        said = f"nearest training item by the condition: {near['name']}, cosine {near['cosine']:.2f}"
        if made.copies is not None:
            copy = made.copies[i][0]
            said += f"; by the image: {copy['name']}, {100 * copy['distance']:.0f} % off"
        echo(f"{condition.name}{seen}: {shown(out / shots[0])}; {said}")


def _settings(options: Namespace) -> dict[str, Any]:
    """What the file says, if one is given, and over it what the command line does."""
    settings = dict(_DEFAULTS)
    if options.config:
        raw = read_yaml(options.config).get("generation")
        if not isinstance(raw, Mapping):
            raise ConfigError(f"{options.config} holds no settings of images; expected a mapping `generation`")
        if unknown := sorted(str(key) for key in set(raw) - set(settings)):
            raise ConfigError(f"{options.config}: unknown setting {', '.join(unknown)}; expected {', '.join(settings)}")
        settings |= raw
    given = {
        "data": options.data,
        "space": options.space,
        "decoder": options.decoder,
        "prior": options.prior,
        "items": options.item,
        "texts": options.text,
        "from": _listed(getattr(options, "from")),
        "mix": options.mix,
        "weights": options.weights,
        "combine": "together" if options.together else None,
        "strip": options.strip,
        "samples": options.samples,
        "seed": options.seed,
        "steps": options.steps,
        "guidance": options.guidance,
        "anchor": options.anchor,
    }
    if options.data is not None and options.data != settings["data"]:
        # Other data than the file's have another fingerprint, and their own space and decoder.
        settings["fingerprint"] = None
        settings |= {key: None for key in ("space", "decoder") if settings[key] == settings["data"]}
    settings |= {key: value for key, value in given.items() if value is not None}
    _check(settings)
    for key in ("data", "space", "decoder", "prior"):
        # A page is read from elsewhere; names of shipped things and of the hub stay.
        if settings[key] is not None and not isinstance(settings[key], str):
            raise ConfigError(f"{key} must be a name or a folder, got {settings[key]!r}")
        known = settings[key] in list_datasets() or settings[key] in shipped_decoders()
        if settings[key] is not None and not known and os.path.exists(settings[key]):
            settings[key] = os.path.abspath(settings[key])
    return settings


def _check(settings: Mapping[str, Any]) -> None:
    """Types of what a file may say, and options that would do nothing together."""
    for key, default in _DEFAULTS.items():
        if settings[key] is None and default is not None:
            raise ConfigError(f"{key} has no value; leave it out for the default, {default!r}")
    for key in ("items", "texts", "from"):
        value = settings[key]
        if value is not None and not (isinstance(value, list) and all(isinstance(text, str) for text in value)):
            raise ConfigError(f"{key} must be a list of texts, got {value!r}")
    if settings["from"] == []:
        raise ConfigError("--from names no modality")
    if settings["anchor"] is not None and not isinstance(settings["anchor"], str):
        raise ConfigError(f"anchor must be the name of a modality, got {settings['anchor']!r}")
    check_choice("combine", settings["combine"], ("each", "together"))
    for key, low in (("strip", 2), ("samples", 1), ("seed", 0), ("steps", 1)):
        if settings[key] is not None:
            check_integer(f"--{key}", settings[key], low=low)
    if settings["guidance"] is not None:
        check_nonnegative("--guidance", settings["guidance"])
    weights = settings["weights"]
    if weights is not None and not (isinstance(weights, list) and all(isinstance(w, int | float) for w in weights)):
        raise ConfigError(f"weights must be a list of numbers, got {weights!r}")
    if settings["strip"] is not None:
        if settings["combine"] == "together":
            raise ConfigError("--strip leads from one thing to the next, --together makes one of all; give one of them")
        if settings["mix"] != "mean":
            raise ConfigError("--strip follows arcs and does not mix; leave --mix out")
    if settings["from"] is not None and not settings["items"]:
        raise ConfigError("--from says how items are shown; name one with --item")
    count = settings["strip"] or len(settings["items"]) + len(settings["texts"])
    if count * settings["samples"] > _MOST:
        raise ConfigError(
            f"{count} x {settings['samples']} images are more than a page can hold ({_MOST}); ask for fewer"
        )


def _listed(words: list[str] | None) -> list[str] | None:
    """`drawing,speech` and `drawing speech` alike."""
    return None if words is None else [name.strip() for word in words for name in word.split(",") if name.strip()]


def _slug(name: str) -> str:
    return re.sub(r"[\W_]+", "-", name.casefold()).strip("-")[:40] or "image"
