"""`embed`: encode the media of an item table into the columns of a store."""

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from unialign._checks import check_choice
from unialign.config import EmbedConfig, ProgressMode, Resume
from unialign.data import EmbeddingStore, Overwrite
from unialign.embedding._choices import check_licenses, chosen_encoders
from unialign.embedding._local import encoder_threads
from unialign.embedding._outcome import EmbedOutcome, chosen_threads, embed_items
from unialign.embedding._plan import Plan
from unialign.encoders import Encoder
from unialign.errors import ConfigError, DataError
from unialign.io import checked_path
from unialign.items import Items

if TYPE_CHECKING:
    import torch

__all__ = ["embed", "embed_with"]


def embed(
    items: Items | str | os.PathLike[str],
    encoders: Mapping[str, str | Encoder] | None,
    path: str | os.PathLike[str],
    *,
    batch_size: int = 64,
    part_cells: int = 1024,
    dtype: Literal["float32", "float16"] = "float32",
    threads: int | Literal["auto"] = "auto",
    workers: int | Literal["auto"] = "auto",
    max_broken: float = 0.01,
    on_broken: Literal["absent", "raise"] = "absent",
    retry_broken: bool = False,
    allow_changed: bool = False,
    thumbnails: int | None = 64,
    hash: bool = False,
    limits: Mapping[str, float] | None = None,
    engine: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    resume: Resume = "auto",
    overwrite: Overwrite = "never",
    reuse: EmbeddingStore | str | os.PathLike[str] | None = None,
    accept_licenses: Collection[str] = (),
    keep_parts: bool = False,
    device: "str | torch.device" = "auto",
    offline: bool | None = None,
    progress: ProgressMode = "auto",
) -> EmbeddingStore:
    """Encode the media of an item table into the columns of a new store.

    Distinct cells are encoded once, even if several items share them. The cells of a modality are divided into parts,
    and each finished part is a file in the folder `.NAME.embed` beside the store. If the call is interrupted or killed,
    the same call continues, and the store has the bytes of an uninterrupted run. The bytes do not depend on the number
    of worker processes. They depend on the settings, the version of torch, the type of the device and the number of
    threads, which are recorded; on a GPU, equal bytes are not guaranteed.

    A cell that cannot be read or decoded is absent in the store, and is listed with a code in the asset `broken.jsonl`.
    Reads that fail because of the disk or network are repeated after 1, 4 and 16 seconds; then the run stops.

    Args:
        items: an item table, or a source for `Items.open`.
        encoders: modality or pattern, such as `speech_*` -> name of an encoder or an encoder; see `encoders.create`.
            None: the default encoder of each kind of media; see `encoders.default`.
        path: the folder to create. If an equal call has already finished, the store is opened; files whose size or
            modification time changed raise an error.
        batch_size: number of cells per batch.
        part_cells: number of cells per part, a multiple of batch_size.
        dtype: type of the stored features.
        threads: number of torch threads for encoders on a CPU. "auto": those of the unfinished run, else half of the
            cores (1 on Ray).
        workers: number of processes that read and decode media; 0: decode in this process, where a decoder that hangs
            or crashes ends the run. "auto": half of the cores, or all but one if the encoders use a GPU.
        max_broken: largest fraction of broken cells of a modality, in [0, 1]; up to 10 broken cells are always
            accepted.
        on_broken: "absent", or "raise" to stop at the first broken cell.
        retry_broken: compute parts with broken cells again, even those of a finished store.
        allow_changed: encode files again that changed since they were encoded, even those of a finished store.
        thumbnails: largest side in pixels of the images and video frames in the asset `thumbnails.zip`, for reports.
            None: no thumbnails.
        hash: store the sha256 of the bytes of every cell in the asset `files.jsonl`.
        limits: largest `bytes`, `pixels`, `samples`, `characters` of media, and `seconds` to decode a cell; see
            `media.MediaLimits`.
        engine: "local", or "ray" to compute parts on the machines of a Ray cluster, on which the media must have the
            same paths.
        ray_address: address of the cluster; None: a running cluster that `ray.init` finds, else this machine.
        resume: "auto" continues an unfinished run or starts a new one, "required" raises an error without an unfinished
            run, "never" raises an error if there is one.
        overwrite: "replace" replaces an existing store, and discards an unfinished run with other settings.
        reuse: another store; columns with the same cells, encoder and settings are copied. Parts with files whose
            size or modification time changed are encoded again.
        accept_licenses: SPDX identifiers of licenses with restrictions, such as `CC-BY-NC-4.0`, that are accepted.
        keep_parts: keep the folder of the parts.
        device: device of the encoders that are given by name.
        offline: see `encoders.create`.
        progress: see `train.fit`.

    Returns:
        The store, with the ids, groups, labels, split and names of the items. The provenance of each column has a
        reference to its encoder.

    Raises:
        DataError: the table or the store is not valid, there are too many broken cells, reading failed, or a file
            system error occurs; finished parts are kept.
        MediaError: a cell is broken, and `on_broken` is "raise".
        NonFiniteError: an encoder computed NaN or infinite features.
        ConfigError: an option is invalid, another process embeds into the same store, or a license must be accepted.
        CheckpointError: there is an unfinished run with other settings, or none to continue.
        MissingDependencyError: an optional package is not installed.
    """
    config = EmbedConfig(
        batch_size=batch_size,
        part_cells=part_cells,
        dtype=dtype,
        threads=threads,
        workers=workers,
        max_broken=max_broken,
        on_broken=on_broken,
        retry_broken=retry_broken,
        allow_changed=allow_changed,
        thumbnails=thumbnails,
        hash=hash,
        limits=limits or {},
        engine=engine,
    )
    return embed_with(
        config,
        items,
        encoders,
        path,
        ray_address=ray_address,
        resume=resume,
        overwrite=overwrite,
        reuse=reuse,
        accept_licenses=accept_licenses,
        keep_parts=keep_parts,
        device=device,
        offline=offline,
        progress=progress,
    ).store


