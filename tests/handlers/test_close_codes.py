"""Every row of the table of close codes (contract, section 4) over a real socket."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import struct
import uuid
from contextlib import closing

import httpx
import pytest

from core.errors import ENDINGS
from services.auth import load_development_secret
from services.auth.signatures import signed
from tests.fakes.broken import NoKey
from tests.fakes.browser import (
    STRANGER_ID,
    STRANGERS_AGENT_ID,
    SWITCHED_OFF_ID,
    TOOLED_ID,
    Browser,
    End,
    eventually,
)

ENDED = 'voice_sessions_ended_total{{channel="browser",end_reason="{}"}}'
REFUSED = 'voice_client_refused_total{{code="{}"}}'

LEFT = (1000, "", "client_left")
PAGE_CLOSED = (1001, "", "client_left")
AGENT_ENDED = (1000, "", "agent_ended")
TOO_BIG = (1009, "Message too big", "client_error")
KEY_MISSING = (1011, "OpenAI API key not configured", "key_missing")
INTERNAL = (1011, "Internal server error", "internal")
DRAIN = (1012, "Server restarting, please reconnect", "drain")
CAPACITY = (1013, "Server at capacity", "capacity")
BAD_REQUEST = (4000, "Missing token or agent_id", "bad_request")
UNAUTHORIZED = (4001, "Unauthorized", "unauthorized")
NO_AGENT = (4004, "Agent not found", "not_found")
NO_CONVERSATION = (4004, "Conversation not found", "not_found")
TIME_LIMIT = (4008, "Session time limit", "time_limit")
IDLE = (4008, "Idle timeout", "idle")
VIOLATIONS = (4009, "Invalid message", "client_error")
TOO_MANY = (4029, "Too many sessions", "too_many")
BUDGET = (4029, "Budget exhausted", "budget")
UPSTREAM = (4502, "Voice service unavailable", "upstream")
"""The rows of the contract: code, reason text, end_reason."""

ROWS = {
    *(LEFT, PAGE_CLOSED, AGENT_ENDED, TOO_BIG, KEY_MISSING, INTERNAL, DRAIN, CAPACITY, BAD_REQUEST, UNAUTHORIZED),
    *(NO_AGENT, NO_CONVERSATION, TIME_LIMIT, IDLE, VIOLATIONS, TOO_MANY, BUDGET, UPSTREAM),
}


@pytest.fixture
def expect(metric, stored):
    """Return a function that asserts one row: code, reason, error event, metrics, stored end_reason."""

    def check(gateway, end: End, row: tuple[int, str, str], conversation_id: str | None = None) -> None:
        code, reason, end_reason = row
        assert (end.code, end.reason) == (code, reason)
        assert end.error is not None
        assert (end.error["code"], end.error["type"]) == (end_reason, "gateway_error")
        assert end.error["message"]
        if conversation_id is None:
            assert metric(gateway, REFUSED.format(code)) >= 1
        else:
            assert metric(gateway, ENDED.format(end_reason)) == 1
            assert stored(gateway, conversation_id)["end_reason"] == end_reason

    return check


def dead_port() -> int:
    """Return a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("code", [1000, 1001])
def test_client_that_leaves_ends_normally(gateway, stored, metric, code):
    """A client's own close is answered with its code, without an error event, and stored as client_left."""
    with Browser(gateway) as browser:
        conversation_id = browser.live()
        browser.socket.send(struct.pack(">H", code), 8)
        end = browser.end()
    assert end == End(code, "", None)
    assert stored(gateway, conversation_id)["end_reason"] == "client_left"
    assert metric(gateway, ENDED.format("client_left")) == 1


def test_agent_that_ends_the_talk_closes_normally(gateway, stored, metric):
    """After the agent's goodbye the socket is closed with 1000 and no error event."""
    with Browser(gateway, agent_id=TOOLED_ID) as browser:
        conversation_id = browser.live()
        browser.type_text("hang up")
        end = browser.end()
    assert end == End(1000, "", None)
    assert stored(gateway, conversation_id)["end_reason"] == "agent_ended"
    assert metric(gateway, ENDED.format("agent_ended")) == 1


