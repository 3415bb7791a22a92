"""The compatible door: OpenAI's own clients, pointed at this server, hold conversations."""

from __future__ import annotations

import asyncio
import base64
import json
from functools import cache
from typing import Any

import pytest
from openai import AsyncOpenAI
from pydantic import TypeAdapter
from websockets.exceptions import ConnectionClosedError

from tests.fakes.browser import PLAIN_ID, TOOLED_ID, Browser

DEADLINE_S = 30.0
OWN = {"gateway.notice"}
"""Our own events, which no strict client of OpenAI's knows."""


@cache
def strict_models() -> TypeAdapter[Any]:
    """Return the adapter openai-agents validates server events with: unknown or incomplete events raise."""
    from agents.realtime.openai_realtime import get_server_event_type_adapter

    return get_server_event_type_adapter()


@pytest.fixture(autouse=True)
def no_tracing(monkeypatch):
    """The SDKs must not try to reach the vendor."""
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")


class Talk:
    """One session of the official client; every event is validated strictly."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.events: list[dict[str, Any]] = []

    async def next(self) -> dict[str, Any]:
        """Return the next event."""
        raw = await asyncio.wait_for(self.connection.recv_bytes(), DEADLINE_S)
        event: dict[str, Any] = json.loads(raw)
        if event["type"] not in OWN:
            strict_models().validate_python(event)
            assert self.connection.parse_event(raw).type == event["type"]
        self.events.append(event)
        return event

    async def until(self, event_type: str) -> dict[str, Any]:
        """Return the next event of this type."""
        while True:
            event = await self.next()
            if event["type"] == event_type:
                return event

    async def answer(self) -> str:
        """Return what the agent says next."""
        said = await self.until("response.output_audio_transcript.done")
        await self.until("response.done")
        return str(said["transcript"])


def talk(gateway, work, *, agent_id: str = PLAIN_ID, key: str | None = None, **query: str) -> Any:
    """Run `work(Talk)` in a session of the official client."""

    async def run() -> Any:
        client = AsyncOpenAI(api_key=gateway.token() if key is None else key, base_url=f"{gateway.url}/v1")
        asked = {"agent_id": agent_id, **query}
        async with client, client.realtime.connect(model="gpt-realtime-2.1", extra_query=asked) as connection:
            return await work(Talk(connection))

    return asyncio.run(run())


def test_official_client_types_and_is_answered(gateway):
    """Session, typed item, response: as against OpenAI itself, and every event passes strict validation."""

    async def turn(session: Talk) -> None:
        created = await session.until("session.created")
        assert "instructions" not in created["session"] and "tools" not in created["session"]
        await session.until("session.updated")
        content: Any = [{"type": "input_text", "text": "hello there"}]
        await session.connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        await session.until("conversation.item.done")
        await session.connection.response.create()
        assert "hello there" in await session.answer()
        kinds = {event["type"] for event in session.events}
        assert kinds >= {"conversation.created", "conversation.item.added", "response.output_audio.delta"}
        assert "error" not in kinds

    talk(gateway, turn)


def test_official_client_speaks_and_is_answered(make, question):
    """A spoken turn through the official client's own buffer calls, with transcripts of both sides."""
    gateway = make(transcripts=("what is the weather",))

    async def turn(session: Talk) -> None:
        await session.until("session.updated")
        for start in range(0, len(question), 4_800):
            audio = base64.b64encode(question[start : start + 4_800]).decode()
            await session.connection.input_audio_buffer.append(audio=audio)
        await session.until("input_audio_buffer.speech_started")
        heard = await session.until("conversation.item.input_audio_transcription.completed")
        assert heard["transcript"] == "what is the weather"
        if not any(event["type"] == "response.done" for event in session.events):
            await session.until("response.done")
        spoken = sum(len(e["delta"]) for e in session.events if e["type"] == "response.output_audio.delta")
        assert spoken * 3 // 4 > 48_000
        assert "error" not in {event["type"] for event in session.events}

    talk(gateway, turn)


def test_official_client_resumes_and_calls_tools_unseen(gateway):
    """A talk with a tool call inside goes on by its conversation_id; the call itself is the server's own business."""

    async def first(session: Talk) -> str:
        conversation_id = (await session.until("conversation.created"))["conversation_id"]
        await session.until("session.updated")
        await say(session, "what time is it")
        assert "The tool answered" in await session.answer()
        assert not any("function_call" in json.dumps(event) for event in session.events)
        return str(conversation_id)

    async def second(session: Talk) -> None:
        assert (await session.until("conversation.created"))["resumed"] is True
        await session.until("session.updated")
        await say(session, "what did i say")
        assert "what time is it" in await session.answer()

    conversation_id = talk(gateway, first, agent_id=TOOLED_ID)
    talk(gateway, second, agent_id=TOOLED_ID, conversation_id=conversation_id)


async def say(session: Talk, text: str) -> None:
    """Type and ask for an answer."""
    content: Any = [{"type": "input_text", "text": text}]
    await session.connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
    await session.connection.response.create()


def test_official_client_sees_refusals_as_errors(gateway):
    """What a client may not change comes back as the client library's error event, naming its event."""

    async def turn(session: Talk) -> None:
        await session.until("session.updated")
        instructions: Any = {"type": "realtime", "instructions": "be rude"}
        await session.connection.session.update(session=instructions, event_id="mine")
        error = (await session.until("error"))["error"]
        assert (error["code"], error["param"], error["event_id"]) == ("not_allowed", "session.instructions", "mine")

    talk(gateway, turn)


def test_official_client_is_refused_with_an_error_and_4001(gateway):
    """A bad token is an error event and a close the library raises."""

    async def refused(session: Talk) -> None:
        assert (await session.next())["error"]["code"] == "unauthorized"
        await session.next()

    with pytest.raises(ConnectionClosedError) as closed:
        talk(gateway, refused, key="sk-some-vendor-key-0123456789")
    frame = closed.value.rcvd
    assert frame is not None and (frame.code, frame.reason) == (4001, "Unauthorized")


def test_bearer_header_wins_over_the_query(gateway):
    """A good header lets in whatever the address says; a bad one is not saved by a good address."""
    with Browser(gateway, "v1/realtime", token="junk", header=[f"Authorization: Bearer {gateway.token()}"]) as browser:
        browser.live()
        browser.leave()
    with Browser(gateway, "v1/realtime", header=["Authorization: Bearer junk"]) as browser:
        assert browser.end().code == 4001


def test_agents_sdk_holds_a_turn(gateway):
    """OpenAI's Agents SDK, which validates strictly and configures on its own, types and hears the answer."""
    from agents.realtime import RealtimeAgent, RealtimeRunner

    async def turn() -> None:
        runner = RealtimeRunner(RealtimeAgent(name="Demo", instructions="ignored"), config={"tracing_disabled": True})
        url = f"{gateway.ws_url}v1/realtime?agent_id={PLAIN_ID}"
        async with await runner.run(model_config={"url": url, "api_key": gateway.token()}) as session:
            await session.send_message("hello there")
            audio, events = 0, []

            async def read() -> None:
                nonlocal audio
                async for event in session:
                    events.append(event)
                    if event.type == "audio":
                        audio += len(event.audio.data)
                    if event.type == "audio_end":
                        return

            await asyncio.wait_for(read(), DEADLINE_S)
        assert audio > 48_000
        raw = [event.data for event in events if event.type == "raw_model_event"]
        assert not [data for data in raw if data.type == "exception"]

    asyncio.run(turn())
