"""What a client sees, and what it never sees."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.dialect import Dialect
from core.realtime import Event
from tests.dialogue import Dialogue, base64_of

STARTED = "input_audio_buffer.speech_started"
TYPED = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}


def opening(**fields: Any) -> Dialogue:
    """Return a dialogue whose session has begun and is not live yet."""
    talk = Dialogue(**fields)
    talk.begins()
    return talk


@pytest.mark.parametrize("frame", [b"", b"[]", b'{"x":1}', b"\xff"])
def test_what_upstream_sends_and_is_no_event_is_noted(frame: bytes) -> None:
    """The log tells its size; the client hears nothing."""
    talk = Dialogue().live()
    commands = talk.session.upstream_received(1, frame, talk.now)
    talk._fact("nonsense", commands).gives("note upstream sent what is no event")


@pytest.mark.parametrize(
    ("dialect", "kind"), [("ga", "response.output_audio.delta"), ("preview", "response.audio.delta")]
)
def test_audio_of_an_unusual_shape_is_read_and_sent_on(dialect: Dialect, kind: str) -> None:
    """A field more or less makes a frame slower, not lost; it is counted and can be dropped as audio."""
    talk = Dialogue(dialect=dialect).live()
    audio = {"response_id": "r1", "item_id": "i1", "delta": base64_of(999) + "AA==", "obfuscation": "x"}
    step = talk.model("response.output_audio.delta", **audio)
    step.gives("client: audio of i1")
    assert json.loads(step.commands[0].frame)["type"] == kind  # type: ignore[union-attr]
    assert talk.conversation.exchange.playback.sent_ms("i1") == 999


@pytest.mark.parametrize("fields", [{"delta": 5}, {"item_id": None}, {}])
def test_audio_without_an_item_is_dropped(fields: Event) -> None:
    """What belongs nowhere is not played."""
    audio = {"item_id": "i1", "delta": "AAAA", "obfuscation": "x", **fields} if fields else {}
    Dialogue().live().model("response.output_audio.delta", **audio).gives()


def test_audio_of_an_unusual_shape_before_the_session_is_live() -> None:
    """No audio flows before the configuration holds."""
    talk = opening()
    talk.opened()
    talk.model("response.output_audio.delta", item_id="i1", delta="AAAA").gives()


CANARY = "CANARY-7f3a"
SECRET_AGENT = {
    "instructions": f"{CANARY} Sell shoes.",
    "personality": CANARY,
    "greeting": f"{CANARY} hello",
    "tools": [
        {"name": f"{CANARY}-stock", "description": CANARY, "url": f"https://shop.example/{CANARY}"},
        {"builtin": "end_call", "description": CANARY},
    ],
    "knowledge": [{"vector_store_id": "vs", "name": CANARY, "description": CANARY}],
}


def echoing(talk: Dialogue) -> Event:
    """Return the session upstream would echo: everything it was configured with."""
    frames = [command.frame for command in talk.all if type(command).__name__ == "SendUpstream"]  # type: ignore[union-attr]
    session: Event = next(e["session"] for e in map(json.loads, reversed(frames)) if e["type"] == "session.update")
    return {"id": "s1", "object": "realtime.session", **session}


@pytest.mark.parametrize("dialect", ["ga", "preview"])
def test_the_agents_secrets_are_in_no_frame_for_the_client(dialect: Dialect) -> None:
    """Through a whole talk with tools, a loss and a refusal, no word of instructions, greeting or tools is seen."""
    talk = Dialogue({"agent": SECRET_AGENT, "greets": True}, dialect=dialect)
    talk.begins()
    for _ in range(2):
        talk.opened()
        talk.model("session.created", session=echoing(talk))
        talk.model("session.updated", session=echoing(talk))
        talk.asks("u1", "Boots?").begins_answer("r1", "i1").says("r1", "i1", "One moment.", 200)
        call = {"id": "f1", "type": "function_call", "call_id": "c1", "name": f"{CANARY}-stock", "arguments": CANARY}
        talk.model("response.output_item.added", response_id="r1", item=call)
        talk.model("conversation.item.added", item=call)
        talk.model("response.function_call_arguments.delta", response_id="r1", item_id="f1", delta=CANARY)
        talk.model("response.function_call_arguments.done", arguments=CANARY, name=f"{CANARY}-stock")
        talk.calls("r1", "c1", f"{CANARY}-stock", CANARY)
        talk.model("conversation.item.done", item=call)
        response = {"output": [call], "instructions": CANARY, "tools": [{"name": CANARY}]}
        talk.ends_answer("r1", **response)
        sent = talk.tool("c1", CANARY).sent
        for event in sent:
            if "item" in event:
                talk.model("conversation.item.added", item=event["item"])
                talk.model("conversation.item.done", item=event["item"])
        greeting = {"id": "gw_h_1", "type": "message", "role": "system", "content": [{"text": CANARY}]}
        talk.model("conversation.item.added", item=greeting)
        talk.model("mcp_list_tools.completed", item_id=CANARY)
        talk.model("error", error={"code": "invalid_value", "message": CANARY, "event_id": "gw_cfg_1"})
        talk.client("session.update", session={"type": "realtime", "audio": {"output": {"speed": 1.1}}})
        talk.lost()
    shown = [c.frame for c in talk.all if type(c).__name__ in {"SendClient", "SendClientAudio"}]  # type: ignore[union-attr]
    assert len(shown) > 25
    assert not [frame for frame in shown if CANARY.encode() in frame]
    noted = [str(command) for command in talk.all if type(command).__name__ in {"Note", "Close", "RunTool"}]
    assert not [text for text in noted if CANARY in text and "RunTool" not in text]
