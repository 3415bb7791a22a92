"""SIGTERM from outside: who talks goes on, who comes is refused, what was said is stored, and systemd hears of it."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import websocket

from tests.fakes.browser import Browser, eventually
from tests.fakes.instances import KEY, Instances
from tests.fakes.server_process import SimulatorThread

HANDSHAKE = (
    b"GET /?token=x HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

WEBHOOK = b"POST /api/twilio/voice HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def running(folder: Path, count: int, drain_s: float) -> Iterator[Instances]:
    """Run instances that drain for so long."""
    with ExitStack() as opened:
        openai = opened.enter_context(SimulatorThread([KEY]))
        settings = {"DRAIN_TIMEOUT": str(drain_s)}
        yield opened.enter_context(Instances(folder / "voice", count, openai.url, settings))


def status(url: str) -> int:
    """Return the status of an answer; 0 when nobody listens."""
    try:
        return httpx.get(url, trust_env=False, timeout=10).status_code
    except httpx.ConnectError:
        return 0


def stored(instances: Instances, conversation_id: str) -> list[str]:
    """Return the roles of the stored turns of a conversation, in order."""
    query = "select role from messages where conversation_id = ? order by position"
    return [role for (role,) in instances.rows(query, conversation_id)]


def test_live_session_goes_on_until_the_deadline(tmp_path: Path) -> None:
    """It is told at once, is answered meanwhile, and gets an error event and 1012; its turns are in the database."""
    with running(tmp_path, 1, 3.0) as instances:
        (port,) = instances.ports
        with Browser(instances.at(port)) as browser:
            conversation_id = browser.live()
            instances.signal(port)
            began = time.monotonic()
            assert 1 <= browser.notice("draining")["left_s"] <= 3
            assert status(f"http://127.0.0.1:{port}/ready") == status(f"http://127.0.0.1:1{port}/ready") == 503
            assert instances.health(port)["status"] == "draining"
            browser.type_text("still there?")
            assert browser.answer()
            end = browser.end()
            assert (end.code, end.reason) == (1012, "Server restarting, please reconnect")
            assert end.error is not None and end.error["code"] == "drain"
            assert time.monotonic() - began >= 2.8
        assert instances.wait(port) == 0
        assert stored(instances, conversation_id) == ["user", "assistant"]
        (ended,) = instances.rows("select end_reason from conversations where id = ?", conversation_id)
        assert ended == ("drain",)
        assert "sessions_cut=1" in instances.log_text()


def test_new_session_is_refused_politely_where_no_other_instance_is(tmp_path: Path) -> None:
    """A server alone keeps its port open while it drains, and says 1012 to whoever comes."""
    with running(tmp_path, 1, 20.0) as instances:
        (port,) = instances.ports
        with Browser(instances.at(port)) as browser:
            browser.live()
            instances.signal(port)
            browser.notice("draining")
            with Browser(instances.at(port)) as late:
                end = late.end()
            assert (end.code, end.error and end.error["code"]) == (1012, "drain")
            browser.leave()
        assert instances.wait(port, 15.0) == 0


def test_port_is_closed_where_another_instance_takes_over(tmp_path: Path) -> None:
    """Beside another instance the port refuses connections, so nginx goes there; health goes on being told."""
    with running(tmp_path, 2, 20.0) as instances:
        first, second = instances.ports
        with ExitStack() as opened:
            waiting = opened.enter_context(socket.create_connection(("127.0.0.1", first), timeout=10))
            webhook = opened.enter_context(socket.create_connection(("127.0.0.1", first), timeout=10))
            browser = opened.enter_context(Browser(instances.at(first)))
            browser.live()
            instances.signal(first)
            browser.notice("draining")
            assert status(f"http://127.0.0.1:{first}/") == 0
            assert status(f"http://127.0.0.1:1{first}/ready") == 503
            assert instances.ready_status(second) == 200
            waiting.sendall(HANDSHAKE)  # accepted before the signal, asked after it: on 503 nginx asks the other
            assert waiting.recv(100).startswith(b"HTTP/1.1 503 ")
            webhook.sendall(WEBHOOK)
            assert webhook.recv(100).startswith(b"HTTP/1.1 503 ")
            browser.type_text("still there?")
            assert browser.answer()
            browser.leave()
        assert instances.wait(first, 15.0) == 0
        with Browser(instances.at(second)) as browser:
            assert browser.live()


def test_last_talk_that_ends_ends_the_drain(tmp_path: Path) -> None:
    """Nobody waits for the deadline when nobody talks any more."""
    with running(tmp_path, 1, 60.0) as instances:
        (port,) = instances.ports
        with Browser(instances.at(port)) as browser:
            conversation_id = browser.live()
            browser.type_text("hello")
            browser.answer()
            instances.signal(port)
            browser.notice("draining")
            browser.leave()
        assert instances.wait(port, 20.0) == 0
        assert stored(instances, conversation_id)[:1] == ["user"]  # what was not heard of the answer is not kept
        assert "sessions_cut=0" in instances.log_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_forces(tmp_path: Path, number: signal.Signals) -> None:
    """Whoever signals twice does not wait for the talks: they get 1012 at once, and are stored all the same."""
    with running(tmp_path, 1, 600.0) as instances:
        (port,) = instances.ports
        with Browser(instances.at(port)) as browser:
            conversation_id = browser.live()
            browser.type_text("hello")
            browser.answer()
            instances.signal(port, number)
            browser.notice("draining")
            instances.signal(port, number)
            end = browser.end()
            assert (end.code, end.error and end.error["code"]) == (1012, "drain")
        assert instances.wait(port, 20.0) == 0
        assert stored(instances, conversation_id) [:1] == ["user"]


def test_systemd_is_told_of_every_state(tmp_path: Path) -> None:
    """READY with the counts, WATCHDOG also while it drains, RELOADING around SIGHUP, STOPPING at the end."""
    with running(tmp_path, 1, 60.0) as instances:
        (port,) = instances.ports
        heard = instances.heard[port]
        assert heard[:2] == ["READY=1", "STATUS=0 browser, 0 phone, 0 of 1000"]
        with Browser(instances.at(port)) as browser:
            browser.live()
            assert eventually(lambda: instances.listen(port) and "STATUS=1 browser, 0 phone, 1 of 1000" in heard, 15.0)
            instances.signal(port, signal.SIGHUP)
            assert eventually(lambda: instances.listen(port) and heard.count("READY=1") == 2, 10.0)
            assert heard.index("RELOADING=1") < len(heard) - 1 - heard[::-1].index("READY=1")
            heard.clear()
            instances.signal(port)
            browser.notice("draining")
            assert eventually(lambda: instances.listen(port) and "WATCHDOG=1" in heard, 15.0)
            assert heard[:3] == ["STOPPING=1", "STATUS=draining 1", "EXTEND_TIMEOUT_USEC=30000000"]
            browser.leave()
        assert instances.wait(port, 20.0) == 0


def test_session_that_is_set_up_while_the_drain_begins_is_told_and_goes_on(tmp_path: Path) -> None:
    """A handshake that was accepted before the signal ends in a talk, not in a refusal, where another instance is."""
    with running(tmp_path, 2, 20.0) as instances:
        first, _ = instances.ports
        for attempt in range(5):
            browser = None
            try:
                browser = Browser(instances.at(first))
                instances.signal(first)
                assert browser.live(), attempt
                browser.leave()
            except (websocket.WebSocketException, ConnectionError):
                assert browser is None  # refused before it began, never after
            instances.wait(first, 20.0)
            instances.heard[first].clear()
            instances.start(first)
