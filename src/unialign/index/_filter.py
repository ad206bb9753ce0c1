"""Parse filters such as `label in ('car', 'bus') and has(audio) and price < 5` into expression trees.

Grammar: expressions are combined with `and`, `or`, `not` and parentheses. A comparison is `name op value` with one of
= != < <= > >=, or `name in (value, ...)`, or `name not in (value, ...)`. Values are numbers, `true`, `false` and
strings in single or double quotes, in which a doubled quote is a quote. `has(name)` and `missing(name)` test whether an
item has a modality, or a value of a metadata field. The names `label` and `key` are those of the item; other names are
metadata fields, and names with characters other than letters, digits and `_` are quoted with backticks.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NoReturn

from unialign._checks import has_surrogate
from unialign.errors import ConfigError

MOST_NODES, MOST_VALUES, MOST_CHARACTERS, MOST_DEPTH = 64, 1000, 20_000, 32

Value = str | int | float | bool
Operator = Literal["=", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True)
class Comparison:
    """A comparison of a field with a value; False for items without the field."""

    name: str
    operator: Operator
    value: Value


@dataclass(frozen=True)
class Membership:
    """Whether a field has one of the values; False for items without the field."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Presence:
    """Whether an item has a modality, or a value of a field."""

    name: str


@dataclass(frozen=True)
class Not:
    """Negation."""

    operand: "Expression"


@dataclass(frozen=True)
class Combination:
    """`and` or `or` of at least two expressions."""

    operator: Literal["and", "or"]
    operands: tuple["Expression", ...]


