"""Thousands of damaged messages against a live session: each is answered or passed on, none does harm (promise P10)."""

from __future__ import annotations

import json
import random
from typing import Any

from tests.fakes.browser import Browser
from tests.fakes.raw_websocket import TEXT, RawWebSocket

GOOD: list[dict[str, Any]] = [
    {"type": "input_audio_buffer.append", "audio": "AAAA" * 40},
    {"type": "input_audio_buffer.commit", "event_id": "e1"},
    {"type": "input_audio_buffer.clear"},
    {"type": "response.create", "response": {"output_modalities": ["audio"], "metadata": {"a": "b"}}},
    {"type": "response.cancel", "response_id": "resp_1"},
    {
        "type": "conversation.item.create",
        "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]},
    },
    {"type": "conversation.item.truncate", "item_id": "item_1", "content_index": 0, "audio_end_ms": 10},
    {
        "type": "session.update",
        "session": {
            "type": "realtime",
            "audio": {
                "input": {
                    "turn_detection": {"type": "server_vad", "threshold": 0.5},
                    "transcription": {"language": "en"},
                },
                "output": {"speed": 1.1},
            },
        },
    },
    {"type": "session.refresh", "token": "x.y.z"},
]

STRANGE: list[Any] = [
    *(None, True, False, 0, -1, 2**63, 10**300, 1.5, -0.0, 1e308, "", " ", "\x00", "\ud800", "ÿ" * 300, "x" * 5_000),
    *([], {}, [[]], {"a": {}}, [None], "gw_1", "__proto__", "realtime", "null", {"type": "server_vad"}, ["audio"]),
]

MESSAGES = 3_000


def damaged(dice: random.Random) -> str:
    """Return a good message with one to three things wrong, or none."""
    event = json.loads(json.dumps(dice.choice(GOOD)))
    for _ in range(dice.randrange(4)):
        holder: Any = event
        while isinstance(holder, dict | list) and holder:
            key = dice.choice(list(holder)) if isinstance(holder, dict) else dice.randrange(len(holder))
            if isinstance(holder[key], dict | list) and dice.random() < 0.7:
                holder = holder[key]
                continue
            if dice.random() < 0.2 and isinstance(holder, dict):
                holder[str(dice.choice(STRANGE))[:100]] = holder.pop(key)
            else:
                holder[key] = json.loads(json.dumps(dice.choice(STRANGE)))
            break
    text = json.dumps(event)
    if dice.random() < 0.1:
        at = dice.randrange(len(text))
        text = text[:at] + dice.choice(['"', "{", "}", "\\", "\x01", ",", "NaN", ""]) + text[at + dice.randrange(3) :]
    return text


def test_damaged_messages_do_no_harm(make, monkeypatch):
    """Three thousand damaged messages over one socket: no exception, no lost session, and the talk goes on."""
    monkeypatch.setattr("core.session.MAX_EVENTS", MESSAGES)
    monkeypatch.setattr("core.session.MAX_REFUSALS", 1_000_000)
    gateway = make(settle_s=3.0)
    dice = random.Random(20_261_120)  # noqa: S311 - a fixed seed, so that a failure can be seen again
    with Browser(gateway, "v1/realtime") as browser:
        browser.live()
        for number in range(MESSAGES):
            browser.socket.send(damaged(dice))
            if number % 50 == 49:
                browser.send("no.such.event", event_id=f"mark{number}")
                while browser.error()["event_id"] != f"mark{number}":
                    pass
        browser.send("response.cancel")
        browser.quiet(1.0)
        browser.type_text("still here")
        browser.quiet(1.0)
        said = [e["transcript"] for e in browser.events if e["type"] == "response.output_audio_transcript.done"]
        assert "still here" in said[-1]
        browser.leave()
    assert sum(session.refused != "" for session in gateway.simulator.sessions) == 0


def test_random_frames_do_no_harm(make):
    """Two hundred connections that send random bytes where frames should be leave nothing behind."""
    gateway = make({"MAX_SESSIONS_PER_USER": "1000"}, settle_s=3.0)
    dice = random.Random(7)  # noqa: S311
    for number in range(200):
        with RawWebSocket(gateway, live=False) as raw:
            if number % 2:
                raw.send(TEXT, dice.randbytes(dice.randrange(200)))
            raw.send_bytes(dice.randbytes(dice.randrange(1, 300)))