def test_message_over_the_limit_is_explained(gateway, expect):
    """A frame of 2 MB is answered with one error event and 1009, although the client is still sending."""
    with Browser(gateway) as browser:
        conversation_id = browser.live()
        browser.socket.send("x" * 2_000_000)
        end = browser.end()
        assert [event["type"] for event in browser.events].count("error") == 1
    expect(gateway, end, TOO_BIG, conversation_id)


def test_missing_key_is_told(make, expect):
    """Without an API key the session ends with 1011 that names the cause."""
    gateway = make(accidents=("no API key",))
    gateway.server.context.keys = NoKey()
    with Browser(gateway) as browser:
        end = browser.end()
    expect(gateway, end, KEY_MISSING, stored_id(gateway))


def test_broken_database_ends_with_an_internal_error(make, expect):
    """A database that fails while a session is set up is 1011, and its text reaches nobody."""
    gateway = make(accidents=("set-up failed",))
    with closing(sqlite3.connect(gateway.db)) as database:
        database.execute("drop table agents")
    with Browser(gateway) as browser:
        end = browser.end()
    expect(gateway, end, INTERNAL)
    assert "sqlite" not in json.dumps(end.error).lower()


def test_drain_deadline_ends_live_sessions(make, expect):
    """A server that stops tells its clients, refuses new ones, and ends the rest with 1012 at the deadline."""
    gateway = make()
    with Browser(gateway) as browser:
        conversation_id = browser.live()
        stopping = asyncio.run_coroutine_threadsafe(gateway.server.stop(drain_s=0.5), gateway._loop)
        assert browser.notice("draining")["left_s"] is not None
        with Browser(gateway) as late:
            expect(gateway, late.end(), DRAIN)
        end = browser.end()
        stopping.result(10)
    expect(gateway, end, DRAIN, conversation_id)


def test_server_at_capacity_refuses_the_next(make, expect):
    """Beyond MAX_CONNECTIONS a client is refused with 1013, and let in once a place is free."""
    gateway = make({"MAX_CONNECTIONS": "1"})
    with Browser(gateway) as first:
        first.live()
        with Browser(gateway) as second:
            expect(gateway, second.end(), CAPACITY)
        first.leave()
    eventually(lambda: gateway.server.context.connections.active == 0)
    with Browser(gateway) as third:
        third.live()


@pytest.mark.parametrize(
    "asked",
    [
        {"token": ""},
        {"agent_id": ""},
        {"agent_id": "not-a-uuid"},
        {"query": {"conversation_id": "1"}},
        {"token": "", "agent_id": ""},
    ],
)
def test_request_without_what_it_needs_is_bad(gateway, expect, asked):
    """A missing token or agent_id, or an id that is no UUID, is 4000."""
    with Browser(gateway, **asked) as browser:
        expect(gateway, browser.end(), BAD_REQUEST)


@pytest.mark.parametrize("token", ["junk", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "tkt_unknown", "x" * 9000])
def test_token_that_is_junk_is_unauthorized(gateway, expect, token):
    """What is no token is refused before any session is opened upstream."""
    with Browser(gateway, token=token) as browser:
        expect(gateway, browser.end(), UNAUTHORIZED)
    assert not gateway.simulator.sessions


def test_expired_token_is_unauthorized(gateway, expect):
    """An expired token is refused."""
    with Browser(gateway, token=gateway.token(ttl_s=-60)) as browser:
        expect(gateway, browser.end(), UNAUTHORIZED)


def test_token_of_another_role_is_unauthorized(gateway, expect):
    """A service key is no user's token."""
    claims = {"iss": "voice-server-development", "aud": "authenticated", "role": "service_role", "exp": 4e9}
    token = signed({**claims, "sub": str(uuid.uuid4()), "iat": 1}, load_development_secret(gateway.state_dir))
    with Browser(gateway, token=token) as browser:
        expect(gateway, browser.end(), UNAUTHORIZED)


