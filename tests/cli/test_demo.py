"""`./voice demo`, as a user starts it: a child process that is talked with and then interrupted."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.audio import audible_s, read_wav
from cli.demo_data import TUTOR_ID
from simulator.audio import bytes_of
from tests.fakes.local_supabase import missing

ROOT = Path(__file__).resolve().parent.parent.parent
QUESTION = ROOT / "tests" / "data" / "question.wav"

DEADLINE_S = 60.0
"""A start takes 1.5 s on an idle machine."""

STOP_S = 5.0
"""Ctrl-C must end the demo within this; it takes 0.3 s."""


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which the demo keeps everything in this folder."""
    ours = {"STATE_DIR": str(folder / "state"), "LOG_DIR": str(folder / "logs"), "NO_COLOR": "1"}
    kept = {name: value for name, value in os.environ.items() if name not in {"OPENAI_API_KEY", "NODE_ENV", "APP_ENV"}}
    return kept | ours


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[tuple[dict[str, Any], subprocess.Popen[str]]]:
    """Start the demo on free ports; yield what it printed and the process, and end it as Ctrl-C does."""
    command = [str(ROOT / "voice"), "demo", "--no-browser", "--port", "0", "--json", *arguments]
    with (folder / "demo.err").open("w") as err, subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=err, text=True, env=environment(folder), start_new_session=True
    ) as child:
        try:
            assert child.stdout is not None
            line = child.stdout.readline()
            assert line, (folder / "demo.err").read_text()
            yield json.loads(line), child
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to the whole group
            child.wait(DEADLINE_S)


def voice(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run another command beside the demo."""
    return subprocess.run([str(ROOT / "voice"), *arguments], env=environment(folder), capture_output=True, text=True,
                          timeout=DEADLINE_S)  # fmt: skip


def stored_turns(database: Path, conversation_id: str, count: int) -> list[tuple[str, str]]:
    """Return role and words of a conversation's turns, when there are so many."""
    deadline = time.monotonic() + 10
    while True:
        with closing(sqlite3.connect(database)) as connection:
            query = "select role, content from messages where conversation_id = ? order by position"
            rows = connection.execute(query, (conversation_id,)).fetchall()
            if not rows:  # ids may be kept without hyphens
                rows = connection.execute(query, (conversation_id.replace("-", ""),)).fetchall()
        if len(rows) >= count or time.monotonic() > deadline:
            return rows


def test_demo_is_talked_with(tmp_path: Path) -> None:
    """One command, no account: a question gets an audible answer, both are stored, and Ctrl-C ends it cleanly."""
    out = tmp_path / "answer.wav"
    with demo(tmp_path) as (facts, child):
        assert {"url", "ws_url", "token", "agents", "health_url", "pid"} <= set(facts)
        assert facts["pid"] == child.pid
        assert all(set(agent) == {"id", "name"} for agent in facts["agents"])
        assert httpx.get(facts["health_url"], timeout=10).json()["status"] == "healthy"
        talked = voice("talk", "--wav", str(QUESTION), "--out", str(out), "--url", facts["ws_url"], "--agent", TUTOR_ID,
                       "--json", folder=tmp_path)  # fmt: skip
        assert talked.returncode == 0, talked.stderr
        conversation_id = json.loads(talked.stdout)["conversation_id"]
        turns = stored_turns(tmp_path / "state" / "demo" / "demo.db", conversation_id, 2)
        began = time.monotonic()
        os.killpg(child.pid, signal.SIGINT)
        assert child.wait(DEADLINE_S) == 0
        assert time.monotonic() - began < STOP_S
    assert audible_s(bytes_of(read_wav(out))) > 1
    assert [role for role, _ in turns] == ["user", "assistant"]
    assert all(content for _, content in turns)
    said = (tmp_path / "demo.err").read_text()
    assert said.startswith("voice server ready in ")
    assert "no key needed, nothing leaves this computer" in said
    assert "Traceback" not in said


def test_logs_of_the_demo_hold_no_token_and_no_words(tmp_path: Path) -> None:
    """What was said and who said it with which token is in no log line."""
    with demo(tmp_path) as (facts, _):
        talked = voice("talk", "--text", "the secret word is marzipan", "--url", facts["url"], folder=tmp_path)
        assert talked.returncode == 0, talked.stderr
    logged = "".join(path.read_text() for path in (tmp_path / "logs").glob("*.log"))
    assert "conversation ended" in logged
    assert facts["token"] not in logged
    assert "marzipan" not in logged


def test_busy_port_is_said(tmp_path: Path) -> None:
    """A taken port ends the start with a sentence that names another one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = voice("demo", "--no-browser", "--port", str(port), folder=tmp_path)
    assert done.returncode == 1
    assert f"Port {port}" in done.stderr
    assert "./voice demo --port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--port", "70000"], 2, "between 0 and 65534"),
        (["--port", "0", "--upstream", "ftp://127.0.0.1"], 2, "OPENAI_REALTIME_URL must be an address"),
    ],
)
def test_nonsense_is_refused(arguments: list[str], status: int, sentence: str, tmp_path: Path) -> None:
    """A port that is none and an upstream that is none are refused with a sentence."""
    done = voice("demo", "--no-browser", *arguments, folder=tmp_path)
    assert (done.returncode, sentence in done.stderr) == (status, True), done.stderr


def test_demo_does_not_run_in_production(tmp_path: Path) -> None:
    """With NODE_ENV=production nothing starts."""
    done = subprocess.run([str(ROOT / "voice"), "demo", "--port", "0"], capture_output=True, text=True,
                          env={**environment(tmp_path), "NODE_ENV": "production"}, timeout=DEADLINE_S)  # fmt: skip
    assert done.returncode == 1
    assert "production" in done.stderr
    assert not (tmp_path / "state").exists()


def test_demo_with_supabase_is_talked_with(tmp_path: Path) -> None:
    """--supabase: user, agents, key and transcripts are in a local project, and the same conversation works."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    with demo(tmp_path, "--supabase") as (facts, child):
        talked = voice("talk", "--text", "hello", "--url", facts["url"], "--agent", facts["agents"][1]["id"], "--json",
                       folder=tmp_path)  # fmt: skip
        assert talked.returncode == 0, talked.stderr
        assert json.loads(talked.stdout)["ok"] is True
        os.killpg(child.pid, signal.SIGINT)
        assert child.wait(DEADLINE_S) == 0