Expression = Comparison | Membership | Presence | Not | Combination

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)
    |(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
    |(?P<quoted>`[^`]+`)
    |(?P<operator><=|>=|!=|<>|==|=|<|>|\(|\)|,)
    |(?P<word>[^\W\d]\w*)
    )""",
    re.VERBOSE,
)
_WORDS = {"and", "or", "not", "in", "has", "missing", "true", "false"}
_OPERATORS: dict[str, Operator] = {
    "=": "=",
    "==": "=",
    "!=": "!=",
    "<>": "!=",
    "<": "<",
    "<=": "<=",
    ">": ">",
    ">=": ">=",
}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    column: int


def parse_filter(text: str) -> Expression:
    """Parse a filter.

    Raises:
        ConfigError: the text is not a filter; the message has the column of the error.
    """
    if not isinstance(text, str):
        raise ConfigError(f"a filter must be a string, such as \"label = 'car'\", got {type(text).__name__}")
    if has_surrogate(text):
        raise ConfigError("the filter is not valid Unicode, since it has an unpaired surrogate")
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(f"the filter has {len(text)} characters; the limit is {MOST_CHARACTERS}")
    return _Parser(text).parse()


def names_of(expression: Expression) -> set[str]:
    """Return the names of fields and modalities in a filter."""
    match expression:
        case Combination(_, operands):
            return set().union(*map(names_of, operands))
        case Not(operand):
            return names_of(operand)
        case _:
            return {expression.name}


class _Parser:
    """Recursive descent with one token of lookahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._read())
        self._place = self._nodes = self._depth = 0

    def parse(self) -> Expression:
        if not self._tokens:
            raise ConfigError("the filter is empty; expected for example \"label = 'car'\"")
        found = self._combination("or")
        if self._token is not None:
            self._fail(f"unexpected {self._token.text!r}", "`and`, `or` or the end")
        return found

    def _read(self) -> Iterator[_Token]:
        place = 0
        while self._text[place:].strip():
            match = _TOKEN.match(self._text, place)
            if match is None:
                column = place + len(self._text[place:]) - len(self._text[place:].lstrip())
                self._fail_at(column, f"unexpected {self._text[column]!r}", "a name, a value or an operator")
            kind = str(match.lastgroup)
            yield _Token(kind, match.group(kind), match.start(kind))
            place = match.end()

    @property
    def _token(self) -> _Token | None:
        return self._tokens[self._place] if self._place < len(self._tokens) else None

    def _is(self, *words: str) -> bool:
        token = self._token
        return token is not None and token.kind in ("word", "operator") and token.text.lower() in words

    def _take(self, *words: str) -> bool:
        if self._is(*words):
            self._place += 1
            return True
        return False

    def _expect(self, word: str) -> None:
        if not self._take(word):
            self._fail_here(f"{word!r}")

    def _combination(self, operator: Literal["and", "or"]) -> Expression:
        self._depth += 1
        if self._depth > 2 * MOST_DEPTH:
            self._fail_here(f"at most {MOST_DEPTH} nested parentheses")
        operands = [self._operand(operator)]
        while self._take(operator):
            operands.append(self._operand(operator))
        self._depth -= 1
        return operands[0] if len(operands) == 1 else self._node(Combination(operator, tuple(operands)))

    def _operand(self, operator: Literal["and", "or"]) -> Expression:
        return self._combination("and") if operator == "or" else self._negation()

    def _negation(self) -> Expression:
        negations = 0
        while self._take("not"):
            negations += 1
        found = self._primary()
        return self._node(Not(found)) if negations % 2 else found

    def _primary(self) -> Expression:
        if self._take("("):
            found = self._combination("or")
            self._expect(")")
            return found
        if self._is("has", "missing"):
            is_missing = self._is("missing")
            self._place += 1
            self._expect("(")
            presence = self._node(Presence(self._name()))
            self._expect(")")
            return self._node(Not(presence)) if is_missing else presence
        name = self._name()
        if self._take("not"):
            self._expect("in")
            return self._node(Not(self._members(name)))
        if self._take("in"):
            return self._members(name)
        token = self._token
        if token is None or token.text not in _OPERATORS:
            self._fail_here("an operator (=, !=, <, <=, >, >=, in)")
        self._place += 1
        return self._node(Comparison(name, _OPERATORS[token.text], self._value()))

    def _members(self, name: str) -> Expression:
        self._expect("(")
        values = [self._value()]
        while self._take(","):
            values.append(self._value())
            if len(values) > MOST_VALUES:
                self._fail_here(f"at most {MOST_VALUES} values")
        self._expect(")")
        return self._node(Membership(name, tuple(values)))

    def _name(self) -> str:
        token = self._token
        if token is None or token.kind not in ("word", "quoted") or token.text.lower() in _WORDS:
            self._fail_here("the name of a field")
        self._place += 1
        return token.text.strip("`") if token.kind == "quoted" else token.text

    def _value(self) -> Value:
        token = self._token
        if token is None or token.kind in ("operator", "quoted"):
            self._fail_here("a value")
        if token.kind == "word" and token.text.lower() not in ("true", "false"):
            self._fail_here(f"a value; strings need quotes, such as '{token.text}'")
        self._place += 1
        if token.kind == "number":
            # Large integers are not representable as floats.
            digits = token.text.lstrip("+-0")
            is_integer = token.text.lstrip("+-").isdecimal() and len(digits) < 20 and int(digits or "0") < 1 << 63
            if not is_integer:
                return float(token.text)
            return -int(digits or "0") if token.text.startswith("-") else int(digits or "0")
        if token.kind == "text":
            quote = token.text[0]
            return token.text[1:-1].replace(2 * quote, quote)
        return token.text.lower() == "true"

    def _node(self, expression: Expression) -> Expression:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise ConfigError(f"the filter has more than {MOST_NODES} terms; use `in (...)` for lists of values")
        return expression

    def _fail_here(self, expected: str) -> NoReturn:
        token = self._token
        self._fail("the filter ends" if token is None else f"unexpected {token.text!r}", expected)

    def _fail(self, problem: str, expected: str) -> NoReturn:
        token = self._token
        self._fail_at(len(self._text) if token is None else token.column, problem, expected)

    def _fail_at(self, column: int, problem: str, expected: str) -> NoReturn:
        raise ConfigError(f"filter, column {column + 1}: {problem}; expected {expected}")
