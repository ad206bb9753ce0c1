"""Implementation of `unialign repair`."""

import contextlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from unialign.cli._console import echo, shown
from unialign.config import RepairConfig
from unialign.correction import Repair, make_results, repair, repair_collection, text_table
from unialign.data import EmbeddingStore, open_collection
from unialign.experiments import open_run_dir, write_json
from unialign.io import replace_file, write_yaml
from unialign.report import write_repair_report
from unialign.space import Space

EMBEDDINGS, SPACE = "embeddings", "space"


def repair_sources(config: RepairConfig, space_folder: str | None, sources: Sequence[str], out: Path) -> int:
    """Fit a repair to the sources and write the results folder."""
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
        written = _write_output(found, space, config, sources, out)
        results = make_results(found, seconds=time.perf_counter() - started, out=str(out))
        _write(out, config, found, results)
    finally:
        # Remove the new folder of a failed repair if it is empty.
        if new:
            with contextlib.suppress(OSError):
                out.rmdir()
    echo(results["answer"])
    echo()
    echo(text_table(found))
    echo()
    echo(f"{written}. Report: {shown(out / 'report.html')}")
    return 0


def _write_output(found: Repair, space: Space | None, config: RepairConfig, sources: Sequence[str], out: Path) -> str:
    """Write the repaired space or embeddings, delete those of an earlier repair, and return a sentence about them."""
    kept = None if found.choice == "none" else EMBEDDINGS if space is None else SPACE
    for name in {EMBEDDINGS, SPACE} - {kept}:
        shutil.rmtree(out / name, ignore_errors=True)
    if kept is None:
        return "The embeddings are not changed, so no copy is written"
    if space is not None:
        found.fold_into(space).save_pretrained(out / SPACE)
        return f"Repaired space: {shown(out / SPACE)}"
    data = open_collection(list(sources), modalities=config.modalities, id=config.id)
    repaired: EmbeddingStore = repair_collection(found, data, out / EMBEDDINGS)
    return f"Repaired embeddings: {shown(out / EMBEDDINGS)} ({repaired.items:,} items)"


def _write(out: Path, config: RepairConfig, found: Repair, results: dict[str, object]) -> None:
    write_yaml(out / "config.yaml", config.to_dict())
    found.save(out / "repair")
    found.export_npz(out / "repair.npz")
    write_json(out / "results.json", results)
    replace_file(out / "log.txt", f"{results['answer']}\n\n{text_table(found)}\n")
    write_repair_report(out)
