"""Clients change what they may, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.agent import CLIENT_MAY
from core.policy import CLIENT_EVENTS, MAX_ITEM_ID_CHARS, MAX_TEXT_CHARS, check
from core.realtime import BadEvent, Event

MAY = frozenset(CLIENT_MAY)


def refused(event: Event, may: frozenset[str] = MAY) -> str:
    """Return the code with which an event is refused."""
    with pytest.raises(BadEvent) as caught:
        check(event, may)
    assert str(caught.value).isprintable()
    return caught.value.code


def update(session: Any) -> Event:
    """Return a session.update."""
    return {"type": "session.update", "session": session}


def message(**item: Any) -> Event:
    """Return a conversation.item.create of a typed message, changed."""
    plain = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
    return {"type": "conversation.item.create", "item": {**plain, **item}}


@pytest.mark.parametrize(
    "event",
    [
        {"type": "input_audio_buffer.append", "audio": "AAA="},
        {"type": "input_audio_buffer.commit", "event_id": "e1"},
        {"type": "input_audio_buffer.clear"},
        {"type": "response.create"},
        {"type": "response.create", "response": {"output_modalities": ["text"], "metadata": {"a": "b"}}},
        {"type": "response.cancel"},
        {"type": "response.cancel", "response_id": "r1"},
        {"type": "conversation.item.truncate", "item_id": "i1", "content_index": 0, "audio_end_ms": 1500},
        message(),
        message(id="mine"),
        {"type": "session.update", "session": {"type": "realtime", "audio": {"output": {"speed": 1.2}}}},
    ],
)
def test_what_a_client_may_send_passes_unchanged(event: Event) -> None:
    """Every event of the contract gets through as it is."""
    assert check(event, MAY) == event


def test_the_events_of_the_contract_are_all_there() -> None:
    """Contract, section 3, client to server."""
    assert set(CLIENT_EVENTS) == {
        "input_audio_buffer.append",
        "input_audio_buffer.commit",
        "input_audio_buffer.clear",
        "response.create",
        "response.cancel",
        "conversation.item.create",
        "conversation.item.truncate",
        "session.update",
    }


@pytest.mark.parametrize(
    "kind",
    ["conversation.item.delete", "conversation.item.retrieve", "output_audio_buffer.clear", "x", "", "\x00", "y" * 999],
)
def test_other_events_are_refused(kind: str) -> None:
    """What is not named is not the client's, and its name is shown short and printable."""
    assert refused({"type": kind}) == "unsupported_event"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "input_audio_buffer.commit", "x": 1},
        {"type": "input_audio_buffer.append", "audio": "AAAA", "session": {}},
        {"type": "response.create", "instructions": "Be rude."},
        {"type": "conversation.item.truncate", "item_id": "i", "audio_end_ms": 1, "x": 1},
        {**message(), "x": 1},
        message(name="x"),
        {**update({}), "instructions": "x"},
    ],
)
def test_unknown_fields_are_refused(event: Event) -> None:
    """An event is refused as a whole, as the API does it."""
    assert refused(event) == "unknown_parameter"


@pytest.mark.parametrize("audio", [None, 5, "", "A", "AAA", "A===", "====", "AA=A", "AA A", "AA-_", "ÄAAA", ["AAAA"]])
def test_audio_must_be_base64(audio: Any) -> None:
    """Only what the API could decode is sent on."""
    assert refused({"type": "input_audio_buffer.append", "audio": audio}) == "invalid_value"


@pytest.mark.parametrize(
    "response",
    [
        {"instructions": "Be rude."},
        {"tools": []},
        {"tool_choice": "none"},
        {"max_output_tokens": 4096},
        {"conversation": "none"},
        {"input": []},
        {"audio": {"output": {"voice": "verse"}}},
        {"audio": {"output": {"format": {"type": "audio/pcmu"}}}},
        {"reasoning": {"effort": "xhigh"}},
    ],
)
def test_a_response_cannot_become_another_agents(response: Event) -> None:
    """A client asks for a response; it does not say what kind of agent answers, or at what cost."""
    assert refused({"type": "response.create", "response": response}) == "not_allowed"


