"""Train encoders and heads on all GPUs of a job that was started by torchrun or SLURM; on CPUs without GPUs.

    torchrun --nproc-per-node 8 examples/multi_gpu/train.py --data items/ --out runs/many     # one machine
    sbatch examples/multi_gpu/job.sbatch                                                      # several machines
    python examples/multi_gpu/train.py --data items/ --out runs/many                          # one process

All machines must see the files of the items and the folder of the run under the same paths.
"""

import argparse
from pathlib import Path

import unialign as ua


def main(arguments: list[str] | None = None) -> None:
    """Train one space on all processes, or continue its training; process 0 evaluates it on the test items."""
    options = parsed(arguments)
    config = ua.TrainConfig(
        objective_options={"anchor": "all"},
        encoders=dict(entry.split("=", 1) for entry in options.encode),
        tune=dict(entry.split("=", 1) for entry in options.tune),
        epochs=options.epochs,
        batch_size=options.batch_size,
        micro_batch_size=options.micro_batch_size,
        save_steps=50,
    )
    workers = "auto" if options.workers is None else options.workers
    items = ua.data.Items.load(options.data)
    with ua.distributed.init() as process:  # one GPU per process; without a job, a single process
        embedding = ua.config.EmbedConfig(workers=workers)
        space = ua.fit(items, config, out=options.out, resume="auto", embedding=embedding).space
    if process.rank != 0:
        return
    found = ua.evaluate(items, space, embedding=embedding)
    low, high = found.interval("recall@1")
    print(f"{process.world_size} processes, R@1 {found.metrics['recall@1']:.3f} [{low:.3f}, {high:.3f}]")


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="item table with a split, as written by Items.save")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; a repeated command continues it")
    parser.add_argument("--encode", action="append", default=[], metavar="MODALITY=ENCODER")
    parser.add_argument("--tune", action="append", default=[], metavar="MODALITY=MODE")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=1024, help="items of all processes together")
    parser.add_argument("--micro-batch-size", type=int, default=64, help="items of a process in one pass of encoders")
    parser.add_argument("--workers", type=int, help="processes that decode media, for each process of the job")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
