"""Imports go down (design, section 2): read from every file, also those inside functions."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

IMPURE = frozenset({"asyncio", "socket", "ssl", "threading", "time", "logging", "os", "random", "uuid"})
"""What core may not use of the standard library: it knows no clock, no chance and no outside."""

ALLOWED = {
    "core": {"core"},
    "services": {"core", "services"},
    "handlers": {"core", "services", "handlers"},
    "simulator": {"core", "simulator"},
    "cli": {"core", "services", "handlers", "simulator", "bench", "cli", "server"},
    "bench": {"core", "services", "bench"},
    "server.py": {"core", "services", "handlers", "server"},
}
"""Folders of this repository that a folder may import from."""

OURS = {*ALLOWED, "server", "tests", "web", "bench"}

TORNADO = {"handlers", "simulator", "bench", "server.py"}

THIRD_PARTY_IN_HANDLERS = {"tornado"}


def modules(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the absolute modules a file imports, with their lines; `from a import b` counts as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in {
            "import_module",
            "__import__",
        }:
            yield from ((arg.value, node.lineno) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def sources(folder: str) -> list[Path]:
    """Return the Python files of a folder, or the one file."""
    return [ROOT / folder] if folder.endswith(".py") else sorted((ROOT / folder).rglob("*.py"))


def service_of(path: Path) -> str:
    """Return the service a file belongs to: its name, or that of the package in services/ it lies in."""
    return path.relative_to(ROOT / "services").parts[0].removesuffix(".py")


def faults(folder: str, path: Path, text: str) -> list[str]:
    """Return what a file of this folder imports although it may not."""
    found = []
    for module, line in modules(ast.parse(text)):
        top, *rest = module.split(".")
        where = f"{path.name}:{line} imports {module}"
        if top in OURS and top not in ALLOWED[folder]:
            found.append(f"{where}: upward")
        if folder == "core" and (top in IMPURE or (top not in sys.stdlib_module_names and top != "core")):
            found.append(f"{where}: core is pure standard library")
        if folder == "services" and top == "services" and rest and rest[0] not in {"store", service_of(path)}:
            found.append(f"{where}: another service")
        if top == "tornado" and folder not in TORNADO:
            found.append(f"{where}: tornado lives in handlers/, simulator/ and server.py")
        is_foreign = top not in sys.stdlib_module_names and top not in OURS
        if folder == "handlers" and is_foreign and top not in THIRD_PARTY_IN_HANDLERS:
            found.append(f"{where}: clients of other systems live in services/")
    return found


@pytest.mark.parametrize("folder", list(ALLOWED))
def test_imports_go_down(folder: str) -> None:
    """No file imports from above, and no service from another service."""
    files = sources(folder)
    assert files
    found = [f"{folder}: {fault}" for path in files for fault in faults(folder, path, path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    ("folder", "text"),
    [
        ("core", "import asyncio"),
        ("core", "def f():\n    from time import monotonic"),
        ("core", "import httpx"),
        ("core", "from services.store import Store"),
        ("services", "from handlers.base import Door"),
        ("services", "from services import vault"),
        ("services", "def f():\n    import services.log"),
        ("services", "import tornado.web"),
        ("handlers", "import server"),
        ("handlers", "import httpx"),
        ("handlers", "from cli.console import say"),
        ("simulator", "from services.auth import Verifier"),
        ("cli", "import tornado"),
        ("server.py", "import importlib\nimportlib.import_module('cli.demo')"),
    ],
)
def test_upward_import_is_found(folder: str, text: str) -> None:
    """The rule fails on each way of going up, also inside a function."""
    path = ROOT / "services" / "auth" / "x.py" if folder == "services" else ROOT / folder / "x.py"
    assert len(faults(folder, path, text)) >= 1


@pytest.mark.parametrize(
    ("folder", "text"),
    [
        ("core", "import json\nfrom core.realtime import Event"),
        ("services", "from services.store import Store\nfrom services.auth.claims import User\nfrom .x import y"),
        ("handlers", "from services.auth import Verifier\nimport tornado.web"),
        ("cli", "from server import start\nimport websocket"),
    ],
)
def test_downward_import_is_let_pass(folder: str, text: str) -> None:
    """What the design allows is no fault."""
    path = ROOT / "services" / "auth" / "x.py" if folder == "services" else ROOT / folder / "x.py"
    assert faults(folder, path, text) == []
