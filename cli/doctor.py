"""`./voice doctor`: what is wrong with this installation, and how to mend it."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable
from dataclasses import asdict

from cli.console import paint
from cli.findings import Finding, ok, problem
from cli.machine_checks import MACHINE_CHECKS
from cli.service_checks import SERVICE_CHECKS
from core.settings import Settings, SettingsError, read_settings
from server import environment

DEADLINE_S = 15.0
"""Longest a check may take; its own waits are shorter, a handshake with the voice service 8 s."""

LOOKS = {"ok": "green", "problem": "red", "skipped": "dim"}


def main(argv: list[str]) -> int:
    """Look at everything.

    Returns:
        0 when there is no problem, else 1; for scripts and for CI.
    """
    parser = argparse.ArgumentParser(
        prog="./voice doctor", description="Check settings, database, key, reachability, clock, ports and folders."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    findings = examine(environment())
    is_well = all(finding.state != "problem" for finding in findings)
    if options.json:
        print(json.dumps({"ok": is_well, "checks": [asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            _print(finding)
    return 0 if is_well else 1


def examine(variables: dict[str, str]) -> list[Finding]:
    """Return what is found with these environment variables; with bad settings, only what is bad."""
    try:
        settings = read_settings(variables)
    except SettingsError as error:
        return [problem("settings", text, "Set it in the environment or in .env; see .env.example.")
                for text in error.problems]  # fmt: skip
    return [ok("settings", "complete"), *asyncio.run(_all(settings))]


async def _all(settings: Settings) -> list[Finding]:
    """Run all checks side by side."""
    asked: list[tuple[str, Awaitable[Finding]]] = [(name, check(settings)) for name, check in SERVICE_CHECKS]
    asked += [(name, asyncio.to_thread(check, settings)) for name, check in MACHINE_CHECKS]
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
