"""`top`, `sessions`, `show`, `export` and `status` beside a running server with a talk going on."""

from __future__ import annotations

import json
import os
import pty
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import export, sessions, show, status, top
from cli.demo_data import RECEPTIONIST_ID
from cli.operations import names
from tests.fakes.browser import Browser, eventually
from tests.fakes.gateway import Gateway

ROOT = Path(__file__).resolve().parents[2]

Shown = Callable[..., str]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """Return one server for this file."""
    with Gateway() as running:
        yield running


@pytest.fixture
def at_home(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Give the commands the server's settings, and a folder for their own log lines; no demo runs beside."""
    for name, value in {
        "STATE_DIR": str(gateway.state_dir), "DATABASE_URL": f"sqlite:///{gateway.db}", "OPENAI_API_KEY": "sk-test",
        "LOG_DIR": str(tmp_path / "logs"), "HEALTH_PORT": gateway.health_url.rpartition(":")[2], "NODE_ENV": "",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    return tmp_path / "logs"


@pytest.fixture
def shown(at_home: Path, capsys: pytest.CaptureFixture[str]) -> Shown:
    """Return a function that runs a command and returns what it prints."""

    def run(command: Any, *options: str, expect: int = 0) -> str:
        capsys.readouterr()
        assert command.main(list(options)) == expect
        return capsys.readouterr().out

    return run


@pytest.fixture
def talk(gateway: Gateway) -> Iterator[tuple[Browser, str]]:
    """Lend a live talk in which something was typed and answered, and its id."""
    with Browser(gateway, agent_id=RECEPTIONIST_ID) as browser:
        conversation_id = browser.live()
        browser.until("response.done")
        browser.type_text("words of the person")
        browser.answer()
        yield browser, conversation_id


def audits(folder: Path) -> list[str]:
    """Return the audit lines the commands wrote."""
    path = folder / "combined.log"
    return [line for line in path.read_text().splitlines() if "audit=true" in line] if path.exists() else []


def test_top_shows_the_talk_and_no_word_of_it(shown: Shown, talk: tuple[Browser, str]) -> None:
    """One row with agent, channel, id, worker and turns; as JSON everything."""
    _, conversation_id = talk
    table = shown(top, "--once")
    assert "Rosa, receptionist" in table and conversation_id[:8] in table and "sessions 1 of 1000" in table
    assert "words of the person" not in table and "\x1b" not in table
    seen = json.loads(shown(top, "--json"))
    assert [row["conversation_id"] for row in seen["sessions"]] == [conversation_id]


def test_top_draws_again_and_leaves_the_terminal_as_it_was(gateway: Gateway) -> None:
    """On a terminal it draws every second on the other screen; Ctrl-C brings the first one and the cursor back."""
    terminal, far_end = pty.openpty()
    command = [sys.executable, "-m", "cli.main", "top", "--state-dir", str(gateway.state_dir)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "NO_COLOR": ""}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=far_end, stderr=far_end) as child:
        os.close(far_end)
        seen, until = b"", time.monotonic() + 15.0
        while seen.count(b"\x1b[H") < 2 and time.monotonic() < until:
            seen += os.read(terminal, 65_536)
        child.send_signal(signal.SIGINT)
        assert child.wait(10.0) == 130
        seen += os.read(terminal, 65_536)
    os.close(terminal)
    assert seen.startswith(b"\x1b[?1049h") and seen.rstrip().endswith(b"\x1b[?25h\x1b[?1049l")
    assert b"nobody talks at the moment" in seen or b"CONVERSATION" in seen


def test_top_without_a_server_says_so(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no worker answers the status is 1."""
    monkeypatch.setenv("STATE_DIR", str(tmp_path / "nowhere"))
    assert top.main(["--once"]) == 1
    assert "no server answers" in capsys.readouterr().err


def test_live_talk_is_shown_and_written_down(shown: Shown, talk: tuple[Browser, str], at_home: Path) -> None:
    """`show` tells what was said so far, by the id `top` shows; an audit line says who looked and at what."""
    _, conversation_id = talk
    assert "Person: words of the person" in shown(show, conversation_id[:8])
    assert json.loads(shown(show, conversation_id, "--json"))["settings"]["voice"] == "marin"
    lines = audits(at_home)
    assert len(lines) == 2 and all("transcript viewed  audit=true" in line for line in lines)
    assert conversation_id in lines[0] and "command line" in lines[0]
    assert "words of the person" not in "".join(lines)


def test_stored_talk_is_listed_shown_and_exported(
    shown: Shown, talk: tuple[Browser, str], at_home: Path, tmp_path: Path
) -> None:
    """Afterwards it is found by its filters, shown as text and JSON, and exported to a file for this user alone."""
    browser, conversation_id = talk
    browser.leave()
    assert eventually(lambda: conversation_id in shown(sessions, "--status", "client_left"), 5.0)
    assert conversation_id in shown(sessions, "--agent", RECEPTIONIST_ID, "--before", "2999-01-01")
    assert json.loads(shown(sessions, "--id", conversation_id, "--json"))[0]["id"] == conversation_id
    assert shown(sessions, "--status", "drain") == ""
    assert "Person: words of the person" in shown(show, conversation_id)
    assert json.loads(shown(show, conversation_id, "--json"))["end_reason"] == "client_left"
    file = tmp_path / "talk.txt"
    assert shown(export, conversation_id, "--format", "text", "--out", str(file)) == ""
    assert "words of the person" in file.read_text() and stat.S_IMODE(file.stat().st_mode) == 0o600
    shown(export, conversation_id, "--out", str(file), expect=1)
    assert json.loads(shown(export, conversation_id))["messages"]
    assert sum("transcript exported" in line for line in audits(at_home)) == 3


@pytest.mark.parametrize("command", [show, export])
def test_unknown_talk_is_said(shown: Shown, command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """An id nobody has leads to status 1 and to the list."""
    assert command.main(["00000000-0000-4000-8000-00000000dead"]) == 1
    assert "./voice sessions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [("OPENAI_API_KEY", "", "mend these settings"), ("DATABASE_URL", "postgresql://127.0.0.1:9/x", "cannot be read")],
)
def test_trouble_with_the_database_is_said(
    at_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    variable: str, value: str, words: str,
) -> None:  # fmt: skip
    """Incomplete settings and a database that is away are told in words."""
    monkeypatch.setenv(variable, value)
    for command in (sessions, show, export):
        assert command.main([] if command is sessions else ["x"]) == 1
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--limit", "0"], ["--limit", "x"], ["--before", "yesterday"]])
def test_nonsense_filters_are_refused(options: list[str]) -> None:
    """A filter that cannot be meant is named."""
    with pytest.raises(SystemExit):
        sessions.main(options)


def test_log_that_cannot_be_written_is_said(
    shown: Shown, talk: tuple[Browser, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who looks without leaving a line is told so."""
    monkeypatch.setenv("LOG_DIR", os.devnull + "/logs")
    assert show.main([talk[1]]) == 0
    assert "no audit line could be written" in capsys.readouterr().err


def test_status_has_delays_troubles_and_the_page(shown: Shown, gateway: Gateway) -> None:
    """Beside /health it tells the last quarter of an hour, the last warnings and where the operator's page is."""
    gateway.server.context.logger.warning("something outside failed", cause="a test")
    text = shown(status)
    assert "new sessions are taken" in text and "something outside failed  cause=a test" in text
    assert f"operator     {gateway.server.admin.url}" in text and "15 minutes" in text
    report = json.loads(shown(status, "--json"))
    assert report["ready"] is True and report["overview"]["admin_url"] == gateway.server.admin.url


@pytest.mark.parametrize(
    ("whole", "asked", "same"),
    [("abcdefghij", "abcdefghij", True), ("abcdefghij", "abcdefgh", True), ("abcdefghij", "abcdefg", False),
     ("a", "a", True)],
)
def test_beginning_of_an_id_names_it(whole: str, asked: str, same: bool) -> None:
    """Eight characters are enough, fewer are not."""
    assert names(whole, asked) is same
