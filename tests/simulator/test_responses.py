"""Responses: the ladder of events, cancelling, function calls, limits, answers beside the conversation."""
from __future__ import annotations

import json

import pytest

from simulator.openai import RealtimeSimulator

TOOLS = [
    {
        "type": "function",
        "name": "get_weather",
        "description": "Weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
    {"type": "function", "name": "end_call", "parameters": {"type": "object", "properties": {}}},
]
LADDER = [
    "response.created", "response.output_item.added", "conversation.item.added", "response.content_part.added",
    "response.output_audio.done", "response.output_audio_transcript.done", "response.content_part.done",
    "response.output_item.done", "conversation.item.done", "response.done",
]


def test_typed_turn_climbs_the_whole_ladder_in_order(run, talking, words):
    """A typed turn is answered in speech whose events come in the documented order; ids and transcript match."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim, talking(sim) as talk:
            await talk.until("session.created")
            await talk.type_text("Hello there", answer=False)
            await talk.until("conversation.item.done")
            talk.events.clear()
            await talk.send("response.create")
            response = await talk.answer()
            assert talk.types() == LADDER
            assert words(response) == "You typed: Hello there"
            deltas = [e["delta"] for e in talk.events if e["type"] == "response.output_audio_transcript.delta"]
            assert "".join(deltas) == words(response)
            assert len(talk.audio()) > 48 * 500
            assert {e["response_id"] for e in talk.events if "response_id" in e} == {response["id"]}
            assert response["conversation_id"].startswith("conv_")
            limits = await talk.until("rate_limits.updated")
            assert [limit["name"] for limit in limits["rate_limits"]] == ["tokens"]

    run(turn())


def test_transcript_runs_ahead_of_the_audio(run, talking):
    """The last word arrives before the last piece of sound."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim, talking(sim) as talk:
            await talk.type_text("one two three four five six seven eight nine ten")
            await talk.answer()
            types = [event["type"] for event in talk.events]
            last_word = max(i for i, t in enumerate(types) if t == "response.output_audio_transcript.delta")
            last_sound = max(i for i, t in enumerate(types) if t == "response.output_audio.delta")
            assert last_word < last_sound

    run(turn())


def test_usage_follows_the_length_of_the_answer(run, talking):
    """Output audio costs one token per 50 ms, and what was read before counts as cached."""

    async def turns():
        async with RealtimeSimulator(speed=0) as sim, talking(sim) as talk:
            await talk.update(instructions="word " * 400)
            await talk.type_text("Hello")
            first = (await talk.answer())["usage"]
            audio_ms = len(talk.audio()) // 48
            assert first["output_token_details"]["audio_tokens"] == -(-audio_ms // 50)
            assert first["total_tokens"] == first["input_tokens"] + first["output_tokens"]
            assert first["input_token_details"]["cached_tokens"] == 0
            await talk.type_text("And again")
            second = (await talk.answer())["usage"]
            assert second["input_token_details"]["cached_tokens_details"]["text_tokens"] >= 448
            assert second["input_token_details"]["audio_tokens"] == -(-audio_ms // 50)

    run(turns())


def test_client_cancels_in_the_middle_of_speech(run, talking):
    """response.cancel closes what is open as incomplete and ends the response cancelled by the client."""

    async def turn():
        async with RealtimeSimulator() as sim, talking(sim) as talk:
            await talk.type_text("test long answer")
            await talk.until("response.output_audio.delta")
            await talk.send("response.cancel")
            response = await talk.answer()
            assert response["status"] == "cancelled"
            assert response["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
            assert response["output"][0]["status"] == "incomplete"
            assert talk.types()[-6:] == LADDER[-6:]
            await talk.send("response.cancel")
            assert (await talk.error())["code"] == "response_cancel_not_active"

    run(turn())


def test_second_create_while_one_is_active_is_refused(run, talking):
    """A colliding response.create is an error that repeats the client's event id; the first response goes on."""

    async def turn():
        async with RealtimeSimulator() as sim, talking(sim) as talk:
            await talk.type_text("Hello")
            await talk.send("response.create", event_id="mine")
            error = await talk.error()
            assert error["code"] == "conversation_already_has_active_response"
            assert error["event_id"] == "mine"
            assert (await talk.answer())["status"] == "completed"

    run(turn())


def test_function_call_then_output_is_spoken(run, talking, words):
    """A tool is called with plausible arguments, and its output is in the sentence that follows."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim, talking(sim) as talk:
            await talk.update(tools=TOOLS)
            await talk.type_text("test tool")
            response = await talk.answer()
            call = response["output"][0]
            assert (call["type"], call["name"], call["status"]) == ("function_call", "get_weather", "completed")
            assert json.loads(call["arguments"]) == {"city": "Lisbon"}
            done = next(e for e in talk.events if e["type"] == "response.function_call_arguments.done")
            assert all(done[field] == call[field] for field in ("name", "call_id", "arguments"))
            output = {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny, 21 degrees"}
            await talk.send("conversation.item.create", item=output)
            await talk.send("response.create")
            assert "sunny, 21 degrees" in words(await talk.answer())

    run(turn())


def test_two_tools_are_called_in_one_response(run, talking, words):
    """Parallel calls come as two outputs of one response, and both results are spoken."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim, talking(sim) as talk:
            weather, other = TOOLS[0], {**TOOLS[0], "name": "get_time"}
            await talk.update(tools=[weather, other])
            await talk.type_text("test two tools")
            calls = (await talk.answer())["output"]
            assert [call["name"] for call in calls] == ["get_weather", "get_time"]
            for number, call in enumerate(calls):
                output = {"type": "function_call_output", "call_id": call["call_id"], "output": f"result {number}"}
                await talk.send("conversation.item.create", item=output)
            await talk.send("response.create")
            said = words(await talk.answer())
            assert "result 0" in said
            assert "result 1" in said

    run(turn())


def test_bad_tool_call_has_arguments_that_are_no_json(run, talking):
    """The script can call a tool with malformed arguments."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim, talking(sim) as talk:
            await talk.update(tools=TOOLS)
            await talk.type_text("test bad tool")
            arguments = (await talk.answer())["output"][0]["arguments"]
            with pytest.raises(json.JSONDecodeError):
                json.loads(arguments)

    run(turn())


def test_hanging_up_says_goodbye_and_calls_end_call(run, talking, words):
    """Goodbye is spoken and end_call is called in the same response."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim, talking(sim) as talk:
            await talk.update(tools=TOOLS)
            await talk.type_text("Please hang up")
            response = await talk.answer()
            assert [item["type"] for item in response["output"]] == ["message", "function_call"]
            assert words(response) == "Goodbye."
            assert response["output"][1]["name"] == "end_call"

    run(turn())


def test_token_limit_leaves_the_answer_incomplete(run, talking):
    """max_output_tokens cuts the answer: status incomplete, reason max_output_tokens."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim, talking(sim) as talk:
            await talk.type_text("Tell me something long", answer=False)
            await talk.send("response.create", response={"max_output_tokens": 10})
            response = await talk.answer()
            assert response["status"] == "incomplete"
            assert response["status_details"]["reason"] == "max_output_tokens"
            assert response["output"][0]["status"] == "incomplete"
            assert 10 <= response["usage"]["output_tokens"] <= 14

    run(turn())


def test_text_modality_writes_instead_of_speaking(run, talking, words):
    """With output_modalities text there is no audio event, and the item holds output_text."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim, talking(sim) as talk:
            await talk.update(output_modalities=["text"])
            await talk.type_text("Hello")
            response = await talk.answer()
            assert response["output"][0]["content"] == [{"type": "output_text", "text": "You typed: Hello"}]
            assert not [t for t in talk.types(without=()) if "audio" in t and t.startswith("response")]
            assert response["usage"]["output_token_details"]["audio_tokens"] == 0

    run(turn())


def test_out_of_band_response_joins_no_conversation(run, talking, words):
    """A response with conversation none runs beside another, has no conversation id and adds no item."""

    async def turn():
        async with RealtimeSimulator(speed=2) as sim, talking(sim) as talk:
            await talk.type_text("test long answer")
            await talk.until("response.output_audio.delta")
            await talk.send("response.create", response={
                "conversation": "none", "output_modalities": ["text"], "metadata": {"topic": "summary"},
                "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Sum up"}]}],
            })
            response = await talk.answer()
            assert response["conversation_id"] is None
            assert response["metadata"] == {"topic": "summary"}
            assert words(response) == "You typed: Sum up"
            item_id = response["output"][0]["id"]
            assert not [e for e in talk.events if e["type"] == "conversation.item.added" and e["item"]["id"] == item_id]
            await talk.send("response.cancel")
            assert (await talk.answer())["status"] == "cancelled"

    run(turn())