def test_ticket_works_once(make, expect):
    """With QUERY_TOKENS=off a JWT in the address is refused, a ticket lets in once and not twice."""
    gateway = make({"QUERY_TOKENS": "off"})
    with Browser(gateway) as browser:
        expect(gateway, browser.end(), UNAUTHORIZED)
    with Browser(gateway, token="", header=[f"Authorization: Bearer {gateway.token()}"]) as browser:
        browser.live()
    ticket = post_ticket(gateway)
    with Browser(gateway, token=ticket) as browser:
        browser.live()
    with Browser(gateway, token=ticket) as browser:
        expect(gateway, browser.end(), UNAUTHORIZED)


def post_ticket(gateway) -> str:
    """Return a ticket of the demo user."""
    answer = httpx.post(f"{gateway.url}/api/tickets", headers={"Authorization": f"Bearer {gateway.token()}"})
    assert answer.status_code == 200
    return str(answer.json()["ticket"])


def test_token_that_expires_in_a_session_ends_it(gateway, expect):
    """A session outlives its token only when it is refreshed."""
    with Browser(gateway, token=gateway.token(ttl_s=2)) as browser:
        conversation_id = browser.live()
        end = browser.end()
        assert "token_expiring" in [event.get("code") for event in browser.events]
    expect(gateway, end, UNAUTHORIZED, conversation_id)


@pytest.mark.parametrize("agent_id", ["00000000-0000-4000-8000-0000000000c9", STRANGERS_AGENT_ID, SWITCHED_OFF_ID])
def test_agent_that_is_not_the_users_is_not_found(gateway, expect, agent_id):
    """An agent that is missing, switched off or somebody else's is 4004, the same for all three."""
    with Browser(gateway, agent_id=agent_id) as browser:
        expect(gateway, browser.end(), NO_AGENT)


def test_conversation_that_is_not_the_users_is_not_found(gateway, expect):
    """A conversation that is missing or somebody else's is 4004, and its owner's session goes on."""
    with Browser(gateway, query={"conversation_id": str(uuid.uuid4())}) as browser:
        expect(gateway, browser.end(), NO_CONVERSATION)
    with Browser(gateway, token=gateway.token(STRANGER_ID), agent_id=STRANGERS_AGENT_ID) as owner:
        foreign = owner.live()
        with Browser(gateway, query={"conversation_id": foreign}) as browser:
            expect(gateway, browser.end(), NO_CONVERSATION)
        owner.type_text("still here")
        assert "still here" in owner.answer()


def test_longest_session_ends(make, expect):
    """CONNECTION_TIMEOUT ends a session, after a notice."""
    gateway = make({"CONNECTION_TIMEOUT": "1000"})
    with Browser(gateway) as browser:
        conversation_id = browser.live()
        browser.notice("time_limit_soon")
        end = browser.end()
    expect(gateway, end, TIME_LIMIT, conversation_id)


def test_silence_ends(make, expect):
    """IDLE_TIMEOUT ends a session in which nobody speaks."""
    gateway = make({"IDLE_TIMEOUT": "1000"})
    with Browser(gateway) as browser:
        conversation_id = browser.live()
        end = browser.end()
    expect(gateway, end, IDLE, conversation_id)


def test_repeated_rule_breaking_ends(gateway, expect):
    """The tenth refused message within a minute ends the session; each one is answered."""
    with Browser(gateway) as browser:
        conversation_id = browser.live()
        for _ in range(10):
            browser.send("session.destroy")
        end = browser.end()
        assert [event["type"] for event in browser.events].count("error") == 11
    expect(gateway, end, VIOLATIONS, conversation_id)


