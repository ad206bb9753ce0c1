"""Test filters against their evaluation in Python, and messages of invalid filters."""

import sqlite3
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

import unialign as ua
from unialign.errors import ConfigError
from unialign.index._catalog import Catalog, Changes, NewItems
from unialign.index._filter import Combination, Comparison, Expression, Membership, Not, Presence, parse_filter
from unialign.index._filter_sql import compile_filter

MODALITIES = {"image": 0, "audio": 1}
NAMES = ("price", "color", "flag", "ünï", "a b", "absent", "label", "key")
VALUES: tuple[Any, ...] = (0, 1, 2.5, -3, 1e300, 1 << 53, (1 << 53) + 1, "", "red", "it's", 'say "x"', "1", True, False)
ITEMS: list[tuple[str, str | None, int, dict[str, Any]]] = [
    (f"key {n}", (None, "car", "red", "it's")[n % 4], 1 + n % 3, {})
    if n % 5 == 0
    else (
        f"key {n}",
        (None, "car", "red", "it's")[n % 4],
        1 + n % 3,
        {name: VALUES[(n * 7 + 3 * place) % len(VALUES)] for place, name in enumerate(NAMES[:5]) if (n >> place) & 1},
    )
    for n in range(1, 60)
] + [("large", None, 1, {"price": (1 << 53) + 1})]


def catalog() -> Catalog:
    made = Catalog.create(None, {})
    keys, labels, bits, metadata = zip(*ITEMS, strict=True)
    made.commit(Changes([("p", NewItems(keys, np.array(bits), labels=labels, metadata=metadata))]))
    return made


CATALOG = catalog()


def selected(text: str) -> list[int]:
    condition, parameters = compile_filter(parse_filter(text), MODALITIES)
    return [int(place) for _, place in CATALOG.select(condition, parameters, 1)]


def value_of(item: tuple[str, str | None, int, dict[str, Any]], name: str) -> Any:
    return {"key": item[0], "label": item[1]}.get(name, item[3].get(name))


def compared(found: Any, operator: str, value: Any) -> bool:
    """Texts and numbers are different, and are not ordered."""
    if found is None or isinstance(found, str) != isinstance(value, str):
        return False
    return bool(
        {
            "=": found == value,
            "!=": found != value,
            "<": found < value,
            "<=": found <= value,
            ">": found > value,
            ">=": found >= value,
        }[operator]
    )


def holds(tree: Expression, item: tuple[str, str | None, int, dict[str, Any]]) -> bool:
    match tree:
        case Combination(operator, operands):
            return (all if operator == "and" else any)(holds(each, item) for each in operands)
        case Not(operand):
            return not holds(operand, item)
        case Presence(name):
            bit = MODALITIES.get(name)
            return value_of(item, name) is not None if bit is None else bool(item[2] >> bit & 1)
        case Comparison(name, operator, value):
            return compared(value_of(item, name), operator, value)
        case Membership(name, values):
            return any(compared(value_of(item, name), "=", value) for value in values)


def literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def written(name: str) -> str:
    return f"`{name}`" if " " in name else name


names = st.sampled_from(NAMES).map(written)
values = st.one_of(
    st.sampled_from(VALUES).map(literal),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4).map(literal),
)
comparisons = st.tuples(names, st.sampled_from(["=", "==", "!=", "<>", "<", "<=", ">", ">="]), values).map(" ".join)
memberships = st.tuples(
    names, st.sampled_from(["in", "not in", "NOT IN"]), st.lists(values, min_size=1, max_size=4)
).map(lambda found: f"{found[0]} {found[1]} ({', '.join(found[2])})")
presences = st.tuples(st.sampled_from(["has", "missing"]), st.one_of(names, st.sampled_from(list(MODALITIES)))).map(
    lambda found: f"{found[0]}({found[1]})"
)
filters = st.recursive(
    st.one_of(comparisons, memberships, presences),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or", "AND", "Or"]), inner).map(" ".join),
        inner.map(lambda each: f"not ({each})"),
        inner.map(lambda each: f"not {each}"),
        inner.map(lambda each: f"({each})"),
    ),
    max_leaves=12,
)


