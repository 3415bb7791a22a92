"""What `./voice doctor` looks at on this machine: one function a question.

A check raises nothing it expects, changes nothing, and says what is wrong and how to mend it.
"""

from __future__ import annotations

import os
import pwd
import resource
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from cli.deploy_files import SERVICE_USER
from cli.findings import Finding, ok, problem, warning
from cli.installed_units import doors, enabled_services, limit_of_files
from cli.status import NoAnswer, fetch
from core.settings import Settings

LEAST_FREE_MB = 500
"""The transcript spool alone may take 256 MB and keeps a reserve of 8 (operations reference, section 5)."""

LOGS_MB = 1500
"""Two logs of 50 MB, and 14 old ones of each, which gzip brings to about a tenth, with the newest not yet compressed:
340 MB (docs/logging.md). Four times that is enough for a machine nobody looks at for a while."""

FILES_PER_SESSION = 2
FILES_BESIDE = 200
"""A session has two sockets; log files, the database and HTTP connections need the rest."""


def ports(settings: Settings) -> Finding:
    """Are the ports free, or does this server hold them?"""
    free, ours = [], []
    for port, health_port in doors(settings):
        taken = [each for each in (port, health_port) if each and _listens(settings.host, each)]
        if not taken:
            free.append(f"{port} and {health_port}")
            continue
        try:
            report = fetch(f"http://127.0.0.1:{health_port}/health")
        except NoAnswer:
            return problem("ports", f"{', '.join(map(str, taken))} taken by another program",
                           f"See which: ss -ltnp 'sport = :{taken[0]}'; or set PORT and HEALTH_PORT.")  # fmt: skip
        ours.append(f"on {port} a voice server {report.get('version', '')} listens, {report['status']}")
    return ok("ports", "; ".join([*ours, *(f"{each} are free" for each in free)]))


def _listens(host: str, port: int) -> bool:
    address = "127.0.0.1" if host in {"0.0.0.0", ""} else host  # noqa: S104 - compared, not bound
    try:
        with socket.create_connection((address, port), timeout=2):
            return True
    except OSError:
        return False


def folders(settings: Settings) -> Finding:
    """Can logs and state be written by who runs the server, and is there room?"""
    found = []
    for name, place, mode in (("LOG_DIR", settings.log_dir, "0750"), ("STATE_DIR", settings.state_dir, "0700")):
        folder = Path(place).absolute()
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not _may_write(there):
            return problem("folders", f"{name} {folder} cannot be written by {_runner()}",
                           f"sudo install -d -o {SERVICE_USER} -g {SERVICE_USER} -m {mode} {folder}")  # fmt: skip
        free_mb = shutil.disk_usage(there).free // 1_000_000
        if free_mb < LEAST_FREE_MB:
            return problem("folders", f"{name} has {free_mb} MB left", f"Free {LEAST_FREE_MB} MB on that disk.")
        if free_mb < LOGS_MB:
            found.append(warning("folders", f"{name} has {free_mb} MB left", f"du -xh {folder} | sort -h | tail"))
    return found[0] if found else ok("folders", f"logs in {settings.log_dir}, state in {settings.state_dir}, both "
                                     f"writable by {_runner()}")  # fmt: skip


def _runner() -> str:
    """Return who runs the server here: the units' user where they are enabled, else who asks."""
    return SERVICE_USER if enabled_services() else pwd.getpwuid(os.geteuid()).pw_name


def _may_write(folder: Path) -> bool:
    """Tell whether who runs the server may write; root's own rights say nothing about the service's."""
    if not enabled_services() or os.geteuid() != 0:
        return os.access(folder, os.W_OK | os.X_OK)
    try:
        user = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return False
    seen = folder.stat()
    if seen.st_uid == user.pw_uid:
        return bool(seen.st_mode & stat.S_IWUSR)
    return bool(seen.st_mode & (stat.S_IWGRP if seen.st_gid == user.pw_gid else stat.S_IWOTH))


def open_files(settings: Settings) -> Finding:
    """May a process hold as many sockets as its share of MAX_CONNECTIONS needs?"""
    units = enabled_services()
    allowed = limit_of_files() if units else resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    processes = max(settings.workers, len(units))
    needed = FILES_PER_SESSION * -(-settings.max_connections // processes) + FILES_BESIDE
    if allowed < needed:
        return problem("open files", f"{allowed} allowed, {needed} needed for MAX_CONNECTIONS",
                       f"LimitNOFILE={2 * needed} in the unit, or: ulimit -n {2 * needed}")  # fmt: skip
    return ok("open files", f"{allowed} allowed, {needed} needed")


MACHINE_CHECKS: tuple[tuple[str, Callable[[Settings], Finding]], ...] = (
    ("ports", ports),
    ("folders", folders),
    ("open files", open_files),
)
"""All of them, in the order they are shown."""
