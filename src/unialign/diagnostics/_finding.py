"""`Finding`, and the rule tables that produce findings from measurements."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

from unialign.diagnostics._format import fill
from unialign.diagnostics._measure import Measurements

Code = Literal[
    "anisotropy", "asymmetry", "collapse", "collapsed", "constant", "constant_columns", "copied_modality",
    "dim_mismatch", "distribution_gap",
    "duplicate_modality", "duplicates", "few_items", "gap", "hubness", "ignored", "inf", "labels", "low_rank",
    "match_cosine", "matched", "misaligned_block", "missing", "modality_bias", "modality_gap", "nan", "near_duplicates",
    "no_overlap", "norm_outliers", "norm_range", "norm_scale", "norms", "not_aligned", "not_paired", "one_modality",
    "pairing", "random_pairs", "retrieval", "row_offset", "shared_component", "similar_negatives",
    "sources", "truncation", "undecidable",
    "uneven_cutoffs", "uneven_retrieval", "uneven_sharpness", "values", "weak_retrieval", "zero_rows",
]  # fmt: skip
Severity = Literal["ok", "note", "warning", "problem"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note", "ok")


@dataclass(frozen=True)
class Finding:
    """A finding of a diagnosis.

    Attributes:
        code: stable identifier, such as "modality_gap".
        severity: "ok", "note" (worth knowing), "warning" (look into it) or "problem" (results cannot be trusted).
        modalities: affected modalities; empty: all.
        text: description of the finding, with numbers.
        advice: suggested remedy; "" if no action is needed.
    """

    code: Code
    severity: Severity
    modalities: tuple[str, ...]
    text: str
    advice: str = ""

    @property
    def brief(self) -> str:
        """Return the code and the modalities, such as `gap(image,text)`."""
        return f"{self.code}({','.join(self.modalities)})" if self.modalities else self.code


class Case(SimpleNamespace):
    """Facts about one subject (a modality, a pair, a group); `name` defaults to the first modality."""

    def __init__(self, *modalities: str, **facts: Any) -> None:
        super().__init__(**({"modalities": modalities, "name": "".join(modalities[:1])} | facts))


def always(case: Case) -> bool:
    return True


@dataclass(frozen=True)
class Rule:
    """The severity is fixed or a function of the case; text and advice are templates."""

    code: Code
    severity: Severity | Callable[[Any], Severity]
    when: Callable[[Any], bool]
    text: str
    advice: str = ""

    def finding(self, case: Case) -> Finding:
        severity = self.severity if isinstance(self.severity, str) else self.severity(case)
        text, advice = (fill(template, vars(case)) for template in (self.text, self.advice))
        return Finding(self.code, severity, case.modalities, text, advice)


@dataclass(frozen=True)
class RuleTable:
    """The first rule whose predicate holds for a case determines the finding."""

    cases: Callable[[Measurements], Iterable[Case]]  # yields a case for each subject
    rules: tuple[Rule, ...]  # tried in order
    # Function and rule for all subjects together, used if no single case produced a finding.
    otherwise: tuple[Callable[[Measurements], Iterable[Case]], Rule] | None = None

    def findings(self, measured: Measurements) -> list[Finding]:
        found: list[Finding] = []
        for case in self.cases(measured):
            matching = (rule.finding(case) for rule in self.rules if rule.when(case))
            found += itertools.islice(matching, 1)
        if not found and self.otherwise is not None:
            whole, rule = self.otherwise
            found = [rule.finding(case) for case in whole(measured)]
        return found
