"""Checks: the code, the path and the wording of refusals."""
from __future__ import annotations

import pytest

from simulator.schema import Invalid, array_of, decimal, fields, flag, integer, listed, nullable, one_of, tagged, text
from simulator.shapes import CLIENT_EVENTS, check_client_event

SHAPE = fields({"name": text(longest=3)}, {
    "count": integer(1, 9), "share": decimal(0.0, 1.0), "on": flag, "maybe": nullable(text()),
    "kinds": array_of(one_of("a", "b", "c"), longest=2),
    "shape": tagged("type", {"dot": fields({"type": text()}), "line": fields({"type": text(), "to": text()})}),
})


@pytest.mark.parametrize(("value", "code", "param"), [
    ([], "invalid_type", "it"),
    ({}, "missing_required_parameter", "it.name"),
    ({"name": 1}, "invalid_type", "it.name"),
    ({"name": "long"}, "string_above_max_length", "it.name"),
    ({"name": "x", "extra": 1}, "unknown_parameter", "it.extra"),
    ({"name": "x", "count": 0}, "integer_below_min_value", "it.count"),
    ({"name": "x", "count": True}, "invalid_type", "it.count"),
    ({"name": "x", "count": 1.5}, "invalid_type", "it.count"),
    ({"name": "x", "share": 1.5}, "decimal_above_max_value", "it.share"),
    ({"name": "x", "on": 1}, "invalid_type", "it.on"),
    ({"name": "x", "kinds": ["a", "z"]}, "invalid_value", "it.kinds[1]"),
    ({"name": "x", "kinds": ["a", "b", "c"]}, "array_above_max_length", "it.kinds"),
    ({"name": "x", "shape": {}}, "missing_required_parameter", "it.shape.type"),
    ({"name": "x", "shape": {"type": "box"}}, "invalid_value", "it.shape.type"),
    ({"name": "x", "shape": {"type": "dot", "to": "y"}}, "unknown_parameter", "it.shape.to"),
])
def test_refusal_names_code_and_path(value, code, param):
    """Whatever is wrong, the refusal says what and where."""
    with pytest.raises(Invalid) as refused:
        SHAPE(value, "it")
    assert (refused.value.code, refused.value.param) == (code, param)
    assert param in refused.value.message or code == "invalid_value"


def test_good_value_passes():
    """Everything legal at once is accepted."""
    value = {"name": "x", "count": 9, "share": 1, "on": False, "maybe": None, "kinds": [], "shape": {"type": "dot"}}
    assert SHAPE(value, "it") is None


def test_values_are_listed_as_the_service_lists_them():
    """Messages enumerate with an Oxford comma."""
    assert [listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == ["'a'", "'a' and 'b'", "'a', 'b', and 'c'"]


def test_wording_of_a_range():
    """The message for a number out of range says which side, the bound and the value."""
    with pytest.raises(Invalid) as refused:
        decimal(0.25, 1.5)(2.0, "session.audio.output.speed")
    assert refused.value.message == (
        "Invalid 'session.audio.output.speed': decimal above maximum value. "
        "Expected a value <= 1.5, but got 2.0 instead."
    )


def test_every_client_event_of_the_protocol_is_known():
    """The ten client events of a WebSocket session are known; output_audio_buffer.clear belongs to WebRTC and SIP."""
    assert len(CLIENT_EVENTS) == 10
    with pytest.raises(Invalid) as refused:
        check_client_event({"type": "output_audio_buffer.clear"})
    assert refused.value.param == "type"
    assert "'input_audio_buffer.append'" in refused.value.message


def test_full_phone_configuration_passes():
    """The configuration that a telephone session needs is accepted whole."""
    detection = {"type": "server_vad", "threshold": 0.6, "prefix_padding_ms": 300, "silence_duration_ms": 500,
                 "idle_timeout_ms": 15_000, "create_response": True, "interrupt_response": True}
    audio = {
        "input": {"format": {"type": "audio/pcmu"}, "transcription": {"model": "gpt-transcribe", "language": "en"},
                  "noise_reduction": None, "turn_detection": detection},
        "output": {"format": {"type": "audio/pcmu"}, "voice": {"id": "voice_123"}, "speed": 1.0},
    }
    session = {"type": "realtime", "output_modalities": ["audio"], "max_output_tokens": 4096, "audio": audio,
               "tools": [], "tool_choice": {"type": "function", "name": "f"}, "reasoning": {"effort": "low"},
               "truncation": {"type": "retention_ratio", "retention_ratio": 0.8,
                              "token_limits": {"post_instructions": 8_000}}}
    assert check_client_event({"type": "session.update", "event_id": "cfg_1", "session": session}) is None
