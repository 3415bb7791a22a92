"""What the doors need of a directory: who holds a place, over all processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

MAX_TICKETS = 10_000
"""Tickets kept; beyond it the oldest goes. Two a second for every one of 1000 users would need a tenth of it."""

Report = Callable[[str, Mapping[str, object]], None]
"""Told an event's name and its fields: `directory_failing`, `directory_back`, `directory_made_anew`."""


class DirectoryUnavailable(Exception):
    """Raised when the directory could not be asked; the caller goes by what its own process knows."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many places are taken.

    Attributes:
        active: Places in all, also those of clients that are let in or go.
        talking: Sessions that talk, by channel.
    """

    active: int
    talking: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Noted:
    """What was true when a session noted its conversation.

    Attributes:
        at: Seconds of a clock all processes share; no two notes of a conversation have the same.
        others: The other processes that had noted the same user's conversation before.
    """

    at: float
    others: tuple[str, ...] = ()


class Directory(Protocol):
    """Who holds a place. `session` is a number that the calling process gives to one of its connections.

    What answers a question may raise DirectoryUnavailable, and then the session counts as taken all the same: it will
    be told to the directory when that is back.
    """

    async def take(self, session: int, channel: str) -> bool:
        """Take a place; False when all MAX_CONNECTIONS are taken. Two that ask at once never get the same place."""

    async def take_for(self, session: int, user_id: str, *, follows: bool = False) -> bool:
        """Count a session with its user; False when the user has MAX_SESSIONS_PER_USER, one more if it `follows`."""

    async def note(self, session: int, conversation_id: str) -> Noted:
        """Note what a session talks about; of two that do the later one is told of the earlier, never the reverse."""

    def release(self, session: int) -> None:
        """Give a session's place back; never raises, and unknown ones are fine."""

    async def has_room(self, user_id: str | None = None) -> bool:
        """Return whether a further session, of this user if one is given, would get a place."""

    async def counts(self) -> Counts:
        """Return how many places are taken."""

    async def put_ticket(self, key: str, holder: str, life_s: float) -> None:
        """Keep a ticket's holder under a key, for `life_s` seconds; beyond a bound the oldest ticket goes."""

    async def take_ticket(self, key: str) -> str | None:
        """Return a ticket's holder and forget it; None when it is unknown, taken or too old."""
