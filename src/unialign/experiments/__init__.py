"""Comparisons of objectives: same data, same budget, several seeds, intervals and verdicts."""

from unialign._files import write_yaml
from unialign.experiments._assets import write_items
from unialign.experiments._compare import compare, make_results, open_store
from unialign.experiments._config import CompareConfig, Entry, read_yaml
from unialign.experiments._folder import claim_folder
from unialign.experiments._recipes import recipe
from unialign.experiments._results import describe_environment, write_json
from unialign.experiments._run import EMBEDDINGS_FILE, RunRecord, embed_split, evaluate_split, run, save_embeddings
from unialign.experiments._search import search, with_settings

__all__ = [
    "EMBEDDINGS_FILE",
    "CompareConfig",
    "Entry",
    "RunRecord",
    "claim_folder",
    "compare",
    "describe_environment",
    "embed_split",
    "evaluate_split",
    "make_results",
    "open_store",
    "read_yaml",
    "recipe",
    "run",
    "save_embeddings",
    "search",
    "with_settings",
    "write_items",
    "write_json",
    "write_yaml",
]
