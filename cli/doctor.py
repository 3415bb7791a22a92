"""`./voice doctor`: what is wrong with this installation, and how to mend it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Collection, Mapping
from dataclasses import asdict

from cli.console import paint
from cli.environment import INSTALLED_SETTINGS, environment
from cli.findings import Finding, ok, problem
from cli.machine_checks import MACHINE_CHECKS
from cli.public_checks import PUBLIC_CHECKS
from cli.service_checks import SERVICE_CHECKS
from cli.unit_checks import UNIT_CHECKS
from core.settings import Settings, SettingsError, read_settings

DEADLINE_S = 15.0
"""Longest a check may take; its own waits are shorter, a handshake with the voice service 8 s."""

LOOKS = {"ok": "green", "warning": "yellow", "problem": "red", "skipped": "dim"}

THREADED_CHECKS = (*MACHINE_CHECKS, *UNIT_CHECKS, *PUBLIC_CHECKS)
NAMES = ("settings", *(name for name, _ in (*SERVICE_CHECKS, *THREADED_CHECKS)))
"""Of all checks, in the order they are shown."""


def main(argv: list[str]) -> int:
    """Look at everything.

    Returns:
        0 when there is no problem (a warning is none), else 1; for scripts and for CI.
    """
    parser = argparse.ArgumentParser(
        prog="./voice doctor",
        description="Check settings, what they lead to, and this machine. On a server run it as root: it then reads "
        "the service's settings.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", metavar="CHECK", action="append", choices=NAMES,
                        help=f"make only this check; may be given again: {', '.join(NAMES)}")  # fmt: skip
    options = parser.parse_args(argv)
    findings = examine(environment(), options.only or NAMES)
    is_well = all(finding.state != "problem" for finding in findings)
    if options.json:
        print(json.dumps({"ok": is_well, "checks": [asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            _print(finding)
    return 0 if is_well else 1


def examine(variables: Mapping[str, str], only: Collection[str] = NAMES) -> list[Finding]:
    """Return what is found with these environment variables; with bad settings, only what is bad."""
    try:
        settings = read_settings(variables)
    except SettingsError as error:
        mend = f"Set it in the environment, in .env, or in {INSTALLED_SETTINGS}; see docs/configuration.md."
        if INSTALLED_SETTINGS.is_dir() and not os.access(INSTALLED_SETTINGS, os.R_OK | os.X_OK):
            mend = "sudo voice doctor: the settings of this machine's service are for root's eyes only."
        return [problem("settings", text, mend) for text in error.problems]
    complete = [ok("settings", "complete")] if "settings" in only else []
    return [*complete, *asyncio.run(_all(settings, only))]


async def _all(settings: Settings, only: Collection[str]) -> list[Finding]:
    """Run the checks side by side."""
    asked: list[tuple[str, Awaitable[Finding]]]
    asked = [(name, check(settings)) for name, check in SERVICE_CHECKS if name in only]
    asked += [(name, asyncio.to_thread(check, settings)) for name, check in THREADED_CHECKS if name in only]
    return list(await asyncio.gather(*(_within_deadline(name, answer) for name, answer in asked)))


async def _within_deadline(name: str, answer: Awaitable[Finding]) -> Finding:
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await answer
    except TimeoutError:
        return problem(name, f"no answer within {DEADLINE_S:g} s", "Check the network and the firewall.")


def _print(finding: Finding) -> None:
    state = paint(f"{finding.state:<8}", LOOKS[finding.state], sys.stdout)
    print(f"{state} {finding.name:<14} {finding.text}", flush=True)
    if finding.mend:
        print(f"{'':<8} {'':<14} mend: {finding.mend}", flush=True)
