"""Conversations over the browser's door: what is kept, what is hidden, what survives."""

from __future__ import annotations

import base64
import gc
import json
import time

import pytest

from handlers.browser import BrowserDoor
from tests.fakes.broken import HeldStore
from tests.fakes.browser import (
    AGENTS,
    INSTRUCTIONS_CANARY,
    PLAIN_ID,
    TOOL_CANARY,
    TOOLED_ID,
    USER_ID,
    Browser,
    eventually,
)

APPEND = "input_audio_buffer.append"


def texts(session) -> list[str]:
    """Return what was typed into an upstream session, in order."""
    items = [event["item"] for event in session.events("conversation.item.create")]
    return [part.get("text") for item in items for part in item.get("content", ())]


# ---------------------------------------------------------------------- before the upstream is ready


@pytest.mark.parametrize("slow", ["store", "handshake"])
def test_what_comes_early_is_kept_in_order(make, slow):
    """Events sent before the service is ready reach it afterwards, in order, behind our configuration."""
    gateway = make()
    held = HeldStore(gateway.server.context.store)
    if slow == "store":
        gateway.server.context.store = held
    else:
        gateway.simulator.faults.next("slow_handshake", seconds=0.5)
    with Browser(gateway) as browser:
        for number in range(5):
            browser.type_text(f"early {number}", answer=False)
            browser.send(APPEND, audio=base64.b64encode(bytes(4_800)).decode())
        gateway._loop.call_soon_threadsafe(gateway._loop.call_later, 0.2, held.go_on.set)
        browser.live()
        browser.type_text("late", answer=False)
        upstream = gateway.simulator.sessions[0]
        eventually(lambda: "late" in texts(upstream))
        browser.leave()
    assert texts(upstream) == [*(f"early {number}" for number in range(5)), "late"]
    kinds = [event["type"] for event in upstream.received]
    assert kinds == ["session.update", *["conversation.item.create", APPEND] * 5, "conversation.item.create"]


def test_no_audio_passes_before_the_session_is_configured(gateway):
    """Until session.updated nothing of the client reaches the service, however long that takes."""
    gateway.simulator.faults.next("stall", after=1, of="session.created")
    with Browser(gateway) as browser:
        browser.until("conversation.created")
        upstream = gateway.simulator.sessions[0]
        for _ in range(20):
            browser.send(APPEND, audio=base64.b64encode(bytes(4_800)).decode())
        browser.type_text("hello")
        browser.send("session.destroy")
        browser.error()  # the server has read everything before it
        assert {event["type"] for event in upstream.received} <= {"session.update"}
        assert upstream.audio_in_ms == 0


@pytest.mark.parametrize("slow", ["store", "handshake"])
def test_too_much_before_the_session_is_ready_drops_the_oldest_audio(make, slow):
    """More than 1 MiB of early audio keeps the newest; typed text stays."""
    gateway = make()
    held = HeldStore(gateway.server.context.store)
    if slow == "store":
        gateway.server.context.store = held
    else:
        gateway.simulator.faults.next("slow_handshake", seconds=1.0)
    with Browser(gateway) as browser:
        browser.type_text("first", answer=False)
        for _ in range(40):
            browser.send(APPEND, audio=base64.b64encode(bytes(36_000)).decode())
        gateway._loop.call_soon_threadsafe(gateway._loop.call_later, 0.5, held.go_on.set)
        browser.live()
        upstream = gateway.simulator.sessions[0]
        assert eventually(lambda: upstream.audio_in_ms >= 15_000)
        assert texts(upstream) == ["first"]
        assert upstream.audio_in_ms <= 22_000


# ---------------------------------------------------------------------- configuration


