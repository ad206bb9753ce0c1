"""Test the imports between packages by parsing the source code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "unialign"

# Layers from bottom to top. A package may import from its own layer and from lower layers.
LAYERS = (
    (
        "errors",
        "_version",
        "_lazy",
        "_pair_keys",
        "_checks",
        "_optional",
        "_single_backward",
        "_stop_request",
        "_plain_text",
        "_html",
        "_datasets",
    ),
    ("registry", "io", "distributed", "config"),
    ("batch", "_stacked_rows", "_unit_rows", "_invalid_rows"),
    ("ops",),
    ("functional",),
    ("losses", "metrics", "geometry"),
    ("media",),
    ("readers",),
    ("items",),
    ("data",),
    ("encoders", "space"),
    ("embedding",),
    ("evaluation", "probes"),
    ("closed_form",),
    ("train",),
    ("experiments",),
    ("tuning",),
    ("diagnostics", "generation", "correction", "migration", "integrations", "inspection", "named_data"),
    ("index",),
    ("report",),
    ("serve",),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# The root namespace and the module entry point may import all packages.
ROOT_FILES = {"__init__", "__main__"}


def sources(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*.py")) if "__pycache__" not in path.parts)


def package_of(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(path: Path, *, nested: bool) -> Iterator[tuple[int, str]]:
    pending: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.startswith("unialign"))
        elif isinstance(node, ast.ImportFrom) and node.module == "unialign":
            yield from ((node.lineno, f"unialign.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("unialign."):
            yield node.lineno, node.module
        elif is_type_checking(node) or (isinstance(node, ast.FunctionDef) and not nested):
            continue
        else:
            pending.extend(ast.iter_child_nodes(node))


def test_every_package_has_a_layer() -> None:
    found = {package_of(path) for path in sources(SOURCE)} - ROOT_FILES
    assert found <= set(LEVEL), f"add {sorted(found - set(LEVEL))} to LAYERS"


def test_imports_follow_the_layers() -> None:
    upward = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sources(SOURCE)
        if package_of(path) not in ROOT_FILES
        for line, module in imports(path, nested=False)
        if LEVEL.get(module.split(".")[1], -1) > LEVEL[package_of(path)]
    ]
    assert not upward, "\n".join(upward)


def test_no_two_packages_import_each_other() -> None:
    graph: dict[str, set[str]] = {name: set() for name in LEVEL}
    for path in sources(SOURCE):
        own = package_of(path)
        if own not in ROOT_FILES:
            graph[own] |= {module.split(".")[1] for _, module in imports(path, nested=False)} - {own}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in sorted(graph.get(name, ())):
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_no_two_modules_import_each_other() -> None:
    modules = {
        path: ".".join(("unialign", *path.relative_to(SOURCE).with_suffix("").parts)) for path in sources(SOURCE)
    }
    graph = {name: {module for _, module in imports(path, nested=True)} for path, name in modules.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for other in sorted(graph.get(name, set()) & graph.keys()):
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("folder", ["src/unialign", "research", "benchmarks"])
def test_packages_are_imported_through_their_namespace(folder: str) -> None:
    """Modules such as `unialign.ops._uniformity` must not be imported outside `unialign.ops`."""
    private = []
    for path in sources(ROOT / folder):
        own = package_of(path) if folder == "src/unialign" else ""
        for line, module in imports(path, nested=True):
            parts = module.split(".")
            if len(parts) > 2 and parts[1] != own and any(part.startswith("_") for part in parts[2:]):
                private.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert not private, "\n".join(private)


def test_the_package_does_not_import_research() -> None:
    for path in sources(SOURCE):
        assert "research" not in {
            (node.module or "").split(".")[0]
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.ImportFrom)
        }, path


def test_tests_import_no_test_and_do_not_change_the_search_path() -> None:
    """Shared code must be in `conftest.py` or in modules without tests, which are importable through `pythonpath`."""
    found = []
    for path in sources(ROOT / "tests"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(alias.name for alias in node.names)]
            bad = [name for name in names if any(part.startswith("test_") for part in name.split("."))]
            # `monkeypatch.syspath_prepend` is allowed, since pytest undoes it.
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("sys.path."):
                bad.append(ast.unparse(node))
            if isinstance(node, ast.Assign | ast.AugAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                bad += [ast.unparse(node) for target in targets if ast.unparse(target).startswith("sys.path")]
            found += [f"{path.relative_to(ROOT)}:{node.lineno}: {name}" for name in bad]
    assert not found, "\n".join(found)
