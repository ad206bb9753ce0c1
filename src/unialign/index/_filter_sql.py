"""Compile filters into SQL conditions on the table `items`, with bound parameters."""

from collections.abc import Mapping
from typing import Any

from unialign.index._filter import Combination, Comparison, Expression, Membership, Not, Presence, Value

_COLUMNS = ("label", "key")


def compile_filter(expression: Expression, modalities: Mapping[str, int]) -> tuple[str, tuple[Any, ...]]:
    """Return an SQL condition and its parameters.

    Args:
        expression: the filter.
        modalities: modality -> bit of the column `present`.
    """
    parameters: list[Any] = []
    return _condition(expression, modalities, parameters), tuple(parameters)


def _condition(expression: Expression, modalities: Mapping[str, int], parameters: list[Any]) -> str:
    match expression:
        case Combination(operator, operands):
            joined = f" {operator.upper()} ".join(_condition(each, modalities, parameters) for each in operands)
            return f"({joined})"
        case Not(operand):
            return f"NOT {_condition(operand, modalities, parameters)}"
        case Presence(name):
            return _presence(name, modalities, parameters)
        case Comparison(name, operator, value):
            return _tested(name, f"{operator} ?", (value,), parameters)
        case Membership(name, values):
            return _tested(name, f"IN ({', '.join('?' * len(values))})", values, parameters)


def _presence(name: str, modalities: Mapping[str, int], parameters: list[Any]) -> str:
    if name in modalities:
        parameters.append(1 << modalities[name])
        return "(present & ?) != 0"
    if name in _COLUMNS:
        return f"({name} IS NOT NULL)"
    parameters.append(name)
    return "(payload IN (SELECT payload FROM fields WHERE name = ?))"


def _tested(name: str, test: str, values: tuple[Value, ...], parameters: list[Any]) -> str:
    """Return the SQL of a comparison. Numbers and texts are never equal, and comparisons hold only between values of
    the same type.

    Strict inequality also needs the same type, since SQLite orders all numbers before all texts.
    """
    kinds = ("text",) if isinstance(values[0], str) else ("integer", "real")
    same = {isinstance(value, str) for value in values}
    if name in _COLUMNS:
        texts = [value for value in values if isinstance(value, str)]
        if not texts or (len(texts) < len(values) and not test.startswith("IN")):
            return "(0)"
        parameters.extend(values)
        return f"({name} IS NOT NULL AND {name} {test})"
    parameters.append(name)
    parameters.extend(int(value) if isinstance(value, bool) else value for value in values)
    typed = f" AND typeof(value) IN ({', '.join(repr(kind) for kind in kinds)})" if len(same) == 1 else ""
    return f"(payload IN (SELECT payload FROM fields WHERE name = ? AND value {test}{typed}))"
