"""The session object: merging and what may not change."""
from __future__ import annotations

import pytest

from simulator.config import PCM_FORMAT, SERVER_VAD, SessionConfig, reasons
from simulator.schema import Invalid


def config(model: str = "gpt-realtime-2.1") -> SessionConfig:
    """Return a fresh configuration."""
    return SessionConfig(model, expires_at=0)


def test_shown_session_cannot_be_changed_from_outside():
    """What is shown is a copy."""
    session = config()
    session.shown()["audio"]["output"]["voice"] = "echo"
    assert session.output["voice"] == "alloy"


def test_same_kind_of_detection_is_merged_another_replaced():
    """Fields of the same detection stay; null turns it off; turning it on again brings the defaults."""
    session = config()
    session.update({"audio": {"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 900}}}})
    session.update({"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 0.9}}}})
    assert session.turn_detection == {**SERVER_VAD, "silence_duration_ms": 900, "threshold": 0.9}
    session.update({"audio": {"input": {"turn_detection": None}}})
    assert (session.turn_detection, session.vad) == (None, None)
    session.update({"audio": {"input": {"turn_detection": {"type": "server_vad"}}}})
    assert session.turn_detection == SERVER_VAD


def test_formats_and_tools_are_replaced_whole():
    """A G.711 format has no rate left over from PCM; a list of tools is the new list."""
    session = config()
    session.update({"tools": [{"type": "function", "name": "a"}]})
    session.update({"audio": {"input": {"format": {"type": "audio/pcmu"}}}})
    session.update({"tools": []})
    assert session["tools"] == []
    assert session.input["format"] == {"type": "audio/pcmu"}
    assert session.output["format"] == PCM_FORMAT
    assert session.input_format == "audio/pcmu"


@pytest.mark.parametrize(("first", "second", "param"), [
    ({"tracing": "auto"}, {"tracing": None}, "session.tracing"),
    ({}, {"model": "gpt-realtime-2"}, "session.model"),
    ({}, {"audio": {"input": {"transcription": {"model": "gpt-realtime-whisper", "prompt": "x"}}}},
     "session.audio.input.transcription.prompt"),
])
def test_what_is_fixed_stays(first, second, param):
    """Tracing once enabled, the model, and impossible combinations are refused, and nothing changes."""
    session = config()
    session.update(first)
    before = session.shown()
    with pytest.raises(Invalid) as refused:
        session.update({"instructions": "lost", **second})
    assert refused.value.param == param
    assert session.shown() == before


def test_models_that_reason():
    """The 2.x family reasons; its dated namesake of 2025 and the 1.x models do not."""
    assert reasons("gpt-realtime-2.1-mini")
    assert not any(map(reasons, ("gpt-realtime", "gpt-realtime-1.5", "gpt-realtime-2025-08-28", "gpt-realtime-mini")))
