"""A whole conversation held by the realtime session of OpenAI's own Agents SDK, which validates strictly."""
from __future__ import annotations

import asyncio

import pytest

from simulator.openai import RealtimeSimulator


@pytest.fixture(autouse=True)
def no_tracing(monkeypatch):
    """The SDK must not try to reach the vendor."""
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")


async def collect(session, ends, limit_s=15.0):
    """Return the events up to the first whose type is `ends`."""
    events = []

    async def read():
        async for event in session:
            events.append(event)
            if event.type == ends:
                return

    await asyncio.wait_for(read(), limit_s)
    return events


def errors_of(events):
    """Return what the SDK could not parse or the server refused."""
    raw = [event.data for event in events if event.type == "raw_model_event"]
    return [e for e in events if e.type == "error"] + [d for d in raw if d.type in ("error", "exception")]


def test_agents_sdk_calls_a_tool_and_speaks_its_result(run):
    """A typed turn leads to a tool call that the SDK runs itself, then to speech with the result; without an error."""
    from agents import function_tool
    from agents.realtime import RealtimeAgent, RealtimeRunner

    @function_tool
    def get_weather(city: str) -> str:
        """Weather of a city."""
        return f"rain in {city}"

    async def turn():
        async with RealtimeSimulator(speed=0) as sim:
            agent = RealtimeAgent(name="Demo", instructions="Be brief.", tools=[get_weather])
            runner = RealtimeRunner(agent, config={"tracing_disabled": True})
            model = {"url": f"{sim.url}?model=gpt-realtime-2.1", "api_key": "sk-x"}
            async with await runner.run(model_config=model) as session:
                await session.send_message("test tool")
                events = await collect(session, "tool_end")
                events += await collect(session, "audio_end")
            assert not errors_of(events)
            tool_end = next(event for event in events if event.type == "tool_end")
            assert tool_end.output == "rain in Lisbon"
            assert sum(len(event.audio.data) for event in events if event.type == "audio") > 48_000
            outputs = [e["item"] for e in sim.sessions[0].events("conversation.item.create")]
            assert [item["type"] for item in outputs] == ["message", "function_call_output"]
            assert sim.sessions[0].sent["error"] == 0

    run(turn())


def test_agents_sdk_hears_and_is_interrupted(run, question):
    """A spoken turn is answered in speech, and speech over the answer interrupts it, without any error event."""
    from agents.realtime import RealtimeAgent, RealtimeRunner

    async def turn():
        async with RealtimeSimulator() as sim:
            agent = RealtimeAgent(name="Demo", instructions="Be brief.")
            runner = RealtimeRunner(agent, config={"tracing_disabled": True})
            model = {"url": f"{sim.url}?model=gpt-realtime-2.1", "api_key": "sk-x"}
            async with await runner.run(model_config=model) as session:
                await session.send_audio(question)
                events = await collect(session, "audio")
                await session.send_audio(question)
                events += await collect(session, "audio_interrupted")
                events += await collect(session, "audio_end")
            assert not errors_of(events)
            assert sim.sessions[0].sent["input_audio_buffer.speech_started"] == 2

    run(turn())
