"""`./voice status` shows what /health says, and says so when nothing answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.local_postgres import free_port
from cli.status import health_port, lines, main
from tests.fakes.gateway import Gateway

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """Return one server for this file."""
    with Gateway() as running:
        yield running


def test_state_is_shown_in_words(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    """A healthy server is shown with its sessions and every check; nothing is coloured where no terminal is."""
    assert main(["--url", f"{gateway.health_url}/health"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("healthy   version ")
    assert "0 of 1000   browser 0   phone 0" in shown
    assert {"database", "auth", "openai", "transcripts", "event_loop"} <= set(shown.split())
    assert "\x1b" not in shown


def test_state_is_shown_as_json(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints the report as it is."""
    assert main(["--url", f"{gateway.health_url}/health", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["maxConnections"] == 1000


def test_watching_looks_again(gateway: Gateway) -> None:
    """--watch prints one report after another until it is ended."""
    command = [sys.executable, "-m", "cli.main", "status", "--watch", "--json", "--url", f"{gateway.health_url}/health"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        reports = [json.loads(child.stdout.readline()) for _ in range(2)]
        child.terminate()
    assert reports[1]["uptime"] > reports[0]["uptime"]


def test_no_server_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody listens the status is 1 and a sentence says how to start a server."""
    assert main(["--url", f"http://127.0.0.1:{free_port()}/health"]) == 1
    assert "./voice demo" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["/", "/client/app.js", "/nowhere"])
def test_another_program_is_said(gateway: Gateway, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What answers without being a health report is named as such."""
    assert main(["--url", gateway.url + path]) == 1
    assert "no voice server" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variables", "port"),
    [({}, 8081), ({"PORT": "9000"}, 9001), ({"PORT": "9000", "HEALTH_PORT": "7000"}, 7000), ({"PORT": "x"}, 8081)],
)
def test_port_is_that_of_the_settings(variables: dict[str, str], port: int) -> None:
    """HEALTH_PORT counts, else PORT + 1, else the default's."""
    assert health_port(variables) == port


def test_trouble_is_shown() -> None:
    """A failing check and a server up for days are shown as such."""
    report = {"status": "degraded", "version": "1", "uptime": 90_000, "workers": 1, "activeConnections": 1,
              "maxConnections": 2, "browser": 1, "phone": 0, "checks": {"database": {"status": "down"}}}  # fmt: skip
    assert lines(report)[0] == "degraded   version 1   up 1 d 01:00:00   workers 1"
    assert lines(report)[2] == "database     down   "


def test_health_port_of_the_environment_is_asked(gateway: Gateway) -> None:
    """Without --url the server of the settings is asked."""
    port = gateway.health_url.rsplit(":", 1)[1]
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "status", "--json"], cwd=ROOT, env={**os.environ, "HEALTH_PORT": port},
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert json.loads(done.stdout)["status"] == "healthy"
