"""The table between the two dialects, and what no client sees."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.dialect import (
    INTERNAL,
    NOT_IN_PREVIEW,
    PREVIEW_NAMES,
    for_client,
    frame_for_client,
    from_client,
    rename_audio_delta,
)
from core.realtime import Event, encode
from tests.dialogue import delta_frame

SESSION = {
    "type": "realtime",
    "id": "s1",
    "object": "realtime.session",
    "expires_at": 1,
    "model": "gpt-realtime-2.1",
    "instructions": "CANARY",
    "tools": [{"name": "CANARY"}],
    "tool_choice": {"name": "CANARY"},
    "prompt": {"id": "CANARY"},
    "tracing": {"group_id": "CANARY"},
    "output_modalities": ["audio"],
    "max_output_tokens": "inf",
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24000},
            "transcription": {"model": "gpt-transcribe"},
            "turn_detection": None,
            "noise_reduction": {"type": "near_field"},
        },
        "output": {"format": {"type": "audio/pcmu"}, "voice": "marin", "speed": 1.0},
    },
}
RESPONSE = {
    "id": "r1",
    "object": "realtime.response",
    "status": "completed",
    "conversation_id": "c1",
    "instructions": "CANARY",
    "tools": [{"name": "CANARY"}],
    "output_modalities": ["audio"],
    "audio": {"output": {"format": {"type": "audio/pcma"}, "voice": "marin"}},
    "output": [
        {"id": "i1", "type": "message", "role": "assistant", "content": [{"type": "output_audio", "transcript": "Hi"}]},
        {"id": "i2", "type": "function_call", "name": "CANARY", "arguments": "CANARY"},
    ],
    "usage": {"total_tokens": 1},
}
ITEM = {"id": "i1", "type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]}


@pytest.mark.parametrize(
    ("ga", "beta"),
    [
        ("response.output_audio.delta", "response.audio.delta"),
        ("response.output_audio.done", "response.audio.done"),
        ("response.output_audio_transcript.delta", "response.audio_transcript.delta"),
        ("response.output_audio_transcript.done", "response.audio_transcript.done"),
        ("response.output_text.delta", "response.text.delta"),
        ("response.output_text.done", "response.text.done"),
        ("conversation.item.added", "conversation.item.created"),
        *[
            (same, same)
            for same in (
                "session.created",
                "session.updated",
                "input_audio_buffer.speech_started",
                "input_audio_buffer.speech_stopped",
                "input_audio_buffer.committed",
                "input_audio_buffer.cleared",
                "conversation.item.deleted",
                "conversation.item.truncated",
                "conversation.item.retrieved",
                "conversation.item.input_audio_transcription.delta",
                "conversation.item.input_audio_transcription.completed",
                "conversation.item.input_audio_transcription.failed",
                "response.created",
                "response.done",
                "response.output_item.added",
                "response.output_item.done",
                "response.content_part.added",
                "response.content_part.done",
                "rate_limits.updated",
                "error",
            )
        ],
    ],
)
def test_every_row_of_the_references_table(ga: str, beta: str) -> None:
    """OpenAI Realtime reference, section 7; in the ga dialect names stay."""
    event = {"type": ga, "event_id": "e1", "item_id": "i1", "x": [1]}
    assert for_client(event, "preview") == {**event, "type": beta}
    assert for_client(event, "ga") == event


@pytest.mark.parametrize("kind", sorted(NOT_IN_PREVIEW))
def test_events_the_older_dialect_does_not_have_are_dropped(kind: str) -> None:
    """A client of the first generation would trip over them; others get them."""
    assert for_client({"type": kind}, "preview") is None
    assert for_client({"type": kind}, "ga") == {"type": kind}


@pytest.mark.parametrize("dialect", ["ga", "preview"])
@pytest.mark.parametrize(
    "event",
    [
        {"type": "conversation.created", "conversation": {"id": "c"}},
        {"type": "mcp_list_tools.completed", "item_id": "i"},
        {"type": "response.mcp_call_arguments.delta", "delta": "x"},
        {"type": "response.mcp_call.completed"},
        {"type": "response.function_call_arguments.delta", "delta": "x"},
        {"type": "response.function_call_arguments.done", "arguments": "{}"},
        {"type": "response.output_item.added", "item": {"type": "function_call"}},
        {"type": "response.output_item.done", "item": {"type": "mcp_call"}},
        {"type": "conversation.item.added", "item": {"type": "function_call_output"}},
        {"type": "conversation.item.done", "item": {"type": "mcp_list_tools"}},
    ],
)
def test_what_the_agent_does_for_itself_is_nobodys_business(event: Event, dialect: Any) -> None:
    """Tools, their calls and outputs, and OpenAI's own conversation.created are swallowed in both dialects."""
    assert for_client(event, dialect) is None


