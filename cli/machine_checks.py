"""What `./voice doctor` looks at on this machine: one function a question.

A check raises nothing it expects, changes nothing, and says what is wrong and how to mend it.
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from cli.findings import Finding, ok, problem, skipped
from cli.status import NoAnswer, fetch
from core.settings import Settings

PROGRAM_S = 10.0
"""How long nginx and systemd-analyze may take; both need less than a second."""

LEAST_FREE_MB = 500
"""The transcript spool alone may take 256 MB and keeps a reserve of 8 (operations reference, section 5)."""

FILES_PER_SESSION = 2
FILES_BESIDE = 200
"""A session has two sockets; log files, the database and HTTP connections need the rest."""

NGINX_SITES = (Path("/etc/nginx/sites-enabled"), Path("/etc/nginx/conf.d"))
UNITS = Path("/etc/systemd/system")
UNIT_NAMES = "websocket-voice-server*.service"


def ports(settings: Settings) -> Finding:
    """Are the ports free, or does this server hold them?"""
    taken = [port for port in (settings.port, settings.health_port) if port and _listens(settings.host, port)]
    if not taken:
        return ok("ports", f"{settings.port} and {settings.health_port} are free")
    try:
        report = fetch(f"http://127.0.0.1:{settings.health_port}/health")
    except NoAnswer:
        return problem("ports", f"{', '.join(map(str, taken))} taken by another program",
                       f"See which: ss -ltnp 'sport = :{taken[0]}'; or set PORT and HEALTH_PORT.")  # fmt: skip
    return ok("ports", f"a voice server {report.get('version', '')} listens, {report['status']}")


def _listens(host: str, port: int) -> bool:
    address = "127.0.0.1" if host in {"0.0.0.0", ""} else host  # noqa: S104 - compared, not bound
    try:
        with socket.create_connection((address, port), timeout=2):
            return True
    except OSError:
        return False


def folders(settings: Settings) -> Finding:
    """Can logs and state be written, and is there room?"""
    for name, folder in (("LOG_DIR", settings.log_dir), ("STATE_DIR", settings.state_dir)):
        there = next(path for path in (Path(folder).absolute(), *Path(folder).absolute().parents) if path.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            return problem("folders", f"{name} {folder} cannot be written by this user",
                           f"sudo install -d -o voicegw -g voicegw -m 0750 {folder}")  # fmt: skip
        free_mb = shutil.disk_usage(there).free // 1_000_000
        if free_mb < LEAST_FREE_MB:
            return problem("folders", f"{name} has {free_mb} MB left", f"Free {LEAST_FREE_MB} MB on that disk.")
    return ok("folders", f"logs in {settings.log_dir}, state in {settings.state_dir}, both writable")


def open_files(settings: Settings) -> Finding:
    """May the process hold as many sockets as MAX_CONNECTIONS needs?"""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    needed = FILES_PER_SESSION * -(-settings.max_connections // settings.workers) + FILES_BESIDE
    if allowed < needed:
        return problem("open files", f"{allowed} allowed, {needed} needed for MAX_CONNECTIONS",
                       f"LimitNOFILE={2 * needed} in the unit, or: ulimit -n {2 * needed}")  # fmt: skip
    return ok("open files", f"{allowed} allowed, {needed} needed")


def nginx(settings: Settings) -> Finding:
    """Does nginx pass WebSockets on to this port, and is its configuration valid?"""
    files = [file for folder in NGINX_SITES if folder.is_dir() for file in folder.iterdir()]
    texts = [file.read_text(errors="replace") for file in files if file.is_file()]
    ours = [text for text in texts if f":{settings.port}" in text]
    if not ours:
        return skipped("nginx", "no site leads to this port; deploy/nginx.conf is one")
    if not any("$http_upgrade" in text for text in ours):
        return problem("nginx", "the site does not pass WebSocket upgrades on", "Compare it with deploy/nginx.conf.")
    if not any("proxy_read_timeout" in text for text in ours):
        return problem("nginx", "idle sockets are cut after 60 s", "proxy_read_timeout 75s; see deploy/nginx.conf")
    if os.geteuid() != 0:
        return ok("nginx", "the site looks right; as root, nginx -t would be asked too")
    return _run("nginx", ["nginx", "-t"], "the site is valid")


def unit(settings: Settings) -> Finding:
    """Is the systemd unit valid, and does it let live calls end?"""
    files = sorted(UNITS.glob(UNIT_NAMES))
    if not files:
        return skipped("unit", "no unit is installed; deploy/voice.service is one")
    return _run("unit", ["systemd-analyze", "verify", *map(str, files)], f"{len(files)} installed and valid")


def _run(name: str, command: list[str], good: str) -> Finding:
    """Return what a checking program of the system says."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return skipped(name, f"{command[0]} cannot be run ({type(error).__name__})")
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()
        return problem(name, last[-1][:160] if last else f"{command[0]} failed", " ".join(command[:2]))
    return ok(name, good)


MACHINE_CHECKS: tuple[tuple[str, Callable[[Settings], Finding]], ...] = (
    ("ports", ports),
    ("folders", folders),
    ("open files", open_files),
    ("nginx", nginx),
    ("unit", unit),
)
"""All of them, in the order they are shown."""
