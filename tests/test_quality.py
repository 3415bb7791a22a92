"""What holds for every file: size, docstrings, no stubs, no secrets, no places of this machine."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from io import StringIO
from pathlib import Path

import pytest
from dotenv import dotenv_values

from cli import example_settings
from core.settings import TABLE

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("core", "services", "handlers", "simulator", "cli", "bench", "server.py")

MAX_FILE_LINES = 400
MAX_BODY_LINES = 60
MAX_PARAMETERS = 5
SHORT_LINES = 2
"""A method with a body this short says by its name what it does."""

DOCUMENTED_ELSEWHERE = re.compile(r"on_\w+|initialize|load_dialect_impl|process_bind_param")
"""Handlers named after the wire's event, and methods a framework calls: their meaning is the protocol's or the
framework's."""

STUBS = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b|NotImplemented" r"Error")

SECRETS = re.compile(
    r"\bsk-(?:proj-)?[A-Za-z0-9_-]{40,}"  # OpenAI
    r"|\bsb_secret_[A-Za-z0-9_-]{20,}"  # Supabase
    r"|\bAC[0-9a-f]{32}\b(?=.*auth)"  # Twilio
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----\s*\n\s*[A-Za-z0-9+/]{40,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{36}"
)

PLACES = re.compile(r"(?<![\w.])/(?:work|root)/(?!\.)[\w.]|(?<![\w/.])/tmp/[\w.]|/home/(?!voice|user|you|<)\w+/")

REGISTRIES = re.compile(r"\b(?:pypi\.org|files\.pythonhosted\.org|registry\.npmjs\.org|registry\.yarnpkg\.com)\b", re.I)
"""Where packages come from is the machine's business: a mirror may stand in between."""

TEXTS = {".py", ".js", ".ts", ".json", ".md", ".toml", ".sql", ".txt", ".css", ".html", ".conf", ".service", ".yaml",
         ".yml", ".example", ".sh", ""}  # fmt: skip


@cache
def tracked() -> tuple[Path, ...]:
    """Return the files that are or will be part of the repository: those git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    paths = (ROOT / name for name in done.stdout.split("\0") if name)
    return tuple(path for path in paths if path.is_file() and "node_modules" not in path.parts)


def python_files(*folders: str) -> list[Path]:
    """Return the tracked Python files of these folders."""
    wanted = [ROOT / folder for folder in folders]
    return [p for p in tracked() if p.suffix == ".py" and any(p == w or w in p.parents for w in wanted)]


@cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the functions of a file, nested ones too."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def named(path: Path, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    """Return where something is, for a message."""
    return f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function without its signature and its docstring."""
    first = node.body[1] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body[0]
    return (node.end_lineno or node.lineno) - first.lineno + 1


def found(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    """Return file and line of every match."""
    hits = []
    for path in paths:
        text, name = path.read_text(encoding="utf-8", errors="replace"), path.relative_to(ROOT)
        hits += [f"{name}:{text.count(chr(10), 0, hit.start()) + 1}" for hit in pattern.finditer(text)]
    return hits


def texts(*, but: tuple[str, ...] = ()) -> list[Path]:
    """Return the tracked files that hold text, without lock files and those named."""
    skip = {"package-lock.json", *but}
    return [path for path in tracked() if path.suffix in TEXTS and path.name not in skip]


def test_no_file_is_long() -> None:
    """No Python file has over 400 lines, tests of one subject included only as far as that."""
    long = {str(p.relative_to(ROOT)): n for p in python_files(*SOURCES)
            if (n := len(p.read_text(encoding="utf-8").splitlines())) > MAX_FILE_LINES}  # fmt: skip
    assert long == {}


def test_no_function_is_long() -> None:
    """No function body has over 60 lines."""
    long = [f"{named(path, node)}: {n} lines" for path in python_files(*SOURCES, "tests") for node in functions(path)
            if (n := body_lines(node)) > MAX_BODY_LINES]  # fmt: skip
    assert long == []


def test_public_functions_and_classes_have_docstrings() -> None:
    """Whatever others may call says what is true after the call."""
    silent = []
    for path in python_files(*SOURCES):
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if ast.get_docstring(node) is None and not is_excused(path, node):
                silent.append(named(path, node))
    assert silent == []


def is_excused(path: Path, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """Return whether something needs no docstring: short, a framework's, or inside a function that nobody can call."""
    if any(node is inner for outer in functions(path) for inner in ast.walk(outer) if inner is not outer):
        return True
    if isinstance(node, ast.ClassDef):
        return False
    return body_lines(node) <= SHORT_LINES or DOCUMENTED_ELSEWHERE.fullmatch(node.name) is not None


def test_modules_say_what_they_hold() -> None:
    """Every module of the source begins with a docstring."""
    assert [str(p.relative_to(ROOT)) for p in python_files(*SOURCES, "tests") if not ast.get_docstring(parsed(p))] == []


def test_tests_state_the_truth_they_check() -> None:
    """Every test has a docstring."""
    silent = [named(path, node) for path in python_files("tests") for node in functions(path)
              if node.name.startswith("test_") and ast.get_docstring(node) is None]  # fmt: skip
    assert silent == []


def test_nothing_is_left_unfinished() -> None:
    """No stub and no note to oneself stands in the source or the tests."""
    assert found(STUBS, [path for path in texts() if path.suffix in {".py", ".js", ".sql", ".sh", ""}]) == []


def test_no_secret_is_in_the_repository() -> None:
    """No file holds what looks like a real key."""
    assert found(SECRETS, texts()) == []


def test_no_place_of_one_machine_is_named() -> None:
    """Paths of a developer's machine help nobody else."""
    assert found(PLACES, texts(but=("test_quality.py",))) == []


def test_no_registry_is_named() -> None:
    """No file says where packages are downloaded from."""
    assert found(REGISTRIES, texts(but=("test_quality.py",))) == []


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (STUBS, "# TO" "DO later"),
        (SECRETS, "key = 'sk-proj-" + "a1" * 24 + "'"),
        (PLACES, "open('/wo" "rk/main/x')"),
        (PLACES, "see /tm" "p/out.txt"),
        (REGISTRIES, "https://pypi" ".org/simple"),
    ],
)
def test_patterns_find_what_they_are_for(pattern: re.Pattern[str], text: str) -> None:
    """Each pattern fires on an example."""
    assert pattern.search(text)


def test_example_settings_are_the_table() -> None:
    """`.env.example` names every setting of the table, with its default, in its order."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    shown = list(dotenv_values(stream=StringIO(text)).items())
    assert shown == [(row.name, row.default or "") for row in TABLE]


def test_example_settings_are_up_to_date() -> None:
    """The comments of `.env.example` are those of the table too: `python -m cli.example_settings` writes it."""
    assert (ROOT / ".env.example").read_text(encoding="utf-8") == example_settings.text()