@pytest.mark.parametrize("dialect", ["ga", "preview"])
@pytest.mark.parametrize("kind", ["session.created", "session.updated", "response.created", "response.done"])
def test_no_secret_of_the_agent_is_shown(kind: str, dialect: Any) -> None:
    """Instructions, tools and calls are taken out of sessions and responses."""
    shown = for_client({"type": kind, "session": SESSION, "response": RESPONSE}, dialect)
    assert shown is not None
    assert "CANARY" not in json.dumps(shown)
    assert shown["response"]["usage"] == {"total_tokens": 1}
    assert SESSION["instructions"] == "CANARY"


def test_a_session_in_the_older_shape() -> None:
    """Everything flat, formats and modalities by their old names, without type and audio."""
    shown = for_client({"type": "session.created", "session": SESSION}, "preview")
    assert shown is not None
    assert shown["session"] == {
        "id": "s1",
        "object": "realtime.session",
        "expires_at": 1,
        "model": "gpt-realtime-2.1",
        "modalities": ["text", "audio"],
        "max_response_output_tokens": "inf",
        "input_audio_format": "pcm16",
        "output_audio_format": "g711_ulaw",
        "voice": "marin",
        "speed": 1.0,
        "input_audio_transcription": {"model": "gpt-transcribe"},
        "turn_detection": None,
        "input_audio_noise_reduction": {"type": "near_field"},
    }


def test_a_response_in_the_older_shape() -> None:
    """Parts, modalities, voice and format by their old names."""
    shown = for_client({"type": "response.done", "response": RESPONSE}, "preview")
    assert shown is not None
    response = shown["response"]
    assert response["modalities"] == ["text", "audio"]
    assert (response["voice"], response["output_audio_format"]) == ("marin", "g711_alaw")
    assert response["output"][0]["content"] == [{"type": "audio", "transcript": "Hi"}]
    assert "audio" not in response
    assert "output_modalities" not in response


def test_an_item_in_the_older_shape() -> None:
    """Parts have short names there, and other parts stay."""
    shown = for_client({"type": "conversation.item.added", "item": ITEM}, "preview")
    assert shown is not None
    assert shown["item"]["content"] == [{"type": "text", "text": "Hi"}]
    user = {"id": "u1", "type": "message", "role": "user", "content": [{"type": "input_audio"}, "odd"]}
    shown = for_client({"type": "conversation.item.added", "item": user}, "preview")
    assert shown is not None
    assert shown["item"] == user


def test_the_ga_dialect_is_openais_own() -> None:
    """Without the secrets, events are as they came."""
    shown = for_client({"type": "response.output_item.done", "item": ITEM}, "ga")
    assert shown == {"type": "response.output_item.done", "item": ITEM}


def test_an_audio_delta_is_renamed_in_its_head() -> None:
    """The frame is the same but for its type."""
    frame = delta_frame("i1", "r1", 1)
    assert json.loads(rename_audio_delta(frame)) == {**json.loads(frame), "type": "response.audio.delta"}


def test_a_session_update_of_the_older_dialect() -> None:
    """It is un-flattened; temperature, which the GA API no longer has, is left out; the type is filled in."""
    event = {
        "type": "session.update",
        "event_id": "e",
        "session": {
            "modalities": ["audio", "text"],
            "input_audio_format": "pcm16",
            "output_audio_format": "g711_ulaw",
            "voice": "verse",
            "speed": 1.1,
            "input_audio_transcription": {"language": "de"},
            "turn_detection": {"type": "server_vad"},
            "input_audio_noise_reduction": None,
            "temperature": 0.8,
            "max_response_output_tokens": 100,
            "instructions": "kept for the policy to refuse",
        },
    }
    assert from_client(event, "preview") == {
        "type": "session.update",
        "event_id": "e",
        "session": {
            "type": "realtime",
            "output_modalities": ["audio"],
            "max_output_tokens": 100,
            "instructions": "kept for the policy to refuse",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "transcription": {"language": "de"},
                    "turn_detection": {"type": "server_vad"},
                    "noise_reduction": None,
                },
                "output": {"format": {"type": "audio/pcmu"}, "voice": "verse", "speed": 1.1},
            },
        },
    }
    assert from_client(event, "ga") is event


