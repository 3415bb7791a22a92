"""What a session is configured with."""

from __future__ import annotations

import json

import pytest

from core.plan import TURN_DETECTION, merged, reduced_config, session_config
from tests.dialogue import plan


def test_a_plain_agent_gets_the_documented_session() -> None:
    """Every field a conversation depends on is sent, since servers were seen to use other defaults."""
    session = session_config(plan(), {})
    assert session["type"] == "realtime"
    assert session["output_modalities"] == ["audio"]
    assert session["audio"]["input"] == {
        "format": {"type": "audio/pcm", "rate": 24000},
        "transcription": {"model": "gpt-transcribe"},
        "noise_reduction": None,
        "turn_detection": dict(TURN_DETECTION),
    }
    assert session["audio"]["output"] == {
        "format": {"type": "audio/pcm", "rate": 24000},
        "voice": "alloy",
        "speed": 1.0,
    }
    assert session["tools"] == []
    assert session["truncation"]["retention_ratio"] == 0.8
    assert "temperature" not in session
    assert "max_output_tokens" not in session


def test_what_the_owner_chose_is_in_the_session() -> None:
    """Language without its region, token limit, noise reduction and a custom voice, each in the API's own shape."""
    columns = {
        "language": "de-AT",
        "max_output_tokens": 500,
        "speed": 1.25,
        "call_settings": {"noise_reduction": "far_field"},
    }
    session = session_config(plan(agent=columns, voice="voice_abc123", audio_format="audio/pcmu"), {})
    assert session["max_output_tokens"] == 500
    assert session["audio"]["input"]["transcription"]["language"] == "de"
    assert session["audio"]["input"]["noise_reduction"] == {"type": "far_field"}
    assert session["audio"]["output"]["voice"] == {"id": "voice_abc123"}
    assert session["audio"]["output"]["format"] == {"type": "audio/pcmu"}
    assert session["audio"]["output"]["speed"] == 1.25


@pytest.mark.parametrize(
    ("chosen", "sent"),
    [
        ({"type": "none"}, None),
        ({"type": "semantic_vad", "eagerness": "low"}, {"type": "semantic_vad", "eagerness": "low"}),
        ({"type": "server_vad", "threshold": 0.8}, {**TURN_DETECTION, "threshold": 0.8}),
    ],
)
def test_turn_detection_is_complete_for_its_type(chosen: dict[str, object], sent: object) -> None:
    """Server VAD is filled up with the documented defaults; other types stand alone; push to talk is null."""
    assert session_config(plan(agent={"turn_detection": chosen}), {})["audio"]["input"]["turn_detection"] == sent


def test_a_change_of_one_field_leaves_the_others() -> None:
    """Objects are laid over field by field, as the API does it; a different type replaces the whole."""
    base = {"a": {"type": "x", "one": 1, "two": 2}, "b": 1}
    assert merged(base, {"a": {"two": 3}}) == {"a": {"type": "x", "one": 1, "two": 3}, "b": 1}
    assert merged(base, {"a": {"type": "x", "two": 3}})["a"] == {"type": "x", "one": 1, "two": 3}
    assert merged(base, {"a": {"type": "y"}})["a"] == {"type": "y"}
    assert merged(base, {"a": None, "c": {"d": 1}}) == {"a": None, "b": 1, "c": {"d": 1}}
    assert base == {"a": {"type": "x", "one": 1, "two": 2}, "b": 1}


def test_the_reduced_session_still_is_the_agent() -> None:
    """What remains after a refusal is who the agent is and the format of the line: nothing refusable."""
    reduced = reduced_config(plan(agent={"instructions": "Sell shoes.", "tools": [{"builtin": "end_call"}]}))
    assert set(reduced) == {"type", "instructions", "tools", "tool_choice", "audio"}
    assert reduced["instructions"] == "Sell shoes.\n\n" + reduced["instructions"].split("\n\n", 1)[1]
    assert [tool["name"] for tool in reduced["tools"]] == ["end_call"]
    assert reduced["audio"]["input"] == {"format": {"type": "audio/pcm", "rate": 24000}}


def test_the_same_plan_gives_the_same_bytes() -> None:
    """The prefix the API caches does not differ from session to session."""
    assert json.dumps(session_config(plan(), {})) == json.dumps(session_config(plan(), {}))
