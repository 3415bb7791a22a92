"""Several processes as one server: limits, tickets, resumes, counts, crashes and drains over real workers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.siblings import ask_all_sync
from tests.fakes.browser import STRANGER_ID, STRANGERS_AGENT_ID, Browser, Closed, eventually
from tests.fakes.fleet import KEY, Fleet
from tests.fakes.server_process import REPOSITORY, ServerProcess

PLACES = 7
CROWD = 30
"""Handshakes at once: over four for each place."""

ROUNDS = 12
"""Chances that a request lands on the other worker: all miss it once in 4096 runs, and then nothing is shown, nor is
anything wrong."""


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """A server of two workers with few places, each user free to take them all."""
    with Fleet({"MAX_CONNECTIONS": str(PLACES), "MAX_SESSIONS_PER_USER": "1000"}) as running:
        yield running


@pytest.fixture(autouse=True)
def nobody_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Begin and end each test of the shared server without a live session."""
    yield
    if "fleet" in request.fixturenames:
        shared: Fleet = request.getfixturevalue("fleet")
        assert eventually(lambda: shared.health()["activeConnections"] == 0, 10.0), shared.health()


def crowd(count: int, fleets: list[Fleet], stack: ExitStack, **options: Any) -> Counter[int]:
    """Open so many browsers at once, keep those that were let in open until the stack ends; return the outcomes:
    0 for a session that is live, else the close code.
    """

    def come(number: int) -> tuple[int, Browser]:
        browser = Browser(fleets[number % len(fleets)], **options)  # type: ignore[arg-type]
        try:
            browser.live()
        except Closed as closed:
            return closed.code, browser
        return 0, browser

    with ThreadPoolExecutor(count) as threads:
        came = list(threads.map(come, range(count)))
    for _, browser in came:
        stack.callback(browser.drop)
    return Counter(code for code, _ in came)


def test_places_are_exact_over_all_workers(fleet: Fleet) -> None:
    """Of a crowd exactly MAX_CONNECTIONS get in, spread over the workers, and those who leave make room."""
    for _ in range(2):
        with ExitStack() as stack:
            assert crowd(CROWD, [fleet], stack) == {0: PLACES, 1013: CROWD - PLACES}
            assert eventually(lambda: fleet.health()["activeConnections"] == PLACES, 3.0)
            assert httpx.get(f"{fleet.health_url}/ready", trust_env=False).status_code == 503
        assert eventually(lambda: fleet.health()["activeConnections"] == 0, 8.0)


def test_ticket_of_one_worker_is_good_at_the_other_once(fleet: Fleet) -> None:
    """Whoever issued a ticket, whoever is asked redeems it, and nobody does so twice."""
    bearer = {"Authorization": f"Bearer {fleet.token()}"}
    for _ in range(ROUNDS):
        ticket = httpx.post(f"{fleet.url}/api/tickets", headers=bearer, trust_env=False).json()["ticket"]
        with Browser(fleet, token=ticket) as browser:  # type: ignore[arg-type]
            browser.live()
            with Browser(fleet, token=ticket) as again:  # type: ignore[arg-type]
                assert again.end().code == 4001
            browser.leave()


def test_resume_at_another_worker_ends_the_older_socket(fleet: Fleet) -> None:
    """The talk moves: the older socket ends normally, and all it said is stored before the new one begins."""
    here, there = fleet.workers()
    old, conversation_id = fleet.browser_on(here)
    old.type_text("remember the word marigold")
    old.answer()
    for _ in range(ROUNDS):
        new = Browser(fleet, query={"conversation_id": conversation_id})  # type: ignore[arg-type]
        assert new.until("conversation.created") == {**new.events[-1], "resumed": True}
        assert old.end().code == 1000
        old.drop()
        new.until("session.updated")
        assert any("marigold" in (text or "") for text in fleet.messages(conversation_id))
        old = new
        if eventually(lambda: fleet.worker_of(conversation_id), 5.0) == there:
            break
    else:
        pytest.fail("no resume went to the other worker")
    new.leave()


def test_of_resumes_at_the_same_moment_one_goes_on(fleet: Fleet) -> None:
    """Whichever workers several resumes of one conversation land on, exactly one session is left of them."""
    with ExitStack() as stack:
        first = Browser(fleet)  # type: ignore[arg-type]
        stack.callback(first.drop)
        conversation_id = first.live()
        first.type_text("hello")
        first.answer()

        def live() -> int:
            answers = ask_all_sync(fleet.run_dir, "GET", "/sessions").values()
            return sum(row["conversation_id"] == conversation_id for a in answers for row in a.json()["sessions"])

        for _ in range(4):
            crowd(4, [fleet], stack, query={"conversation_id": conversation_id})
            assert eventually(lambda: live() == 1, 5.0)
            time.sleep(0.3)  # what would end the last one too is on its way
            assert live() == 1