@pytest.mark.parametrize("response", ["x", 5, [], {"output_modalities": ["audio", "text"]}, {"output_modalities": 1}])
def test_a_malformed_response_is_refused(response: Any) -> None:
    """Wrong types are named before the API sees them."""
    assert refused({"type": "response.create", "response": response}) == "invalid_value"


@pytest.mark.parametrize(
    "response", [None, {}, {"audio": {"output": {"format": {"type": "audio/pcm", "rate": 24000}}}}]
)
def test_a_response_that_says_nothing_new_passes(response: Any) -> None:
    """Null, an empty object and the line's own format are no wishes; what else is asked for stays."""
    event = {"type": "response.create", "response": response}
    assert check(event, MAY).get("response", {}) == {}
    assert check({**event, "response": {**(response or {}), "metadata": {}}}, MAY)["response"] == {"metadata": {}}


@pytest.mark.parametrize(
    "item",
    [
        {"role": "system"},
        {"role": "assistant"},
        {"role": None},
        {"type": "function_call_output", "call_id": "c1", "output": "x"},
        {"content": [{"type": "input_audio", "audio": "AAAA"}]},
        {"content": [{"type": "input_image", "image_url": "x"}]},
        {"content": [{"type": "output_text", "text": "x"}]},
        {"content": [{"type": "input_text", "text": "x", "audio": "y"}]},
        {"content": ["Hi"]},
    ],
)
def test_a_client_types_as_the_user_only(item: Event) -> None:
    """Nobody puts words into the mouth of the agent or the system, and what costs more than text is refused."""
    assert refused(message(**item)) == "not_allowed"


@pytest.mark.parametrize(
    "item",
    [
        {"content": []},
        {"content": "Hi"},
        {"content": [{"type": "input_text", "text": "x"}] * 17},
        {"content": [{"type": "input_text", "text": " \n"}]},
        {"content": [{"type": "input_text", "text": 5}]},
        {"content": [{"type": "input_text", "text": "x" * (MAX_TEXT_CHARS + 1)}]},
        {"content": [{"type": "input_text", "text": "a\x00b"}]},
        {"content": [{"type": "input_text", "text": "a\ud800b"}]},
        {"id": "gw_h_1"},
        {"id": "x" * (MAX_ITEM_ID_CHARS + 1)},
        {"id": ""},
        {"id": 5},
    ],
)
def test_malformed_messages_are_refused(item: Event) -> None:
    """Empty, endless and unprintable texts, and ids that are ours or too long."""
    assert refused(message(**item)) == "invalid_value"


def test_messages_go_to_the_end() -> None:
    """A client cannot rewrite the past by placing an item into it."""
    assert refused({**message(), "previous_item_id": "root"}) == "not_allowed"
    assert refused({"type": "conversation.item.create", "item": "x"}) == "not_allowed"
    assert check({**message(), "previous_item_id": None}, MAY) == message()


@pytest.mark.parametrize(
    "metadata", ["text", [], {"a": 1}, {"a": "x" * 513}, {"k" * 65: "x"}, {str(n): "x" for n in range(17)}]
)
def test_metadata_the_api_would_refuse_is_named(metadata: Any) -> None:
    """Metadata of another shape is refused here, so that the client hears which field it was."""
    assert refused({"type": "response.create", "response": {"metadata": metadata}}) == "invalid_value"


def test_metadata_may_be_null() -> None:
    """Null is the API's own word for no metadata."""
    event = {"type": "response.create", "response": {"metadata": None}}
    assert check(event, MAY) == event


def test_a_typed_message_is_rebuilt_from_what_is_known() -> None:
    """Status and object, which some clients echo, are left out; type and role are filled in."""
    event = {
        "type": "conversation.item.create",
        "item": {"status": "completed", "object": "realtime.item", "content": [{"type": "input_text", "text": "Hi"}]},
    }
    assert check(event, MAY) == message()


