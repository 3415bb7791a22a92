"""What the parts of one session share: its settings, its conversation, its wire, its tasks and timers."""
from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from simulator.config import SessionConfig
from simulator.faults import SessionFaults
from simulator.items import Conversation, new_id
from simulator.schema import Invalid
from simulator.settings import SimulatorSettings
from simulator.speech import Voice
from simulator.usage import Meter

# The live service was seen to repeat the client's event id in these errors; in others it was null.
CODES_WITH_EVENT_ID = frozenset({"input_audio_buffer_commit_empty", "conversation_already_has_active_response"})


class Wire(Protocol):
    """The socket, as a session sees it."""

    def send(self, event: dict[str, Any]) -> None:
        """Queue one event; nothing happens when the socket is gone."""

    async def drain(self) -> None:
        """Return when what was queued is on its way."""

    def close(self, code: int, reason: str) -> None:
        """Close with this code."""

    def abort(self) -> None:
        """Drop the TCP connection without a close frame."""


@dataclass
class Context:
    """Shared by the session, its turns and its responses."""

    settings: SimulatorSettings
    voice: Voice
    config: SessionConfig
    faults: SessionFaults
    wire: Wire
    transcripts: deque[str]
    conversation: Conversation = field(default_factory=Conversation)
    meter: Meter = field(default_factory=Meter)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _timers: set[asyncio.TimerHandle] = field(default_factory=set)
    _ended: bool = False

    def send(self, event_type: str, **fields: Any) -> None:
        """Send one server event."""
        if not self._ended:
            self.wire.send({"type": event_type, "event_id": new_id("event"), **fields})

    def refuse(self, refusal: Invalid, event_id: str | None = None) -> None:
        """Send an `error` event; the session goes on."""
        echoed = self.settings.echo_event_ids or refusal.code in CODES_WITH_EVENT_ID
        self.send(
            "error",
            error={
                "type": "invalid_request_error",
                "code": refusal.code,
                "message": refusal.message,
                "param": refusal.param,
                "event_id": event_id if echoed else None,
            },
        )

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a task that ends with the session at the latest."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """Call once after so many seconds, unless the session ended or what is returned was called."""

        def due() -> None:
            self._timers.discard(handle)
            call()

        def cancel() -> None:
            handle.cancel()
            self._timers.discard(handle)

        seconds = min(seconds, 2_000_000) if math.isfinite(seconds) else 2_000_000
        handle = asyncio.get_running_loop().call_later(seconds, due)
        self._timers.add(handle)
        return cancel

    async def end(self) -> None:
        """Stop every task and timer of the session; nothing is sent any more."""
        self._ended = True
        for timer in self._timers:
            timer.cancel()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
