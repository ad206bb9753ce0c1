from unialign.config import CompareConfig as CompareConfig, ComparisonEntry as ComparisonEntry
from unialign.experiments._compare import compare as compare, make_entry as make_entry
from unialign.experiments._data import open_store as open_store, prepare_data as prepare_data, recipe as recipe
from unialign.experiments._items import copy_thumbnails as copy_thumbnails, write_items as write_items
from unialign.experiments._pool import run_jobs as run_jobs
from unialign.experiments._ranking import (
    PairedDifference as PairedDifference,
    RankedModel as RankedModel,
    Ranking as Ranking,
    rank_models as rank_models,
)
from unialign.experiments._results import (
    describe_data as describe_data,
    describe_metrics as describe_metrics,
    make_results as make_results,
    write_json as write_json,
)
from unialign.experiments._results_folder import (
    DATA_FOLDER as DATA_FOLDER,
    ITEMS_FOLDER as ITEMS_FOLDER,
    STORE_FOLDER as STORE_FOLDER,
    TUNING_FOLDER as TUNING_FOLDER,
    check_run_dir as check_run_dir,
    open_run_dir as open_run_dir,
)
from unialign.experiments._run import (
    RunRecord as RunRecord,
    embed_split as embed_split,
    evaluate_space as evaluate_space,
    evaluate_split as evaluate_split,
    run as run,
)
from unialign.experiments._run_items import run_items as run_items
from unialign.experiments._score_table import ScoreTable as ScoreTable, read_mteb as read_mteb
from unialign.experiments._verdicts import LEVEL as LEVEL, compare_entries as compare_entries, intervals as intervals

__all__ = [
    "LEVEL",
    "CompareConfig",
    "ComparisonEntry",
    "PairedDifference",
    "RankedModel",
    "Ranking",
    "RunRecord",
    "ScoreTable",
    "compare",
    "compare_entries",
    "copy_thumbnails",
    "describe_data",
    "describe_metrics",
    "embed_split",
    "evaluate_space",
    "evaluate_split",
    "intervals",
    "make_entry",
    "make_results",
    "open_run_dir",
    "open_store",
    "prepare_data",
    "rank_models",
    "read_mteb",
    "recipe",
    "run",
    "run_jobs",
    "write_items",
    "write_json",
]
