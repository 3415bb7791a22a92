"""A conversation with the simulator through the official client, every event checked by the strict models."""
from __future__ import annotations

import asyncio
import base64
import json
import wave
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from pydantic import TypeAdapter

from simulator.openai import RealtimeSimulator

MODEL = "gpt-realtime-2.1"
DEADLINE_S = 30.0
PCM_BYTES_PER_MS = 48


@cache
def strict_models() -> TypeAdapter[Any]:
    """Return the adapter openai-agents validates server events with: unknown or incomplete events raise."""
    from agents.realtime.openai_realtime import get_server_event_type_adapter

    return get_server_event_type_adapter()


class Talk:
    """One session over the official client; it validates every server event."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.events: list[dict[str, Any]] = []

    async def send(self, event_type: str, **fields: Any) -> None:
        """Send a client event as it is."""
        await self.connection.send({"type": event_type, **fields})

    async def next(self) -> dict[str, Any]:
        """Return the next event; raise what the official client raises when the socket closes."""
        raw = await asyncio.wait_for(self.connection.recv_bytes(), DEADLINE_S)
        event: dict[str, Any] = json.loads(raw)
        strict_models().validate_python(event)
        assert self.connection.parse_event(raw).type == event["type"]
        self.events.append(event)
        return event

    async def until(self, event_type: str, **fields: Any) -> dict[str, Any]:
        """Return the next event of this type whose fields have these values."""
        while True:
            event = await self.next()
            if event["type"] == event_type and all(event.get(name) == value for name, value in fields.items()):
                return event

    async def error(self) -> dict[str, Any]:
        """Return the `error` object of the next error event."""
        return dict((await self.until("error"))["error"])

    async def update(self, **session: Any) -> dict[str, Any]:
        """Send a session.update and return the session of the answer."""
        await self.send("session.update", session={"type": "realtime", **session})
        return dict((await self.until("session.updated"))["session"])

    async def type_text(self, text: str, *, answer: bool = True, role: str = "user") -> None:
        """Put a typed message into the conversation and ask for an answer."""
        kind = "output_text" if role == "assistant" else "input_text"
        item = {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}
        await self.send("conversation.item.create", item=item)
        if answer:
            await self.send("response.create")

    async def speak(self, audio: bytes, chunk: int = 4_800) -> None:
        """Append audio in pieces, without pauses."""
        for offset in range(0, len(audio), chunk):
            encoded = base64.b64encode(audio[offset : offset + chunk]).decode()
            await self.send("input_audio_buffer.append", audio=encoded)

    async def answer(self) -> dict[str, Any]:
        """Return the response of the next response.done."""
        return dict((await self.until("response.done"))["response"])

    def types(self, *, without: tuple[str, ...] = ("delta", "rate_limits")) -> list[str]:
        """Return the types of all events so far, but for those that contain one of these words."""
        return [event["type"] for event in self.events if not any(word in event["type"] for word in without)]

    def audio(self) -> bytes:
        """Return all audio received so far."""
        deltas = (event["delta"] for event in self.events if event["type"] == "response.output_audio.delta")
        return b"".join(map(base64.b64decode, deltas))


def spoken(response: dict[str, Any]) -> str:
    """Return the words of a response's messages."""
    parts = (part for item in response["output"] if item["type"] == "message" for part in item["content"])
    return " ".join(part.get("transcript", part.get("text", "")) for part in parts)


@asynccontextmanager
async def _talking(simulator: RealtimeSimulator, **connect: Any) -> AsyncIterator[Talk]:
    options = {"model": MODEL, **connect}
    key = options.pop("key", "sk-anything")
    client = AsyncOpenAI(api_key=key, websocket_base_url=simulator.url.removesuffix("/realtime"))
    async with client, client.realtime.connect(**options) as connection:
        talk = Talk(connection)
        yield talk


TalkFactory = Callable[..., AbstractAsyncContextManager[Talk]]


@pytest.fixture
def talking() -> TalkFactory:
    """Open a session on a running simulator: `async with talking(sim, model=..., extra_query=...) as talk`."""
    return _talking


@pytest.fixture
def words() -> Callable[[dict[str, Any]], str]:
    """Return the words of a response."""
    return spoken


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run a coroutine in an event loop of its own, within a deadline."""

    def within_deadline(work: Coroutine[Any, Any, None]) -> None:
        asyncio.run(asyncio.wait_for(work, 2 * DEADLINE_S))

    return within_deadline


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], Coroutine[Any, Any, None]]:
    """Wait until a condition holds, looking often; fail after a few seconds."""

    async def wait(condition: Callable[[], bool]) -> None:
        for _ in range(500):
            if condition():
                return
            await asyncio.sleep(0.01)
        pytest.fail("the condition never held")

    return wait


@pytest.fixture(scope="session")
def question() -> bytes:
    """Return a spoken question: 24 kHz PCM with 0.3 s of silence before and 1.2 s after."""
    path = Path(__file__).parent.parent / "data" / "question.wav"
    with wave.open(str(path)) as reader:
        assert (reader.getframerate(), reader.getnchannels(), reader.getsampwidth()) == (24_000, 1, 2)
        return reader.readframes(reader.getnframes())