def test_strangers_resume_ends_nobody(fleet: Fleet) -> None:
    """Another user's resume finds no conversation, whichever worker gets it, and the talk goes on."""
    with Browser(fleet) as owner:  # type: ignore[arg-type]
        conversation_id = owner.live()
        for _ in range(4):
            query = {"conversation_id": conversation_id}
            stranger = Browser(
                fleet, token=fleet.token(STRANGER_ID), agent_id=STRANGERS_AGENT_ID, query=query  # type: ignore[arg-type]
            )  # fmt: skip
            assert stranger.end().code == 4004
            stranger.drop()
        owner.type_text("are you there")
        owner.answer()
        owner.leave()


def test_every_worker_tells_the_health_of_all(fleet: Fleet) -> None:
    """Sessions of both workers are in each answer, whoever gives it, and all workers are counted."""
    with ExitStack() as stack:
        for worker in fleet.workers():
            browser, _ = fleet.browser_on(worker)
            stack.callback(browser.drop)
        assert eventually(lambda: fleet.health()["browser"] == 2, 3.0)
        time.sleep(1.1)  # every answer kept for a moment is older than the sessions now
        reports = [fleet.health() for _ in range(ROUNDS)]
        assert {(r["status"], r["activeConnections"], r["browser"], r["phone"], r["workers"]) for r in reports} == {
            ("healthy", 2, 2, 0, 2)
        }
        assert {r["maxConnections"] for r in reports} == {PLACES}


