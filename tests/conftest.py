"""What holds for the whole run: where everything can be installed, skipping is failing (VOICE_NO_SKIPS=1)."""

from __future__ import annotations

import os

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that skipped, if that was asked for."""
    if _skipped(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say why the run fails although its closing line may not show it."""
    if _skipped(config):
        terminalreporter.write_line("VOICE_NO_SKIPS=1: skipped tests fail this run, see the reasons above", red=True)
    if os.environ.get("VOICE_FAILED_BEFORE"):
        terminalreporter.write_line(f"failed before the tests: {os.environ['VOICE_FAILED_BEFORE']}", red=True)


def _skipped(config: pytest.Config) -> bool:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return bool(os.environ.get("VOICE_NO_SKIPS") and reporter and reporter.stats.get("skipped"))
