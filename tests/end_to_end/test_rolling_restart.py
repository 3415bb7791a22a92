"""deploy/rolling-restart.sh behind real nginx: no handshake fails and no talk is cut."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import websocket

from tests.fakes.browser import PLAIN_ID, Closed
from tests.fakes.instances import KEY, Instances
from tests.fakes.nginx import Nginx
from tests.fakes.server_process import SimulatorThread

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy" / "rolling-restart.sh"

HANDSHAKES = 2_000
"""Operations reference, section 6, P3: 0 failed of at least this many."""

SCRIPT_S = 120.0

TALKS_ON_S = 2.0
"""How long a talk goes on after it was told of the drain."""


class Talk(threading.Thread):
    """A person who talks without a pause, through nginx, and comes back to the same conversation when asked to.

    Attributes:
        answers: Answers heard in all.
        on_after_notice: Answers heard on a socket after it was told of the drain, one number a socket.
        cut: What ended a socket that this person did not leave.
    """

    def __init__(self, nginx: Nginx, token: str, source: str) -> None:
        super().__init__(daemon=True)
        self._nginx, self._token, self._source = nginx, token, source
        self._done = threading.Event()
        self.answers = 0
        self.on_after_notice: list[int] = []
        self.cut: list[str] = []
        self.conversation_id = ""

    def finish(self) -> None:
        """Let the person say goodbye."""
        self._done.set()
        self.join(20.0)

    def run(self) -> None:
        """Talk until told to finish."""
        try:
            while not self._done.is_set():
                self._talk_on_one_socket()
        except (Closed, TimeoutError, websocket.WebSocketException, OSError) as error:
            self.cut.append(repr(error))

    def _talk_on_one_socket(self) -> None:
        resumed = f"&conversation_id={self.conversation_id}" if self.conversation_id else ""
        socket = open_socket(self._nginx, self._token, self._source, resumed)
        told_at, after = 0.0, 0
        self.conversation_id = until(socket, "conversation.created")["conversation_id"]
        while not self._done.is_set() and not (told_at and time.monotonic() - told_at > TALKS_ON_S):
            content = [{"type": "input_text", "text": "And then?"}]
            say(socket, "conversation.item.create", item={"type": "message", "role": "user", "content": content})
            say(socket, "response.create")
            while (event := next_event(socket))["type"] != "response.done":
                if event["type"] == "gateway.notice" and event["code"] == "draining":
                    told_at = time.monotonic()
            self.answers += 1
            after += bool(told_at)
            time.sleep(0.05)  # the pace of a talk, not a synchronisation
        if told_at:
            self.on_after_notice.append(after)
        socket.close()


def open_socket(nginx: Nginx, token: str, source: str, more: str = "") -> websocket.WebSocket:
    """Return a socket opened over TLS through nginx."""
    address = f"{nginx.wss_url}?token={token}&agent_id={PLAIN_ID}{more}"
    return websocket.create_connection(address, socket=nginx.connect(source), suppress_origin=True, timeout=20)


def say(socket: websocket.WebSocket, event_type: str, **fields: object) -> None:
    """Send one event."""
    socket.send(json.dumps({"type": event_type, **fields}))


def next_event(socket: websocket.WebSocket) -> dict[str, Any]:
    """Return the next event; raises `Closed` when there is none."""
    opcode, data = socket.recv_data()
    if opcode == websocket.ABNF.OPCODE_CLOSE:
        raise Closed(int.from_bytes(data[:2], "big"), data[2:].decode())
    event: dict[str, Any] = json.loads(data)
    return event


def until(socket: websocket.WebSocket, event_type: str) -> dict[str, Any]:
    """Return the next event of this type; an error event before it raises `Closed`."""
    while (event := next_event(socket))["type"] != event_type:
        if event["type"] == "error":
            raise Closed(0, str(event["error"]["code"]))
    return event


class Hammer:
    """Clients that open a session, see it begin and leave, one after the other, from many addresses.

    Attributes:
        outcomes: How often each happened; `ok` is a session that began.
        slowest_s: Longest time from connecting to the session's begin.
    """

    def __init__(self, nginx: Nginx, token: str, threads: int = 4) -> None:
        self._nginx, self._token = nginx, token
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        self.outcomes: Counter[str] = Counter()
        self.slowest_s = 0.0

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            number = next(self._numbers)
            source = f"127.2.{number // 200 % 200}.{number % 200 + 1}"  # nginx limits each address
            began = time.monotonic()
            try:
                socket = open_socket(self._nginx, self._token, source)
                until(socket, "conversation.created")
                self.outcomes["ok"] += 1
                with suppress(websocket.WebSocketException, OSError):
                    socket.close(timeout=5)
            except (Closed, websocket.WebSocketException, OSError) as error:
                self.outcomes[f"{type(error).__name__}: {error}"[:200]] += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)


@pytest.fixture
def instances(tmp_path: Path) -> Iterator[Instances]:
    """Two instances over one state folder."""
    with SimulatorThread([KEY]) as openai, Instances(tmp_path / "voice", 2, openai.url) as running:
        yield running


def roll(instances: Instances, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script with the stand-in for systemctl."""
    return subprocess.run(["sh", str(SCRIPT), *arguments], env=instances.environment_of_scripts(), capture_output=True,
                          text=True, timeout=SCRIPT_S)  # fmt: skip


