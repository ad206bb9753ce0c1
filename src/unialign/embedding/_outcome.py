"""Embed an item table: from the plan to the parts, and from the parts to the store."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unialign.config import EmbedConfig, ProgressMode, Resume
from unialign.data import EmbeddingStore, Overwrite
from unialign.embedding._assemble import BROKEN, store_options
from unialign.embedding._clock import Stage
from unialign.embedding._local import cores, encoder_threads
from unialign.embedding._make_plan import check_items, make_plan
from unialign.embedding._plan import Plan, differences
from unialign.embedding._resume import ChangedFiles
from unialign.embedding._reuse import stored_marks
from unialign.embedding._run import Run
from unialign.embedding._work_folder import WorkFolder
from unialign.encoders import Encoder
from unialign.errors import CheckpointError, ConfigError, DataError
from unialign.items import Items

__all__ = ["EmbedOutcome", "chosen_threads", "embed_items"]


@dataclass
class EmbedOutcome:
    """A store, and the parts that were computed, resumed from an earlier call, or reused from another store."""

    store: EmbeddingStore
    plan: Plan
    computed: int = 0
    resumed: int = 0
    reused: int = 0
    seconds: Mapping[Stage, float] = field(default_factory=dict)
    waiting: str = "waiting"


def embed_items(
    items: Items,
    encoders: Mapping[str, Encoder],
    target: Path,
    config: EmbedConfig,
    *,
    resume: Resume,
    overwrite: Overwrite,
    reuse: EmbeddingStore | None = None,
    keep_parts: bool = False,
    progress: ProgressMode = "auto",
    ray_address: str | None = None,
    offline: bool | None = None,
    work_options: Mapping[str, Any] | None = None,
    on_plan: Callable[[Plan, int, int], None] | None = None,
) -> EmbedOutcome:
    check_items(items)
    folder = WorkFolder(target)
    cells = {name: items.column(name) for name in items.modalities}
    threads = chosen_threads(config, target)
    with encoder_threads(threads):
        plan = make_plan(items, cells, encoders, config, threads)
        finished = _finished_store(target, plan, overwrite)
        if finished is not None and not _is_repeated(finished, plan, config):
            # The process may have been killed before it removed the folder.
            if folder.path.exists() and not keep_parts:
                with contextlib.suppress(ConfigError), folder.locked():
                    folder.remove()
            return EmbedOutcome(finished, plan)
        if resume == "required" and not folder.has_plan:
            raise CheckpointError(f"there is no unfinished run for {target}; start one with resume='auto'")
        _check_store_options(items)
        with folder.locked():
            # Another process may have finished the store in the meantime.
            finished = _finished_store(target, plan, overwrite)
            if finished is not None and not _is_repeated(finished, plan, config):
                if not keep_parts:
                    folder.remove()
                return EmbedOutcome(finished, plan)
            run = Run(
                plan,
                items,
                cells,
                encoders,
                folder,
                config,
                progress,
                work_options or {},
                ray_address,
                offline,
            )
            run.prepare(resume, overwrite)
            if finished is not None:
                run.copy(finished, with_broken=not config.retry_broken)
            elif reuse is not None:
                run.copy(reuse, with_broken=not config.retry_broken)
            if on_plan is not None:
                on_plan(plan, run.resumed, run.reused)
            store = run.finish("replace" if finished is not None else overwrite)
            if not keep_parts:
                folder.remove()
            return EmbedOutcome(
                store, plan, run.computed, run.resumed, run.reused, dict(run.clock.seconds), run.waiting
            )


def _is_repeated(store: EmbeddingStore, plan: Plan, config: EmbedConfig) -> bool:
    """Raise DataError if files changed, and `allow_changed` is False."""
    changed = ChangedFiles(plan.roots)
    for _, marks in stored_marks(store):
        changed.in_part(marks)
    if changed.found and not config.allow_changed:
        raise changed.error()
    return bool(changed.found) or (config.retry_broken and BROKEN in store.assets)


def chosen_threads(config: EmbedConfig, target: Path) -> int:
    """Return the number of threads; for `auto`, that of an earlier call with the same folder, if any."""
    if config.threads != "auto":
        return int(config.threads)
    stored: Any = None
    with contextlib.suppress(CheckpointError, DataError):
        stored = (WorkFolder(target).stored_plan() or {}).get("settings")
        if stored is None and (target / "store.json").exists():
            stored = EmbeddingStore.open(target).provenance.get("plan", {}).get("settings")
    if isinstance(stored, Mapping) and isinstance(stored.get("threads"), int):
        return int(stored["threads"])
    return 1 if config.engine == "ray" else max(1, cores() // 2)


def _finished_store(target: Path, plan: Plan, overwrite: Overwrite) -> EmbeddingStore | None:
    """Raise DataError if the path exists and must not be replaced."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    try:
        store = EmbeddingStore.open(target)
    except DataError:
        raise DataError(f"{target} exists and is not a store; choose another path") from None
    if overwrite == "replace":
        return None
    stored: Any = store.provenance.get("plan")
    if isinstance(stored, Mapping) and stored.get("digest") == plan.digest:
        return store
    raise DataError(
        f"{target} already exists, and was made from other data or with other settings{_changes(store, plan)}; choose "
        "another path (--out), delete the folder, or pass overwrite='replace' (`unialign embed --overwrite`)"
    )


def _changes(store: EmbeddingStore, plan: Plan) -> str:
    columns: Any = store.provenance.get("columns", {})
    stored: Any = store.provenance.get("plan", {})
    if not isinstance(stored, Mapping) or "settings" not in stored:
        return ""
    body = {
        "schema": plan.to_json()["schema"],
        "items": store.provenance.get("data", {}).get("fingerprint"),
        "rows": store.items,
        "settings": stored["settings"],
        "columns": {
            name: {
                "media": entry.get("reference", {}).get("media"),
                "dim": store.dim(name),
                "encoder": entry.get("fingerprint"),
                "cells": entry.get("input", {}).get("cells"),
                "cells_sha256": entry.get("input", {}).get("cells_sha256"),
            }
            for name, entry in columns.items()
        },
        "references": {name: entry.get("reference") for name, entry in columns.items()},
    }
    found = differences(body, plan)
    return f" ({'; '.join(found)})" if found else ""


def _check_store_options(items: Items) -> None:
    """Raise errors that `EmbeddingStore.write` would raise after hours of encoding."""
    ones = np.ones((len(items), 1), np.float16)
    EmbeddingStore.from_arrays(dict.fromkeys(items.modalities, ones), **store_options(items))
