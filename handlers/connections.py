"""Who is connected: capacity, per-user limits, drain."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Protocol

from core.errors import AtCapacity, Draining, TooManySessions


class Session(Protocol):
    """What the registry needs of a session."""

    @property
    def channel(self) -> str:
        """`browser` or `phone`."""

    @property
    def user_id(self) -> str:
        """Who talks."""

    @property
    def conversation_id(self) -> str:
        """The conversation it belongs to."""

    def drain_soon(self, left_s: float) -> None:
        """Tell the client that the server will restart."""

    def drain_now(self) -> None:
        """End the session with 1012."""

    def replaced(self) -> None:
        """End the session normally: the same person has gone on with it elsewhere."""


class Connections:
    """The live sessions of this process.

    A slot is held from the handshake until the socket is gone, so a client that does not finish its closing handshake
    still counts.

    Args:
        max_connections: Slots of this process.
        max_per_user: Live sessions of one user.
    """

    def __init__(self, max_connections: int, max_per_user: int) -> None:
        self._max_connections = max_connections
        self._max_per_user = max_per_user
        self._slots = 0
        self._sessions: set[Session] = set()
        self._per_user: Counter[str] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()
        self.is_draining = False

    @property
    def active(self) -> int:
        """Slots in use."""
        return self._slots

    @property
    def is_full(self) -> bool:
        """True when no further session is taken."""
        return self._slots >= self._max_connections

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions))

    def count(self, channel: str) -> int:
        """Return the number of live sessions of a channel."""
        return sum(1 for session in self._sessions if session.channel == channel)

    def take_slot(self) -> None:
        """Take a slot for a new socket; always give it back with `release_slot`.

        Raises:
            Draining: If the server is about to stop.
            AtCapacity: If every slot is taken; then none was taken for this one either.
        """
        if self.is_draining:
            raise Draining("a session was asked for while draining")
        if self.is_full:
            raise AtCapacity(f"{self._slots} of {self._max_connections}")
        self._slots += 1
        self._empty.clear()

    def release_slot(self) -> None:
        """Give a slot back."""
        self._slots -= 1
        if self._slots == 0:
            self._empty.set()

    def reserve_user(self, user_id: str, *, replaces: bool = False) -> None:
        """Count a session of a user; always give it back with `release_user`.

        Args:
            user_id: Whose session it is.
            replaces: Whether it follows one that `replace` ended, whose place is held until its socket is gone.

        Raises:
            TooManySessions: If the user has as many as allowed.
        """
        if self._per_user.get(user_id, 0) >= self._max_per_user + replaces:
            raise TooManySessions(f"limit {self._max_per_user}")
        self._per_user[user_id] += 1

    def replace(self, conversation_id: str, user_id: str) -> bool:
        """End the user's live session of a conversation, so that all of it can be read by the one that goes on.

        Returns:
            Whether there was one; other users' sessions are never touched.
        """
        live = [s for s in self if s.conversation_id == conversation_id and s.user_id == user_id]
        for session in live:
            session.replaced()
        return bool(live)

    def release_user(self, user_id: str) -> None:
        """Give a user's place back."""
        self._per_user[user_id] -= 1
        if self._per_user[user_id] <= 0:
            del self._per_user[user_id]

    def add(self, session: Session) -> None:
        """Register a session that talks; an older one of the same conversation ends, since a talk has one place."""
        for other in self:
            if other.conversation_id == session.conversation_id:
                other.replaced()
        self._sessions.add(session)

    def remove(self, session: Session) -> None:
        """Forget a session that has ended."""
        self._sessions.discard(session)

    async def drain(self, timeout_s: float, force: asyncio.Event) -> int:
        """Take no new sessions, let the live ones end, and end the rest at the deadline or when forced.

        Returns:
            How many sessions had to be ended.
        """
        self.is_draining = True
        for session in self:
            session.drain_soon(timeout_s)
        waits = [
            asyncio.create_task(self._empty.wait(), name="drain-empty"),
            asyncio.create_task(force.wait(), name="drain-force"),
        ]
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        cut = list(self)
        for session in cut:
            session.drain_now()
        await asyncio.wait(waits[:1], timeout=6.0)  # Tornado drops a socket 5 s after an unanswered close
        for wait in waits:
            wait.cancel()
        return len(cut)
