"""Comparisons of objectives: same data, same budget, several seeds, intervals and verdicts."""

from unialign.experiments._compare import compare, make_results, open_store
from unialign.experiments._config import CompareConfig, Entry, read_yaml
from unialign.experiments._items import copy_thumbnails, write_items
from unialign.experiments._pool import run_jobs
from unialign.experiments._recipes import recipe
from unialign.experiments._results import describe_data, describe_environment, describe_metrics, write_json
from unialign.experiments._run import EMBEDDINGS_FILE, RunRecord, embed_split, evaluate_split, run, save_embeddings
from unialign.experiments._run_dir import open_run_dir
from unialign.experiments._summary import LEVEL, compare_entries, intervals
from unialign.experiments._tuning import override, search
from unialign.io._files import write_yaml

__all__ = [
    "EMBEDDINGS_FILE",
    "LEVEL",
    "CompareConfig",
    "Entry",
    "RunRecord",
    "compare",
    "compare_entries",
    "copy_thumbnails",
    "describe_data",
    "describe_environment",
    "describe_metrics",
    "embed_split",
    "evaluate_split",
    "intervals",
    "make_results",
    "open_run_dir",
    "open_store",
    "override",
    "read_yaml",
    "recipe",
    "run",
    "run_jobs",
    "save_embeddings",
    "search",
    "write_items",
    "write_json",
    "write_yaml",
]
