"""The directory of several machines, in Redis.

Every process also tells the directory of its machine, whose no counts: while Redis is away, limits hold on each
machine, and no talk ends. A process has a lease that it renews; what one that died held is free when the lease has
ended and somebody is refused. When Redis began anew, each process tells it what it has.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from redis.exceptions import RedisError

from .places import MAX_TICKETS, Counts, Directory, DirectoryUnavailable, Noted, Report
from .redis_client import ASK_S, PREFIX, open_client
from .redis_messages import Answer, Messages
from .redis_script import SCRIPT

T = TypeVar("T")

BEAT_S = 5.0
"""Time between two signs of life; three may be lost before the others take a process for dead."""

LEASE_S = 16.0
"""How long a process counts as living after its last sign of life."""

RETRY_S = 5.0
"""Pause after a failure before Redis is asked again: callers of that time do not wait for it."""

UNKNOWN = -1
"""What the script answers a process or a session it does not know."""

CANCELLATIONS = 20
"""Attempts to end a task: the client swallows a cancellation that comes while it connects."""


@dataclass(slots=True)
class _Own:
    """A session of this process, as the directory should have it."""

    channel: str
    user_id: str = ""
    conversation_id: str = ""
    is_granted: bool = False


class RedisDirectory:
    """The directory of all processes with one Redis; see `Directory`. Call `start` before and `close` after.

    Args:
        url: `redis://` or `rediss://`, with a password and the number of a database if need be.
        machine: The directory of this machine.
        limits: MAX_CONNECTIONS and MAX_SESSIONS_PER_USER, the same on all machines.
        report: Told once when Redis fails and once when it is back.

    Raises:
        OSError: If the client does not understand the address.
    """

    def __init__(self, url: str, machine: Directory, *, limits: tuple[int, int], report: Report) -> None:
        self._redis = open_client(url)
        self._script = self._redis.register_script(SCRIPT)
        self._process = secrets.token_hex(8)  # no name of a machine is sure to be the only one
        self._messages = Messages(self._redis, PREFIX, self._process)
        self._machine = machine
        self._max_connections, self._max_per_user = limits
        self._report = report
        self._own: dict[int, _Own] = {}
        self._released: list[int] = []
        self._wake = asyncio.Event()
        self._in_order = asyncio.Lock()
        self._must_tell = True
        self._is_failing = False
        self._retry_at = float("-inf")
        self._tasks: list[asyncio.Task[None]] = []
        self._asking: set[asyncio.Task[Any]] = set()

    async def start(self, answer: Answer) -> None:
        """Begin to give signs of life and to hear the others; Redis need not be there.

        Args:
            answer: Ends what this process has of a conversation: `conversation_id`, `user_id` and perhaps `before`.
        """
        with suppress(DirectoryUnavailable):
            await self._ask("beat", LEASE_S)
        self._tasks = [
            asyncio.create_task(self._keep_alive(), name="directory-beat"),
            asyncio.create_task(self._messages.listen(answer), name="directory-listen"),
        ]

    async def close(self) -> None:
        """Forget the sessions of this process."""
        self._own.clear()
        with suppress(DirectoryUnavailable):
            await self._ask("leave")
        for _ in range(CANCELLATIONS):
            for task in (running := {task for task in (*self._tasks, *self._asking) if not task.done()}):
                task.cancel()
            if running:
                await asyncio.wait(running, timeout=0.1)
        with suppress(RedisError, OSError):
            async with asyncio.timeout(ASK_S):
                await self._redis.aclose()

    async def replace(self, question: Mapping[str, Any], timeout_s: float) -> bool:
        """Have every other process, on whichever machine, end what it has of a conversation.

        Args:
            question: As the `answer` of `start` takes it.
            timeout_s: Longest wait for their answers.

        Returns:
            Whether one had it; False at once while Redis is left alone after a failure.
        """
        if asyncio.get_running_loop().time() < self._retry_at:
            return False
        return await self._messages.ask(question, timeout_s)

    # ------------------------------------------------------------------ places

    async def take(self, session: int, channel: str) -> bool:
        """See `Directory.take`."""
        own = self._own[session] = _Own(channel)
        here = await _or_none(self._machine.take(session, channel))
        is_granted = await self._granted(here, "take", self._max_connections, session, channel)
        if is_granted or is_granted is None:
            own.is_granted = True
        else:
            self._own.pop(session, None)
            self._machine.release(session)
        return _certain(is_granted)

    async def take_for(self, session: int, user_id: str, *, follows: bool = False) -> bool:
        """See `Directory.take_for`."""
        here = await _or_none(self._machine.take_for(session, user_id, follows=follows))
        is_granted = await self._granted(here, "user", self._max_per_user + follows, session, user_id)
        own = self._own.get(session)
        if own is not None and is_granted is not False:
            own.user_id = user_id
        return _certain(is_granted)

    async def note(self, session: int, conversation_id: str) -> Noted:
        """See `Directory.note`."""
        here = await _or_none(self._machine.note(session, conversation_id))
        if (own := self._own.get(session)) is not None:
            own.conversation_id = conversation_id
        try:
            at, *others = await self._ask("note", session, conversation_id)
        except DirectoryUnavailable:
            if here is None:
                raise
            return here
        return Noted(float(at), tuple(others))

    def release(self, session: int) -> None:
        """See `Directory.release`."""
        self._machine.release(session)
        if self._own.pop(session, None) is not None:
            self._released.append(session)
            self._wake.set()

    async def has_room(self, user_id: str | None = None) -> bool:
        """See `Directory.has_room`."""
        here = await _or_none(self._machine.has_room(user_id))
        return _certain(await self._granted(here, "room", self._max_connections, self._max_per_user, user_id or ""))

    async def counts(self) -> Counts:
        """See `Directory.counts`."""
        try:
            active, *talking = await self._ask("counts")
        except DirectoryUnavailable:
            return await self._machine.counts()
        return Counts(int(active), {str(c): int(n) for c, n in zip(talking[::2], talking[1::2], strict=True)})

    # ------------------------------------------------------------------ tickets

    async def put_ticket(self, key: str, holder: str, life_s: float) -> None:
        """See `Directory.put_ticket`."""
        try:
            await self._ask("put", MAX_TICKETS, life_s, key, holder)
        except DirectoryUnavailable:
            await self._machine.put_ticket(key, holder, life_s)

    async def take_ticket(self, key: str) -> str | None:
        """See `Directory.take_ticket`."""
        kept_here = await _or_none(self._machine.take_ticket(key))  # of a time when Redis was away
        if kept_here is not None:
            return kept_here
        holder: str | None = await self._ask("redeem", key)
        return holder

    # ------------------------------------------------------------------ Redis

    async def _granted(self, here: bool | None, *question: Any) -> bool | None:
        """Return whether this machine, which said `here`, and Redis have room; None when neither could say."""
        if here is False:
            return False
        try:
            return bool(await self._ask(*question))
        except DirectoryUnavailable:
            return here

    async def _keep_alive(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._wake.wait()
            self._wake.clear()
            with suppress(DirectoryUnavailable):
                await self._ask("beat", LEASE_S)

    async def _ask(self, operation: str, *arguments: Any) -> Any:
        """Return what the script answers; questions are asked in the order of their coming.

        Raises:
            DirectoryUnavailable: If Redis did not answer in time; it is asked again after a pause.
        """
        clock = asyncio.get_running_loop().time
        if clock() < self._retry_at:
            raise DirectoryUnavailable
        # A task of its own: whoever gives up while asking leaves no half of an answer behind, and the deadline holds
        # whatever the client does with a cancellation.
        released, self._released = self._released, []
        task = asyncio.create_task(self._asked_in_order(released, operation, arguments), name="directory-ask")
        self._asking.add(task)
        task.add_done_callback(self._asked)
        try:
            await asyncio.wait({task}, timeout=ASK_S)
            if not task.done():
                task.cancel()
                raise TimeoutError
            answer = task.result()
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            self._must_tell = True
            self._retry_at = clock() + RETRY_S
            if not self._is_failing:
                self._is_failing = True
                self._report("directory_failing", {"cause": type(error).__name__, "where": "redis"})
            raise DirectoryUnavailable from error
        if self._is_failing:
            self._is_failing = False
            self._report("directory_back", {"sessions": len(self._own), "where": "redis"})
        return answer

    def _asked(self, task: asyncio.Task[Any]) -> None:
        """Forget a question; what became of one that nobody waits for any more is nobody's concern."""
        self._asking.discard(task)
        if not task.cancelled():
            task.exception()

    async def _asked_in_order(self, released: list[int], operation: str, arguments: tuple[Any, ...]) -> Any:
        """Ask, after what Redis must know of us first has been told: what was over before somebody asked."""
        async with self._in_order:
            if operation == "leave":
                return await self._call(operation)
            if self._must_tell:
                await self._tell()
            if released:
                await self._call("beat", LEASE_S, *released)
            answer = await self._call(operation, *arguments)
            if answer == UNKNOWN:
                await self._tell()
                answer = await self._call(operation, *arguments)
            return answer

    async def _tell(self) -> None:
        held = ((number, own) for number, own in self._own.items() if own.is_granted)
        rows = [(number, own.channel, own.user_id, own.conversation_id) for number, own in held]
        await self._call("tell", LEASE_S, *(value for row in rows for value in row))
        self._must_tell = False

    async def _call(self, operation: str, *arguments: Any) -> Any:
        return await self._script(keys=[PREFIX], args=[operation, self._process, *arguments])


def _certain(answer: bool | None) -> bool:
    """Return an answer there is.

    Raises:
        DirectoryUnavailable: If nobody could say.
    """
    if answer is None:
        raise DirectoryUnavailable
    return answer


async def _or_none(asked: Awaitable[T]) -> T | None:
    """Return what the machine's directory answers; None when it could not be asked."""
    try:
        return await asked
    except DirectoryUnavailable:
        return None
