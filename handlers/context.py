"""What the doors are handed: the services of this process, and who talks with whom."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from core.agent import Agent
from core.records import Channel, Record
from core.settings import Settings
from handlers.connections import Connections
from handlers.tickets import Tickets
from services.auth import Verifier
from services.log import Log, log
from services.loop_lag import LoopLag
from services.metrics import Metrics
from services.spool import Spool
from services.store import Store
from services.toolbox import Toolbox
from services.upstream import Upstream
from services.vault import KeySource

VERSION = "1.0.0"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who talks with whom, for records and logs; nothing in it is personal but the ids.

    Attributes:
        connection_id: Short id of the socket, for finding its log lines.
        turns_before: Turns the conversation had before this session.
        cost_before_usd: Cost the conversation had before this session.
    """

    connection_id: str
    channel: Channel
    user_id: str
    agent_id: str
    conversation_id: str
    turns_before: int = 0
    cost_before_usd: float = 0.0

    @property
    def safety_identifier(self) -> str:
        """A stable hash of the user, as the vendor asks for (OpenAI Realtime reference, section 2)."""
        return hashlib.sha256(f"voice-server:{self.user_id}".encode()).hexdigest()[:32]


@dataclass(slots=True)
class Context:
    """The services of this process, made by server.py.

    Attributes:
        simulated: Whether the Realtime service is the simulator; the talk page says so.
        last_connect_ms: Time the last link took to open; None before the first.
        upstream_failures: Links that failed since one last opened.
    """

    settings: Settings
    connections: Connections
    verifier: Verifier
    keys: KeySource
    store: Store
    spool: Spool
    upstream: Upstream
    toolbox: Toolbox
    metrics: Metrics
    lag: LoopLag
    tickets: Tickets
    simulated: bool = False
    logger: Log = log
    last_connect_ms: float | None = None
    upstream_failures: int = 0
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def log(self, level: str, event: str, **fields: Any) -> None:
        """Write one log line of a known level."""
        {"debug": self.logger.debug, "warning": self.logger.warning, "error": self.logger.error}.get(
            level, self.logger.info
        )(event, **fields)

    def save(self, record: Record) -> None:
        """Give a record to the spool; a record that cannot be kept is counted and logged, never raised."""
        self.spool.put_nowait(record).add_done_callback(self._was_saved)

    def _was_saved(self, future: asyncio.Future[Any]) -> None:
        if future.cancelled() or future.exception() is not None:
            self.logger.error("record not kept", cause="spool closed" if future.cancelled() else "spool failed")

    async def key_for(self, agent: Agent, rejected: str | None = None) -> str:
        """Return the API key for an agent; `rejected` is the one the service refused.

        Raises:
            KeyUnavailable: If there is none.
        """
        if rejected is None:
            return await self.keys.key(agent.api_key_secret_id)
        return await self.keys.refresh(rejected, agent.api_key_secret_id)

    async def guarded(self, work: Coroutine[Any, Any, None], failed: Callable[[], None]) -> None:
        """Run the work of a task; a bug in it is logged and reported, never left to the garbage collector."""
        try:
            await work
        except Exception as error:
            self.logger.exception("a task failed", error)
            failed()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task of the process; it is kept until it ends."""
        task = asyncio.get_running_loop().create_task(self.guarded(work, lambda: None), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def upstream_connected(self, seconds: float, *, again: bool) -> None:
        """Take note of a link that opened."""
        self.last_connect_ms, self.upstream_failures = round(seconds * 1000, 1), 0
        self.metrics.upstream_connected(seconds)
        if again:
            self.metrics.upstream_reconnected()

    def upstream_failed(self) -> None:
        """Take note of a link that did not open."""
        self.upstream_failures += 1

    def session_ended(self, channel: Channel, end_reason: str, first_audio_s: float | None, cost_usd: float) -> None:
        """Count a session that ended."""
        self.metrics.session_ended(channel, end_reason)
        if first_audio_s is not None:
            self.metrics.first_audio_seconds(channel, first_audio_s)
        self.metrics.cost(max(cost_usd, 0.0))
