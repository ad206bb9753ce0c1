"""Compare the public API with a snapshot, in which each name, parameter or default is one line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

griffe = pytest.importorskip("griffe", reason="needs the extra `docs`; `make test` has it")

ROOT = Path(__file__).parent.parent
SNAPSHOT = Path(__file__).parent / "public_api.txt"


def resolved(member: "griffe.Object | griffe.Alias") -> "griffe.Object":
    return member.final_target if member.is_alias else member


def signature(function: "griffe.Function") -> str:
    parts, keyword_only = [], False
    for parameter in function.parameters:
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is griffe.ParameterKind.keyword_only and not keyword_only:
            keyword_only = True
            parts.append("*")
        star = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}.get(
            parameter.kind, ""
        )
        keyword_only = keyword_only or star == "*"
        default = f"={parameter.default}" if parameter.default and not star else ""
        parts.append(star + parameter.name + default)
    return f"({', '.join(parts)})"


def lines_of(path: str, member: "griffe.Object") -> Iterator[str]:
    if member.is_function:
        yield path + signature(member)
    elif member.is_class:
        constructor = member.all_members.get("__init__")
        is_function = constructor is not None and resolved(constructor).is_function
        yield f"class {path}" + (signature(resolved(constructor)) if is_function else "")
        for name, attribute in sorted(member.members.items()):
            if not name.startswith("_"):
                yield from lines_of(f"{path}.{name}", resolved(attribute))
    else:
        yield path


def public_api() -> list[str]:
    package = griffe.load("unialign", search_paths=[str(ROOT / "src")], allow_inspection=False)
    found: list[str] = []
    for name, member in sorted(package.members.items()):
        if name.startswith("_") or member.is_alias or not member.is_module:
            continue
        module = resolved(member)
        exports = module.exports or []
        for export in sorted(str(getattr(entry, "name", entry)) for entry in exports):
            found += lines_of(f"unialign.{name}.{export}", resolved(module.members[export]))
    return found


def test_the_public_api_is_the_one_of_the_snapshot(request: pytest.FixtureRequest) -> None:
    found = public_api()
    assert len(found) > 200
    if request.config.getoption("--update-api"):
        SNAPSHOT.write_text("\n".join(found) + "\n", "utf-8")
    kept = SNAPSHOT.read_text("utf-8").splitlines()
    added, removed = sorted(set(found) - set(kept)), sorted(set(kept) - set(found))
    assert not added + removed, "\n".join([*(f"+ {line}" for line in added), *(f"- {line}" for line in removed)])
