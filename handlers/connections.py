"""Who is connected: capacity, per-user limits, drain."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Protocol

from core.errors import AtCapacity, Draining, TooManySessions
from services.directory import Counts, Directory, DirectoryUnavailable, Noted

LAST_WORDS_S = 12.0
"""Longest end of sessions that a stop cuts: a caller's last sentence takes 4 s, its mark may be 2 s late, and Tornado
drops a socket 5 s after a close that nobody answers."""


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
    """The live sessions of this process, and places for them among those of all processes.

    A place is held from the handshake until the socket is gone, so a client that does not finish its closing handshake
    still counts. The directory counts over all processes; while it is away this process goes by its own counts.

    Args:
        max_connections: Slots over all processes.
        max_per_user: Live sessions of one user over all processes.
        directory: Who holds a place in any process; None when there is no other process.

    Attributes:
        is_draining: No new sessions are taken.
        is_handed_over: While draining: other instances take new sessions, so handshakes that still arrive here are
            answered 503, on which nginx asks one of those.
    """

    def __init__(self, max_connections: int, max_per_user: int, directory: Directory | None = None) -> None:
        self._max_connections = max_connections
        self._max_per_user = max_per_user
        self._directory = directory
        self._numbers = count(1)
        self._slots = 0
        self._sessions: set[Session] = set()
        self._noted_at: dict[Session, float] = {}
        self._per_user: Counter[str] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()
        self.is_draining = False
        self.is_handed_over = False
        self._drain_until: float | None = None

    @property
    def active(self) -> int:
        """Slots in use in this process."""
        return self._slots

    @property
    def drain_left_s(self) -> float | None:
        """Seconds that live sessions may go on; 0 when the time is over, None before they were told of a drain."""
        return None if self._drain_until is None else max(0.0, self._drain_until - time.monotonic())

    @property
    def is_full(self) -> bool:
        """True when this process alone has all the slots."""
        return self._slots >= self._max_connections

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions))

    def count(self, channel: str) -> int:
        """Return the number of this process's live sessions of a channel."""
        return sum(1 for session in self._sessions if session.channel == channel)

    # ------------------------------------------------------------------ places, over all processes

    async def admit(self, channel: str) -> Place:
        """Return a place for a new socket; always `release` it.

        Raises:
            Draining: If the server is about to stop.
            AtCapacity: If every place is taken.
        """
        self.take_slot()
        place = Place(self, next(self._numbers))
        try:
            if self._directory is not None and not await self._directory.take(place.number, channel):
                raise AtCapacity(f"all of {self._max_connections}, over all processes")
        except DirectoryUnavailable:
            pass
        except BaseException:  # also when the client went while it was waiting
            place.release()
            raise
        return place

    async def check_room(self, user_id: str | None = None) -> None:
        """Raise what `admit`, and with a user `Place.count_user`, would raise at this moment; take nothing."""
        if user_id is None:
            self.take_slot()
            self.release_slot()
        else:
            self.reserve_user(user_id)
            self.release_user(user_id)
        if self._directory is None:
            return
        try:
            has_room = await self._directory.has_room(user_id)
        except DirectoryUnavailable:
            return
        if not has_room:
            raise AtCapacity("over all processes") if user_id is None else TooManySessions("over all processes")

    async def has_room(self) -> bool:
        """Return whether a further session would get a place."""
        try:
            await self.check_room()
        except (AtCapacity, Draining):
            return False
        return True

    async def totals(self) -> Counts:
        """Return the places taken, and the sessions that talk by channel, over all processes."""
        if self._directory is not None:
            try:
                return await self._directory.counts()
            except DirectoryUnavailable:
                pass
        return Counts(self._slots, {channel: self.count(channel) for channel in ("browser", "phone")})

    # ------------------------------------------------------------------ slots and users of this process

    def take_slot(self) -> None:
        """Take a slot for a new socket; always give it back with `release_slot`.

        Raises:
            Draining: If the server is about to stop.
            AtCapacity: If every slot is taken; then none was taken for this one either.
        """
        if self.is_draining and not self.is_handed_over:  # after a hand-over only those are left that came before it
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

    def release_user(self, user_id: str) -> None:
        """Give a user's place back."""
        self._per_user[user_id] -= 1
        if self._per_user[user_id] <= 0:
            del self._per_user[user_id]

    # ------------------------------------------------------------------ sessions of this process

    def replace(self, conversation_id: str, user_id: str, *, before: float | None = None) -> bool:
        """End the user's live session of a conversation, so that all of it can be read by the one that goes on.

        Args:
            conversation_id: Which.
            user_id: Whose; other users' sessions are never touched.
            before: When the one that goes on was noted in the directory; sessions noted later, or not yet, stay.

        Returns:
            Whether there was one.
        """
        live = [s for s in self if s.conversation_id == conversation_id and s.user_id == user_id]
        if before is not None:
            live = [s for s in live if self._noted_at.get(s, before) < before]
        for session in live:
            session.replaced()
        return bool(live)

    def add(self, session: Session) -> None:
        """Register a session that talks; an older one of the same conversation ends, since a talk has one place."""
        for other in self:
            if other.conversation_id == session.conversation_id:
                other.replaced()
        self._sessions.add(session)

    def noted(self, session: Session, at: float) -> None:
        """Take note of when a live session was noted in the directory."""
        if session in self._sessions:
            self._noted_at[session] = at

    def remove(self, session: Session) -> None:
        """Forget a session that has ended."""
        self._sessions.discard(session)
        self._noted_at.pop(session, None)

    async def drain(self, timeout_s: float, force: asyncio.Event) -> int:
        """Take no new sessions, let the live ones end, and end the rest at the deadline or when forced.

        Returns:
            How many sessions had to be ended.
        """
        self.is_draining = True
        self._drain_until = time.monotonic() + timeout_s
        for session in self:
            session.drain_soon(timeout_s)
        waits = [
            asyncio.create_task(self._empty.wait(), name="drain-empty"),
            asyncio.create_task(force.wait(), name="drain-force"),
        ]
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        self._drain_until = time.monotonic()
        cut = list(self)
        for session in cut:
            session.drain_now()
        await asyncio.wait(waits[:1], timeout=LAST_WORDS_S)
        for wait in waits:
            wait.cancel()
        return len(cut)