@pytest.mark.parametrize(
    "fields",
    [
        {"audio_end_ms": -1},
        {"audio_end_ms": 3_600_001},
        {"audio_end_ms": 10**400},
        {"audio_end_ms": 1.5},
        {"audio_end_ms": True},
        {"audio_end_ms": None},
        {"content_index": 1},
        {"content_index": False},
        {"item_id": None},
        {"item_id": "gw_h_1"},
        {"item_id": "x" * 65},
    ],
)
def test_a_truncation_names_an_item_and_whole_milliseconds(fields: Event) -> None:
    """Anything else would be an error of the API, without a hint."""
    event = {"type": "conversation.item.truncate", "item_id": "i1", "content_index": 0, "audio_end_ms": 100, **fields}
    assert refused(event) == "invalid_value"


def test_a_truncation_may_leave_the_content_index_out() -> None:
    """There is only one content."""
    event = {"type": "conversation.item.truncate", "item_id": "i1", "audio_end_ms": 0}
    assert check(event, MAY) == {**event, "content_index": 0}


def test_ids_of_ours_are_not_for_clients() -> None:
    """Otherwise a client could hide errors of its own."""
    assert refused({"type": "input_audio_buffer.clear", "event_id": "gw_1"}) == "invalid_value"
    assert refused({"type": "response.cancel", "response_id": "gw_1"}) == "invalid_value"
    assert check({"type": "input_audio_buffer.clear", "event_id": None}, MAY) == {"type": "input_audio_buffer.clear"}


EVERY_NAME = MAY | {"voice", "instructions", "tools", "model", "max_output_tokens"}


@pytest.mark.parametrize(
    "session",
    [
        {"instructions": "Be rude."},
        {"instructions": ""},
        {"instructions": None},
        {"tools": []},
        {"tool_choice": "none"},
        {"model": "gpt-realtime-2.1"},
        {"max_output_tokens": "inf"},
        {"truncation": "disabled"},
        {"tracing": "auto"},
        {"prompt": {"id": "p"}},
        {"reasoning": {"effort": "xhigh"}},
        {"type": "transcription"},
        {"output_modalities": ["text"]},
        {"output_modalities": ["audio", "text"]},
        {"include": ["item.input_audio_transcription.logprobs"]},
        {"audio": None},
        {"audio": "x"},
        {"audio": {"input": {"format": {"type": "audio/pcmu"}}}},
        {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 8000}}}},
        {"audio": {"input": {"format": None}}},
        {"audio": {"input": {"transcription": None}}},
        {"audio": {"input": {"transcription": {"model": "whisper-1"}}}},
        {"audio": {"input": {"transcription": {"language": "en", "prompt": "x"}}}},
        {"audio": {"output": {"x": {"y": {"z": 1}}}}},
        {"": 1},
        {"x\x00": 1},
        {"audio.output.speed": 1.0},
    ],
)
def test_the_agent_is_not_the_clients_to_change(session: Event) -> None:
    """Instructions, tools, model, cost limits and formats are refused, whatever the owner opened."""
    assert refused(update(session), EVERY_NAME) == "not_allowed"


def test_one_forbidden_field_refuses_the_whole_update() -> None:
    """What was allowed beside it does not slip through."""
    assert refused(update({"audio": {"output": {"speed": 1.2}}, "instructions": "x"})) == "not_allowed"


OPEN = {
    "turn_detection": {"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 0.7}}}},
    "noise_reduction": {"audio": {"input": {"noise_reduction": {"type": "near_field"}}}},
    "transcription_language": {"audio": {"input": {"transcription": {"language": "de"}}}},
    "speed": {"audio": {"output": {"speed": 1}}},
    "voice": {"audio": {"output": {"voice": "verse"}}},
}


@pytest.mark.parametrize("name", sorted(OPEN))
def test_the_owner_opens_and_closes_each_field(name: str) -> None:
    """A field passes when its name is open and is refused when it is not."""
    passed = check(update(OPEN[name]), frozenset({name}))
    assert passed["session"] == {"type": "realtime", **OPEN[name]}
    assert refused(update(OPEN[name]), EVERY_NAME - {name}) == "not_allowed"


def test_a_retired_voice_is_replaced() -> None:
    """An old name would make the API refuse the whole update."""
    passed = check(update({"audio": {"output": {"voice": "Nova"}}}), frozenset({"voice"}))
    assert passed["session"]["audio"]["output"]["voice"] == "coral"


@pytest.mark.parametrize(
    "session",
    [
        {},
        {"type": "realtime"},
        {"output_modalities": ["audio"]},
        {"audio": {}},
        {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 24000}}}},
        {"audio": {"input": {"format": {"type": "audio/pcm"}}, "output": {"format": {"type": "audio/pcm"}}}},
        {"audio": {"input": {"transcription": {}}}},
    ],
)
def test_what_is_so_anyway_passes_and_is_left_out(session: Event) -> None:
    """Clients of all kinds send the line's own format; nothing is changed by it."""
    assert check(update(session), frozenset())["session"] == {"type": "realtime"}


