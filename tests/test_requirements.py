"""The requirements files say exactly what is used."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("core", "services", "handlers", "simulator", "cli", "bench", "server.py")

MODULES = {"python-dotenv": "dotenv", "python-jose": "jose", "websocket-client": "websocket",
           "prometheus-client": "prometheus_client", "opentelemetry-sdk": "opentelemetry",
           "opentelemetry-exporter-otlp-proto-http": "opentelemetry"}  # fmt: skip
"""Packages whose module has another name."""

BROUGHT_BY = {"postgrest": "supabase", "referencing": "jsonschema", "httpcore": "httpx"}
"""Modules that are imported by name and come with a package of the list; a test checks that they do."""

NOT_IMPORTED = {
    "aiofastnet": "picows, which brings it, takes its options",
    "tzdata": "zoneinfo finds it by itself, where the system has no time zones",
}

FILES = [str(path.relative_to(ROOT)) for folder in SOURCES for path in
         ([ROOT / folder] if folder.endswith(".py") else (ROOT / folder).rglob("*.py"))]  # fmt: skip

REQUIREMENT = re.compile(r"[\w\[\]-]+>=[\d.]+(,<[\d.]+)?(; [^#]+)? +# \S")

LARGEST_INSTALLATION = 60
"""Packages in production: the listed ones and what they bring; supabase alone brings about twenty."""


def listed(name: str) -> dict[str, Requirement]:
    """Return the requirements of a file by canonical name."""
    lines = (line.split(" #")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def imported(*folders: str) -> set[str]:
    """Return the third-party modules that files import."""
    ours = {"core", "services", "handlers", "simulator", "cli", "server", "tests", "bench"}
    tops: set[str] = set()
    for folder in folders:
        for path in [ROOT / folder] if folder.endswith(".py") else (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    tops |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    tops.add(node.module.split(".")[0])
    return tops - ours - set(sys.stdlib_module_names)


def module_of(package: str) -> str:
    """Return the module a package is imported as."""
    return MODULES.get(package, package.replace("-", "_"))


def test_every_import_is_declared() -> None:
    """What the source imports is in requirements.txt, or comes with a package that is."""
    declared = {module_of(package) for package in listed("requirements.txt")} | set(BROUGHT_BY)
    optional = {module_of(package) for package in listed("requirements-otel.txt")}
    assert imported(*SOURCES) - declared == optional
    assert imported(*(path for path in FILES if path != "services/traces.py")) & optional == set()


def test_every_import_of_the_tests_is_declared() -> None:
    """A fresh machine has what the tests import: from one of the two files, or from a package that brings it."""
    packages = [*listed("requirements.txt"), *listed("requirements-test.txt")]
    declared = {module_of(package) for package in packages}
    brought = {"agents", "pydantic", "cryptography", "packaging"} | set(BROUGHT_BY)  # agents: openai-agents
    local = {path.stem for path in ROOT.glob("tests/**/*.py")}
    assert imported("tests") - declared - brought - local == set()


def test_every_declared_package_is_used() -> None:
    """What is in requirements.txt is imported, or has its reason not to be."""
    used = imported(*SOURCES)
    used |= {module_of(parent) for module, parent in BROUGHT_BY.items() if module in used}
    unused = {package for package in listed("requirements.txt") if module_of(package) not in used}
    assert unused - set(NOT_IMPORTED) == set()


@pytest.mark.parametrize(("module", "parent"), list(BROUGHT_BY.items()))
def test_borrowed_module_comes_with_its_package(module: str, parent: str) -> None:
    """A module imported without a line of its own is required by the package named for it."""
    names = {canonicalize_name(Requirement(text).name) for text in metadata.requires(parent) or ()}
    assert canonicalize_name(module) in names


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-test.txt"])
def test_installed_versions_fit(name: str) -> None:
    """What is installed is within the ranges, so that the tests speak for them."""
    wrong = [
        f"{package} {metadata.version(package)} is outside {requirement.specifier}"
        for package, requirement in listed(name).items()
        if (requirement.marker is None or requirement.marker.evaluate())
        and not requirement.specifier.contains(metadata.version(package))
    ]
    assert wrong == []


def test_every_line_has_a_range_and_a_reason() -> None:
    """A package of production has a lower and an upper end, and a comment that says what it is for."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in packages if not REQUIREMENT.match(line)] == []
    open_ended = [line.split("#")[0] for line in packages if ",<" not in line]
    assert [line for line in open_ended if not line.startswith("tzdata")] == []


def test_installation_stays_small() -> None:
    """The packages of production and all they bring are few."""
    waiting = [(package, requirement.extras) for package, requirement in listed("requirements.txt").items()]
    known: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        package, extras = waiting.pop()
        if (package, frozenset(extras)) in known:
            continue
        try:
            needs = metadata.requires(package) or []
        except metadata.PackageNotFoundError:  # of another platform
            continue
        known.add((package, frozenset(extras)))
        for need in map(Requirement, needs):
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras or {""}):
                waiting.append((canonicalize_name(need.name), need.extras))
    packages = {package for package, _ in known}
    assert len(packages) <= LARGEST_INSTALLATION, sorted(packages)


@pytest.mark.parametrize("package", ["sqlalchemy", "asyncpg", "postgrest", "pydantic", "opentelemetry", "redis"])
def test_heavy_packages_are_loaded_by_those_who_need_them(package: str) -> None:
    """Each store brings its own: 15 or 27 MB of SQL, 11 MB of Supabase; on a small droplet one of them is enough."""
    code = f"import sys, server; sys.exit({package!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


def test_sqlite_file_costs_nothing_of_postgresql(tmp_path: Path) -> None:
    """A server whose rows are in a file does without the 12 MB that PostgreSQL needs."""
    code = f"""if True:
        import asyncio, sys
        from services.sql_store import SqlStore, migrate

        async def run(url):
            await migrate(url)
            store = SqlStore.open(url)
            await store.ping()
            await store.close()

        asyncio.run(run("sqlite:///{tmp_path}/voice.db"))
        heavy = {{"asyncpg", "sqlalchemy.ext.asyncio", "sqlalchemy.orm", "sqlalchemy.dialects.postgresql"}}
        sys.exit(" ".join(heavy & set(sys.modules)) or 0)
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