class Place:
    """What one socket holds: a slot, and once its user is known one of that user's places; from `Connections.admit`.

    Attributes:
        number: Tells it from the other places of this process.
    """

    def __init__(self, connections: Connections, number: int) -> None:
        self.number = number
        self._connections = connections
        self._user_id: str | None = None
        self._is_held = True

    async def count_user(self, user_id: str, *, replaces: bool = False) -> None:
        """Take one of the user's places too. See `Connections.reserve_user`.

        Raises:
            TooManySessions: If the user has as many sessions as allowed.
        """
        connections, directory = self._connections, self._connections._directory
        connections.reserve_user(user_id, replaces=replaces)
        self._user_id = user_id
        try:
            granted = directory is None or await directory.take_for(self.number, user_id, follows=replaces)
        except DirectoryUnavailable:
            return
        if not granted:
            self._user_id = None
            connections.release_user(user_id)
            raise TooManySessions("over all processes")

    async def note(self, conversation_id: str) -> Noted | None:
        """Note what is talked about; the other workers that are returned must end what they have of the same user's
        conversation, since a talk has one place. None when nobody could say.
        """
        directory = self._connections._directory
        if directory is None:
            return None
        try:
            return await directory.note(self.number, conversation_id)
        except DirectoryUnavailable:
            return None

    def release(self) -> None:
        """Give back all that is held; a second call does nothing."""
        if not self._is_held:
            return
        self._is_held = False
        connections, directory = self._connections, self._connections._directory
        if directory is not None:
            directory.release(self.number)
        if self._user_id is not None:
            connections.release_user(self._user_id)
        connections.release_slot()
