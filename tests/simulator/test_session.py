"""The session object, its refusals, and the items of the conversation, through the official client."""
from __future__ import annotations

import base64

import pytest

from simulator.openai import RealtimeSimulator


def test_session_begins_with_the_whole_session_object(run, talking):
    """session.created comes first, in the GA shape, and says when the session expires."""

    async def turn():
        async with RealtimeSimulator() as sim, talking(sim) as talk:
            session = (await talk.next())["session"]
            assert talk.types() == ["session.created"]
            assert (session["type"], session["object"]) == ("realtime", "realtime.session")
            assert session["model"] == "gpt-realtime-2.1"
            assert session["audio"]["input"]["turn_detection"]["type"] == "server_vad"
            assert session["expires_at"] > 1_700_000_000

    run(turn())


def test_update_merges_deeply_and_echoes_everything(run, talking):
    """Absent fields stay, nested ones too; null turns things off; another kind of detection brings its own defaults."""

    async def turn():
        async with RealtimeSimulator() as sim, talking(sim) as talk:
            await talk.update(instructions="Be brief.", audio={"input": {"turn_detection": {
                "type": "server_vad", "threshold": 0.7}}, "output": {"voice": "marin"}})
            transcription = {"model": "whisper-1"}
            session = await talk.update(audio={"output": {"speed": 1.2}, "input": {"transcription": transcription}})
            assert session["instructions"] == "Be brief."
            assert session["audio"]["output"]["voice"] == "marin"
            assert session["audio"]["input"]["turn_detection"]["threshold"] == 0.7
            semantic = {"type": "semantic_vad"}
            session = await talk.update(audio={"input": {"turn_detection": semantic, "transcription": None}})
            assert session["audio"]["input"]["turn_detection"] == {
                "type": "semantic_vad", "eagerness": "auto", "create_response": True, "interrupt_response": True}
            assert session["audio"]["input"]["transcription"] is None
            assert sim.sessions[0].config == session

    run(turn())


@pytest.mark.parametrize(("session", "code", "param"), [
    ({"instructions": "x"}, "missing_required_parameter", "session.type"),
    ({"type": "realtime", "temperature": 0.8}, "unknown_parameter", "session.temperature"),
    ({"type": "realtime", "voice": "alloy"}, "unknown_parameter", "session.voice"),
    ({"type": "transcription"}, "invalid_value", "session.type"),
    ({"type": "realtime", "instructions": 7}, "invalid_type", "session.instructions"),
    ({"type": "realtime", "output_modalities": ["audio", "text"]}, "invalid_value", "session.output_modalities"),
    ({"type": "realtime", "max_output_tokens": 5000}, "integer_above_max_value", "session.max_output_tokens"),
    ({"type": "realtime", "audio": {"output": {"voice": "fable"}}}, "invalid_value", "session.audio.output.voice"),
    ({"type": "realtime", "audio": {"output": {"speed": 2.0}}},
     "decimal_above_max_value", "session.audio.output.speed"),
    ({"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcm"}}}},
     "missing_required_parameter", "session.audio.input.format.rate"),
    ({"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcm", "rate": 8000}}}},
     "integer_below_min_value", "session.audio.input.format.rate"),
    ({"type": "realtime", "audio": {"input": {"turn_detection": {"type": "server_vad", "eagerness": "low"}}}},
     "unknown_parameter", "session.audio.input.turn_detection.eagerness"),
    ({"type": "realtime", "audio": {"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 100}}}},
     "integer_below_min_value", "session.audio.input.turn_detection.idle_timeout_ms"),
    ({"type": "realtime", "tools": [{"type": "function", "function": {"name": "f"}}]},
     "unknown_parameter", "session.tools[0].function"),
    ({"type": "realtime", "tools": [{"type": "function", "name": "f", "strict": True}]},
     "unknown_parameter", "session.tools[0].strict"),
    ({"type": "realtime", "model": "gpt-realtime-1.5"}, "invalid_value", "session.model"),
])
def test_bad_update_is_refused_as_a_whole(run, talking, session, code, param):
    """One bad field discards the whole update, also the good fields beside it; the error names code and path."""

    async def turn():
        async with RealtimeSimulator() as sim, talking(sim) as talk:
            before = (await talk.next())["session"]
            await talk.send("session.update", session={"tool_choice": "none", **session})
            error = await talk.error()
            assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)
            assert await talk.update() == before

    run(turn())