def counters(fleet: Fleet) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the counters of one scrape, by name and labels."""
    text = httpx.get(f"{fleet.health_url}/metrics", trust_env=False).text
    families = [f for f in text_string_to_metric_families(text) if f.type in {"counter", "histogram"}]
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families for sample in family.samples if not sample.name.endswith("_created")
    }  # fmt: skip


def test_counters_never_fall_between_scrapes(fleet: Fleet) -> None:
    """Whichever worker answers a scrape tells the figures of each under its name."""
    before = counters(fleet)
    for number in range(ROUNDS):
        if number % 3 == 0:
            with Browser(fleet) as browser:  # type: ignore[arg-type]
                browser.live()
                browser.leave()
        after = counters(fleet)
        assert [key for key, value in before.items() if after.get(key, -1.0) < value] == []
        before = after
    named = {dict(labels)["worker"] for _, labels in before}
    assert named == set(fleet.workers())
    ended = sum(value for (name, _), value in before.items() if name == "voice_sessions_ended_total")
    assert ended >= 4


def test_killed_worker_is_back_and_what_it_held_is_free(fleet: Fleet) -> None:
    """After kill -9 the seat serves again within seconds, its places are free, and what was said is stored."""
    victim, other = fleet.workers()
    with ExitStack() as stack:
        browsers = [fleet.browser_on(victim) for _ in range(3)]
        for browser, _ in browsers:
            stack.callback(browser.drop)
            browser.type_text("keep this sentence about a lighthouse")
            browser.answer()
        assert fleet.kill(victim) < 10.0  # promise P4 is 2 s on a machine that is not busy with tests
        assert [browser.end().code for browser, _ in browsers] == [1006] * 3
    assert eventually(lambda: fleet.health()["activeConnections"] == 0, 3.0), fleet.health()
    for _, conversation_id in browsers:
        stored = eventually(lambda c=conversation_id: [t for t in fleet.messages(c) if "lighthouse" in (t or "")], 10.0)
        assert stored
    assert set(fleet.workers()) == {victim, other}
    with ExitStack() as stack:
        assert crowd(CROWD, [fleet], stack)[0] == PLACES
    assert not list(fleet.state_dir.glob("spool-*.corrupt*"))


def test_broken_directory_refuses_nobody_and_ends_no_talk(fleet: Fleet) -> None:
    """Garbage in the place of the directory costs neither a live session nor a new one, and it is made anew."""
    with ExitStack() as stack:
        talking = [fleet.browser_on(worker)[0] for worker in fleet.workers()]
        for browser in talking:
            stack.callback(browser.drop)
        for path in fleet.run_dir.glob("directory.db*"):
            path.unlink()
        (fleet.run_dir / "directory.db").write_bytes(b"this is no database" * 400)
        assert crowd(4, [fleet], stack) == {0: 4}
        for browser in talking:
            browser.type_text("are you there")
            browser.answer()
        assert eventually(lambda: fleet.health()["activeConnections"] == 6, 10.0), fleet.health()
        assert "directory_made_anew" in fleet.log_text()


def test_reload_reaches_every_worker(fleet: Fleet) -> None:
    """SIGHUP to the parent has each worker forget its keys."""
    before = fleet.log_text().count("keys forgotten")
    os.kill(fleet.pid, signal.SIGHUP)
    assert eventually(lambda: fleet.log_text().count("keys forgotten") == before + 2, 5.0)


# ---------------------------------------------------------------------- servers of their own


def test_user_is_limited_over_workers_and_instances() -> None:
    """A user has MAX_SESSIONS_PER_USER sessions over all processes with one STATE_DIR; others have theirs."""
    limits = {"MAX_SESSIONS_PER_USER": "3"}
    with Fleet(limits) as two, Fleet({**limits, "WORKERS": "1"}, beside=two) as one, ExitStack() as stack:
        assert crowd(12, [two, one], stack) == {0: 3, 4029: 9}
        with Browser(one, token=one.token(STRANGER_ID), agent_id=STRANGERS_AGENT_ID) as other:  # type: ignore[arg-type]
            other.live()
            other.leave()
        assert eventually(lambda: one.health()["activeConnections"] == 3, 3.0)
        assert two.health()["activeConnections"] == 3
        assert (one.health()["workers"], two.health()["workers"]) == (1, 2)


def test_parent_speaks_for_all_workers_to_systemd(tmp_path: Path) -> None:
    """READY comes once, when all listen, then counts and signs of life; the workers say nothing."""
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(10.0)
        heard: list[str] = []

        def hear(wanted: str) -> None:
            while not any(wanted in lines for lines in heard):
                heard.append(manager.recv(4096).decode())

        with Fleet({"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "3000000"}) as fleet:
            hear("READY=1")
            assert len(fleet.workers()) == 2 and fleet.all_listen()
            with Browser(fleet) as browser:  # type: ignore[arg-type]
                browser.live()
                hear("STATUS=1 browser, 0 phone, 1 of 1000")
            hear("WATCHDOG=1")
            os.kill(fleet.pid, signal.SIGTERM)
            hear("STOPPING=1")
    assert sum("READY=1" in lines for lines in heard) == 1


def test_drain_tells_everybody_and_ends_all_workers() -> None:
    """SIGTERM has every worker tell its sessions; they go on until the deadline, and then all processes are gone."""
    with Fleet({"DRAIN_TIMEOUT": "8"}) as fleet, ExitStack() as stack:
        browsers = [fleet.browser_on(worker)[0] for worker in fleet.workers()]
        for browser in browsers:
            stack.callback(browser.drop)
        os.kill(fleet.pid, signal.SIGTERM)
        for browser in browsers:
            browser.notice("draining")
            browser.type_text("still here")
            browser.answer()
        assert [browser.end().code for browser in browsers] == [1012, 1012]
        assert fleet._child is not None and fleet._child.wait(15.0) == 0
        assert fleet.workers() == [] and list(fleet.run_dir.glob("*.sock")) == []


def test_second_signal_ends_the_drain() -> None:
    """Forced, live sessions end at once with 1012."""
    with Fleet({"DRAIN_TIMEOUT": "600"}) as fleet, Browser(fleet) as browser:  # type: ignore[arg-type]
        browser.live()
        os.kill(fleet.pid, signal.SIGTERM)
        browser.notice("draining")
        began = time.monotonic()
        os.kill(fleet.pid, signal.SIGINT)
        assert browser.end().code == 1012
        assert fleet._child is not None and fleet._child.wait(15.0) == 0
        assert time.monotonic() - began < 15.0


def test_workers_without_a_parent_drain() -> None:
    """When the parent is killed its workers take no more sessions, end the live ones, and go."""
    with Fleet({"DRAIN_TIMEOUT": "2"}) as fleet, Browser(fleet) as browser:  # type: ignore[arg-type]
        browser.live()
        os.kill(fleet.pid, signal.SIGKILL)
        browser.notice("draining")
        assert browser.end().code == 1012
        assert eventually(lambda: fleet.workers() == [], 15.0)


def test_worker_that_hangs_is_killed_and_started_again() -> None:
    """A worker that gives no sign of life is replaced while the other goes on."""
    with Fleet(faster={"services.workers.supervisor.HUNG_S": 2.0}) as fleet:
        stuck, other = fleet.workers()
        browser, _ = fleet.browser_on(other)
        pid = fleet.worker_pid(stuck)
        os.kill(pid, signal.SIGSTOP)
        assert eventually(lambda: "cause=hung" in fleet.log_text(), 10.0)
        assert eventually(lambda: set(fleet.workers()) == {stuck, other} and fleet.all_listen(), 10.0)
        assert fleet.worker_pid(stuck) != pid
        browser.type_text("undisturbed")
        browser.answer()
        browser.leave()


def outcome(settings: dict[str, str]) -> tuple[int, str]:
    """Return exit status and output of a server that is expected not to start."""
    server = ServerProcess({"WORKERS": "2", "NODE_ENV": "test", "OPENAI_API_KEY": KEY, **settings})
    server._environment["DATABASE_URL"] = f"sqlite:///{server._folder.name}/voice.db"
    done = subprocess.run(
        server._command(), cwd=REPOSITORY, env=server._environment, capture_output=True, text=True, timeout=20.0,
        check=False,
    )  # fmt: skip
    server._folder.cleanup()
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("settings", "status", "said"),
    [
        ({"WORKERS": "65"}, 78, "WORKERS"),
        ({"MAX_CONNECTIONS": "many"}, 78, "MAX_CONNECTIONS"),
        ({"STATE_DIR": "/dev/null/x"}, 1, "The server cannot start"),
    ],
)
def test_server_that_cannot_start_says_so(settings: dict[str, str], status: int, said: str) -> None:
    """Bad settings end with 78, a first worker that cannot start with 1, and neither is tried again."""
    returned, output = outcome(settings)
    assert (returned, output.count(said)) == (status, 1), output


def test_port_that_is_taken_is_not_shared(fleet: Fleet) -> None:
    """A second server on the same port cannot start, although its sockets could be shared."""
    returned, output = outcome({"PORT": str(fleet.port), "HEALTH_PORT": "0"})
    assert returned == 1 and "cannot start" in output


def test_worker_stopped_alone_leaves_the_port_to_the_other() -> None:
    """Its session goes on, everybody new gets in at the other worker, and when it has ended it is started again."""
    with Fleet({"DRAIN_TIMEOUT": "60"}) as fleet, ExitStack() as stack:
        here, there = fleet.workers()
        talking, conversation_id = fleet.browser_on(here)
        stack.callback(talking.drop)
        before = fleet.worker_pid(here)
        os.kill(before, signal.SIGTERM)
        talking.until("gateway.notice")
        assert eventually(lambda: listeners(fleet.port) == 1, 5.0)
        for _ in range(ROUNDS):
            with Browser(fleet) as browser:  # type: ignore[arg-type]
                assert fleet.worker_of(browser.live()) == there
                browser.leave()
            assert httpx.get(f"{fleet.health_url}/ready", trust_env=False).status_code == 200
        talking.type_text("are you there")
        assert talking.answer() and fleet.worker_of(conversation_id) == here
        talking.leave()
        assert eventually(lambda: listeners(fleet.port) == 2 and fleet.worker_pid(here) != before, 15.0)


def test_workers_stopped_one_by_one_still_say_why() -> None:
    """The last worker keeps the port, since nobody would answer in its stead: not ready, and 1012 to who comes."""
    with Fleet({"DRAIN_TIMEOUT": "60"}) as fleet, ExitStack() as stack:
        for worker in fleet.workers():
            stack.callback(fleet.browser_on(worker)[0].drop)
        first, last = (fleet.worker_pid(worker) for worker in fleet.workers())
        os.kill(first, signal.SIGTERM)
        assert eventually(lambda: listeners(fleet.port) == 1, 5.0)
        os.kill(last, signal.SIGTERM)
        ready = f"{fleet.health_url}/ready"
        assert eventually(lambda: httpx.get(ready, trust_env=False).status_code == 503, 5.0)
        with Browser(fleet) as late:  # type: ignore[arg-type]
            assert late.end().code == 1012


def listeners(port: int) -> int:
    """Return how many sockets of this machine listen on a port of 127.0.0.1."""
    local = f"0100007F:{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1] == local and row[3] == "0A" for row in rows)