def test_greeting_in_quotes_is_spoken_word_for_word(run, talking, words):
    """An instruction that holds a quoted sentence is spoken verbatim."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim, talking(sim) as talk:
            await talk.send("response.create", response={"instructions": 'Greet the caller: "Welcome to Acme."'})
            assert words(await talk.answer()) == "Welcome to Acme."

    run(turn())


def test_preamble_and_answer_are_two_messages_with_phases(run, talking):
    """A 2.x model speaks a commentary before the final answer; other models have no phase."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim:
            async with talking(sim) as talk:
                await talk.type_text("test preamble")
                outputs = (await talk.answer())["output"]
                assert [item["phase"] for item in outputs] == ["commentary", "final_answer"]
            async with talking(sim, model="gpt-realtime-1.5") as talk:
                await talk.type_text("test preamble")
                assert all("phase" not in item for item in (await talk.answer())["output"])

    run(turn())


def test_failed_and_silent_responses(run, talking):
    """The script can fail a response with server_error, and can answer nothing at all."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim, talking(sim) as talk:
            await talk.type_text("test error")
            failed = await talk.answer()
            assert failed["status"] == "failed"
            assert failed["status_details"]["error"]["type"] == "server_error"
            await talk.type_text("test silence")
            silent = await talk.answer()
            assert (silent["status"], silent["output"]) == ("completed", [])

    run(turn())


def test_phone_format_comes_out_as_mu_law(run, talking):
    """With audio/pcmu output a second of speech is 8,000 bytes, for the session or for one response."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim, talking(sim) as talk:
            await talk.type_text("Hello")
            pcm_tokens = (await talk.answer())["usage"]["output_token_details"]["audio_tokens"]
            pcm_bytes = len(talk.audio())
            talk.events.clear()
            await talk.type_text("Hello", answer=False)
            await talk.send("response.create", response={"audio": {"output": {"format": {"type": "audio/pcmu"}}}})
            response = await talk.answer()
            assert response["audio"]["output"]["format"] == {"type": "audio/pcmu"}
            assert abs(len(talk.audio()) * 6 - pcm_bytes) <= 6
            assert abs(response["usage"]["output_token_details"]["audio_tokens"] - pcm_tokens) <= 1

    run(turn())
