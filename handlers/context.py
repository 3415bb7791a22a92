"""What the doors are handed: the services of this process, and who talks with whom."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from core.agent import Agent
from core.errors import BudgetExhausted
from core.records import Channel, Record
from core.settings import Settings
from handlers.connections import Connections
from handlers.tally import Tally
from handlers.tickets import Tickets
from services.auth import Verifier
from services.log import Log, log
from services.loop_lag import LoopLag
from services.main_app import MainApp
from services.metrics import Metrics
from services.siblings import Siblings
from services.spool import Spool
from services.store import Store
from services.telephony import Accounts, Telephony
from services.toolbox import Toolbox
from services.traces import NO_TRACES, Traces
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
        call_sid: The call at the telephone company; None for browsers.
    """

    connection_id: str
    channel: Channel
    user_id: str
    agent_id: str
    conversation_id: str
    turns_before: int = 0
    cost_before_usd: float = 0.0
    call_sid: str | None = None

    @property
    def safety_identifier(self) -> str:
        """A stable hash of the user, as the vendor asks for (OpenAI Realtime reference, section 2)."""
        return hashlib.sha256(f"voice-server:{self.user_id}".encode()).hexdigest()[:32]


class PhoneLeg(Protocol):
    """What a call's relay may ask of the telephone company."""

    async def hang_up(self) -> None:
        """End the call; one that is over already is fine. Never raises."""

    async def redirect(self, twiml: str) -> None:
        """Have the call go on by other instructions. Never raises."""


class Machines(Protocol):
    """The processes of all machines."""

    async def replace(self, question: Mapping[str, Any], timeout_s: float) -> bool:
        """Have each do `handlers.elsewhere.end_here`; return whether one had the session. Never raises."""


@dataclass(slots=True)
class Context:
    """The services of this process, made by server.py.

    Attributes:
        worker: This process's name among all that share a STATE_DIR, `{port}-{n}`.
        siblings: The other workers of this machine.
        machines: The processes of all machines; None where there is no other machine.
        simulated: Whether the Realtime service is the simulator; the talk page says so.
        last_connect_ms: Time the last link took to open; None before the first.
        upstream_failures: Links that failed since one last opened.
        began_at: When this process began to serve, in monotonic seconds.
        tally: What became of the sessions, for whoever watches.
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
    accounts: Accounts
    telephony: Telephony
    worker: str
    siblings: Siblings
    machines: Machines | None = None
    main_app: MainApp | None = None
    simulated: bool = False
    traces: Traces = NO_TRACES
    logger: Log = log
    last_connect_ms: float | None = None
    upstream_failures: int = 0
    began_at: float = field(default_factory=time.monotonic)
    tally: Tally = field(default_factory=Tally)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def server_port(self) -> int:
        """PORT, or the free one that was taken for it; all workers of this server have it in their names."""
        return int(self.worker.rpartition("-")[0])

    def log(self, level: str, event: str, **fields: Any) -> None:
        """Write one log line of a known level."""
        {"debug": self.logger.debug, "warning": self.logger.warning, "error": self.logger.error}.get(
            level, self.logger.info
        )(event, **fields)

    def save(self, record: Record) -> None:
        """Give a record to the spool; a record that cannot be kept is counted and logged, never raised."""
        self.spool.put_nowait(record).add_done_callback(self._was_saved)

    def _was_saved(self, future: asyncio.Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or error is not None:
            self.logger.error("record not kept", cause="cancelled" if error is None else type(error).__name__)

    async def key_for(self, agent: Agent, rejected: str | None = None) -> str:
        """Return the API key for an agent; `rejected` is the one the service refused.

        Raises:
            KeyUnavailable: If there is none.
        """
        if rejected is None:
            return await self.keys.key(agent.api_key_secret_id)
        return await self.keys.refresh(rejected, agent.api_key_secret_id)

    async def spent_today(self, user_id: str) -> float:
        """Return what the user has spent since midnight UTC; 0 when there is no budget.

        Raises:
            BudgetExhausted: If that is all there is.
            StoreError: If the database failed.
        """
        budget = self.settings.daily_budget_usd
        if budget is None:
            return 0.0
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0).isoformat()
        spent = await self.store.cost_since(user_id, midnight)
        if spent >= budget:
            raise BudgetExhausted("the day's budget is spent")
        return spent

    async def guarded(self, work: Coroutine[Any, Any, None], failed: Callable[[], None]) -> None:
        """Run the work of a task; a bug in it is logged and reported, never left to the garbage collector."""
        try:
            await work
        except Exception as error:
            self.logger.exception("a task failed", error)
            failed()

    def attempt(self, act: Callable[[], None], failed: Callable[[], None]) -> None:
        """Do what a callback of the event loop is for; a bug in it is logged and reported, never raised into a loop
        that would go on without the session.
        """
        try:
            act()
        except Exception as error:  # noqa: BLE001 - logged and told by session_failed
            self.session_failed(error, failed)

    def session_failed(self, error: Exception, failed: Callable[[], None]) -> None:
        """Log and report a bug met for a session."""
        self.logger.exception("a session failed", error)
        failed()

    def start(
        self,
        work: Coroutine[Any, Any, None],
        name: str,
        *,
        tasks: set[asyncio.Task[None]] | None = None,
        failed: Callable[[], None] = lambda: None,
    ) -> asyncio.Task[None]:
        """Start a task; it is kept until it ends, in `tasks` or by the process."""
        kept = self._tasks if tasks is None else tasks
        task = asyncio.get_running_loop().create_task(self.guarded(work, failed), name=name)
        kept.add(task)
        task.add_done_callback(kept.discard)
        task.add_done_callback(lambda done: work.close())  # cancelled before its first step, it was never awaited
        return task

    def upstream_connected(self, seconds: float, *, again: bool) -> None:
        """Take note of a link that opened."""
        self.last_connect_ms, self.upstream_failures = round(seconds * 1000, 1), 0
        self.metrics.upstream_connected(seconds)
        if again:
            self.metrics.upstream_reconnected()

    def upstream_failed(self, cause: str) -> None:
        """Take note of a link that did not open."""
        self.upstream_failures += 1
        self.metrics.upstream_failed(cause)

    def session_ended(self, channel: Channel, end_reason: str, first_audio_s: float | None, cost_usd: float) -> None:
        """Count a session that ended."""
        self.metrics.session_ended(channel, end_reason)
        self.tally.ended(end_reason, first_audio_s, cost_usd)
        if first_audio_s is not None:
            self.metrics.first_audio_seconds(channel, first_audio_s)
        self.metrics.cost(max(cost_usd, 0.0))