def test_refused_configuration_is_tried_with_less(gateway):
    """When the whole session is refused a reduced one is sent, and the talk works."""
    gateway.simulator.faults.next("reject_update")
    with Browser(gateway) as browser:
        browser.live()
        browser.type_text("hello")
        assert "hello" in browser.answer()
        assert all(event["type"] != "error" for event in browser.events)
        browser.leave()
    full, reduced = (event["session"] for event in gateway.simulator.sessions[0].events("session.update"))
    assert set(reduced) < set(full) and reduced["instructions"] == full["instructions"]
    assert "truncation" in full and "truncation" not in reduced


def test_refused_reduced_configuration_ends_the_session(gateway):
    """An agent whose reduced session is refused too cannot be had."""
    gateway.simulator.faults.next("reject_update", "reject_update")
    with Browser(gateway) as browser:
        assert browser.end().code == 4502


@pytest.mark.parametrize(
    ("asked", "spoken"),
    [("", "sage"), ("cedar", "cedar"), ("MARIN", "marin"), ("fable", "ballad"), ("onyx", "ash"), ("nova", "coral")],
)
def test_voice_asked_for_is_used(gateway, asked, spoken):
    """The voice in the address counts, else the agent's; retired names are mapped, and the log says so."""
    with Browser(gateway, query={"voice": asked}) as browser:
        browser.live()
        browser.leave()
    assert gateway.simulator.sessions[0].config["audio"]["output"]["voice"] == spoken
    mapped = "retired voice mapped" in gateway.log_text()
    assert mapped == (asked in {"fable", "onyx", "nova"})


def test_custom_voice_is_passed_on_by_id(gateway):
    """A custom voice goes upstream as an object."""
    with Browser(gateway, query={"voice": "voice_abc123"}) as browser:
        browser.until("conversation.created")
        upstream = gateway.simulator.sessions[0]
        assert eventually(lambda: upstream.events("session.update"))
        browser.leave()
    assert upstream.events("session.update")[0]["session"]["audio"]["output"]["voice"] == {"id": "voice_abc123"}


@pytest.mark.parametrize("asked", ["robot", "alloy2", "voice_", "../etc", "ALLOY;DROP"])
def test_unknown_voice_is_an_error_and_the_agents_is_used(gateway, asked):
    """The error names the voices there are; the session goes on with the agent's."""
    with Browser(gateway, query={"voice": asked}) as browser:
        error = browser.error()
        browser.until("session.updated")
        browser.leave()
    assert (error["code"], error["param"]) == ("invalid_voice", "voice")
    assert "marin" in error["message"] and "cedar" in error["message"] and asked not in error["message"]
    assert gateway.simulator.sessions[0].config["audio"]["output"]["voice"] == "sage"


def test_client_may_change_what_the_owner_leaves_open(gateway):
    """Turn detection in the older shape reaches the service in its own, and stays over a new link."""
    with Browser(gateway) as browser:
        browser.live()
        browser.send("session.update", session={"turn_detection": None, "modalities": ["text", "audio"]})
        updated = browser.until("session.updated")["session"]
        assert updated["turn_detection"] is None and "instructions" not in updated
        gateway.run(strike(gateway, "drop"))
        browser.notice("reconnected")
        browser.leave()
    first, second = gateway.simulator.sessions
    assert second.config["audio"]["input"]["turn_detection"] is None
    assert second.config["instructions"] == first.config["instructions"]


async def strike(gateway, fault: str) -> None:
    """Let a fault strike the one session that lives."""
    assert gateway.simulator.faults.now(fault) == 1


# ---------------------------------------------------------------------- what the client must not see


@pytest.mark.parametrize("path", ["", "v1/realtime"])
def test_instructions_and_tools_never_reach_the_client(gateway, path):
    """Through configuration, tool calls, errors, a change, recovery: no frame shows what the agent is made of."""
    with Browser(gateway, path, agent_id=TOOLED_ID) as browser:
        browser.live()
        for said in ("what time is it", "test two tools", "test error", "hello"):
            browser.type_text(said)
            browser.quiet()
        silent = {"audio": {"input": {"turn_detection": None}}} if path else {"turn_detection": None}
        browser.send("session.update", session={"type": "realtime", **silent})
        browser.until("session.updated")
        gateway.run(strike(gateway, "drop"))
        browser.notice("reconnected")
        browser.leave()
    everything = "\n".join(browser.frames)
    for hidden in (INSTRUCTIONS_CANARY, TOOL_CANARY, "function_call", "current_time", "sk-simulated"):
        assert hidden not in everything, hidden
    upstream = gateway.simulator.sessions[0]
    assert INSTRUCTIONS_CANARY in upstream.config["instructions"] and TOOL_CANARY in json.dumps(upstream.config)