def embed_with(
    config: EmbedConfig,
    items: Items | str | os.PathLike[str],
    encoders: Mapping[str, str | Encoder] | None,
    path: str | os.PathLike[str],
    *,
    ray_address: str | None = None,
    resume: Resume = "auto",
    overwrite: Overwrite = "never",
    reuse: EmbeddingStore | str | os.PathLike[str] | None = None,
    accept_licenses: Collection[str] = (),
    keep_parts: bool = False,
    device: "str | torch.device" = "auto",
    offline: bool | None = None,
    progress: ProgressMode = "auto",
    on_plan: Callable[[Plan, int, int], None] | None = None,
) -> EmbedOutcome:
    """Like `embed`, with the settings as a configuration. `on_plan` is called with the plan, the number of parts of an
    earlier call, and the number of parts that are copied from another store.
    """
    check_choice("resume", resume, ("never", "auto", "required"))
    check_choice("overwrite", overwrite, ("never", "replace"))
    check_choice("progress", progress, ("auto", "bar", "lines", "none"))
    if config.engine == "local" and ray_address is not None:
        raise ConfigError(f"ray_address is {ray_address!r}, but engine is 'local'; pass engine='ray'")
    target = Path(os.path.abspath(checked_path(path, "the store", error=DataError)))
    if not target.name:
        raise DataError(
            f"the store cannot be the root folder {target}; name a folder in it, such as {target / 'store'}"
        )
    table = items if isinstance(items, Items) else Items.open(items)
    other = EmbeddingStore.open(reuse) if isinstance(reuse, str | os.PathLike) else reuse
    # References have features of fixed inputs, which depend on the number of threads.
    with encoder_threads(chosen_threads(config, target)):
        chosen = chosen_encoders(table, encoders, device=device, offline=offline)
        check_licenses(chosen, accept_licenses)
        return embed_items(
            table,
            chosen,
            target,
            config,
            resume=resume,
            overwrite=overwrite,
            reuse=other,
            keep_parts=keep_parts,
            progress=progress,
            ray_address=ray_address,
            offline=offline,
            on_plan=on_plan,
        )
