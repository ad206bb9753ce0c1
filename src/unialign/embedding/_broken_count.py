"""Count broken cells, and stop as soon as there are too many."""

from collections import Counter
from collections.abc import Callable, Iterable

from unialign._plain_text import percent
from unialign.embedding._part_file import BrokenCell
from unialign.embedding._plan import Plan
from unialign.errors import DataError, MediaError

__all__ = ["BrokenCount"]

_SHOWN = 5


class BrokenCount:
    """Broken cells of all columns. The number only grows, so the order of the parts does not affect the result."""

    def __init__(self, plan: Plan, where: Callable[[str, int], str]) -> None:
        self._plan, self._where = plan, where
        self.codes: dict[str, Counter[str]] = {name: Counter() for name in plan.columns}
        self._first: dict[str, list[BrokenCell]] = {name: [] for name in plan.columns}

    def add(self, column: str, broken: Iterable[BrokenCell]) -> None:
        """Raise MediaError if `on_broken` is `raise`, and DataError if there are too many broken cells."""
        for cell in broken:
            if self._plan.on_broken == "raise":
                raise MediaError(cell.code, cell.detail, self._where(column, cell.cell))
            self.codes[column][cell.code] += 1
            if len(self._first[column]) < _SHOWN:
                self._first[column].append(cell)
        count, planned = self.codes[column].total(), self._plan.columns[column].cells
        if count > self._plan.most_broken(column) or count == planned:
            raise self._too_many(column, count, planned)

    def _too_many(self, column: str, count: int, planned: int) -> DataError:
        by_code = ", ".join(f"{number} {code}" for code, number in sorted(self.codes[column].items()))
        first = "; ".join(
            f"{self._where(column, cell.cell)}: {cell.detail} ({cell.code})" for cell in self._first[column]
        )
        if count == planned:
            return DataError(
                f"all {planned:,} cells of {column!r} are broken ({by_code}); the first: {first}; correct the data or "
                f"leave out {column!r}, and pass retry_broken=True"
            )
        return DataError(
            f"at least {count:,} of {planned:,} cells of {column!r} are broken ({by_code}), more than "
            f"{self._plan.most_broken(column):,} (max_broken {percent(self._plan.max_broken)}); the first: {first}; "
            f"finished parts are kept: correct the files and pass retry_broken=True, or raise max_broken"
        )