# ---------------------------------------------------------------------- speech, storage, greeting


def test_spoken_turn_is_answered_and_stored(make, question, messages, stored):
    """A spoken question gives both transcripts to the client and to the database, in order."""
    gateway = make(transcripts=("well, goodbye then",))
    with Browser(gateway) as browser:
        conversation_id = browser.live()
        browser.speak(question)
        heard = browser.until("conversation.item.input_audio_transcription.completed")["transcript"]
        browser.until("response.done")
        deltas = [event for event in browser.events if event["type"] == "response.audio.delta"]
        assert heard == "well, goodbye then" and sum(len(event["delta"]) for event in deltas) > 24_000
        kinds = {event["type"] for event in browser.events}
        assert kinds >= {"input_audio_buffer.speech_started", "input_audio_buffer.committed", "response.audio.done"}
        assert not kinds & {"response.output_audio.delta", "conversation.item.added", "conversation.item.done"}
        assert eventually(lambda: len(messages(gateway, conversation_id)) == 2, 5.0)  # when it was heard to its end
        browser.leave()
    row = stored(gateway, conversation_id)
    assert row["turn_count"] == 2 and row["cost_usd"] > 0
    said = [(row["role"], row["content"], row["status"]) for row in messages(gateway, conversation_id)]
    assert said == [("user", "well, goodbye then", "complete"), ("assistant", "Goodbye.", "complete")]


def test_agent_greets_once(make):
    """An agent with a greeting speaks first, and not again when the talk is resumed."""
    greeter = {"id": PLAIN_ID, "user_id": USER_ID, "name": "Greeter", "greeting": "Welcome to the test."}
    gateway = make(seed=(greeter, *AGENTS[1:]))
    with Browser(gateway) as browser:
        conversation_id = browser.live()
        assert browser.answer() == "Welcome to the test."
        browser.leave()
    with Browser(gateway, query={"conversation_id": conversation_id}) as browser:
        assert browser.live() == conversation_id
        browser.type_text("hello")
        assert "hello" in browser.answer()
        browser.leave()


def test_token_may_come_as_a_subprotocol(gateway):
    """The token of the subprotocol pair lets in; `realtime` is selected and the token never echoed."""
    offered = ["realtime", f"openai-insecure-api-key.{gateway.token()}"]
    with Browser(gateway, token="", subprotocols=offered) as browser:
        assert browser.socket.getsubprotocol() == "realtime"
        browser.live()
        browser.leave()


def test_token_of_the_handshake_is_let_go_of(gateway):
    """A live session holds neither address nor headers of its handshake."""
    with Browser(gateway) as browser:
        browser.live()
        (door,) = (o for o in gc.get_objects() if type(o) is BrowserDoor and o.relay and not o.relay.ending)
        request = door.request
        assert (request.uri, request.query, dict(request.arguments), dict(request.headers)) == ("", "", {}, {})
        browser.leave()


def test_token_is_refreshed_in_a_live_session(gateway):
    """session.refresh replaces the token; another user's is refused, and the session lives on until the old ends."""
    with Browser(gateway, token=gateway.token(ttl_s=3)) as browser:
        browser.live()
        browser.send("session.refresh", token=gateway.token("00000000-0000-4000-8000-000000000009"))
        assert browser.error()["code"] == "invalid_token"
        browser.send("session.refresh", token=gateway.token())
        began = time.monotonic()
        while time.monotonic() - began < 3.2:
            browser.type_text("still here")
            browser.answer()
            time.sleep(0.1)  # a person's pace: a flood of messages would be refused
        browser.leave()