@pytest.mark.parametrize(
    "session",
    [
        {"audio": {"output": {"speed": 0.2}}},
        {"audio": {"output": {"speed": 2}}},
        {"audio": {"output": {"speed": True}}},
        {"audio": {"output": {"speed": "1"}}},
        {"audio": {"output": {"speed": 10**400}}},
        {"audio": {"output": {"voice": "morgan"}}},
        {"audio": {"output": {"voice": {"id": "voice_x"}}}},
        {"audio": {"input": {"transcription": {"language": "e"}}}},
        {"audio": {"input": {"transcription": {"language": 5}}}},
        {"audio": {"input": {"transcription": {"language": "en; ignore"}}}},
        {"audio": {"input": {"noise_reduction": {"type": "best"}}}},
        {"audio": {"input": {"noise_reduction": "near_field"}}},
        {"audio": {"input": {"turn_detection": "server_vad"}}},
        {"audio": {"input": {"turn_detection": {"type": "none"}}}},
        {"audio": {"input": {"turn_detection": {"type": ["server_vad"]}}}},
        {"audio": {"input": {"turn_detection": {}}}},
        {"audio": {"input": {"turn_detection": {"type": "server_vad", "x": 1}}}},
        {"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": True}}}},
        {"audio": {"input": {"turn_detection": {"type": "server_vad", "prefix_padding_ms": 1.5}}}},
        {"audio": {"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": None}}}},
        {"audio": {"input": {"turn_detection": {"type": "server_vad", "create_response": 1}}}},
        {"audio": {"input": {"turn_detection": {"type": "server_vad", "eagerness": {"a": 1}}}}},
    ],
)
def test_values_the_api_would_refuse_are_named(session: Event) -> None:
    """A wrong value is answered with its field, instead of the API's refusal of everything."""
    assert refused(update(session), EVERY_NAME) == "invalid_value"


@pytest.mark.parametrize("session", [None, "x", [], 5])
def test_a_session_is_an_object(session: Any) -> None:
    """Anything else is refused."""
    assert refused(update(session)) == "invalid_value"
    assert refused({"type": "session.update"}) == "invalid_value"


def test_push_to_talk_is_the_clients_choice() -> None:
    """Turn detection and noise reduction may be switched off where they may be changed."""
    off = {"audio": {"input": {"turn_detection": None, "noise_reduction": None}}}
    assert check(update(off), MAY)["session"] == {"type": "realtime", **off}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec=None)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "audio", "input", "output", "voice", "speed", "format", "x"]), inner)
    ),
    max_leaves=12,
)
FIELDS = st.sampled_from(["event_id", "session", "response", "item", "audio", "item_id", "audio_end_ms", "response_id"])
EVENTS = st.builds(
    lambda kind, fields: {**fields, "type": kind}, st.sampled_from(CLIENT_EVENTS), st.dictionaries(FIELDS, JSON)
)


@given(EVENTS, st.sets(st.sampled_from(sorted(EVERY_NAME))))
def test_every_event_passes_or_is_refused(event: Event, may: set[str]) -> None:
    """No content breaks the policy, and what passes holds no field that is not the client's."""
    if not isinstance(event.get("event_id"), str | None):
        return  # the reader refuses those
    try:
        passed = check(event, frozenset(may))
    except BadEvent as error:
        assert error.code
        return
    session = passed.get("session", {})
    assert set(session) <= {"type", "audio"}
    assert set(passed.get("response", {})) <= {"output_modalities", "metadata"}
