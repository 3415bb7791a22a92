"""What `./voice doctor` looks at of a server installation: nginx, the unit files, and the instances behind them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from cli import installed_units
from cli.deploy_files import Machine, systemd, unit_name
from cli.findings import Finding, ok, problem, skipped, warning
from cli.status import NoAnswer, fetch
from core.settings import Settings

PROGRAM_S = 10.0
"""How long nginx and systemd-analyze may take; both need less than a second."""

NGINX_SITES = (Path("/etc/nginx/sites-enabled"), Path("/etc/nginx/conf.d"))

DEFAULT_STOP_S = 90
"""Where a unit says nothing. Source: systemd-system.conf(5), DefaultTimeoutStopSec."""

LAST_TRANSCRIPTS_S = 30
"""What a stop takes after the drain: closing sessions, and up to 10 s for the spool (operations reference, 3.2)."""


def nginx(settings: Settings) -> Finding:
    """Does nginx pass WebSockets on to every process, and is its configuration valid?"""
    files = [file for folder in NGINX_SITES if folder.is_dir() for file in folder.iterdir()]
    texts = [file.read_text(errors="replace") for file in files if file.is_file()]
    ports = [port for port, _ in installed_units.doors(settings)]
    ours = [text for text in texts if any(_leads_to(text, port) for port in ports)]
    if not ours:
        return skipped("nginx", "no site leads to this port; deploy/nginx.conf is one: ./voice init nginx")
    if not any("$http_upgrade" in text for text in ours):
        return problem("nginx", "the site does not pass WebSocket upgrades on", "Compare it with deploy/nginx.conf.")
    if not any("proxy_read_timeout" in text for text in ours):
        return problem("nginx", "idle sockets are cut after 60 s", "proxy_read_timeout 75s; see deploy/nginx.conf")
    left_out = [port for port in ports if not any(_leads_to(text, port) for text in ours)]
    if left_out:
        return problem("nginx", f"the site does not lead to {', '.join(map(str, left_out))}",
                       f"sudo ./voice init nginx --instances {len(ports)} --write --force")  # fmt: skip
    if os.geteuid() != 0:
        return ok("nginx", "the site looks right; as root, nginx -t would be asked too")
    return _run("nginx", ["nginx", "-t"], "the site is valid")


def _leads_to(site: str, port: int) -> bool:
    lines = (line.partition("#")[0] for line in site.splitlines())
    return any(f":{port};" in line or f":{port} " in line for line in lines)


def unit(settings: Settings) -> Finding:
    """Is the unit valid, does it let live calls end, and is it this version's?"""
    files = installed_units.installed_units()
    if not files:
        return skipped("unit", "no unit is installed; deploy/voice.service is one: ./voice init systemd")
    stop_s = int(installed_units.value(r"TimeoutStopSec=(\d+)s?") or DEFAULT_STOP_S)
    needed_s = int(settings.drain_timeout_s) + LAST_TRANSCRIPTS_S
    if stop_s < needed_s:
        return problem("unit", f"systemd kills after {stop_s} s; DRAIN_TIMEOUT needs {needed_s}",
                       f"systemctl edit {files[0].name}: [Service] TimeoutStopSec={needed_s}")  # fmt: skip
    found = _run("unit", ["systemd-analyze", "verify", *map(str, files)], f"{len(files)} installed, valid and current")
    if found.state != "ok":
        return found
    for file in files:
        text = file.read_text(encoding="utf-8", errors="replace")
        folder, user = _value_in(text, "WorkingDirectory"), _value_in(text, "User")
        machine = Machine(instances=1 if file.name == "voice.service" else 2, folder=folder, user=user)
        if text != systemd(machine):
            return warning("unit", f"{file.name} differs from this version's deploy/{unit_name(machine)}",
                           "sudo ./voice init systemd --write --force")  # fmt: skip
    return found


def _value_in(unit_text: str, key: str) -> str:
    """Return a value of a unit; empty where it has none."""
    lines = (line.partition("=") for line in unit_text.splitlines())
    return next((text.strip() for name, _, text in lines if name == key), "")


def instances(settings: Settings) -> Finding:
    """Does every process that should serve do so, all of the same version?"""
    names = installed_units.enabled_services()
    silent, reports = [], []
    for port, health_port in installed_units.doors(settings):
        try:
            reports.append(fetch(f"http://127.0.0.1:{health_port}/health"))
        except NoAnswer:
            silent.append(port)
    if not reports:
        return (problem("instances", "no process answers", f"systemctl start {' '.join(names)}; journalctl -u voice\\*")
                if names else skipped("instances", "the server does not run"))  # fmt: skip
    if silent:
        down = " ".join(f"voice@{port}" for port in silent)
        return problem("instances", f"{len(silent)} of {len(names)} do not answer: {down}", f"systemctl restart {down}")
    short = [report["workers"] for report in reports if report["workers"] < settings.workers and len(reports) == 1]
    if short:
        return warning("instances", f"{short[0]} of {settings.workers} workers are up", "tail error.log in LOG_DIR")
    versions = {str(report["version"]) for report in reports}
    if len(versions) > 1:
        return warning("instances", f"different versions serve: {', '.join(sorted(versions))}",
                       "deploy/rolling-restart.sh")  # fmt: skip
    states = ", ".join(sorted({str(report["status"]) for report in reports}))
    return ok("instances", f"{len(reports)} of {len(reports)} answer, version {versions.pop()}, {states}")


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


UNIT_CHECKS: tuple[tuple[str, Callable[[Settings], Finding]], ...] = (
    ("nginx", nginx),
    ("unit", unit),
    ("instances", instances),
)
"""All of them, in the order they are shown."""
