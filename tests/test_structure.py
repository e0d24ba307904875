"""The tests' own structure: what several of them use is in ``support``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FILES = sorted(path for path in TESTS.rglob("*.py") if "__pycache__" not in path.parts)


def imported(path: Path) -> Iterator[str]:
    """Dotted names of the modules that a file imports, and of what it imports from them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module
            yield from (f"{module}.{name.name}" for name in node.names)


def is_of_tests(module: str) -> bool:
    """Whether an import is relative, or of a file with tests or fixtures."""
    if module.startswith("."):
        return True
    parts = module.removeprefix("tests.").split(".")
    path = TESTS.joinpath(*parts).with_suffix(".py")
    return path in FILES and (path.name.startswith("test_") or path.name in {"conftest.py", "plugin.py"})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(TESTS).as_posix())
def test_no_file_imports_tests(path: Path) -> None:
    assert [module for module in imported(path) if is_of_tests(module)] == []


@pytest.mark.parametrize(
    "module",
    [
        "service.api.test_guard",
        "tests.service.api.test_guard",
        "conftest",
        "napari.plugin",
        ".test_structure",
        "test_structure",
    ],
)
def test_an_import_of_tests_would_be_noticed(module: str) -> None:
    assert is_of_tests(module)


def test_what_is_installed_is_no_test() -> None:
    assert not any(
        map(
            is_of_tests, ("napari", "napari.layers", "docker", "support.servers", "client.vectors.regenerate")
        )
    )
