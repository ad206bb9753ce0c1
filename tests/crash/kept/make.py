"""Write a store, an interrupted run and the final space of that run to a folder named after this version.

Run `PYTHONPATH=tests python tests/crash/kept/make.py` before a release that changes a file format. Never change the
folders of earlier versions.
"""

from pathlib import Path

from train_cases import run, stop_at, tiny_config, tiny_store
from unialign._version import __version__
from unialign.data import EmbeddingStore


def main() -> None:
    folder = Path(__file__).parent / __version__
    folder.mkdir()
    tiny = tiny_store()
    modalities = tiny.modalities
    EmbeddingStore.write(
        folder / "store",
        {name: tiny.array(name) for name in modalities},
        present={name: tiny.present(name) for name in modalities},
        ids=tiny.ids,
        split=["test"] * len(tiny.rows("test")) + ["train"] * len(tiny.rows("train")),
        name="tiny",
    )
    # A learned temperature, two objectives, dropout and gradient accumulation cover all state that a checkpoint stores.
    config = tiny_config(
        objective_options={"temperature_mode": "learnable"}, infonce_warmup_ratio=0.2, save_steps=10, save_total_limit=1
    )
    run(tiny, config).space.save_pretrained(folder / "space")
    try:
        # Use a store in memory, since the run would record the local path of a store on disk.
        run(tiny, config, out=folder / "run", on_step=stop_at(10))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
