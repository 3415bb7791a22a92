"""`./voice test`: installs what the tests need, then lint, types and all tests.

The launcher has installed requirements-test.txt before this runs.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from cli.console import say

ROOT = Path(__file__).resolve().parent.parent

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "postgresql": ("/usr/lib/postgresql/*/bin/initdb", "initdb"),
    "chromium": ("chromium", "google-chrome"),
    "nginx-light": ("nginx", "/usr/sbin/nginx"),
    "espeak-ng": ("espeak-ng",),
    "nodejs": ("node",),
    "npm": ("npm",),
    "systemd-container": ("systemd-nspawn",),
    "logrotate": ("logrotate", "/usr/sbin/logrotate"),
    "curl": ("curl",),
    "debootstrap": ("debootstrap", "/usr/sbin/debootstrap"),
    "prometheus": ("promtool",),
    "redis-tools": ("redis-server", "redis-check-rdb"),
}
"""Debian packages the tests use, and the programs of which one shows that it is there."""

NPM_FOLDERS = (
    ROOT / "tests" / "web", ROOT / "tests" / "supabase_cli", ROOT / "tests" / "deploy" / "pm2",
    ROOT / "supabase" / "local",
)  # fmt: skip

APT_S = 900.0
"""Chromium is 360 MB; on a slow line that takes some minutes."""

NPM_S = 300.0

WORKERS = "2"
"""Processes: the second halves the time, a third on two cores adds only memory for one more browser and database."""


def main(argv: list[str]) -> int:
    """Run everything, or with arguments the tests they choose.

    Args:
        argv: Passed on to pytest.

    Returns:
        0 when lint, types and tests are good; pytest's status when tests failed, else 1.
    """
    _install_packages()
    for folder in NPM_FOLDERS:
        _install_npm(folder)
    failed = [" ".join(command) for command in (["ruff", "check"], ["mypy"]) if _fails(command)]
    environment = {**os.environ, "VOICE_FAILED_BEFORE": ", ".join(failed)}  # tests/conftest.py repeats it at the end
    # Both processes must collect in the same order, also where a set is gone through; another one each run.
    seed = environment.setdefault("PYTHONHASHSEED", str(secrets.randbelow(2**32)))
    say(f"-- pytest with PYTHONHASHSEED={seed}")
    status = subprocess.run(_pytest(argv), cwd=ROOT, env=environment).returncode
    return status or (1 if failed else 0)


def _pytest(argv: list[str]) -> list[str]:
    command = [sys.executable, "-m", "pytest", "-n", WORKERS, "--dist", "loadfile"]
    if not argv:  # of a part of the tests, coverage says nothing
        command += ["--cov", "--cov-report=term-missing:skip-covered", "--cov-fail-under=100"]
    return [*command, *argv]


def _fails(command: list[str]) -> bool:
    say(f"-- {' '.join(command)}")
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, stdout=sys.stderr).returncode != 0


def missing_packages() -> list[str]:
    """Return the Debian packages none of whose programs is there."""
    return [package for package, programs in PACKAGES.items() if not any(map(_is_there, programs))]


def _is_there(program: str) -> bool:
    if "*" in program:
        return any(Path("/").glob(program.removeprefix("/")))
    return shutil.which(program) is not None


def _install_packages() -> None:
    """Install missing Debian packages where this user may; elsewhere say which tests will be skipped."""
    missing = missing_packages()
    if not missing:
        return
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    if not shutil.which("apt-get") or os.geteuid() != 0:
        say(f"not installed, so their tests are skipped: {', '.join(missing)}")
        say(f"  on Debian and Ubuntu: sudo {' '.join(command)}")
        return
    say(f"-- apt-get install {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        subprocess.run(["apt-get", "update", "-qq"], stdout=sys.stderr, env=environment, timeout=APT_S)
        subprocess.run(command, stdout=sys.stderr, env=environment, timeout=APT_S)
    except subprocess.TimeoutExpired:
        say(f"apt-get took longer than {APT_S:g} s")
    still = missing_packages()
    if still:
        say(f"could not be installed, so their tests are skipped: {', '.join(still)}")


def _install_npm(folder: Path) -> None:
    """Install what a folder's package.json names, unless it is there as its lock file says."""
    lock, marker = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
    wanted = lock if lock.exists() else folder / "package.json"
    if not wanted.exists() or (marker.exists() and marker.stat().st_mtime >= wanted.stat().st_mtime):
        return
    name = folder.relative_to(ROOT)
    if not shutil.which("npm"):
        say(f"no npm: the packages of {name} are not installed, and their tests are skipped")
        return
    say(f"-- npm packages of {name}")
    command = ["npm", "ci" if lock.exists() else "install", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(command, cwd=folder, stdout=sys.stderr, timeout=NPM_S)
    except subprocess.TimeoutExpired:
        say(f"npm took longer than {NPM_S:g} s for {name}")
        return
    if done.returncode:
        say(f"npm could not install the packages of {name}; their tests are skipped")
