"""Format columns of numbers for the tables of a diagnosis."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unialign.report._format import number_format
from unialign.report._model import MetricEstimate, number
from unialign.report._schema import read_estimate

Cell = tuple[str, str]  # value, and the small text below it


def column(values: Sequence[Any], unit: str = "number") -> list[Cell]:
    """Format a column, with the same number of decimals for all values."""
    estimates = [read_estimate(v) if isinstance(v, Mapping) else MetricEstimate(number(v)) for v in values]
    fmt = max((number_format([e.mean], unit=unit) for e in estimates), key=lambda found: found.decimals)
    return [(fmt.with_unit(e.mean), fmt.interval_with_unit(e.low, e.high)) for e in estimates]


def table_rows(rows: Mapping[str, Mapping[str, Any]], columns: Callable[[Sequence[Any]], list[list[Cell]]]) -> Any:
    return list(zip(rows, zip(*columns(list(rows.values())), strict=True), strict=True)) if rows else []
