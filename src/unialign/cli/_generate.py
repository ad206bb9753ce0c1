"""Implementation of `unialign generate`: settings -> prompts -> conditions -> images -> annotations -> files."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unialign.cli._console import echo, shown
from unialign.cli._generate_files import make_results, results_dir, write_results
from unialign.config import GenerateConfig
from unialign.data import EmbeddingStore, load_dataset
from unialign.errors import ConfigError, DataError
from unialign.generation import (
    Condition,
    GenerationResult,
    build_conditions,
    check_shipped,
    generate_images,
    load_decoder,
    load_space,
    resolve_anchor,
)
from unialign.space import Space
from unialign.train import chosen_device

_TEXT = "text"


def generate(config: GenerateConfig, out: Path, device: str) -> int:
    started = time.perf_counter()
    store = load_dataset(config.data)
    config = _with_defaults(config, store)
    space = load_space(str(config.space))
    _check_data(space, store)
    decoder = load_decoder(str(config.decoder), prior=config.prior, device=chosen_device(device))
    conditions = _conditions(config, space, store)
    resolve_anchor(space, decoder, config.anchor)
    with results_dir(out, config):
        options = {key: getattr(config, key) for key in ("samples", "anchor", "seed", "steps", "guidance")}
        result = generate_images(space, decoder, store, conditions, **options)
        seconds = time.perf_counter() - started
        contents = make_results(config, space, decoder, store, result, seconds, out)
        write_results(out, config, store, result, contents)
    _print_summary(result, contents["images"], out)
    echo(f"{seconds:.1f} s. Report: {shown(out / 'report.html')}")
    return 0


def _with_defaults(config: GenerateConfig, store: EmbeddingStore) -> GenerateConfig:
    if config.fingerprint is not None:
        store.check_fingerprint(config.fingerprint)
    for option in ("space", "decoder"):
        if getattr(config, option) is None:
            check_shipped(config.data, option)
            config = config.override({option: config.data})
    return config.replace(fingerprint=store.fingerprint)


def _check_data(space: Space, store: EmbeddingStore) -> None:
    data: Any = space.metadata.get("data")
    trained = data.get("fingerprint") if isinstance(data, Mapping) else None
    if trained is not None and trained != store.fingerprint:
        raise DataError(
            f"the space was trained on {data.get('name')!r} with fingerprint {trained}, but the data {store.name!r} "
            f"has fingerprint {store.fingerprint}; use the training data. In Python, `embed_items` and `decode` also "
            f"accept new items from the same encoders"
        )


def _conditions(config: GenerateConfig, space: Space, store: EmbeddingStore) -> list[Condition]:
    # By default, exclude frozen modalities: the anchor would reveal the target image.
    free = [name for name in space.modalities if name not in space.frozen and name in store.columns]
    return build_conditions(
        space,
        store,
        items=config.items,
        texts=config.texts,
        modalities=config.source or free or list(space.modalities),
        mix=config.mix,
        weights=config.weights,
        combine="path" if config.interpolate is not None else "mixture" if config.combine else "each",
        steps=config.interpolate or 7,
        encode_texts=_text_encoder(space, store) if config.texts else None,
        text_modality=_TEXT,
    )


def _text_encoder(space: Space, store: EmbeddingStore) -> Any:
    if _TEXT not in space.dims:
        raise ConfigError(
            f"--text needs a space with the modality {_TEXT!r}, but this space has {', '.join(space.modalities)}"
        )
    from unialign.encoders import text_encoder

    return text_encoder(store, _TEXT)


def _print_summary(result: GenerationResult, images: Sequence[Mapping[str, Any]], out: Path) -> None:
    if result.copies is None:
        echo(
            "the generated images may be copies of training images: they were not compared with the training images, "
            f"because {result.no_copies_reason}"
        )
    for i, (condition, image) in enumerate(zip(result.conditions, images, strict=True)):
        seen = " (a training item: the decoder was trained on its image)" if condition.split == "train" else ""
        near = result.nearest[i][0]
        text = f"training item nearest to the condition: {near['name']}, cosine {near['cosine']:.2f}"
        if result.copies is not None:
            copy = result.copies[i][0]
            text += f"; nearest by pixels: {copy['name']}, distance {100 * copy['distance']:.0f} %"
        echo(f"{condition.name}{seen}: {shown(out / image['files'][0])}; {text}")
