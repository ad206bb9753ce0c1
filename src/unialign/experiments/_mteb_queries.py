"""Compute the nDCG@10 of each query.

The formula is that of trec_eval, which mteb uses. Ties are broken by document id in descending order, and a document
with the same id as the query is ignored.
"""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unialign.errors import DataError
from unialign.experiments._mteb_files import Part, read_json_object

Qrels = Mapping[str, Mapping[str, float]]

_K = 10
# Tolerance of the comparison with stored scores, which mteb rounds to five decimals.
TOLERANCE = 1e-4


def read_qrels(folder: Path, task: str) -> dict[Part, Qrels] | None:
    """Read relevances. `TASK.json` or `TASK_qrels.json` maps subset -> split -> query -> document -> relevance.
    `TASK.tsv` has the format of BEIR and is used for the split `test`.
    """
    for path in (folder / f"{task}.json", folder / f"{task}_qrels.json"):
        if path.is_file():
            return parts_of(read_json_object(path), path)
    path = folder / f"{task}.tsv"
    if not path.is_file():
        return None
    found: dict[str, dict[str, float]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in list(csv.reader(file, delimiter="\t"))[1:]:
                found.setdefault(row[0], {})[row[1]] = float(row[2])
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"{path} cannot be read as query-id, corpus-id, score ({error}); write it again") from None
    return {("test", "default"): found}


def parts_of(content: Mapping[str, Any], path: Path) -> dict[Part, Qrels]:
    """Return part -> query -> document -> number."""
    found: dict[Part, Qrels] = {}
    for subset, splits in content.items():
        if subset == "mteb_model_meta":
            continue
        try:
            for split, queries in splits.items():
                found[split, subset] = {
                    str(query): {str(document): float(value) for document, value in documents.items()}
                    for query, documents in queries.items()
                }
        except (AttributeError, TypeError, ValueError):
            raise DataError(
                f"{path} does not map subset, split, query and document to numbers; expected the format of mteb"
            ) from None
    return found


def ndcg_per_query(retrieved: Qrels, qrels: Qrels) -> dict[str, float]:
    """Return the nDCG@10 of each query. Queries without relevant documents are omitted; queries without retrieved
    documents score 0.
    """
    found = {}
    for query, relevances in qrels.items():
        ideal = _dcg(sorted((value for value in relevances.values() if value > 0), reverse=True))
        if ideal == 0:
            continue
        documents = {name: score for name, score in retrieved.get(query, {}).items() if name != query}
        # Sort by score and then by id, both in descending order.
        ranked = sorted(documents.items(), key=lambda entry: (entry[1], entry[0]), reverse=True)[:_K]
        found[query] = _dcg([max(0.0, relevances.get(name, 0.0)) for name, _ in ranked]) / ideal
    return found


def _dcg(gains: list[float]) -> float:
    return math.fsum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains[:_K]))