def test_voice_is_locked_by_the_first_sound(run, talking):
    """After assistant audio another voice is refused, and the update with it; the same voice passes."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim, talking(sim) as talk:
            await talk.update(audio={"output": {"voice": "cedar"}})
            await talk.type_text("Hello")
            await talk.answer()
            await talk.send("session.update", session={
                "type": "realtime", "instructions": "lost", "audio": {"output": {"voice": "marin"}}})
            assert (await talk.error())["code"] == "cannot_update_voice"
            session = await talk.update(audio={"output": {"voice": "cedar"}})
            assert session["instructions"] != "lost"

    run(turn())


def test_reasoning_is_only_for_reasoning_models(run, talking):
    """reasoning is accepted by a 2.x model and refused by 1.5."""

    async def turn():
        async with RealtimeSimulator() as sim:
            async with talking(sim) as talk:
                assert (await talk.update(reasoning={"effort": "low"}))["reasoning"] == {"effort": "low"}
            async with talking(sim, model="gpt-realtime-1.5") as talk:
                await talk.send("session.update", session={"type": "realtime", "reasoning": {"effort": "low"}})
                assert (await talk.error())["param"] == "session.reasoning"

    run(turn())


@pytest.mark.parametrize(("frame", "code"), [
    ("this is not json", "invalid_json"),
    ("[1, 2]", "invalid_event"),
    (b"\x00\x01", "invalid_event"),
    ('{"no": "type"}', "missing_required_parameter"),
    ('{"type": "response.audio.delta"}', "invalid_value"),
    ('{"type": "output_audio_buffer.clear"}', "invalid_value"),
    ('{"type": "response.cancel", "reason": "x"}', "unknown_parameter"),
    ('{"type": "input_audio_buffer.append", "audio": "not base64!"}', "invalid_value"),
])
def test_bad_frame_is_an_error_and_the_session_goes_on(run, talking, frame, code):
    """Garbage, binary frames and unknown events are answered with a harmless error."""

    async def turn():
        async with RealtimeSimulator() as sim, talking(sim) as talk:
            await talk.connection._connection.send(frame)
            assert (await talk.error())["code"] == code
            await talk.update()

    run(turn())


def test_items_form_a_chain(run, talking):
    """Items go to the end, to the root or after another, and every event names the item before."""

    async def turn():
        async with RealtimeSimulator() as sim, talking(sim) as talk:
            places = {"one": None, "two": None, "zero": "root", "half": "one"}
            seen = {}
            for item_id, after in places.items():
                content = [{"type": "input_text", "text": "x"}]
                item = {"id": item_id, "type": "message", "role": "user", "content": content}
                extra = {"previous_item_id": after} if after else {}
                await talk.send("conversation.item.create", item=item, **extra)
                seen[item_id] = (await talk.until("conversation.item.done"))["previous_item_id"]
            assert seen == {"one": None, "two": "one", "zero": None, "half": "one"}
            await talk.send("conversation.item.create", item=item)
            assert "already exists" in (await talk.error())["message"]
            await talk.send("conversation.item.create", item={**item, "id": "new"}, previous_item_id="nobody")
            assert (await talk.error())["param"] == "previous_item_id"
            await talk.send("conversation.item.delete", item_id="half")
            await talk.until("conversation.item.deleted", item_id="half")

    run(turn())


@pytest.mark.parametrize(("event", "code"), [
    ({"type": "conversation.item.retrieve", "item_id": "x"}, "item_retrieve_invalid_item_id"),
    ({"type": "conversation.item.delete", "item_id": "x"}, "item_delete_invalid_item_id"),
    ({"type": "conversation.item.truncate", "item_id": "x", "content_index": 0, "audio_end_ms": 1},
     "item_truncate_invalid_item_id"),
    ({"type": "conversation.item.truncate", "item_id": "typed", "content_index": 0, "audio_end_ms": 1},
     "unsupported_content_type"),
    ({"type": "conversation.item.create", "item": {"type": "function_call_output", "call_id": "x", "output": ""}},
     "invalid_tool_call_id"),
    ({"type": "conversation.item.create", "item": {"type": "message", "role": "assistant", "content": [
        {"type": "output_audio", "transcript": "x"}]}}, "invalid_value"),
    ({"type": "conversation.item.create", "item": {"type": "message", "id": "i" * 33, "role": "user", "content": []}},
     "string_above_max_length"),
    ({"type": "response.create", "response": {"modalities": ["audio"]}}, "unknown_parameter"),
    ({"type": "response.create", "response": {"input": [{"type": "item_reference", "id": "x"}]}}, "invalid_value"),
])
def test_bad_reference_is_refused_with_its_code(run, talking, event, code):
    """Items that are not there, or cannot do what is asked, are refused with the code the service uses."""

    async def turn():
        async with RealtimeSimulator() as sim, talking(sim) as talk:
            item = {"id": "typed", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}
            await talk.send("conversation.item.create", item=item)
            await talk.send(**{("event_type" if k == "type" else k): v for k, v in event.items()})
            assert (await talk.error())["code"] == code

    run(turn())


def test_retrieve_returns_the_audio(run, talking, question):
    """An item's audio comes back byte for byte."""

    async def turn():
        async with RealtimeSimulator() as sim, talking(sim) as talk:
            content = [{"type": "input_audio", "audio": base64.b64encode(question).decode()}]
            await talk.send("conversation.item.create", item={
                "id": "said", "type": "message", "role": "user", "content": content})
            done = await talk.until("conversation.item.done")
            assert "audio" not in done["item"]["content"][0]
            await talk.send("conversation.item.retrieve", item_id="said")
            item = (await talk.until("conversation.item.retrieved"))["item"]
            assert base64.b64decode(item["content"][0]["audio"]) == question

    run(turn())


def test_error_repeats_event_ids_only_where_the_service_does(run, talking):
    """By default most errors have no event_id of the client; with echo_event_ids all have."""

    async def turn():
        for echo, expected in ((False, None), (True, "mine")):
            async with RealtimeSimulator(echo_event_ids=echo) as sim, talking(sim) as talk:
                await talk.send("conversation.item.delete", item_id="nobody", event_id="mine")
                assert (await talk.error())["event_id"] == expected

    run(turn())
