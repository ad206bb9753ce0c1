"""Implementation of `unialign repair`."""

import contextlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from unialign.cli._console import echo, shown
from unialign.config import RepairConfig
from unialign.correction import Repair, make_results, repair, repair_collection
from unialign.data import open_collection
from unialign.errors import DataError
from unialign.experiments import open_run_dir, write_json
from unialign.io import atomic_directory, replace_file, write_yaml
from unialign.report import write_repair_report
from unialign.space import Space

EMBEDDINGS, SPACE = "embeddings", "space"
# Files that describe the other files in the results folder.
_LAST = ("results.json", "report.html", "log.txt")


def repair_sources(config: RepairConfig, space_folder: str | None, sources: Sequence[str], out: Path) -> int:
    new = not out.exists()
    open_run_dir(out, "repair")  # An earlier repair is overwritten, since it takes only a minute to repeat.
    started = time.perf_counter()
    try:
        space = None if space_folder is None else Space.from_pretrained(space_folder)
        found = repair(
            list(sources) if space is None else space,
            None if space is None else list(sources),
            modalities=config.modalities,
            id=config.id,
            methods=config.methods,
            holdout=config.holdout,
            seed=config.seed,
        )
        written = _write(out, config, found, space, sources, started)
    finally:
        # Remove the new folder of a failed repair if it is empty.
        if new:
            with contextlib.suppress(OSError):
                out.rmdir()
    echo((out / "log.txt").read_text("utf-8"))
    echo(f"{written}. Report: {shown(out / 'report.html')}")
    return 0


def _write(
    out: Path, config: RepairConfig, found: Repair, space: Space | None, sources: Sequence[str], started: float
) -> str:
    """Write the results folder. Old results are deleted first and new results are written last, so that they always
    match the other files.
    """
    embeddings = out / EMBEDDINGS
    if embeddings.is_symlink() or (embeddings.exists() and not (embeddings / "store.json").is_file()):
        raise DataError(f"{embeddings} is not a store, so it is not replaced; remove it or choose another --out")
    kept = None if found.choice == "none" else EMBEDDINGS if space is None else SPACE
    written = "The embeddings are not changed, so no copy is written"
    folded = found.fold_into(space) if space is not None and kept == SPACE else None
    try:
        with contextlib.ExitStack() as stack:
            if kept == EMBEDDINGS:
                staging = stack.enter_context(atomic_directory(embeddings, check_replaced=lambda _: None))
                data = open_collection(list(sources), modalities=config.modalities, id=config.id)
                items = repair_collection(found, data, staging).items
                written = f"Repaired embeddings: {shown(embeddings)} ({items:,} items)"
            for name in _LAST:
                (out / name).unlink(missing_ok=True)
            write_yaml(out / "config.yaml", config.to_dict())
    except OSError as error:
        raise DataError(f"cannot write to {out}: {error.strerror or error}; choose another --out") from error
    for name in {EMBEDDINGS, SPACE} - {kept}:
        shutil.rmtree(out / name, ignore_errors=True)
    if folded is not None:
        folded.save_pretrained(out / SPACE)
        written = f"Repaired space: {shown(out / SPACE)}"
    found.save(out / "repair")
    found.export_npz(out / "repair.npz")
    results = make_results(found, seconds=time.perf_counter() - started, out=str(out))
    replace_file(out / "log.txt", found.text() + "\n")
    write_json(out / "results.json", results)
    write_repair_report(out)
    return written