def test_a_response_create_of_the_older_dialect() -> None:
    """It is un-flattened as a session is."""
    response = {
        "modalities": ["text"],
        "voice": "verse",
        "output_audio_format": "pcm16",
        "temperature": 1,
        "metadata": {"a": "b"},
    }
    assert from_client({"type": "response.create", "response": response}, "preview")["response"] == {
        "output_modalities": ["text"],
        "metadata": {"a": "b"},
        "audio": {"output": {"voice": "verse", "format": {"type": "audio/pcm", "rate": 24000}}},
    }


@pytest.mark.parametrize(
    "event",
    [
        {"type": "input_audio_buffer.commit"},
        {"type": "session.update", "session": "x"},
        {"type": "response.create"},
        {"type": "response.create", "response": 5},
    ],
)
def test_other_client_events_have_the_same_shape(event: Event) -> None:
    """What is not nested, or is malformed, is left for the policy."""
    assert from_client(event, "preview") == event


def test_a_mixed_update_keeps_both_halves_for_the_policy() -> None:
    """New and old names in one update do not hide each other, nor does an audio field that is none."""
    mixed = {"voice": "verse", "audio": {"input": {"turn_detection": None}}}
    session = from_client({"type": "session.update", "session": mixed}, "preview")["session"]
    assert session["audio"] == {"input": {"turn_detection": None}, "output": {"voice": "verse"}}
    broken = {"voice": "verse", "audio": "x", "input_audio_format": 5}
    session = from_client({"type": "session.update", "session": broken}, "preview")["session"]
    assert session["audio"] == {"output": {"voice": "verse"}, "input": {"format": 5}}


KEYS = ["type", "session", "audio", "input", "output", "format", "content", "item", "response", "output_modalities"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["message", "audio/pcm", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=15,
)


@given(
    st.dictionaries(st.sampled_from(KEYS[1:]), JSON), st.sampled_from([*PREVIEW_NAMES, *INTERNAL, "session.updated"])
)
def test_no_shape_of_an_event_breaks_the_translation(fields: Event, kind: str) -> None:
    """Whatever upstream or a client sends, it is translated or dropped."""
    event = {**fields, "type": kind}
    for_client(event, "preview")
    for_client(event, "ga")
    from_client({**fields, "type": "session.update"}, "preview")
    from_client({**fields, "type": "response.create"}, "preview")


@given(
    st.dictionaries(st.sampled_from([*KEYS[1:], "delta"]), JSON),
    st.sampled_from([*PREVIEW_NAMES, *INTERNAL, *NOT_IN_PREVIEW, "conversation.created", "session.updated"]),
    st.sampled_from(["ga", "preview"]),
    st.booleans(),
)
def test_a_frame_that_is_not_written_anew_says_the_same(fields: Event, kind: str, dialect: Any, spaced: bool) -> None:
    """With the name changed in place or with the whole event written anew, the client reads the same event."""
    event = {"type": kind, **fields}
    frame = json.dumps(event).encode() if spaced else encode(event)
    shown, expected = frame_for_client(frame, event, dialect), for_client(event, dialect)
    assert (None if shown is None else json.loads(shown)) == expected


def test_a_name_is_replaced_where_it_is_the_name_only() -> None:
    """What the model says about event names stays as it was said, and a name that comes late is found too."""
    said = {"type": "response.output_text.delta", "delta": '{"type":"response.output_text.delta"'}
    shown = frame_for_client(encode(said), said, "preview")
    assert shown is not None
    assert json.loads(shown) == {**said, "type": "response.text.delta"}
    late = {"delta": "x", "type": "response.output_text.delta"}
    shown = frame_for_client(encode(late), late, "preview")
    assert shown is not None and json.loads(shown) == {**late, "type": "response.text.delta"}