# ---------------------------------------------------------------------- going on


def test_conversation_is_resumed_with_its_memory(gateway, messages):
    """The conversation_id brings back what was said, and what is said then is stored behind it."""
    with Browser(gateway) as browser:
        conversation_id = browser.live()
        browser.type_text("my name is Ada")
        browser.answer()
        browser.leave()
    with Browser(gateway, query={"conversation_id": conversation_id.upper()}) as browser:
        created = browser.until("conversation.created")
        assert (created["conversation_id"], created["resumed"]) == (conversation_id, True)
        browser.until("session.updated")
        browser.type_text("what did i say")
        assert "my name is Ada" in browser.answer()
        browser.leave()


    def typed() -> list[str]:
        return [row["content"] for row in messages(gateway, conversation_id) if row["role"] == "user"]

    assert eventually(lambda: typed() == ["my name is Ada", "what did i say"], 5.0)


@pytest.mark.parametrize("limit", ["1", "5"])
def test_conversation_is_taken_over_at_once(make, limit):
    """A resume while the first socket still lives closes that one with 1000, and all that was said is there."""
    gateway = make({"MAX_SESSIONS_PER_USER": limit})
    with Browser(gateway) as first:
        conversation_id = first.live()
        first.type_text("the code is 4711")
        first.answer()
        with Browser(gateway, query={"conversation_id": conversation_id}) as second:
            assert first.end()[:2] == (1000, "")
            second.live()
            second.type_text("what did i say")
            assert "the code is 4711" in second.answer()
            second.leave()


@pytest.mark.parametrize("fault", ["drop", "close_1011", "close_1012", "close_1013", "expire", "stall"])
def test_talk_goes_on_over_a_new_link(gateway, fault, monkeypatch):
    """Whatever ends a link in the middle of an answer: notices, the history, and the answer that was owed."""
    monkeypatch.setattr("core.conversation.STALL_S", 0.4)
    with Browser(gateway) as browser:
        conversation_id = browser.live()
        browser.type_text("my name is Ada")
        browser.answer()
        browser.type_text("what did i say", answer=False)
        browser.until("conversation.item.created")
        gateway.run(add_fault(gateway, fault))
        browser.send("response.create")
        assert "my name is Ada" in browser.answer()
        codes = [event["code"] for event in browser.events if event["type"] == "gateway.notice"]
        assert codes == ["reconnecting", "reconnected"]
        assert not [event for event in browser.events if event["type"] == "session.created"][1:]
        browser.leave()
    assert len(gateway.simulator.sessions) == 2
    assert "my name is Ada" in texts(gateway.simulator.sessions[1])
    assert conversation_id


async def add_fault(gateway, fault: str) -> None:
    """Let a fault strike the living session with the next response."""
    from simulator.faults import fault as named

    socket = next(iter(gateway.simulator._living))
    socket._faults.add(named(fault, after=1, of="response.created"))


@pytest.mark.parametrize("fault", ["garbage_text", "garbage_binary", "unknown_event", "huge_frame"])
def test_strange_frames_of_the_service_do_no_harm(gateway, fault):
    """What no client knows is dropped or passed on whole; the talk goes on over the same link."""
    gateway.simulator.faults.next(fault)
    with Browser(gateway) as browser:
        browser.live()
        for said in ("one", "two"):
            browser.type_text(said)
            assert said in browser.answer()
        browser.leave()
    assert len(gateway.simulator.sessions) == 1


def test_failed_response_is_tried_again(gateway):
    """A response that fails is asked for once more; a second failure is told."""
    gateway.simulator.faults.next("response_failed")
    with Browser(gateway) as browser:
        browser.live()
        browser.type_text("hello")
        assert "hello" in browser.answer()
        browser.type_text("test error")
        assert browser.error()["code"] == "server_error"
        browser.leave()
