"""Workers find each other by their locks and ask each other over their sockets."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from services.siblings import (
    Answer,
    Siblings,
    WorkerTaken,
    ask_all_sync,
    ask_one_sync,
    hold,
    is_alive,
    let_go,
    living,
    open_control_socket,
    run_folder,
)
from tests.fakes.server_process import REPOSITORY

HELLO = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\nConnection: close\r\n\r\n{"hello": true}'


class Worker:
    """A worker that answers every request with the same bytes; with none it accepts and stays silent."""

    def __init__(self, run_dir: Path, name: str, answer: bytes | None) -> None:
        self.run_dir, self.name, self.asked = run_dir, name, b""
        self._answer = answer
        self._lock = hold(run_dir, name)
        self._listener = open_control_socket(run_dir, name)
        self._listener.setblocking(True)
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Go as a worker that stops."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()
        for connection in self._open:
            connection.close()
        let_go(self.run_dir, self.name, self._lock)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            self.asked = read_request(connection)
            if self._answer is not None:
                connection.sendall(self._answer)
                connection.close()


def read_request(connection: socket.socket) -> bytes:
    """Return a request with its body."""
    text = b""
    while (end := text.find(b"\r\n\r\n")) < 0 and (more := connection.recv(65_536)):
        text += more
    length = re.search(rb"content-length: (\d+)", text.lower())
    while length and len(text) < end + 4 + int(length[1]) and (more := connection.recv(65_536)):
        text += more
    return text


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A folder where workers meet, with a name too long for the address of a Unix socket."""
    return run_folder(tmp_path / ("long" * 40))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is closed at the end."""
    with ExitStack() as opened:
        yield opened


def start(stack: ExitStack, run_dir: Path, name: str, answer: bytes | None = HELLO) -> Worker:
    """Return a worker that lives until the stack is closed."""
    worker = Worker(run_dir, name, answer)
    stack.callback(worker.close)
    return worker


def test_all_are_asked_at_once_but_oneself(run_dir: Path, stack: ExitStack) -> None:
    """The answers come by name; the asker is left out, and with a port the servers on others."""
    first, second = start(stack, run_dir, "8080-0"), start(stack, run_dir, "8080-1")
    start(stack, run_dir, "8081-0")
    siblings = Siblings(run_dir, "8080-0")
    answers = asyncio.run(siblings.ask("POST", "/replace", {"a": 1}))
    assert {name: answer.json() for name, answer in answers.items()} == {
        "8080-1": {"hello": True}, "8081-0": {"hello": True}
    }  # fmt: skip
    assert first.asked == b"" and second.asked.startswith(b"POST /replace HTTP/1.1") and b'{"a":1}' in second.asked
    assert list(asyncio.run(siblings.ask("GET", "/x", port=8080))) == ["8080-1"]
    assert siblings.names() == ["8080-1", "8081-0"] and siblings.names(port=808) == []
    assert Siblings(run_dir, None).names(port=8080) == ["8080-0", "8080-1"]


def test_command_line_asks_all_too(run_dir: Path, stack: ExitStack) -> None:
    """The blocking twins give the same answers."""
    worker = start(stack, run_dir, "8080-0")
    start(stack, run_dir, "8080-1", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    answers = ask_all_sync(run_dir, "POST", "/sessions", {"b": 2})
    assert {name: (answer.status, answer.json()) for name, answer in answers.items()} == {
        "8080-0": (200, {"hello": True}), "8080-1": (404, None)
    }  # fmt: skip
    assert worker.asked.startswith(b"POST /sessions HTTP/1.1")
    assert ask_one_sync(run_dir, "8080-7", "GET", "/sessions") is None


def test_silent_and_babbling_workers_hold_nobody_up(run_dir: Path, stack: ExitStack) -> None:
    """Who does not answer in time, or not in HTTP, is missing; the others' answers are there."""
    start(stack, run_dir, "8080-0", None)
    start(stack, run_dir, "8080-1", b"babble\r\n\r\n")
    start(stack, run_dir, "8080-2")
    began = time.monotonic()
    assert list(asyncio.run(Siblings(run_dir, None).ask("GET", "/x", timeout_s=0.4))) == ["8080-2"]
    assert list(ask_all_sync(run_dir, "GET", "/x", timeout_s=0.4)) == ["8080-2"]
    assert time.monotonic() - began < 3.0


def test_dead_workers_are_skipped_and_tidied_away(run_dir: Path, stack: ExitStack) -> None:
    """However a process ended its name is free at once, and its files go when somebody looks."""
    code = "import sys, pathlib, services.siblings as s; r = pathlib.Path(sys.argv[1]); k = s.hold(r, '8080-0');"
    code += "k2 = s.open_control_socket(r, '8080-0'); print('up', flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(run_dir)], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None and child.stdout.readline() == b"up\n"
    assert is_alive(run_dir, "8080-0")
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert len(list(run_dir.iterdir())) == 2
    assert asyncio.run(Siblings(run_dir, None).ask("GET", "/x")) == {}
    assert list(run_dir.iterdir()) == [] and not is_alive(run_dir, "8080-0")


def test_name_has_one_owner(run_dir: Path, stack: ExitStack) -> None:
    """A second process of the name is refused; when the first goes nothing of it is left."""
    worker = Worker(run_dir, "8080-0", HELLO)
    with pytest.raises(WorkerTaken, match="same STATE_DIR and port"):
        hold(run_dir, "8080-0")
    worker.close()
    assert list(run_dir.iterdir()) == []
    let_go(run_dir, "8080-0", hold(run_dir, "8080-0"))


def test_nobody_else_may_ask(run_dir: Path, stack: ExitStack) -> None:
    """Folder and socket are their owner's alone, and a folder that was open to others is closed."""
    start(stack, run_dir, "8080-0")
    run_dir.chmod(0o755)
    assert run_folder(run_dir.parent) == run_dir
    assert run_dir.stat().st_mode & 0o777 == 0o700
    assert (run_dir / "8080-0.sock").stat().st_mode & 0o777 == 0o600
    assert not list(run_dir.glob(".*"))


def test_folder_that_is_missing_is_told(tmp_path: Path) -> None:
    """The command line learns that no server ever ran here; a server goes on alone."""
    with pytest.raises(FileNotFoundError):
        ask_all_sync(tmp_path / "run", "GET", "/sessions")
    with pytest.raises(FileNotFoundError):
        living(tmp_path / "run")
    assert asyncio.run(Siblings(tmp_path / "run", None).ask("GET", "/sessions")) == {}
    assert asyncio.run(Siblings(tmp_path / "run", None).ask_one("8080-0", "GET", "/sessions")) is None


def test_answer_that_is_no_json_has_no_value() -> None:
    """Callers need not tell apart a refusal, text and nothing."""
    assert [Answer(200, b"{}").json(), Answer(200, b"text").json(), Answer(500, b"{}").json()] == [{}, None, None]