def test_user_has_a_limited_number_of_sessions(make, expect):
    """MAX_SESSIONS_PER_USER counts each user apart."""
    gateway = make({"MAX_SESSIONS_PER_USER": "1"})
    with Browser(gateway) as first:
        first.live()
        with Browser(gateway) as second:
            expect(gateway, second.end(), TOO_MANY)
        with Browser(gateway, token=gateway.token(STRANGER_ID), agent_id=STRANGERS_AGENT_ID) as other:
            other.live()


def test_spent_budget_ends_and_then_refuses(make, expect):
    """The answer that spends the day's budget is the last; the next session is refused."""
    gateway = make({"DAILY_BUDGET_USD_PER_USER": "0.000001"})
    with Browser(gateway) as browser:
        conversation_id = browser.live()
        browser.type_text("hello")
        end = browser.end()
    expect(gateway, end, BUDGET, conversation_id)
    with Browser(gateway) as browser:
        expect(gateway, browser.end(), BUDGET)


@pytest.mark.parametrize(
    "fault", ["refuse_403", "refuse_401", "invalid_api_key", "insufficient_quota", "model_not_found", "quota_failed"]
)
def test_service_that_refuses_for_good_ends_at_once(gateway, expect, stored, fault):
    """What no retry mends is told in two seconds, with our code and never the service's own."""
    gateway.simulator.faults.always(fault)
    with Browser(gateway) as browser:
        if fault == "quota_failed":
            browser.live()
            browser.type_text("hello")
        end = browser.end()
    conversation_id = stored_id(gateway)
    expect(gateway, end, UPSTREAM, conversation_id)
    assert "key" not in json.dumps(end.error)
    assert len(gateway.simulator.sessions) <= 2


def stored_id(gateway) -> str:
    """Return the id of the only conversation there is."""
    def ids():
        with closing(sqlite3.connect(gateway.db)) as database:
            return [row[0] for row in database.execute("select id from conversations")]

    found = eventually(ids, 5.0)
    assert len(found) == 1
    return str(found[0])


@pytest.mark.parametrize("fault", ["refuse_429", "refuse_500"])
def test_service_that_stays_away_ends_after_the_retries(gateway, expect, fault, monkeypatch):
    """A service that goes on refusing is tried again, told each time, and given up."""
    monkeypatch.setattr("core.recovery.RETRY_DELAYS_S", (0.05, 0.05, 0.05, 0.05))
    gateway.simulator.faults.always(fault)
    with Browser(gateway) as browser:
        end = browser.end()
        notices = [event for event in browser.events if event.get("code") == "reconnecting"]
    assert len(notices) == 4 and len(gateway.simulator.sessions) == 5
    expect(gateway, end, UPSTREAM, stored_id(gateway))


def test_service_that_is_not_there_ends_after_the_retries(make, expect, monkeypatch):
    """A dead port is the same as a service that stays away."""
    monkeypatch.setattr("core.recovery.RETRY_DELAYS_S", (0.05, 0.05, 0.05, 0.05))
    gateway = make({"OPENAI_REALTIME_URL": f"ws://127.0.0.1:{dead_port()}/v1/realtime"})
    with Browser(gateway) as browser:
        end = browser.end()
    expect(gateway, end, UPSTREAM, stored_id(gateway))


@pytest.mark.parametrize("fault", ["close_1011", "close_1012", "close_1013", "expire"])
def test_close_codes_of_the_service_stay_there(gateway, fault):
    """A close of the service is never passed on: the session goes on with another link."""
    with Browser(gateway) as browser:
        browser.live()
        gateway.run(_strike(gateway, fault))
        assert eventually(lambda: len(gateway.simulator.sessions) == 2)
        browser.type_text("still here")
        assert "still here" in browser.answer()
        browser.leave()


async def _strike(gateway, fault: str) -> None:
    assert gateway.simulator.faults.now(fault) == 1


def test_the_table_of_the_code_is_the_contracts():
    """The rows these tests speak of are all the rows there are."""
    assert {(row.code, row.reason, row.end_reason) for row in ENDINGS} == ROWS