def test_rolling_restart_fails_no_handshake_and_cuts_no_talk(instances: Instances, tmp_path: Path) -> None:
    """Of 2,000 sessions opened meanwhile none fails, and talks on each instance go on through every drain."""
    (tmp_path / "nginx").mkdir()
    with Nginx(tmp_path / "nginx", instances.ports) as nginx:
        token = instances.token()
        talks = [Talk(nginx, token, f"127.3.0.{number}") for number in (1, 2)]
        for number, talk in enumerate(talks, 1):  # the second goes to the instance that has fewer connections
            talk.start()
            deadline = time.monotonic() + 20
            while talk.answers == 0 and not talk.cut and time.monotonic() < deadline:
                time.sleep(0.02)
            assert talk.answers, (number, talk.cut)
        hammer = Hammer(nginx, token)
        hammer.start()
        rolls, deadline = 0, time.monotonic() + SCRIPT_S
        while hammer.outcomes.total() < HANDSHAKES and time.monotonic() < deadline:
            done = roll(instances)
            rolls += 1
            assert done.returncode == 0, done.stdout + done.stderr
        hammer.stop()
        for talk in talks:
            talk.finish()
    print(f"{rolls} rolls, {hammer.outcomes}, slowest {hammer.slowest_s:.2f} s")
    assert instances.restarted == instances.ports * rolls
    assert [talk.cut for talk in talks] == [[], []]
    # Each was on an instance that stopped, and the one of the first was told once more on the second.
    assert min(len(talk.on_after_notice) for talk in talks) >= rolls
    assert sum(len(talk.on_after_notice) for talk in talks) > 2 * rolls
    assert min(min(talk.on_after_notice) for talk in talks) >= 3
    assert hammer.outcomes.total() >= HANDSHAKES
    assert set(hammer.outcomes) == {"ok"}, hammer.outcomes
    assert "sessions_cut=0" in instances.log_text() and "sessions_cut=1" not in instances.log_text()


def test_instance_that_does_not_come_up_stops_the_roll(instances: Instances) -> None:
    """The script ends with 1 and says where to look, and the other instance was not touched."""
    first, second = instances.ports
    instances.broken.add(first)
    done = roll(instances, "--timeout", "5")
    assert done.returncode == 1
    assert f"voice@{first} did not start" in done.stderr and "journalctl" in done.stderr
    assert instances.restarted == [first]
    assert instances.ready_status(second) == 200
    again = roll(instances)  # with one instance left there is nobody to answer meanwhile
    assert again.returncode == 2 and "only one instance" in again.stderr


def test_nothing_is_restarted_when_asked_what_would_be(instances: Instances) -> None:
    """--dry-run names the instances in order and touches none."""
    done = roll(instances, "--dry-run")
    assert done.returncode == 0, done.stderr
    named = [line.split()[1] for line in done.stdout.splitlines() if "restarting" in line]
    assert named == [f"voice@{port}:" for port in instances.ports]
    assert "0 browser, 0 phone, 0 of 1000" in done.stdout
    assert "nothing was done" in done.stdout and instances.restarted == []


@pytest.mark.parametrize("arguments", [["--fast"], ["voice@8081"], ["--timeout"], ["--timeout", "soon"], [""]])
def test_wrong_use_is_told(arguments: list[str]) -> None:
    """An option nobody knows ends with 2 before anything is asked of systemd."""
    done = subprocess.run(["sh", str(SCRIPT), *arguments], env={"SYSTEMCTL": "false", "PATH": "/usr/bin:/bin"},
                          capture_output=True, text=True, timeout=20)  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith("rolling-restart: ")


def test_help_is_the_head_of_the_script() -> None:
    """--help explains use and exit status."""
    done = subprocess.run(["sh", str(SCRIPT), "--help"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and "--dry-run" in done.stdout and "Exit status" in done.stdout


def test_script_is_clean() -> None:
    """shellcheck has nothing to say about the script as POSIX sh, and dash can read it."""
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([str(shellcheck), "--shell=sh", str(SCRIPT)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
    assert subprocess.run(["sh", "-n", str(SCRIPT)], timeout=20).returncode == 0