@settings(max_examples=250, deadline=None)
@given(filters)
@example("price = 9007199254740993")
@example("price in (9007199254740993, 'red')")
@example("not label = 'car' and key > 'key 3'")
def test_filters_select_what_python_selects(text: str) -> None:
    tree = parse_filter(text)
    assert selected(text) == [place for place, item in enumerate(ITEMS) if holds(tree, item)]


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), st.text(alphabet="ab1.'\"`()<>=!, notinhaser-", max_size=40)))
def test_any_text_is_a_filter_or_a_configuration_error(text: str) -> None:
    try:
        condition, parameters = compile_filter(parse_filter(text), MODALITIES)
    except ConfigError:
        return
    # Only names and words of the grammar are in the SQL text; values are parameters.
    assert set(condition) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ()=!<>?&0',")
    CATALOG.select(condition, parameters, 1)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("label = 'car' or label = 'red' and has(audio)", "label = 'car' or (label = 'red' and has(audio))"),
        ("not label = 'car' and has(audio)", "(not label = 'car') and has(audio)"),
        ("not not has(audio)", "has(audio)"),
        ("missing(audio)", "not has(audio)"),
        ("price not in (1, 2)", "not price in (1, 2)"),
        ('color = "say ""x"""', "color = 'say \"x\"'"),
        ("LABEL = 'car' and TRUE = 1", ""),
    ],
)
def test_precedence(text: str, meaning: str) -> None:
    if not meaning:
        with pytest.raises(ConfigError):
            parse_filter(text)
        return
    assert parse_filter(text) == parse_filter(meaning)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("label = car", r"column 9: unexpected 'car'.*strings need quotes, such as 'car'"),
        ("label =", "column 8: the filter ends"),
        ("label = 'car", "column 9: unexpected"),
        ("label in ()", r"column 11: unexpected '\)'"),
        ("label in ('a'", "column 14: the filter ends"),
        ("(label = 'a'", "column 13: the filter ends"),
        ("label = 'a')", r"column 12: unexpected '\)'"),
        ("label = 'a' label = 'b'", "column 13: unexpected 'label'"),
        ("label like 'a'", "column 7: unexpected 'like'"),
        ("has(audio", "column 10: the filter ends"),
        ("1 = 1", "column 1: unexpected '1'; expected the name of a field"),
        ("label = 'a'; drop table items", "column 12: unexpected ';'"),
        (" and ".join(["price = 1"] * 70), "more than 64 terms"),
        ("price in (" + ", ".join(["1"] * 1001) + ")", "at most 1000 values"),
        ("(" * 200 + "price = 1" + ")" * 200, "nested parentheses"),
        ("not " * 30_000, "120000 characters"),
        (3, "must be a string"),
    ],
)
def test_messages_name_the_column(text: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_filter(text)


def test_limits_are_accepted() -> None:
    assert selected("price in (" + ", ".join(["1"] * 1000) + ")") == selected("price = 1")
    assert selected(" or ".join(["price = 1"] * 63)) == selected("price = 1")
    many = " or ".join(f"price in ({', '.join(['7'] * 300)})" for _ in range(20))
    assert selected(many) == selected("price = 7")


def test_large_integers_are_exact() -> None:
    place = len(ITEMS) - 1
    assert place in selected("price = 9007199254740993")
    assert place not in selected("price = 9007199254740992")
    assert selected(f"price < {'9' * 400}") == selected("price < 1e999")


def test_filters_in_search() -> None:
    rng = np.random.default_rng(0)
    index = ua.Index.from_store(ua.data.EmbeddingStore.from_arrays({"image": rng.normal(size=(50, 6))}))
    for number in range(0, 50, 3):
        index.update(str(number), metadata={"n": number})
    found = index.search(ua.query(item="1"), where="n >= 30 and n < 40", k=50)
    assert sorted(found.keys, key=int) == ["30", "33", "36", "39"]
    with pytest.raises(ConfigError, match="column 3"):
        index.search(ua.query(item="1"), where="n ~ 3")
    assert index.search(ua.query(item="1"), where="n = 1000").keys == ()


def test_sqlite_supports_what_filters_need() -> None:
    assert sqlite3.sqlite_version_info >= (3, 32), "32,766 parameters, and partial indexes"
